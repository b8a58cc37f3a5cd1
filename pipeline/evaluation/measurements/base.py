"""The parts of a measurement: columns, scores with their bounds, tables of the report, names for figures.

To add one, write a module in this package with a subclass of `Measurement`; nothing else is edited: `evaluate` calls `measure`, `collect`
calls `score` and `details`, the report and the figures read `scores` and `tables`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pipeline.config.base import Component
from pipeline.config.tasks.base import Column as Metadata
from pipeline.storage.lazy import np, pa
from pipeline.storage.table_schema import Column

if TYPE_CHECKING:
    import torch

Point = dict[str, Any]
"""One point of an evaluation: its metadata, or its scores, by name."""
Write = Callable[[float], str]
"""Formats a number for a table."""
COUNT = Column("whole", least=0)
SHARE = Column("number", null=True, optional=True, least=0, most=1)
NUMBER = Column("number", null=True, optional=True)


class Score(NamedTuple):
    """One number per point of an evaluation, and how to show it.

    A share, with bounds 0 and 1, is shown in %. A bound is a number, None if there is none, or, if the task sets it, the name of the score that
    holds it.
    """

    label: str
    """Axis label, without the unit."""
    unit: str = ""
    bounds: tuple[float | str | None, float | str | None] = (None, None)
    better: Literal["higher", "lower"] | None = None
    reference: str = ""
    """Column of results.parquet with the reference value, which needs no network, such as chance."""
    reference_label: str = ""
    """Label of the reference; {} stands for its value."""
    bounds_hint: str = ""
    """How a user can set the bounds if the task does not know them: a sentence."""
    share_of_examples: bool = False
    """Whether it is the share of examples with some property: one seed then has Wilson's interval over its examples."""
    type: Literal["number", "whole", "list"] = "number"
    """Type of its column; a list is of integers."""

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.bounds == (0, 1)

    @property
    def scale(self) -> float:
        """Factor from the stored to the shown value."""
        return 100.0 if self.is_share else 1.0

    @property
    def shown_unit(self) -> str:
        """Unit of the shown value."""
        return "%" if self.is_share else self.unit

    def bounds_at(self, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
        """Return the lowest and highest possible value over rows of results.parquet; infinite if unknown."""
        lows, highs = ([_bound(bound, row) for row in rows] for bound in self.bounds)
        low = min((-math.inf if end is None else end for end in lows), default=-math.inf)
        return low, max((math.inf if end is None else end for end in highs), default=math.inf)


def _bound(bound: float | str | None, row: Mapping[str, Any]) -> float | None:
    """Return one bound in a row; None if unknown."""
    value = row.get(bound) if isinstance(bound, str) else bound
    return None if value is None or math.isnan(value) else float(value)


class Cell(NamedTuple):
    """One column of a table: its heading, in which {unit} is the unit of the loss, its score, and its entry in the reference row.

    across: show the range over runs instead of the mean with its interval. reference: a column of results.parquet, or a number.
    """

    heading: str
    score: str
    write: Write
    reference: str | float | None = None
    write_reference: Write | None = None
    across: bool = False


class Table(NamedTuple):
    """A table of the report at the hardest point. `note`: how to read it. `reference`: name of the last row, the reference; empty: none."""

    title: str
    note: str
    cells: tuple[Cell, ...]
    reference: str = ""


class Training(NamedTuple):
    """How learning curves of this type of task are shown: the curve above accuracy, and the unit of its rows."""

    curve: str = "loss"
    """`validation_{curve}` is a column of history.parquet."""
    accuracy: str = "symbol accuracy"
    """Name of `validation_accuracy`."""
    reference: str = "chance {} %"
    """Label of the accuracy's reference line; {} stands for its value."""
    goal: str = "this validation accuracy"
    unit: str = "rows"
    seen: str = "training rows seen"
    solved: bool = True
    """Whether two consecutive validations at 99 % count as solved."""


def percent(value: float) -> str:
    """Format a share in % with one decimal."""
    return f"{100 * value:.1f}"


def significant(value: float) -> str:
    """Format a number with two decimals, or two significant digits below 0.1."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def whole(value: float) -> str:
    """Format an integer with thousands separators."""
    return f"{value:,.0f}"


def digits(count: int) -> Write:
    """Return a formatter for this many decimals."""
    return f"{{:.{count}f}}".format


STATE = Cell("state (bytes)", "state_bytes", whole, across=True)


class Measurement(Component):
    """One way to measure a trained network on held-out data. Its fields are settings, part of the evaluation's identifier."""

    reads: ClassVar[Literal["tokens", "environment"]] = "tokens"
    """Type of the tasks that it measures."""
    example: ClassVar[str] = "row"
    """What one row of an evaluation is."""
    step: ClassVar[str] = "token"
    """What a network reads at one time step."""
    length: ClassVar[str] = "tokens"
    """Column with the steps of an example, which determine the bytes of state."""
    columns: ClassVar[Mapping[str, Column]] = {}
    """Columns kept of every example, besides `dataset`, `row`, the task's metadata, `state_bytes` and `coordinates`."""
    coordinates: ClassVar[Mapping[str, Metadata]] = {}
    """Columns, like the task's metadata, whose values the measurement varies: every example has a row for each combination of them."""
    scores: ClassVar[Mapping[str, Score]] = {}
    """Scores of every point, in the order of results.parquet; `NAME_low` and `NAME_high` are intervals over the examples of a run."""
    primary: ClassVar[str] = "accuracy"
    """The score in the first table and, by default, in figures."""
    title: ClassVar[str] = "Symbol accuracy (%)"
    """Heading of the first table: the primary score at every point."""
    reference: ClassVar[str] = "chance"
    """Name of its last row, the reference."""
    tables: ClassVar[tuple[Table, ...]] = ()
    training: ClassVar[Training] = Training()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.implementation = f"{cls.__module__}:{cls.__name__}"

    @property
    def per_example(self) -> int:
        """Rows of an evaluation for each example."""
        return 1

    def refusal(self, task: Any) -> str:
        """Return why this task cannot be measured; empty if it can."""
        return "" if task.kind == self.reads else f"{self.name} measures tasks of kind {self.reads}, {task.name} is of kind {task.kind}"

    def measure(self, network: Any, task: Any, data: Any, device: torch.device) -> dict[str, pa.Array]:
        """Return `columns` and `coordinates` of every example of a dataset, in its order; the `per_example` rows of one side by side.

        network: in evaluation mode, on the device. task: the implementation. data: `DatasetRows`, or `Episodes` if `reads` is environment.
        """
        raise NotImplementedError

    def check(self, path: Path, table: pa.Table) -> None:
        """Raise CorruptFileError if columns of an evaluation contradict each other."""

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """Return the scores of one point. examples: `columns` and `state_bytes` of its examples.

        run: the entry of the run in experiment.yaml, with `run`, `chance`, `baseline`, `unit` and others.
        """
        raise NotImplementedError

    def details(self, table: pa.Table) -> pa.Table | None:
        """Return what figures need of an evaluation beyond its scores, with the metadata columns; None if nothing."""
        return None

    def score_columns(self) -> dict[str, Column]:
        """Return the schema of the scores in results.parquet."""
        return {name: _column(score) for name, score in self.scores.items()}


def _column(score: Score) -> Column:
    low, high = (bound if isinstance(bound, int | float) and score.type != "list" else None for bound in score.bounds)
    return Column(score.type, null=True, optional=True, least=low, most=high)
