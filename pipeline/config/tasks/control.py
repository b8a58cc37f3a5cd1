"""Tasks of the control family: environments in which an agent acts on what it remembers. Code: `pipeline/tasks/`, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Draw, FieldConflict, largest, smallest
from pipeline.config.tasks.base import Column, EnvironmentTask, Evaluation, Grid, Observation, ReturnRange

Size = Annotated[int, Field(ge=1, le=65_536)]


class CorridorEvaluation(Evaluation):
    """A maze is measured at each of these corridor lengths, in training or not."""

    corridors: Grid = Field(
        default=[],
        description=(
            "Corridor lengths to measure, in positions, trained on or not; default: the task's longest. "
            "Add longer ones to test generalization."
        ),
    )

    def points(self, task: Any) -> list[Any]:
        """One task of fixed corridor per length."""
        return [task.variant(corridor=corridor) for corridor in self.corridors or [largest(task.corridor)]]


class TMaze(EnvironmentTask):
    """A corridor whose first observation says which way to turn at its end.

    A step costs 0.1; the correct turn gives 4, the wrong one -1, and either ends the episode. The agent observes its position (with
    `form: bakker` only whether it is at the junction) and random bits, new at every step.
    """

    implementation: ClassVar[str] = "pipeline.tasks.t_maze:TMaze"
    source: ClassVar[str] = "Bakker 2001; with position and distractors: Pramanik et al. 2023"
    evaluation: ClassVar[type[Evaluation]] = CorridorEvaluation
    columns: ClassVar[Mapping[str, Column]] = {
        "corridor": Column("corridor", "positions from the start to the junction, both counted", "positions")
    }

    name: Literal["t_maze"] = "t_maze"
    corridor: Draw = Field(
        default=10,
        description=("Positions from the start to the junction, both included, at least 2. Raise it to test how long a network remembers."),
    )
    distractors: int = Field(
        default=6,
        ge=0,
        le=64,
        description=("Random bits in every observation but an episode's first. Raise it to test whether a network ignores them."),
    )
    form: Literal["position", "bakker"] = Field(
        default="position",
        description=(
            "Observation beside the cue: position, the position in Gray code; bakker, only corridor or junction. "
            "Use bakker for Bakker's original maze."
        ),
    )
    position_bits: int = Field(
        default=8,
        ge=1,
        le=32,
        description=(
            "Bits of the position's code, more if the corridor needs them. Raise it to evaluate corridors longer than those of training."
        ),
    )
    max_episode_steps: int = Field(default=1000, ge=2, le=2**24, description="Time limit, in steps. Raise it for long corridors.")
    allow_leave_junction: bool = Field(
        default=False,
        description=(
            "Whether the agent can go back from the junction into the corridor. Turn it on to reproduce other versions of the maze."
        ),
    )

    def check(self) -> None:
        """The junction is not the start, and can be reached and left in time."""
        if smallest(self.corridor) < 2:
            raise FieldConflict(
                f"got a corridor of {smallest(self.corridor)}; expected at least 2 positions: start and junction", "corridor"
            )
        if largest(self.corridor) > self.max_episode_steps:
            message = (
                f"got a corridor of {largest(self.corridor)} and {self.max_episode_steps} steps; expected at least a step per position"
            )
            raise FieldConflict(message, "max_episode_steps", "corridor")

    @property
    def bits(self) -> int:
        """Bits of the position's Gray code."""
        return max(self.position_bits, (largest(self.corridor) - 1).bit_length())

    @property
    def observation(self) -> Observation:
        """Cue and position, or Bakker's three bits; then the distractors."""
        return Observation(((3 if self.form == "bakker" else 2 + self.bits) + self.distractors,), "vector")

    @property
    def actions(self) -> tuple[int, ...]:
        """Up, down, left, right."""
        return (4,)

    @property
    def longest(self) -> int:
        """The time limit, in steps."""
        return self.max_episode_steps

    @property
    def returns(self) -> ReturnRange:
        """At worst every step but the last costs 0.1, and the last is the wrong turn."""
        return ReturnRange(-0.1 * (self.max_episode_steps - 1) - 1)

    @property
    def chance(self) -> float:
        """Success of an agent that has forgotten the cue."""
        return 0.5

    @property
    def overlap(self) -> str:
        """There are two cues, and few corridors."""
        same = "Every split has the same corridors and cues"
        return (
            f"{same}; only the seeds of the distractors are kept apart." if self.distractors else f"{same}: every episode is in training."
        )


BOARD = 49
"""Tiles of Mystery Path's board: a path has no more."""


class MysteryPath(EnvironmentTask):
    """A 7 x 7 board with an invisible path; leaving it sends the agent back to the start, so it must remember the safe tiles.

    The defaults are the variant called Easy. `memory-gym`'s own are `show_origin: false`, `show_goal: false` and, on the grid,
    `reward_path_progress: 0`.
    """

    implementation: ClassVar[str] = "pipeline.tasks.mystery_path:MysteryPath"
    source: ClassVar[str] = "Pleines et al. 2023; Easy: Pramanik et al. 2023"

    name: Literal["mystery_path"] = "mystery_path"
    moves: Literal["grid", "continuous"] = Field(
        default="grid",
        description=(
            "Movement: grid, by quarter turns and tiles; continuous, by pixels in eight directions. Use continuous for the harder version."
        ),
    )
    view: Literal["symbols", "pixels"] = Field(
        default="symbols",
        description=(
            "Observation: symbols, a vector of agent, origin and goal; pixels, an 84 x 84 image. Use symbols to train without convolutions."
        ),
    )
    show_origin: bool = Field(
        default=True, description=("Whether the first tile of the path is visible. Turn it off for memory-gym's own version.")
    )
    show_goal: bool = Field(
        default=True, description=("Whether the last tile of the path is visible. Turn it off for memory-gym's own version.")
    )
    visual_feedback: bool = Field(default=True, description=("Whether a fall is visible. Turn it off to make falls harder to notice."))
    reward_goal: float = Field(
        default=1.0, ge=-1e6, le=1e6, description=("Reward for reaching the goal. Raise it if agents collect progress and never arrive.")
    )
    reward_path_progress: float = Field(
        default=0.1,
        ge=-1e6,
        le=1e6,
        description=("Reward for every new tile of the path but origin and goal. Set 0 for memory-gym's own grid version."),
    )
    reward_fall_off: float = Field(
        default=0.0, ge=-1e6, le=1e6, description=("Reward for leaving the path. Lower it below 0 to make falls costly.")
    )
    reward_step: float = Field(
        default=0.0, ge=-1e6, le=1e6, description=("Reward of every step. Lower it below 0 to ask for short episodes.")
    )
    max_episode_steps: int | None = Field(
        default=None, ge=1, le=2**24, description=("Time limit, in steps; default: 128, continuous 512. Raise it to allow more attempts.")
    )

    @property
    def steps(self) -> int:
        """The time limit."""
        return self.max_episode_steps or (128 if self.moves == "grid" else 512)

    @property
    def observation(self) -> Observation:
        """Pixels; or planes of 49 tiles, where the agent faces, whether it fell and, if it moves by pixels, where in its tile it is."""
        if self.view == "pixels":
            return Observation((84, 84, 3), "pixels")
        planes = 1 + self.show_origin + self.show_goal
        moves = 4 if self.moves == "grid" else 8 + 2
        return Observation((49 * planes + moves + self.visual_feedback,), "vector")

    @property
    def actions(self) -> tuple[int, ...]:
        """Stay, turn left, turn right, forward; or none, left, right and none, up, down."""
        return (4,) if self.moves == "grid" else (3, 3)

    @property
    def longest(self) -> int:
        """The time limit, in steps."""
        return self.steps

    @property
    def returns(self) -> ReturnRange:
        """From every reward at its worst to the path's `best`, unless steps or falls are rewarded: then to every reward at its best."""
        once = [self.reward_goal, *[self.reward_path_progress] * (BOARD - 2)]
        ends = [
            sum(end(0.0, reward) for reward in once) + self.steps * (end(0.0, self.reward_step) + end(0.0, self.reward_fall_off))
            for end in (min, max)
        ]
        return ReturnRange(ends[0], ends[1] if max(self.reward_step, self.reward_fall_off) > 0 or min(once) < 0 else None)


class GymnasiumEvaluation(Evaluation):
    """What is measured on test episodes."""

    return_range: tuple[float, float] | None = Field(
        default=None,
        description=(
            "Lowest and highest return that an episode can have, as [low, high]; null: unknown. "
            "Set it for intervals of the return that also hold where only some seeds solve the environment."
        ),
    )

    @model_validator(mode="after")
    def _ascending(self) -> GymnasiumEvaluation:
        if self.return_range and not -1e9 <= self.return_range[0] < self.return_range[1] <= 1e9:
            raise FieldConflict(
                f"got {list(self.return_range)}; expected [lowest, highest], lowest below highest, within 1e9", "return_range"
            )
        return self

    def returns(self, task: Any) -> ReturnRange | None:
        """What `return_range` says."""
        return ReturnRange(*self.return_range) if self.return_range else None


class Gymnasium(EnvironmentTask):
    """Any gymnasium environment, by its id, including those that other packages register; stepped one after the other, in Python.

    Observation and action spaces are declared here, so that a config can be planned where the environment is not installed; if they do not
    match it, an error says what to write. Dictionaries, discrete observations and the like are flattened.
    """

    implementation: ClassVar[str] = "pipeline.tasks.gymnasium:Gymnasium"
    source: ClassVar[str] = "Towers et al. 2024"
    evaluation: ClassVar[type[Evaluation]] = GymnasiumEvaluation

    name: Literal["gymnasium"] = "gymnasium"
    id: str = Field(
        default="CartPole-v1",
        min_length=1,
        description=("Id of the environment; `module:id` imports a module first. Set it to any id that gymnasium.make accepts."),
    )
    observation_shape: list[Size] = Field(
        default=[4],
        min_length=1,
        max_length=3,
        description=(
            "Shape of an observation: [numbers], or [height, width, channels] of pixels. "
            "Set it as the environment says; a wrong one is refused with the right one."
        ),
    )
    num_actions: list[Size] = Field(
        default=[2],
        min_length=1,
        description=(
            "Number of values of each part of an action; a continuous part is split into so many, evenly spaced. "
            "Set it as the environment says; raise it for finer control."
        ),
    )
    max_episode_steps: int | None = Field(
        default=None,
        ge=1,
        le=2**24,
        description=("Time limit, in steps; default: the environment's own, if it has one. Set it for environments without one."),
    )
    reward_threshold: float | None = Field(
        default=None,
        ge=-1e9,
        le=1e9,
        description=(
            "Smallest return at which an episode counts as solved; default: the environment's `success`. "
            "Set it for environments that do not report success."
        ),
    )
    kwargs: dict[str, bool | int | float | str] = Field(
        default={}, description=("Keyword arguments of gymnasium.make. Set it for environments that take some.")
    )

    def check(self) -> None:
        """An observation is a vector or an image."""
        if len(self.observation_shape) == 2:
            raise FieldConflict(
                f"got {self.observation_shape}; expected [numbers], or [height, width, channels] of pixels", "observation_shape"
            )

    @property
    def observation(self) -> Observation:
        """What `observation_shape` says."""
        return Observation(tuple(self.observation_shape), "pixels" if len(self.observation_shape) == 3 else "vector")

    @property
    def actions(self) -> tuple[int, ...]:
        """What `num_actions` says."""
        return tuple(self.num_actions)

    @property
    def longest(self) -> int:
        """The time limit, in steps; 1 where it is the environment's own and not known here: then the environment says it when it is made."""
        return self.max_episode_steps or self._own_limit() or 1

    @property
    def title(self) -> str:
        """With the environment's id."""
        return f"gymnasium {self.id}"

    @property
    def endless(self) -> bool:
        """Whether the environment is registered without a time limit and `max_episode_steps` sets none."""
        return self.max_episode_steps is None and self._own_limit() == 0

    def _own_limit(self) -> int | None:
        """The time limit that the environment is registered with, 0 for none; None where it is not registered: no module is imported here."""
        import gymnasium

        given = self.kwargs.get("max_episode_steps")
        if isinstance(given, int):
            return max(given, 0)
        spec = gymnasium.registry.get(self.id)
        return None if spec is None else spec.max_episode_steps or 0

    @property
    def overlap(self) -> str:
        """Environments that draw little from their seed repeat themselves."""
        return "No seed is in two splits; different seeds may give the same episode, where the environment draws little from them."
