"""Tasks of the recursion family: puzzles on a square grid of cells. Code: `pipeline/tasks/`, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.base import FieldConflict
from pipeline.config.measurements import read_measurement
from pipeline.config.tasks.base import Column, Evaluation, Grid, Task

DESCRIBING: Mapping[str, Column] = {
    "group": Column("puzzle", "the stored puzzle that the row is made from, counted from 0; its symmetries share it", point=False),
    "identifier": Column("identifier", "number of the puzzle and symmetry; 0 where networks read none", point=False),
    "augmentation": Column("symmetry", "0 the puzzle as it is, k its k-th random symmetry", point=False),
    "rating": Column("rating", "how hard the puzzle is, in the unit of its source", point=False),
}
"""Columns of every puzzle that describe a row and are not coordinates of a point."""


class PuzzleEvaluation(Evaluation):
    """A puzzle is measured after each of these numbers of supervision steps. A network without recursion answers alike at all of them."""

    supervision: Grid = Field(
        default=[],
        description=(
            "Numbers of supervision steps after which answers are measured; default: 16. "
            "Add more than in training to see whether thinking longer helps."
        ),
    )
    chains: int = Field(
        default=1,
        ge=1,
        le=4_096,
        description="Attempts at every puzzle, each with noise of its own in the latent state. Raise it to trade compute for accuracy.",
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description=(
            "Standard deviation of Gaussian noise added to the latent state before each supervision step. Raise it until attempts differ."
        ),
    )
    choose: Literal["q", "vote", "first_to_halt"] = Field(
        default="q",
        description=(
            "Which attempt is the answer: of the highest q, the most frequent answer, or the first to halt. Use vote if q is not trained."
        ),
    )
    halt: bool = Field(
        default=False,
        description="An attempt ends at its first q above 0, and keeps that answer. Turn it on to measure what halting saves and costs.",
    )

    def measured_by(self, task: Any) -> Any:
        """By `puzzles` with these settings, unless another kind is named."""
        settings = {name: getattr(self, name) for name in SETTINGS if getattr(self, name) != type(self).model_fields[name].default}
        if self.measurement is None:
            return read_measurement({"name": task.measurement, **settings})
        if settings:
            raise FieldConflict(
                f"got {' and '.join(settings)} beside a measurement; expected its settings within it", "measurement", *settings
            )
        return self.measurement


SETTINGS = ("supervision", "chains", "noise", "choose", "halt")
"""Fields of an evaluation that are settings of the measurement `puzzles`."""


class Puzzle(Task):
    """A puzzle on a square grid: every cell has a token, and an answer at the same place."""

    grid: ClassVar[bool] = True
    measurement: ClassVar[str] = "puzzles"
    evaluation: ClassVar[type[Evaluation]] = PuzzleEvaluation
