"""Tasks of the recursion family: puzzles on a square grid of cells. Code: `pipeline/tasks/`, one file each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from pipeline.config.arc_puzzles import ArcSelection, ArcSet, listed, select, shared
from pipeline.config.base import FieldConflict, Rows
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


class Puzzle(Task):
    """A puzzle on a square grid: every cell has a token, and an answer at the same place."""

    grid: ClassVar[bool] = True
    measurement: ClassVar[str] = "puzzles"
    evaluation: ClassVar[type[Evaluation]] = PuzzleEvaluation


class ArcEvaluation(PuzzleEvaluation):
    """ARC is measured on the test pairs of one set of puzzles; symmetries of a pair vote on its answer."""

    rows: Rows | None = Field(
        default=None,
        description="Test rows: votes x test pairs, in whole puzzles first; default: all there are. Lower it for a quick look.",
    )
    votes: int | None = Field(
        default=None,
        ge=1,
        le=100_001,
        description=(
            "Symmetries of each test pair that are answered and vote on its answer, the pair as it is among them; default: the task's. "
            "Raise it for accuracy; published results have 1001."
        ),
    )

    def points(self, task: Any) -> list[Any]:
        """The task with so many votes. Raises FieldConflict for more rows than there are."""
        measured = task.variant(votes=self.votes or task.votes)
        if self.rows is not None and self.rows > measured.test_rows:
            pairs = measured.selection.test_pairs
            raise FieldConflict(f"got {self.rows} rows; expected at most {measured.test_rows}: {pairs} test pairs x {measured.votes} votes")
        return [measured]

    def rows_of(self, task: Any) -> int:
        """By default, every test pair with all its votes."""
        return self.rows or task.test_rows


def _in_order(sets: list[ArcSet]) -> list[ArcSet]:
    if len(set(sets)) < len(sets):
        raise ValueError(f"got {', '.join(sets)}; expected different sets")
    return sorted(sets, key=get_args(ArcSet).index)


class Arc(Puzzle):
    """Puzzles of coloured grids: from a few demonstrations of a rule to the output of a further input.

    The network learns each puzzle's rule in training, as published: its demonstrations are training rows, also those of the measured
    puzzles, whose test pairs are the test rows. A learned identifier of the puzzle and its symmetry is all that says which rule to apply.
    """

    implementation: ClassVar[str] = "pipeline.tasks.arc:Arc"
    source: ClassVar[str] = (
        "Chollet 2019 (arXiv 1911.01547); Moskvichev et al. 2023 (ConceptARC); ARC-AGI-2 2025; rows as in Wang et al. 2025"
    )
    evaluation: ClassVar[type[Evaluation]] = ArcEvaluation
    columns: ClassVar[Mapping[str, Column]] = {
        **DESCRIBING,
        "rating": Column("demonstrations", "demonstration pairs of the puzzle", "pairs", point=False),
        "pair": Column("pair", "which of the puzzle's pairs: its test pairs counted from 0, then its demonstrations", point=False),
    }

    name: Literal["arc"] = "arc"
    training_sets: Annotated[list[ArcSet], AfterValidator(_in_order)] = Field(
        default=["arc1_training", "concept"],
        min_length=1,
        description=(
            "Sets whose puzzles are trained on, besides the demonstrations of test_set. Use arc2_training and concept to measure arc2_evaluation."
        ),
    )
    test_set: ArcSet = Field(
        default="arc1_evaluation",
        description="The set whose test pairs are measured; it shares no puzzle with training_sets. Change it together with them.",
    )
    augmentations: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description=(
            "Random symmetries of each puzzle besides the puzzle as it is: a rotation or reflection, and a permutation of the colours 1..9. "
            "Lower it to train fewer identifiers."
        ),
    )
    puzzle_identifiers: bool = Field(
        default=True,
        description=(
            "Whether networks read a learned identifier of the puzzle and its symmetry; nothing else says which rule to apply. "
            "Turn it off to see what it is worth."
        ),
    )
    votes: int = Field(
        default=1, ge=1, le=100_001, description="Symmetries of each test pair among the test rows. Set evaluate.votes rather than this."
    )
    side: int = Field(
        default=30,
        ge=3,
        le=30,
        description="Cells per side of a row; puzzles with a larger grid are left out. Lower it to train in minutes, for example to 10.",
    )

    def check(self) -> None:
        """The measured set shares no puzzle with those trained on, and every split has rows. Raises FieldConflict."""
        if self.test_set in self.training_sets:
            raise FieldConflict(f"got {self.test_set} as both; its demonstrations are trained on anyway", "training_sets", "test_set")
        for name in self.training_sets:
            if common := shared(name, self.test_set):
                message = f"{common} of the {len(listed()[self.test_set])} puzzles of {self.test_set} are in {name} too"
                raise FieldConflict(f"{message}; expected sets without a puzzle in common", "training_sets", "test_set")
        if self.votes > self.augmentations + 1:
            message = f"got {self.votes} votes of {self.augmentations} augmentations and the puzzle as it is"
            raise FieldConflict(f"{message}; expected at most {self.augmentations + 1}", "votes", "augmentations")
        for count, what in ((self.selection.test_pairs, "test_set"), (self.selection.validation_pairs, "training_sets")):
            if not count:
                split = "test" if what == "test_set" else "validation"
                raise FieldConflict(f"no {split} row has grids of at most {self.side} x {self.side}; expected a larger side", "side", what)

    @property
    def selection(self) -> ArcSelection:
        """The puzzles it is made of."""
        return select(tuple(self.training_sets), self.test_set, self.side)

    @property
    def test_rows(self) -> int:
        """Test pairs x votes."""
        return self.selection.test_pairs * self.votes

    @property
    def validation_rows(self) -> int:
        """Test pairs of held-out puzzles x all symmetries."""
        return self.selection.validation_pairs * (self.augmentations + 1)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The identifier, unless it is switched off."""
        return ("identifier",) if self.puzzle_identifiers else ()

    @property
    def identifiers(self) -> int:
        """Puzzles x symmetries, after 0 for none."""
        return 1 + len(self.selection.puzzles) * (self.augmentations + 1) if self.puzzle_identifiers else 0

    @property
    def vocabulary(self) -> int:
        """Padding, end of the grid, ten colours."""
        return 12

    @property
    def classes(self) -> int:
        """The same tokens; padding is never a label."""
        return 12

    @property
    def longest(self) -> int:
        """Every row is a whole square."""
        return self.side**2

    @property
    def chance(self) -> float:
        """Whole grids are never guessed."""
        return 0.0

    @property
    def baseline(self) -> float:
        """A uniform guess, in nats per cell; a better one needs the puzzles."""
        return math.log(self.classes)

    @property
    def origin(self) -> str:
        """The published sets and their licences."""
        of = {
            "concept": "ConceptARC (github.com/victorvikram/ConceptARC, MIT)",
            "arc1": "ARC-AGI-1 (github.com/fchollet/ARC-AGI, Apache-2.0)",
            "arc2": "ARC-AGI-2 (github.com/arcprize/ARC-AGI-2, Apache-2.0)",
        }
        origins = sorted({of[name.partition("_")[0]] for name in (*self.training_sets, self.test_set)})
        return f"The rows are symmetries of published puzzles, under the licences of these: {', '.join(origins)}."

    @property
    def overlap(self) -> str:
        """How often a test pair is as good as known from training."""
        chosen = self.selection
        repeated = sum(puzzle.repeated for puzzle in chosen.measured)
        facts = [
            "Demonstrations of the test puzzles are trained on, as published; no test pair is.",
            f"{repeated} of {chosen.test_pairs} test pairs are a symmetry of a demonstration of their puzzle." if repeated else "",
            f"{chosen.twins} puzzles of the training sets are left out: they share a pair with another puzzle." if chosen.twins else "",
            f"{chosen.left_out} puzzles are left out: they have a grid larger than {self.side} x {self.side}." if chosen.left_out else "",
        ]
        return " ".join(filter(None, facts))
