"""What the tasks of all families have in common: what each says of itself, and what an evaluation measures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.base import Component, Distribution, FieldConflict, Rows, Section, largest, smallest
from pipeline.config.measurements import AnyMeasurement, read_measurement


def _positive_and_different(values: list[int]) -> list[int]:
    if values and min(values) < 1:
        raise ValueError(f"got {min(values)} in the list; expected values of at least 1")
    if len(set(values)) < len(values):
        raise ValueError(f"got {values}; expected different values")
    return sorted(values)


Grid = Annotated[list[int], AfterValidator(_positive_and_different)]
"""Values of one field that an evaluation measures."""


NATS = "nats per symbol"
"""What losses are measured in unless a task says otherwise."""


ENOUGH = 1000
"""Different questions that there must be for the splits to be kept apart; fewer could leave a split empty."""


def shortest_apart(alphabet: int) -> int:
    """Letters from which on there are enough different strings to keep the splits apart."""
    return next(length for length in count(1) if alphabet**length >= ENOUGH)


class Evaluation(Section):
    """What is measured on test rows."""

    rows: Rows = Field(
        default=1000,
        description=("Test rows per measured point; for an environment, episodes. Raise it if one seed's accuracy is too noisy."),
    )
    measurement: AnyMeasurement = Field(
        default=None,
        description=(
            "Kind of measurement, see `pipeline list measurements`; default: the task's own. Set it to measure the same task another way."
        ),
    )

    def points(self, task: Any) -> list[Any]:
        """The variants of the task that are measured, one dataset each."""
        return [task]

    def measured_by(self, task: Any) -> Any:
        """How the network is measured: by the kind that is named here, else by the task's own."""
        return self.measurement or read_measurement(task.measurement)

    def rows_of(self, task: Any) -> int:
        """Test rows of one of these variants."""
        return self.rows

    def returns(self, task: Any) -> ReturnRange | None:
        """Range of an episode's return; None where it is unknown, or the task has no episodes."""
        return task.returns if isinstance(task, EnvironmentTask) else None


Kind = Literal["tokens", "environment"]
"""What a task is made of: rows of tokens, or episodes of an environment that answers actions."""


class Column(NamedTuple):
    """A metadata column: one value per row, by which a curriculum filters, an evaluation groups, and figures draw. Stored as int32.

    meaning: what a value is, for the dataset's card. label: what tables and axes call it. unit: what it counts; empty for categories.
    categories: names of the values 0, 1, ...; empty where the values are numbers. point: rows with equal values form a point of an
    evaluation; false for a column that only describes each row, such as an identifier.
    """

    label: str
    meaning: str
    unit: str = ""
    categories: tuple[str, ...] = ()
    point: bool = True

    @property
    def axis(self) -> str:
        """The label of an axis, with the unit where it says more."""
        return self.label if self.unit in ("", self.label) else f"{self.label} ({self.unit})"


class Glyph(NamedTuple):
    """How a figure draws a cell: its colour, the text in it, and what the legend calls it, if it does."""

    colour: str
    text: str = ""
    name: str = ""


class Task(Component):
    """A problem with rows of tokens: it says how long they are and what they are made of."""

    kind: ClassVar[Kind] = "tokens"
    """What networks and learners must be made for."""
    evaluation: ClassVar[type[Evaluation]] = Evaluation
    columns: ClassVar[Mapping[str, Column]] = {}
    """Metadata columns of every row by name."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """Those metadata columns that the network reads too: an identifier of each row, which reaches it as the argument `{column}_B`."""
    measurement: ClassVar[str] = "tokens"
    """How networks are measured on it unless a config says otherwise: a kind that `pipeline list measurements` shows."""
    glyphs: ClassVar[tuple[Glyph, ...]] = ()
    """How figures draw a cell of a grid, by token; a token without one is drawn as its number."""
    boxes: ClassVar[Mapping[int, tuple[int, int]]] = {}
    """Rows and columns of the boxes that lines set apart in a figure of a grid, by its side."""
    grid: ClassVar[bool] = False
    """Rows are square grids of cells in row-major order, all of them given at once, and every answer stands at its own cell: networks may
    read them in both directions."""
    apart_by: ClassVar[tuple[str, str]] = ("length", "tokens")
    """The field whose size decides whether rows are kept apart between the splits, and its unit."""

    @model_validator(mode="after")
    def _possible(self) -> Task:
        self.check()
        return self

    def check(self) -> None:
        """Raise FieldConflict where fields do not go together."""

    def variant(self, **fields: int) -> Task:
        """The same task with these fields fixed, a point of an evaluation. Raises FieldConflict where they do not go together."""
        made = self.model_copy(update=fields)
        made.check()
        return made

    @property
    def vocabulary(self) -> int:
        """Number of different input tokens."""
        raise NotImplementedError

    @property
    def features(self) -> int:
        """Real numbers that every token brings along."""
        return 0

    @property
    def classes(self) -> int:
        """Number of different labels; 1 where answers are real numbers."""
        raise NotImplementedError

    @property
    def first_class(self) -> int:
        """The token that stands for class 0; the other classes are the tokens that follow it."""
        return 0

    @property
    def identifiers(self) -> int:
        """Number of different values of the metadata column `identifier`, where networks read it; 0: they do not."""
        return 0

    @property
    def tolerance(self) -> float | None:
        """Answers are real numbers, and right when at most so far from the target; None: they are classes."""
        return None

    @property
    def sizes(self) -> dict[str, Any]:
        """What a network is made for: vocabulary and classes, and the others where they are not zero."""
        further = {"features": self.features, "first_class": self.first_class, "identifiers": self.identifiers}
        further |= {"cells": self.longest} if self.grid else {}
        return {"vocabulary": self.vocabulary, "classes": self.classes, **{key: value for key, value in further.items() if value}}

    @property
    def longest(self) -> int:
        """Tokens in the longest row."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """Accuracy of a guess without memory, 0..1."""
        raise NotImplementedError

    @property
    def baseline(self) -> float:
        """Loss per scored position of the best predictor without memory: cross-entropy in nats, or squared error."""
        raise NotImplementedError

    @property
    def separable(self) -> int:
        """Size from which on rows are kept apart between the splits; smaller ones are too few to be. 0: all are."""
        return 0

    @property
    def overlap(self) -> str:
        """Which rows may be in training and in a test, in one sentence; empty where no row is in two splits."""
        field, unit = self.apart_by
        if not self.separable or smallest(getattr(self, field)) >= self.separable:
            return ""
        return (
            f"No row is in two splits, except rows of fewer than {self.separable} {unit}: of those there may be fewer than {ENOUGH} "
            "different ones, so every split draws from all of them."
        )

    @property
    def published(self) -> str:
        """What published data rows are made from, and its licence, in a sentence or two for the dataset's card; empty where none are."""
        return ""

    @property
    def memory_bits(self) -> float | None:
        """Bits that a network must carry across its longest row to answer every question about it, where that is known."""
        return None

    @property
    def unit(self) -> str:
        """What losses are measured in."""
        return NATS if self.tolerance is None else "squared error"


class LengthEvaluation(Evaluation):
    """A task of one size is measured at each of these lengths, in training or not."""

    lengths: Grid = Field(
        default=[],
        description=(
            "Values of the task's length to measure, trained on or not; default: its longest. "
            "Add longer ones to test length generalization."
        ),
    )

    def points(self, task: Any) -> list[Any]:
        """One task of fixed length per length."""
        return [task.variant(length=length) for length in self.lengths or [largest(task.length)]]


def long_enough(length: int | Distribution, least: int, why: str) -> None:
    """Raise FieldConflict where a row may be too short to ask for anything."""
    if smallest(length) < least:
        raise FieldConflict(f"got a length of {smallest(length)}; expected at least {least} tokens: {why}", "length")


class Observation(NamedTuple):
    """What an agent sees at every step.

    vector: float32 numbers, shape (numbers,). pixels: uint8, shape (height, width, channels).
    """

    shape: tuple[int, ...]
    kind: Literal["vector", "pixels"]


class ReturnRange(NamedTuple):
    """Lowest and highest return that an episode can have; `highest` None: the `best` of the episode."""

    lowest: float
    highest: float | None = None


class EnvironmentTask(Task):
    """A problem of acting: it says what an agent sees and what it can do. Its rows are episodes, one each."""

    kind: ClassVar[Kind] = "environment"
    measurement: ClassVar[str] = "episodes"

    @property
    def observation(self) -> Observation:
        """What the agent sees."""
        raise NotImplementedError

    @property
    def actions(self) -> tuple[int, ...]:
        """How many values each part of an action has; most have one part."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, Any]:
        """What a network is made for: `observation` (its shape), `pixels` where it is an image, and `actions`."""
        pixels = {"pixels": True} if self.observation.kind == "pixels" else {}
        return {"observation": list(self.observation.shape), **pixels, "actions": list(self.actions)}

    @property
    def longest(self) -> int:
        """Steps of the longest episode."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What lines to a user call it."""
        return self.name

    @property
    def returns(self) -> ReturnRange | None:
        """Range of an episode's return, None where it is unknown: intervals over seeds need it where only some seeds solve the task."""
        return None

    @property
    def endless(self) -> bool:
        """Whether episodes are known to have no time limit; such a task is refused."""
        return False

    @property
    def chance(self) -> float:
        """Success rate of the best agent without memory, 0..1; 0 where that is not known."""
        return 0.0

    @property
    def baseline(self) -> float:
        """Environments have no loss."""
        return 0.0

    @property
    def unit(self) -> str:
        """What an agent is measured in."""
        return "return"
