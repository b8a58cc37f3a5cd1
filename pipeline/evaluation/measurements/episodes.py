"""Episodes: a network acts in held-out episodes of an environment by its own policy; frames of the first episodes are kept.

Notation: K = frames of a strip, H and W = pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pipeline.evaluation.measurements.base import (
    COUNT,
    NUMBER,
    STATE,
    Cell,
    Measurement,
    Point,
    Score,
    Table,
    Training,
    digits,
    percent,
)
from pipeline.evaluation.measurements.tokens import CHANCE, ends
from pipeline.evaluation.statistics import LEVEL, student_interval, wilson_interval
from pipeline.storage.arrow import from_numpy
from pipeline.storage.errors import UserError
from pipeline.storage.lazy import np, pa
from pipeline.storage.table_schema import Column

if TYPE_CHECKING:
    import torch
    from gymnasium.vector import VectorEnv

    from pipeline.storage.loader import Episodes as Rows

STRIPS = 2
"""Episodes of a dataset whose frames are kept: the first ones."""
PICTURES = 8
"""Frames of a strip, evenly spaced over its episode, including the first and last step."""
LARGEST = 128
"""Maximum height and width in pixels; of larger frames every second, third, ... pixel is kept."""
FRAMES = ("frames", "frames_shape")
SOLVED = Score("episodes solved", bounds=(0, 1), better="higher", reference="chance", reference_label="chance {} %")
RETURN = Score(
    "mean return",
    bounds=("return_lowest", "return_highest"),
    better="higher",
    reference="best_return",
    reference_label="best possible return {}",
    bounds_hint="Set evaluate.return_range for an interval that holds.",
)
TOLERANCE = 1e-6
"""How far a mean return may lie outside its range: rewards are summed in floating point."""


class Episodes(Measurement):
    """Success rate and mean return on test episodes, with actions sampled from the policy."""

    reads: ClassVar[Literal["tokens", "environment"]] = "environment"
    example: ClassVar[str] = "episode"
    step: ClassVar[str] = "step"
    length: ClassVar[str] = "episode_length"
    columns: ClassVar[Mapping[str, Column]] = {
        "success": Column("whole", null=True, least=0, most=1),  # 1 if it was solved; null if the task does not define that
        "return": Column("number"),  # sum of its rewards
        "episode_length": COUNT,  # its steps
        "best": NUMBER,  # return of the best policy, if known
        "frames": Column("bytes", null=True, optional=True),  # frames of the first episodes, concatenated, three bytes a pixel
        "frames_shape": Column("list", null=True, optional=True),  # their number, height, width and channels
    }
    scores: ClassVar[Mapping[str, Score]] = {
        "rows": Score("episodes", bounds=(0, None), type="whole"),
        "accuracy": SOLVED,
        "accuracy_low": ends(SOLVED),
        "accuracy_high": ends(SOLVED),
        "chance": CHANCE,
        "return": RETURN,
        "return_low": ends(RETURN),
        "return_high": ends(RETURN),
        "return_lowest": Score("lowest return of an episode"),
        "return_highest": Score("highest return of an episode"),
        "best_return": Score("best possible return"),
        "episode_length": Score("steps per episode", unit="steps", bounds=(1, "episode_limit")),
        "episode_limit": Score("time limit", unit="steps", bounds=(0, None), type="whole"),
    }
    title: ClassVar[str] = "Episodes solved (%)"
    reference: ClassVar[str] = "without memory"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "At the hardest point",
            "Return: the sum of an episode's rewards.",
            (
                Cell("solved (%)", "accuracy", percent),
                Cell("return", "return", digits(2), "best_return", digits(2)),
                Cell("steps per episode", "episode_length", digits(1)),
                STATE,
            ),
            "best possible",
        ),
    )
    training: ClassVar[Training] = Training(
        "return", "episodes solved", "chance {} % solved", "this share was solved", "steps", "environment steps", solved=False
    )

    name: Literal["episodes"] = "episodes"

    def measure(self, network: Any, task: Any, data: Rows, device: torch.device) -> dict[str, pa.Array]:
        """Play every episode; `task` makes the environment."""
        from pipeline.learners.playing import play

        environments: dict[int, Any] = {}
        played = play(network, task, data, device, lambda environment, _: environments.update({id(environment): environment}))
        success = from_numpy(played.success.astype(np.int32))
        defined = any(environment.defines_success for environment in environments.values())
        best = {"best": data.rows.column("best").combine_chunks()} if "best" in data.rows.column_names else {}
        return {
            "success": success if defined else pa.nulls(len(success), pa.int32()),
            "return": from_numpy(played.episode_return),
            "episode_length": from_numpy(played.length.astype(np.int32)),
            **best,
            **_pictures(network, task, data, device),
        }

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """Return the share solved and the mean return with 95 % intervals, mean steps and the best possible return.

        Chance is what the best agent without memory solves; null if unknown. Raises UserError for a mean return outside the range that the
        config or the task gives.
        """
        rows, returns = len(examples["return"]), examples["return"].astype(np.float64)
        low, high = student_interval(returns, LEVEL)
        length, limit = float(examples["episode_length"].mean()), run.get("limit")
        best = float(examples["best"].mean()) if "best" in examples else None
        return {
            "rows": rows,
            **_solved(examples["success"]),
            "chance": run["chance"] or None,
            "return": float(returns.mean()),
            "return_low": low if rows > 1 else None,
            "return_high": high if rows > 1 else None,
            **_range(run, float(returns.mean()), best),
            "best_return": best,
            "episode_length": length,
            "episode_limit": limit if limit and limit >= length else None,
        }

    def details(self, table: pa.Table) -> pa.Table | None:
        """Return the episodes that have frames."""
        if "frames" not in table.column_names:
            return None
        return table.filter(table.column("frames").is_valid()).drop_columns(["dataset", "state_bytes"])


def _range(run: Point, mean: float, best: float | None) -> Point:
    """Return the range of possible returns; empty if unknown."""
    if run.get("returns") is None:
        return {}
    lowest, highest = run["returns"]
    highest = best if highest is None else highest
    if highest is None:
        return {"return_lowest": lowest}
    if not lowest - TOLERANCE <= mean <= highest + TOLERANCE:
        told = f"mean return {mean:.6g}; expected one from {lowest:g} to {highest:g}, as evaluate.return_range or the task says"
        raise UserError(f"evaluation of {run['run']}: {told}")
    return {"return_lowest": lowest, "return_highest": highest}


def _solved(success: np.ndarray) -> Point:
    """Return the share solved, if that is defined: `success` then has no NaN."""
    known = success.astype(np.float64)
    if np.isnan(known).any():
        return {}
    rows, solved = len(known), int(known.sum())
    low, high = wilson_interval(solved, rows)
    return {"accuracy": solved / rows, "accuracy_low": low, "accuracy_high": high}


def _pictures(network: Any, task: Any, episodes: Rows, device: torch.device) -> dict[str, pa.Array]:
    """Return the columns `frames` and `frames_shape`, null except for the first episodes; none if the environment does not render."""
    from pipeline.learners.playing import play

    strips = [Strip() for _ in range(min(STRIPS, episodes.rows.num_rows))]

    def watch(environment: VectorEnv, playing_B: np.ndarray) -> None:
        pictures: Any = environment.render()
        for strip, picture, playing in zip(strips, pictures, playing_B, strict=True):
            if playing:
                strip.add(picture)

    try:
        play(network, task, episodes._replace(rows=episodes.rows.slice(0, STRIPS)), device, watch)
    except UserError:  # an environment that does not render can be measured too
        return {}
    found = [strip.pictures() for strip in strips]
    missing = [None] * (episodes.rows.num_rows - len(strips))
    return {
        "frames": pa.array([*(pictures.tobytes() for pictures in found), *missing], pa.binary()),
        "frames_shape": pa.array([*(list(pictures.shape) for pictures in found), *missing], pa.list_(pa.int32())),
    }


class Strip:
    """Collects evenly spaced frames of an episode of unknown length, holding at most a few times as many as are kept."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self.every, self.seen = 1, 0
        self.last: np.ndarray | None = None

    def add(self, picture: np.ndarray) -> None:
        """Add the frame of the next step, (H, W, 3) uint8."""
        stride = -(-max(picture.shape[:2]) // LARGEST)
        self.last = np.ascontiguousarray(picture[::stride, ::stride])
        if self.seen % self.every == 0:
            self.kept.append(self.last)
        self.seen += 1
        if len(self.kept) == 4 * PICTURES:
            self.kept, self.every = self.kept[::2], 2 * self.every

    def pictures(self) -> np.ndarray:
        """Return the frames, (K, H, W, 3): evenly spaced from the first step to the last."""
        places = np.linspace(0, len(self.kept) - 1, min(PICTURES, self.seen)).round().astype(int)
        chosen = [self.kept[place] for place in places]
        assert self.last is not None
        return np.stack([*chosen[:-1], self.last])
