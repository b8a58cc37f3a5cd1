"""What one kind of measurement consists of: columns, scores with their bounds, tables of the report, names for figures.

A kind is one module of this package with one subclass of `Measurement`. Nothing else is edited: `evaluate` calls `measure`, `collect` calls
`score` and `details`, the report and the figures read `scores` and `tables`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.base import Component
from pipeline.storage.table_schema import Column

if TYPE_CHECKING:
    import torch

Point = dict[str, Any]
"""One point of an evaluation: its metadata, or its scores, by name."""
Write = Callable[[float], str]
"""How a number is written in a table."""
COUNT = Column("whole", least=0)
SHARE = Column("number", null=True, optional=True, least=0, most=1)
NUMBER = Column("number", null=True, optional=True)
WHOLE = pa.int64()


class Score(NamedTuple):
    """One number per point of an evaluation, and what is known of it.

    A share, with bounds 0 and 1, is shown in %. A bound may be a number, None where there is none, or the name of the score that holds it,
    where the task sets it.
    """

    label: str
    """Its name on an axis, without the unit."""
    unit: str = ""
    bounds: tuple[float | str | None, float | str | None] = (None, None)
    better: Literal["higher", "lower"] | None = None
    reference: str = ""
    """The column of results.parquet with the value that needs no network."""
    reference_label: str = ""
    """What that is called; {} stands for its value."""
    bounds_hint: str = ""
    """How a user can give its bounds, where the task does not know them: a sentence."""
    share_of_examples: bool = False
    """It is the share of the examples that have some property: one seed has Wilson's interval over its examples."""
    type: pa.DataType = pa.float64()

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.bounds == (0, 1)

    @property
    def scale(self) -> float:
        """The factor between the stored and the shown value."""
        return 100.0 if self.is_share else 1.0

    @property
    def shown_unit(self) -> str:
        """The unit of the shown value."""
        return "%" if self.is_share else self.unit

    def bounds_at(self, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
        """The least and most that it can be in any of some rows of results.parquet, infinite where that is not known."""
        lows, highs = ([_bound(bound, row) for row in rows] for bound in self.bounds)
        low = min((-math.inf if end is None else end for end in lows), default=-math.inf)
        return low, max((math.inf if end is None else end for end in highs), default=math.inf)


def _bound(bound: float | str | None, row: Mapping[str, Any]) -> float | None:
    """One bound in a row; None where it is not known."""
    value = row.get(bound) if isinstance(bound, str) else bound
    return None if value is None or math.isnan(value) else float(value)


class Cell(NamedTuple):
    """One column of a table: its heading, in which {unit} is the loss's, the score below it, and what the last row says of it.

    across: least and most over the runs instead of the mean with its interval. reference: a column of results.parquet, or a number.
    """

    heading: str
    score: str
    write: Write
    reference: str | float | None = None
    write_reference: Write | None = None
    across: bool = False


class Table(NamedTuple):
    """A table of the report at the hardest point. `note`: how to read it. `reference`: what its last row is called; empty: there is none."""

    title: str
    note: str
    cells: tuple[Cell, ...]
    reference: str = ""


class Training(NamedTuple):
    """What a training's history holds for this kind of task: the curve above accuracy, and what its rows count."""

    curve: str = "loss"
    """`validation_` and this is a column of history.parquet."""
    accuracy: str = "symbol accuracy"
    """What `validation_accuracy` is a share of."""
    reference: str = "chance {} %"
    """What is known of it without a network."""
    goal: str = "this validation accuracy"
    unit: str = "rows"
    seen: str = "training rows seen"
    solved: bool = True
    """Whether two validations in a row at 99 % count as solved."""


def percent(value: float) -> str:
    """A share in % with one digit."""
    return f"{100 * value:.1f}"


def significant(value: float) -> str:
    """Two digits that count."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def whole(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


def digits(count: int) -> Write:
    """A number with so many digits after the point."""
    return f"{{:.{count}f}}".format


STATE = Cell("state (bytes)", "state_bytes", whole, across=True)


class Measurement(Component):
    """One way to measure a trained network on held-out data. Its fields are settings, part of the evaluation's identifier."""

    reads: ClassVar[Literal["tokens", "environment"]] = "tokens"
    """The kind of task that it measures."""
    example: ClassVar[str] = "row"
    """What one line of an evaluation is about."""
    step: ClassVar[str] = "token"
    """What a network reads at a time."""
    length: ClassVar[str] = "tokens"
    """The column with the steps of an example, by which the bytes of state are known."""
    columns: ClassVar[Mapping[str, Column]] = {}
    """What is kept of every example, beside `dataset`, `row`, the task's metadata and `state_bytes`."""
    scores: ClassVar[Mapping[str, Score]] = {}
    """What is said of every point, in the order of results.parquet; `NAME_low` and `NAME_high` are intervals over the examples of a run."""
    primary: ClassVar[str] = "accuracy"
    """The score that tables begin with and figures show unless asked for another."""
    title: ClassVar[str] = "Symbol accuracy (%)"
    """Heading of the first table: the primary score at every point."""
    reference: ClassVar[str] = "chance"
    """What its last row is called."""
    tables: ClassVar[tuple[Table, ...]] = ()
    training: ClassVar[Training] = Training()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.implementation = f"{cls.__module__}:{cls.__name__}"

    def refusal(self, task: Any) -> str:
        """Why this entry of a task cannot be measured so; empty where it can."""
        return "" if task.kind == self.reads else f"{self.name} measures tasks of kind {self.reads}, {task.name} is of kind {task.kind}"

    def measure(self, network: Any, task: Any, data: Any, device: torch.device) -> dict[str, pa.Array]:
        """The `columns` of every example of a dataset, in its order.

        network: in evaluation mode, on the device. task: the implementation. data: `DatasetRows`, or `Episodes` where `reads` is environment.
        """
        raise NotImplementedError

    def check(self, path: Path, table: pa.Table) -> None:
        """Raise CorruptFileError where columns of an evaluation contradict each other."""

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """The scores of one point. examples: `columns` and `state_bytes` of its examples.

        run: what experiment.yaml says of the run and its task: `run`, `chance`, `baseline`, `unit`, and what else the plan knows.
        """
        raise NotImplementedError

    def details(self, table: pa.Table) -> pa.Table | None:
        """What figures need of an evaluation beyond its scores, with the metadata columns; None where that is nothing."""
        return None

    def score_columns(self) -> dict[str, Column]:
        """How a reader of results.parquet checks the scores."""
        return {name: _column(score) for name, score in self.scores.items()}


def _column(score: Score) -> Column:
    low, high = (bound if isinstance(bound, int | float) and not pa.types.is_list(score.type) else None for bound in score.bounds)
    kind = "list" if pa.types.is_list(score.type) else "whole" if pa.types.is_integer(score.type) else "number"
    return Column(kind, null=True, optional=True, least=low, most=high)
