"""Every figure an experiment can ask for. Code: `pipeline/figures/`, one file each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Component
from pipeline.config.catalogue import collect, union_of
from pipeline.config.tasks.base import Task

COLUMN, TEXT = 3.25, 6.75
"""Widths of a figure in inches: one column of a paper in two, and the whole text."""
INTERVAL = "the 95 % interval of that mean over seeds (one seed: over its rows)"
BESIDE = "Runs of one point are moved sideways a little so that none hides another. "
METRIC = (
    "Score to show; default: the measurement's primary one, such as accuracy. Choose any that `pipeline show` lists for the measurement."
)
AT = "the hardest measured point that training covered, or the one that the option `at` names; the axis says which"


class Figure(Component):
    """A picture of an experiment: SVG, PDF and PNG, with the CSV of what it shows."""

    timed: ClassVar[bool] = False
    """It shows measured times, which differ from run to run of the same config."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Metadata columns of the task it draws."""
    sized: ClassVar[bool] = False
    """It compares the sizes of training tasks: at least one metadata column is a field of the task."""
    tuned: ClassVar[bool] = False
    """It shows what a tuned experiment tried."""
    measurements: ClassVar[tuple[str, ...]] = ()
    """The kinds of measurement that it draws; empty: every kind."""
    recursive: ClassVar[bool] = False
    """It shows recursive networks only."""
    halting: ClassVar[bool] = False
    """It shows networks that are trained by deep supervision, and so to halt, only."""
    explanation: ClassVar[str] = ""
    """How to read it: its caption in the report, in reStructuredText."""

    title: str | None = Field(
        default=None, description=("Title above the axes; default: the experiment's question; empty: none. Set it for a paper or talk.")
    )
    labels: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default={},
        description=(
            "Label, or the part of it that names the network -> name in the figure; default: the name in the literature. "
            "Set it to use your own names."
        ),
    )
    width: Literal["column", "text"] | None = Field(
        default=None,
        description=(
            "Width on paper: column (3.25 in) or text (6.75 in); default: column for one panel with short labels, else text. "
            "Set it to fit your layout."
        ),
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The metadata columns of the task that it draws."""
        return self.needs

    @property
    def stem(self) -> str:
        """The name of its files: its own, and the options that change what it shows."""
        shown = {key: getattr(self, key) for key in type(self).model_fields if key not in ("name", "title", "labels", "width")}
        words = [_words(value) for key, value in shown.items() if value != type(self).model_fields[key].default]
        return re.sub(r"[^a-z0-9]+", "_", "_".join([self.name, *words]).lower())

    def caption(self, task: Task) -> str:
        """How to read it, for one task of its experiment."""
        return self.explanation


def _words(value: Any) -> str:
    """An option's value as part of a file's name."""
    return "_".join(f"{key}_{item}" for key, item in value.items()) if isinstance(value, dict) else str(value)


class PointFigure(Figure):
    """What shows one measured point, or some of all."""

    beyond: ClassVar[bool] = False
    """It shows the hardest measured point, whether training covered it or not."""

    at: dict[str, int | str] = Field(
        default={},
        description=(
            "Metadata column -> measured value to show, as {delay: 40}; default: the hardest that training covered. "
            "Set it to show another point."
        ),
    )


class AccuracyBy(PointFigure):
    """Accuracy, or another score, against a metadata column: a line per network with its interval over seeds, a panel per swept layout."""

    implementation: ClassVar[str] = "pipeline.figures.accuracy_by:draw"

    name: Literal["accuracy_by"] = "accuracy_by"
    column: str = Field(
        description=(
            "Metadata column on the x axis; one with categories has a row for each. Choose one that the evaluation varies, as delay."
        )
    )
    metric: str | None = Field(default=None, description=METRIC)

    @property
    def columns(self) -> tuple[str, ...]:
        """The column on the x axis."""
        return (self.column,)

    def caption(self, task: Task) -> str:
        """How to read it; of a column of names, at which point it is shown."""
        if self.column in task.columns and task.columns[self.column].categories:
            return _BY_NAME.format(column=self.column, at=AT)
        return _BY_NUMBER.format(column=self.column)


_BY_NUMBER = (
    "The score that the y axis names on test data, against {column}; each network has its line. Every marker is a measured point, a mean over "
    f"seeds, the bar through it {INTERVAL}, small dots are single seeds. {BESIDE}Where each run was measured at one point only, a line runs "
    "across runs, and every marker is a training of its own. The dashed line, where it is known, is what is possible without memory: chance, or "
    "the best agent that forgets. The grey bar above the panel spans the {column} of the training task, where all networks have the same (a "
    "curriculum that was not mastered may have stopped short of it); what lies beyond it is generalisation. Where task.layout is swept, each "
    "layout has its panel, that of the shortest rows first. A network remembers at a point when its interval stays clear of the dashed line."
)
_BY_NAME = (
    "The score that the x axis names on test data for each {column}, at {at}. A marker is a network's mean over seeds, the line through it "
    f"{INTERVAL}, small dots are single seeds. The dashed line is what is possible without memory. A network that has learned what is asked "
    "for is as good in every row; one that holds only where it was trained has learned a property of that. Where task.layout is swept, each "
    "layout has its panel."
)


class FirstErrors(PointFigure):
    """Where the traces of free runs first go wrong, a line per network with its interval over seeds, a panel per swept layout."""

    version: ClassVar[int] = 2
    implementation: ClassVar[str] = "pipeline.figures.first_errors:draw"
    explanation: ClassVar[str] = (
        f"The network writes each trace by itself, at {AT}. A line falls where traces leave the true one for the first time: its height is "
        "the share of traces that have no mistake so far, and where it ends on the right is the share that is exact to the last token. "
        f"Thick lines are means over seeds, bands {INTERVAL}, thin lines single seeds. A steady fall is a small chance of a mistake at "
        "every step; a sharp one is something that the network cannot do. After its first mistake a trace may still end in the right "
        "answer. Where task.layout is swept, each layout that has traces has its panel."
    )
    measurements: ClassVar[tuple[str, ...]] = ("free_running",)

    name: Literal["first_errors"] = "first_errors"


class LearningCurves(Figure):
    """Validation loss (or return) and accuracy against training rows seen (or environment steps), with the memoryless baseline."""

    implementation: ClassVar[str] = "pipeline.figures.learning_curves:draw"
    explanation: ClassVar[str] = (
        "Loss (above, logarithmic) and accuracy (below: of symbols, or the share of puzzles solved) on the validation rows, against the "
        "training rows seen so far. Thin lines are single seeds, the thick line is their median, drawn as far as every seed was trained. "
        "Dotted above: the memoryless baseline, the lowest loss that is possible without memory; a network that remembers falls below it. "
        "Dashed below: chance. "
        "A curve that stays on both has learned which answers are possible, and nothing about which one it was. A network with a "
        "curriculum is validated on the whole task from the start, so its curve may rise late and then at once. Where networks act, the "
        "upper panel shows the mean return of the validation episodes, dotted the best possible, the lower one the share solved, dashed "
        "chance, both against environment steps."
    )

    name: Literal["learning_curves"] = "learning_curves"


class SampleEfficiency(Figure):
    """Training rows, or environment steps, until validation accuracy reached 50, 90 and 99 %."""

    implementation: ClassVar[str] = "pipeline.figures.sample_efficiency:draw"
    explanation: ClassVar[str] = (
        "Training rows seen, or where networks act steps of the environment, until validation accuracy (the share of validation episodes "
        "solved) first reached 50, 90 and 99 %. Large markers are medians over the seeds that got there, small ones single seeds; the "
        "numbers at the right edge tell how many of the seeds reached 99 %. They are no finer than the distance between two validations. "
        "A mark at zero was reached before any training."
    )

    name: Literal["sample_efficiency"] = "sample_efficiency"


class MeanReturn(PointFigure):
    """Mean return of test episodes at one point, a bar per network with its interval, and a line at the best possible return."""

    version: ClassVar[int] = 2
    implementation: ClassVar[str] = "pipeline.figures.mean_return:draw"
    explanation: ClassVar[str] = (
        f"Mean return, the sum of an episode's rewards, over test episodes at {AT}. The bar is the mean over seeds, each dot a seed, the "
        f"black line {INTERVAL}, which the numbers on the right repeat. The dashed line, where it is known, is the mean return of the best "
        "policy on the same episodes. Actions are sampled from the policy, as in training. Where the lowest and the highest "
        "possible return are unknown (evaluate.return_range gives them), the interval does not hold if only some seeds solve the task."
    )
    measurements: ClassVar[tuple[str, ...]] = ("episodes",)

    metric: ClassVar[str] = "return"

    name: Literal["mean_return"] = "mean_return"


class StepCost(Figure):
    """Milliseconds and bytes of state of one step against the context that the network has read, a line per network."""

    version: ClassVar[int] = 2
    implementation: ClassVar[str] = "pipeline.figures.step_cost:draw"
    explanation: ClassVar[str] = (
        "What one more step costs, one row at a time, against the steps that the network has read before it: time above, bytes of state "
        "carried below, both on logarithmic scales; below the smallest decade the lower one is linear, so that a network without state "
        "stands at 0. Lines that stay level cost the same however long an episode is. Times are medians of CPU seconds (on a GPU, of "
        "seconds on the clock) of networks with random weights, which changes no cost; they compare networks on one machine. The CSV has "
        "the multiplications of a step besides."
    )
    timed: ClassVar[bool] = True

    name: Literal["step_cost"] = "step_cost"


class EpisodeStrips(PointFigure):
    """Pictures of test episodes from the first step to the last, as the first seed of every network played them."""

    version: ClassVar[int] = 2
    implementation: ClassVar[str] = "pipeline.figures.episode_strips:draw"
    explanation: ClassVar[str] = (
        f"Test episodes at {AT.replace('the axis says', 'the line below says')}, as the first seed of every network played them: pictures "
        "spread evenly from the first step (left) to the last before the end (right), the same episodes for every network. Above each strip "
        "stands how it ended. In a T-Maze the agent is the bright square, green marks the side where the reward is, which only the first "
        "observation tells. In a Mystery Path the picture is what the pixels of the environment show."
    )
    measurements: ClassVar[tuple[str, ...]] = ("episodes",)

    name: Literal["episode_strips"] = "episode_strips"
    episodes: int = Field(default=1, ge=1, le=2, description="Episodes shown per network. Raise it to see a second one.")


class SolvedBySupervision(PointFigure):
    """Puzzles solved against supervision steps: a panel per network, a line per size of puzzle; of one size, a line per network."""

    implementation: ClassVar[str] = "pipeline.figures.solved_by_supervision:draw"
    explanation: ClassVar[str] = (
        "The share of test puzzles that are solved, or the score that the y axis names, after each number of supervision steps: a panel per "
        "network with a line per size of puzzle or, where one size was measured, one panel with a line per network. Markers are means over "
        f"seeds, bars {INTERVAL}, small dots single seeds. {BESIDE}The dotted line is the largest number of steps in training. A line that "
        "rises beyond it gains from thinking longer than it was trained to; one that falls is not steady. A network without recursion "
        "answers once: its line is flat, with its mean and interval at the right end."
    )
    measurements: ClassVar[tuple[str, ...]] = ("puzzles", "arc_votes")

    name: Literal["solved_by_supervision"] = "solved_by_supervision"
    metric: str | None = Field(default=None, description=METRIC)


class Halting(PointFigure):
    """Puzzles halted, and how often the halting logit q is right about the answer, against supervision steps, a line per network."""

    implementation: ClassVar[str] = "pipeline.figures.halting:draw"
    explanation: ClassVar[str] = (
        f"What the halting logit q knows, on test puzzles at {AT.replace('the axis says', 'the line below says')}, of networks trained by deep "
        "supervision. One panel: the share of puzzles with a q above 0 at some step so far, which would have halted. The other: how often q "
        f"above 0 goes with a solved puzzle and q below 0 with another one. Markers are means over seeds, bars {INTERVAL}, small dots single "
        f"seeds. {BESIDE}Dotted is what a q that does not look at the puzzle attains: always the more frequent of solved and not solved. A "
        "network knows when it is right only as far as it lies above its dotted line."
    )
    measurements: ClassVar[tuple[str, ...]] = ("puzzles", "arc_votes")
    halting: ClassVar[bool] = True

    name: Literal["halting"] = "halting"


class Residuals(PointFigure):
    """How much the latents changed in the last step, for solved puzzles and for the others, a panel per recursive network."""

    implementation: ClassVar[str] = "pipeline.figures.residuals:draw"
    explanation: ClassVar[str] = (
        "Whether a network that has settled is right: the change of the latents in the last measured supervision step (root mean square), of "
        "the test puzzles that are solved then and of the others, each a distribution of its own, means over seeds; the line below says at "
        "which step and point, which the option `at` may name. Above a panel: the share of puzzles solved, and the area under the ROC curve "
        "(AUC), the probability that a solved puzzle changed less than another one, mean over seeds; 0.5 says that the change tells nothing. "
        "Where the distributions lie apart, a small change is a sign of a right answer; where they overlap, the network also settles on wrong "
        "ones. Smaller changes than the smallest shown are in the first bin."
    )
    measurements: ClassVar[tuple[str, ...]] = ("puzzles", "arc_votes")
    recursive: ClassVar[bool] = True

    name: Literal["residuals"] = "residuals"


class SolutionStrips(PointFigure):
    """Puzzles with the answer after each number of supervision steps and the solution, a strip for the first seed of every network."""

    implementation: ClassVar[str] = "pipeline.figures.solution_strips:draw"
    explanation: ClassVar[str] = (
        "Test puzzles: first as given, then the answer of each network's first seed after measured numbers of supervision steps, at last the "
        "solution; the line below says at which point. A cell that is not answered as in the solution has a red frame or, with characters, a "
        "red one; given characters are bold. A network without recursion answers once. The same puzzles are shown for every network. Where "
        "more numbers of steps were measured than fit, some between the first and the last are left out."
    )
    measurements: ClassVar[tuple[str, ...]] = ("puzzles", "arc_votes")

    name: Literal["solution_strips"] = "solution_strips"
    puzzles: int = Field(default=1, ge=1, le=3, description="Puzzles shown per network. Raise it to see others.")


class RecallPositions(PointFigure):
    """Accuracy at each recall position and delay, a heat map per network."""

    implementation: ClassVar[str] = "pipeline.figures.recall_positions:draw"
    explanation: ClassVar[str] = (
        "Symbol accuracy by position in the answer (across) and delay in tokens (down), a panel per network, means over seeds; all panels "
        "share one colour scale, on which chance is marked. Columns that fade to the right lose what was said last, or run out of breath "
        "while answering; rows that fade downwards lose everything with time. Grey cells were not measured, because such rows have no "
        "symbol at that position."
    )
    needs: ClassVar[tuple[str, ...]] = ("delay",)
    measurements: ClassVar[tuple[str, ...]] = ("tokens",)

    name: Literal["recall_positions"] = "recall_positions"


class TrainingTime(Figure):
    """CPU seconds of training, and the seconds until validation accuracy reached 50, 90 and 99 %."""

    implementation: ClassVar[str] = "pipeline.figures.training_time:draw"
    explanation: ClassVar[str] = (
        f"Left: CPU seconds of a whole training; the bar is the mean, each dot a seed, the black line {INTERVAL}. Right: CPU seconds until "
        "validation accuracy first reached 50, 90 and 99 %; large markers are medians over the seeds that got there, small ones single "
        "seeds, and the numbers at the right edge tell how many of the seeds reached 99 %. CPU seconds count the work of all threads and "
        "leave out waiting, so they compare networks on one machine; between machines, or beside other heavy work, they differ."
    )
    timed: ClassVar[bool] = True

    name: Literal["training_time"] = "training_time"


_BY_SIZE = (
    "against the size of the training task: the task's field that is swept (of a distribution, its largest value). Each network has its "
    f"line across the runs that were trained at different sizes. {BESIDE}Small dots are single seeds, large markers their mean, the bar "
    f"through them {INTERVAL}. "
)


class TrainingTimeBySize(Figure):
    """CPU seconds of training against the size it was trained at, for example its delay, a line per network."""

    implementation: ClassVar[str] = "pipeline.figures.by_size:draw_time"
    explanation: ClassVar[str] = (
        f"CPU seconds of a whole training {_BY_SIZE}The scale is logarithmic where values span more than a factor of twenty. CPU seconds "
        "count the work of all threads and leave out waiting and validation, so they compare networks on one machine; between machines, or "
        "beside other heavy work, they differ."
    )
    timed: ClassVar[bool] = True
    sized: ClassVar[bool] = True

    name: Literal["training_time_by_size"] = "training_time_by_size"


class StepsToSolve(Figure):
    """Optimizer steps until validation accuracy first reached a mark, against the size it was trained at; seeds that never did are shown."""

    implementation: ClassVar[str] = "pipeline.figures.by_size:draw_steps"
    explanation: ClassVar[str] = (
        f"Optimizer steps until the first validation whose accuracy reached the mark, {_BY_SIZE}A hollow marker above the panel is a seed "
        "that never got there in the steps it had; the panel ends at the longest training. A mean is drawn only where every seed got "
        "there, since a mean of the fast ones alone would flatter. Steps are counted at validations, so they are no finer than the distance "
        "between two."
    )
    sized: ClassVar[bool] = True

    name: Literal["steps_to_solve"] = "steps_to_solve"
    mark: Literal[50, 90, 99] = Field(
        default=99, description=("Validation accuracy that counts as solved, in %. Lower it if networks do not reach 99.")
    )


class AccuracyAtLongest(PointFigure):
    """Accuracy at the longest delay or largest size, a bar per network with its interval and value, and a line at chance."""

    implementation: ClassVar[str] = "pipeline.figures.accuracy_at_longest:draw"
    explanation: ClassVar[str] = (
        "Symbol accuracy on test rows at the hardest measured point (the largest delay or length, then the largest number of symbols or "
        "pairs), whether training covered it or not, or at the one that the option `at` names; the axis says which. The bar is the mean "
        f"over seeds, each dot a seed, the black line {INTERVAL}, which the numbers on the right repeat. The dashed line is chance: what "
        "guessing without memory scores; a bar that ends there shows no memory, whatever its differences from the others."
    )

    beyond: ClassVar[bool] = True

    name: Literal["accuracy_at_longest"] = "accuracy_at_longest"
    metric: str | None = Field(default=None, description=METRIC)


class Ablations(PointFigure):
    """Accuracy, or another score, at one point: a bar per variant, and its difference to the experiment without it, seed by seed."""

    implementation: ClassVar[str] = "pipeline.figures.ablations:draw"
    explanation: ClassVar[str] = (
        f"The score that the x axis names on test data, at {AT}. The first row is what the others are compared with, the dotted line its "
        f"mean. The bar is the mean over seeds, each dot a seed, the black line {INTERVAL}. The numbers on the right: the mean, then the "
        "difference to the first row, the mean over the seeds that both have of one minus the other, with its 95 % interval over these pairs "
        "(Student's, widened for skew; it assumes that the differences do not split into two groups). A change whose interval includes zero "
        "has no effect that these seeds could show."
    )

    name: Literal["ablations"] = "ablations"
    metric: str | None = Field(default=None, description=METRIC)
    against: str | None = Field(
        default=None,
        description=(
            "Label that the others are compared with; default: the one that is no variant. Set it if there are several, or to compare with "
            "another one."
        ),
    )


class CostQuality(PointFigure):
    """Accuracy against the bytes of state each network carries, swept widths joined, with the Pareto front."""

    version: ClassVar[int] = 2
    implementation: ClassVar[str] = "pipeline.figures.cost_quality:draw"
    explanation: ClassVar[str] = (
        f"Symbol accuracy at {AT}, against the bytes of state that each network carries there from one token to the next; for attention this "
        "is its cache of keys and values, which grows with the row. Large markers are means over seeds, the bars through them "
        f"{INTERVAL}, small dots single seeds; where network.width is swept, a line joins the widths of one network. The grey stairs are "
        "the Pareto front. Up and to the left is better. At 0 bytes is the memoryless control; the dashed line is chance."
    )

    name: Literal["cost_quality"] = "cost_quality"
    metric: str | None = Field(default=None, description=METRIC)


class AccuracyByState(PointFigure):
    """Accuracy against the bits of state each network carries, swept sizes joined, with the bits that the task holds; a panel per layout."""

    version: ClassVar[int] = 2
    implementation: ClassVar[str] = "pipeline.figures.cost_quality:draw_state"
    explanation: ClassVar[str] = (
        f"Accuracy at {AT}, against the bits of state that each network carries there from one token to the next; for attention this is its "
        f"cache of keys and values. Large markers are means over seeds, the bars through them {INTERVAL}, small dots single seeds; where "
        "sizes of the network such as network.width are swept, a line joins them. The dotted upright line, where the task knows it, is what "
        "a row holds that may be asked for: with fewer bits no network that reads the row once can answer everything, however it is "
        "trained; with more it may still fail to learn how. The dashed line is chance. Where task.layout is swept, each layout has its "
        "panel: a network that may search its own row needs to carry less."
    )

    name: Literal["accuracy_by_state"] = "accuracy_by_state"
    metric: str | None = Field(default=None, description=METRIC)


class TuningFigure(Figure):
    """What shows the candidates of a tuned experiment, by their validation results."""

    tuned: ClassVar[bool] = True

    metric: Literal["accuracy", "objective"] = Field(
        default="accuracy",
        description=(
            "Validation result to show: accuracy, or the objective by which values were chosen, such as the validation loss; tasks "
            "without an accuracy always show the objective. Choose the objective to see why a value was chosen."
        ),
    )


class AccuracyByLearningRate(TuningFigure):
    """Validation accuracy of every candidate of a tuned experiment against a tuned key, a line per network, the chosen value marked."""

    implementation: ClassVar[str] = "pipeline.figures.accuracy_by_learning_rate:draw"
    explanation: ClassVar[str] = (
        "All that was tried: the validation result that the y axis names, against the tuned key below the x axis; each network has its "
        "line. Every marker is a candidate, a mean over the seeds that it was tried on, the bar through it, or with many values the band, "
        "the 95 % interval of that mean, small dots are single seeds; candidates tried on one seed have no interval. Networks are moved "
        "sideways a little so that none hides another. Rings mark the chosen values: the best by the validation result that the line below "
        "the figure names, which need not be the best by the one shown. A cross at the bottom is a candidate of which a training diverged; "
        "such candidates are chosen last and have no mean. Where several keys were tuned, each value is shown with the best candidate over "
        "the other keys. A network whose ring is at the edge of the values tried may be better with one that was not. No test data is shown."
    )

    name: Literal["accuracy_by_learning_rate"] = "accuracy_by_learning_rate"
    key: str = Field(
        default="learner.learning_rate",
        description="Tuned key on the x axis, as `tune` names it. Set it to see another one than the learning rate.",
    )


class TuningCost(TuningFigure):
    """Expected best validation accuracy of k random trials of a tuned experiment against k, a line per network."""

    implementation: ClassVar[str] = "pipeline.figures.tuning_cost:draw"
    explanation: ClassVar[str] = (
        "What tuning costs: the best validation result to expect of k candidates drawn at random, with replacement, from those that were "
        "tried (Dodge et al. 2019, `Show Your Work`_), against k; each network has its line. A candidate counts with its mean over the "
        "seeds that it was tried on, one of which a training diverged as the worst value found, of an accuracy 0. A line that is level from "
        "the left needs no tuning; one that still rises on the right may gain from more trials. Where lines cross, which network is "
        "better depends on how much is spent on tuning. No test data is shown.\n\n"
        ".. _Show Your Work: https://arxiv.org/abs/1909.03004"
    )

    name: Literal["tuning_cost"] = "tuning_cost"


FIGURES = collect(globals(), Figure, "recurlab.figures")
if TYPE_CHECKING:
    AnyFigure = Figure
else:
    AnyFigure = union_of(FIGURES)
