"""Every figure an experiment can ask for. Code: `pipeline/figures/`, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Component
from pipeline.config.catalogue import collect, union_of


class Figure(Component):
    """A picture of an experiment: SVG and PNG, with the CSV of what it shows."""

    timed: ClassVar[bool] = False
    """It shows measured times, which differ from run to run of the same config."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Metadata columns of the task it draws."""
    reading: ClassVar[str] = ""
    """How to read it: its caption in the report, in reStructuredText."""

    title: str | None = Field(default=None, description="title above the axes; default: the experiment's question")


class AccuracyByDelay(Figure):
    """Symbol accuracy against delay, a line per network with its interval over seeds, chance drawn."""

    implementation: ClassVar[str] = "pipeline.figures.accuracy_by_delay:draw"
    reading: ClassVar[str] = (
        "Accuracy on held-out rows against the delay between the last symbol and the moment it is asked for, in tokens; each network has "
        "its line. Every marker is a measured delay, a mean over seeds; the band around a line is the 95 % bootstrap interval of that mean "
        "(one seed: no band). The dashed line is chance: what guessing without memory scores. The grey bar above the panel spans the delays "
        "of the training task (a curriculum that was not mastered may have stopped short of them); what lies beyond it is generalisation. A "
        "network remembers across a delay when its band stays clear of chance, and has solved it from 99 % on."
    )
    needs: ClassVar[tuple[str, ...]] = ("delay",)

    name: Literal["accuracy_by_delay"] = "accuracy_by_delay"
    metric: Literal["accuracy", "sequence_accuracy"] = Field(default="accuracy", description="what is drawn")


class LearningCurves(Figure):
    """Validation loss and accuracy against training rows seen, with the memoryless floor drawn."""

    implementation: ClassVar[str] = "pipeline.figures.learning_curves:draw"
    reading: ClassVar[str] = (
        "Loss (above, logarithmic) and symbol accuracy (below) on the validation rows, against the training rows seen so far. Thin lines "
        "are single seeds, the thick line is their median, drawn as far as every seed was trained. Dashed: above, the memoryless floor, the "
        "lowest loss that is possible without carrying anything; below, chance. A curve that stays on both has learned which answers are "
        "possible, and nothing about which one it was. A network with a curriculum is validated on the whole task from the start, so its "
        "curve may rise late and then at once."
    )

    name: Literal["learning_curves"] = "learning_curves"


class RecallPositions(Figure):
    """Accuracy at each recall position and delay, a heat map per network."""

    implementation: ClassVar[str] = "pipeline.figures.recall_positions:draw"
    reading: ClassVar[str] = (
        "Symbol accuracy by position in the answer (across) and delay in tokens (down), a panel per network, means over seeds; all panels "
        "share one colour scale, on which chance is marked. Columns that fade to the right lose what was said last, or run out of breath "
        "while answering; rows that fade downwards lose everything with time. Grey cells were not measured, because such rows have no "
        "symbol at that position."
    )
    needs: ClassVar[tuple[str, ...]] = ("delay",)

    name: Literal["recall_positions"] = "recall_positions"


class TrainingTime(Figure):
    """CPU seconds of training, and the seconds until validation accuracy reached 50, 90 and 99 %."""

    implementation: ClassVar[str] = "pipeline.figures.training_time:draw"
    reading: ClassVar[str] = (
        "Left: CPU seconds of a whole training; the bar is the mean, each dot a seed, the black line the 95 % bootstrap interval of the "
        "mean. Right: CPU seconds until validation accuracy first reached 50, 90 and 99 %; large markers are medians over the seeds that "
        "got there, small ones single seeds, and the numbers at the right edge tell how many of the seeds reached 99 %. CPU seconds count "
        "the work of all threads and leave out waiting, so they compare networks on one machine; between machines, or beside other heavy "
        "work, they differ."
    )
    timed: ClassVar[bool] = True

    name: Literal["training_time"] = "training_time"


class CostQuality(Figure):
    """Accuracy against the bytes of state each network carries, with the front of those that no other beats."""

    implementation: ClassVar[str] = "pipeline.figures.cost_quality:draw"
    reading: ClassVar[str] = (
        "Symbol accuracy at the hardest measured point (the largest delay) against the bytes of state that each network carries there from "
        "one token to the next; for attention this is its cache of keys and values, which grows with the row. Markers are means over seeds, "
        "vertical lines their 95 % bootstrap intervals. The stairs are the front: the networks that none beats with as little state or "
        "less. Up and to the left is better. The network at 0 bytes, left of the dotted line, is the memoryless control; the dashed line is "
        "chance, where it belongs."
    )

    name: Literal["cost_quality"] = "cost_quality"


FIGURES = collect(globals(), Figure, "recurlab.figures")
if TYPE_CHECKING:
    AnyFigure = Figure
else:
    AnyFigure = union_of(FIGURES)
