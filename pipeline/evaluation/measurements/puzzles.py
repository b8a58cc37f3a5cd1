"""Puzzles: answers after each of several numbers of supervision steps, by one attempt or by the best of several.

A network without recursion answers once, and its answer counts for every number of steps.

Notation: B = puzzles of a batch, T = cells, K = numbers of steps measured, A = attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.tasks.base import Column as Metadata
from pipeline.config.tasks.puzzles import PuzzleEvaluation, Steps
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
    significant,
)
from pipeline.evaluation.measurements.tokens import CHANCE, ends
from pipeline.evaluation.statistics import wilson_interval
from pipeline.storage.arrow import list_array
from pipeline.storage.console import ProgressLine
from pipeline.storage.lazy import np, pa
from pipeline.storage.table_schema import Column

if TYPE_CHECKING:
    import torch

    from pipeline.storage.loader import DatasetRows

Watch = Callable[[Any, Any], None]
"""Is shown each batch, a `Batch`, and its answers, a `Solved`."""
STRIPS = 3
"""Puzzles of a dataset whose answers are kept for pictures: the first ones."""
BATCH_CELLS = 32_768
"""Most cells of a batch, attempts included; a larger puzzle is a batch of its own."""
DEFAULT_STEPS = 16
SOLVED = Score("puzzles solved", bounds=(0, 1), better="higher")
LEAST_DECADE, MOST_DECADE, PER_DECADE = -7, 1, 4
"""Bins of residuals: logarithmic, so many per decade; what is smaller or larger is in the first or last bin."""
FLAG = Column("whole", least=0, most=1)
LISTS = ("prompt", "target", "answer")


def _meaning(setting: str) -> str:
    """Return what a setting means, as the config says."""
    return str(PuzzleEvaluation.model_fields[setting].description)


class Puzzles(Measurement):
    """Puzzles solved, valid answers and cells right after each number of supervision steps, with the halting logit q."""

    example: ClassVar[str] = "puzzle"
    step: ClassVar[str] = "cell"
    coordinates: ClassVar[Mapping[str, Metadata]] = {
        "supervision": Metadata("supervision steps", "supervision steps after which the answer is measured", "supervision steps")
    }
    columns: ClassVar[Mapping[str, Column]] = {
        "tokens": COUNT,  # cells of the puzzle
        "scored": COUNT,  # those that have a label
        "correct": COUNT,  # those answered right
        "exact": FLAG,  # all of them
        "valid": FLAG,  # the answer keeps what is given and satisfies the rules, whether it is the label or not
        "loss": Column("number", least=0),  # cross-entropy in nats, summed over the labelled cells
        "q": NUMBER,  # halting logit of the chosen attempt; null without recursion
        "halting_step": Column("whole", null=True, least=1),  # first step with q > 0 so far; null if there was none
        "residual": NUMBER,  # root mean square of the last step's change of the latents; null without recursion
        "attempt": COUNT,  # the attempt that was chosen
        **dict.fromkeys(LISTS, Column("list", null=True, optional=True)),  # tokens of the first puzzles
    }
    scores: ClassVar[Mapping[str, Score]] = {
        "rows": Score("puzzles", bounds=(0, None), type="whole"),
        "accuracy": SOLVED,
        "accuracy_low": ends(SOLVED),
        "accuracy_high": ends(SOLVED),
        "chance": CHANCE,
        "valid": Score("valid answers", bounds=(0, 1), better="higher", share_of_examples=True),
        "cell_accuracy": Score("cells right", bounds=(0, 1), better="higher"),
        "loss": Score("loss", unit="nats per cell", bounds=(0, None), better="lower"),
        "halted": Score("puzzles halted", bounds=(0, 1), share_of_examples=True),
        "halting_step": Score("halting step", unit="steps", bounds=(1, None)),
        "q_accuracy": Score("q right about the answer", bounds=(0, 1), better="higher", share_of_examples=True),
        "residual": Score("change of the latents", bounds=(0, None)),
        "residual_solved": Score("change of the latents, solved", bounds=(0, None)),
        "residual_unsolved": Score("change of the latents, not solved", bounds=(0, None)),
        "residuals_solved": Score("puzzles by change of the latents, solved", bounds=(0, None), type="list"),
        "residuals_unsolved": Score("puzzles by change of the latents, not solved", bounds=(0, None), type="list"),
        "tokens": Score("cells per puzzle", unit="cells", bounds=(0, None)),
    }
    title: ClassVar[str] = "Puzzles solved (%)"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "At the hardest point",
            "Solved: every cell is that of the stored solution. Valid: the answer obeys the rules, also where there are several solutions. "
            "q right: the halting logit says whether the puzzle is solved. A network without recursion answers alike after any number of steps.",
            (
                Cell("solved (%)", "accuracy", percent),
                Cell("valid (%)", "valid", percent),
                Cell("cells (%)", "cell_accuracy", percent),
                Cell("loss (nats per cell)", "loss", significant),
                Cell("halting step", "halting_step", digits(1)),
                Cell("q right (%)", "q_accuracy", percent),
                STATE,
            ),
        ),
    )
    training: ClassVar[Training] = Training(
        accuracy="puzzles solved", reference="chance {} %", goal="this share was solved", unit="rows", seen="training puzzles seen"
    )

    name: Literal["puzzles"] = "puzzles"
    supervision: Steps = Field(default=[DEFAULT_STEPS], min_length=1, description=_meaning("supervision"))
    chains: int = Field(default=1, ge=1, le=4_096, description=_meaning("chains"))
    noise: float = Field(default=0.0, ge=0, le=100, description=_meaning("noise"))
    choose: Literal["q", "vote", "first_to_halt"] = Field(default="q", description=_meaning("choose"))
    halt: bool = Field(default=False, description=_meaning("halt"))

    @property
    def per_example(self) -> int:
        """Rows of an evaluation for each puzzle: one per number of steps."""
        return len(self.supervision)

    def refusal(self, task: Any) -> str:
        """Return why this task cannot be measured: its rows must be grids."""
        return super().refusal(task) or ("" if task.grid else f"{self.name} measures puzzles on grids; {task.name} is none")

    def measure(self, network: Any, task: Any, data: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
        """Solve every puzzle; a row for each of its numbers of steps, one after the other."""
        return self.solve(network, task, data, device, lambda batch, found: None)

    def solve(self, network: Any, task: Any, data: DatasetRows, device: torch.device, watch: Watch) -> dict[str, pa.Array]:
        """Solve every puzzle, and show each batch with its answers to `watch`."""
        from pipeline.evaluation.solving import solve_batch
        from pipeline.learners.sampler import sequential_batches

        batch = max(1, BATCH_CELLS // max(1, int(data.lengths.max(initial=1)) * self.chains))
        parts, rows, done, progress = [], [], 0, ProgressLine(data.name, len(data), "puzzles tried")
        for item in sequential_batches(data, batch, task.config.inputs):
            found = solve_batch(network, item, self, device)
            watch(item, found)
            parts.append(self._judged(item, found, task))
            rows.append(np.asarray(item.columns["row"]))
            progress(done := done + len(item.tokens_BT))
        order = np.argsort(np.concatenate(rows), kind="stable")
        place = (order[:, None] * self.per_example + np.arange(self.per_example)).ravel()
        table = pa.concat_tables(parts).take(pa.array(place)).combine_chunks()
        return {name: table.column(name).combine_chunks() for name in table.column_names}

    def _judged(self, batch: Any, found: Any, task: Any) -> pa.Table:
        """Return the columns of a batch; each puzzle has its numbers of steps one after the other."""
        tokens_BT, labels_BT = batch.tokens_BT.numpy(), batch.labels_BT.numpy()
        label_BKT = np.broadcast_to(labels_BT[:, None], found.answer_BKT.shape)
        labelled_BKT = label_BKT >= 0
        right_BKT = (found.answer_BKT == label_BKT) & labelled_BKT
        scored_BK, correct_BK = labelled_BKT.sum(-1), right_BKT.sum(-1)
        valid = [task.valid(tokens_BT, found.answer_BKT[:, place], labels_BT) for place in range(self.per_example)]
        kept_B = np.asarray(batch.columns["row"]) < STRIPS
        steps_BK = np.broadcast_to(np.array(self.supervision, np.int32), scored_BK.shape)
        return pa.table(
            {
                "supervision": pa.array(steps_BK.ravel()),
                "tokens": pa.array(np.full(scored_BK.size, tokens_BT.shape[1], np.int32)),
                "scored": pa.array(scored_BK.ravel().astype(np.int32)),
                "correct": pa.array(correct_BK.ravel().astype(np.int32)),
                "exact": pa.array((scored_BK == correct_BK).ravel().astype(np.int32)),
                "valid": pa.array(np.stack(valid, 1).ravel().astype(np.int32)),
                "loss": pa.array(found.loss_BK.ravel().astype(np.float32)),
                "q": _nullable(found.q_BK, pa.float32()),
                "halting_step": _nullable(found.halting_BK, pa.int32()),
                "residual": _nullable(found.residual_BK, pa.float32()),
                "attempt": pa.array(found.attempt_BK.ravel().astype(np.int32)),
                **_lists(tokens_BT, label_BKT, found.answer_BKT, kept_B),
            }
        )

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """Return the shares solved, valid and halted, cells right, and means of the rest over the puzzles of a point.

        `residuals_solved`, `residuals_unsolved`: number of puzzles whose residual is in each bin of `residual_edges`.
        """
        rows, exact = len(examples["exact"]), examples["exact"].astype(bool)
        low, high = wilson_interval(int(exact.sum()), rows)
        scored, q, residual = int(examples["scored"].sum(dtype=np.int64)), examples["q"], examples["residual"].astype(np.float64)
        known, halted = ~np.isnan(q), ~np.isnan(examples["halting_step"].astype(np.float64))
        recursive = bool(known.all())
        return {
            "rows": rows,
            "accuracy": int(exact.sum()) / rows,
            "accuracy_low": low,
            "accuracy_high": high,
            "chance": run["chance"] or None,
            "valid": float(examples["valid"].mean()),
            "cell_accuracy": int(examples["correct"].sum(dtype=np.int64)) / scored if scored else None,
            "loss": float(examples["loss"].sum(dtype=np.float64)) / scored if scored else None,
            "halted": float(halted.mean()) if recursive else None,
            "halting_step": float(examples["halting_step"][halted].mean()) if halted.any() else None,
            "q_accuracy": float(np.mean((q > 0) == exact)) if recursive else None,
            "residual": _mean(residual),
            "residual_solved": _mean(residual[exact]),
            "residual_unsolved": _mean(residual[~exact]),
            "residuals_solved": _binned(residual[exact]) if recursive else None,
            "residuals_unsolved": _binned(residual[~exact]) if recursive else None,
            "tokens": float(examples["tokens"].mean(dtype=np.float64)),
        }

    def details(self, table: pa.Table) -> pa.Table | None:
        """Return the puzzles whose tokens are kept, for pictures."""
        kept = table.filter(pa.array(table.column("row").to_numpy() < STRIPS))
        return kept.drop_columns(["dataset", "state_bytes"]) if "answer" in table.column_names else None


def residual_edges() -> np.ndarray:
    """Return the edges of the bins of residuals."""
    return np.logspace(LEAST_DECADE, MOST_DECADE, (MOST_DECADE - LEAST_DECADE) * PER_DECADE + 1)


def _binned(residuals: np.ndarray) -> list[int]:
    """Count residuals per bin."""
    edges = residual_edges()
    return np.histogram(np.clip(residuals, edges[0], edges[-1]), edges)[0].tolist()


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of the values that are known; None if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _nullable(values_BK: np.ndarray, arrow_type: Any) -> pa.Array:
    """Convert numbers to an array in which NaN is null."""
    flat = values_BK.ravel()
    return pa.array(flat, mask=np.isnan(flat)).cast(arrow_type)


def _lists(tokens_BT: np.ndarray, label_BKT: np.ndarray, answer_BKT: np.ndarray, kept_B: np.ndarray) -> dict[str, pa.Array]:
    """Return the columns prompt, target (0 where a cell has no label) and answer, null for puzzles that are not kept."""
    count, cells = answer_BKT.shape[1], answer_BKT.shape[2]
    kept = np.repeat(kept_B, count)
    prompt_BKT = np.broadcast_to(tokens_BT[:, None], answer_BKT.shape)
    found = {}
    for name, values_BKT in (("prompt", prompt_BKT), ("target", np.maximum(label_BKT, 0)), ("answer", answer_BKT)):
        flat = pa.array(values_BKT.reshape(len(kept), cells)[kept].astype(np.uint8).ravel())
        lists = list_array(flat, np.full(int(kept.sum()), cells))
        place = pa.array(np.where(kept, np.cumsum(kept) - 1, 0), mask=~kept)
        found[name] = lists.take(place)
    return found
