"""Tasks of the recursion family: puzzles on a square grid of cells. Code: `pipeline/tasks/`, one file each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.config.arc_puzzles import ArcSelection, ArcSet, listed, select, shared
from pipeline.config.base import Count, FieldConflict, Rows
from pipeline.config.measurements import read_measurement
from pipeline.config.tasks.base import Column, Evaluation, Glyph, Grid, Task
from pipeline.storage.digest import file_sha256

DESCRIBING: Mapping[str, Column] = {
    "group": Column("puzzle", "the stored puzzle that the row is made from, counted from 0; its symmetries share it", "index", point=False),
    "identifier": Column("identifier", "number of the puzzle and symmetry; 0 where networks read none", "index", point=False),
    "augmentation": Column("symmetry", "0 the puzzle as it is, k its k-th random symmetry", "index", point=False),
    "rating": Column(
        "rating", "how hard the puzzle is: digits that a solver tries, moves of a path, or as its file says", "steps", point=False
    ),
}
"""Columns of every puzzle that describe a row and are not coordinates of a point."""


MOST_STEPS = 100_000
"""Supervision steps that can be measured at most."""


def _not_endless(steps: list[int]) -> list[int]:
    if steps and max(steps) > MOST_STEPS:
        raise ValueError(f"got {max(steps):,} supervision steps; expected at most {MOST_STEPS:,}")
    return steps


Steps = Annotated[Grid, AfterValidator(_not_endless)]
"""Numbers of supervision steps."""


class PuzzleEvaluation(Evaluation):
    """A puzzle is measured after each of these numbers of supervision steps. A network without recursion answers alike at all of them."""

    supervision: Steps = Field(
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
        """By the task's kind with these settings, unless another is named."""
        return read_measurement({"name": task.measurement, **self._settings}) if self.measurement is None else self.measurement

    @property
    def _settings(self) -> dict[str, Any]:
        """Those that are not the defaults."""
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) != type(self).model_fields[name].default}

    @model_validator(mode="after")
    def _settings_once(self) -> PuzzleEvaluation:
        settings = self._settings
        if self.measurement is not None and settings:
            raise FieldConflict(
                f"got {' and '.join(settings)} beside a measurement; expected its settings within it", "measurement", *settings
            )
        return self


SETTINGS = ("supervision", "chains", "noise", "choose", "halt")
"""Fields of an evaluation that are settings of the measurements of puzzles."""


class Puzzle(Task):
    """A puzzle on a square grid: every cell has a token, and an answer at the same place."""

    grid: ClassVar[bool] = True
    measurement: ClassVar[str] = "puzzles"
    evaluation: ClassVar[type[Evaluation]] = PuzzleEvaluation


MOST_PUZZLES = 1_000_000
"""Most different puzzles that training may be limited to: they are made at once and kept in memory."""


class StoredPuzzle(Puzzle):
    """A puzzle whose rows are generated, or made from stored puzzles: lists that are part of this repository, or a user's file."""

    named: ClassVar[tuple[str, ...]] = ("generated",)
    """The values of `origin` that are not files."""

    origin: str = Field(default="generated", description="Where puzzles come from: generated, or the path of a csv file.")
    sha256: str | None = Field(
        default=None,
        validate_default=True,
        description=(
            "SHA-256 of the file that origin names; default: computed from it, so that results never mix two versions. Set it to "
            "refuse any file but one."
        ),
    )
    puzzles: Annotated[Count, Field(le=MOST_PUZZLES)] | None = Field(
        default=None,
        description=(
            "Number of different puzzles in training, before symmetries; default: all there are, without end if generated. Set "
            "it to 1000 as published, or sweep it to see how many are enough."
        ),
    )
    symmetries: bool = Field(
        default=True,
        description=(
            "Train on random symmetries of stored puzzles too, as published; puzzles generated without end need none. Turn it "
            "off to see how much they add."
        ),
    )

    @field_validator("sha256")
    @classmethod
    def _of_the_file(cls, given: str | None, info: ValidationInfo) -> str | None:
        origin = info.data.get("origin")
        if origin is None or given is None:
            return None if origin is None else cls.file_digest(origin)
        if origin in cls.named:
            raise FieldConflict(f"got a SHA-256 with origin {origin}; expected it with a file only", "sha256")
        if not re.fullmatch("[0-9a-f]{64}", given):
            raise ValueError(f"got {given!r}; expected 64 hexadecimal digits")
        return given

    @classmethod
    def file_digest(cls, origin: str) -> str | None:
        """The SHA-256 of a file; None for a named origin. Raises FieldConflict where there is no such file."""
        if origin in cls.named:
            return None
        try:
            return file_sha256(Path(origin))
        except OSError:
            expected = f"expected {', '.join(cls.named)} or the path of a csv file, relative to the working folder"
            raise FieldConflict(f"got {origin!r}, which is no file; {expected}", "origin") from None

    @property
    def is_file(self) -> bool:
        """Whether puzzles come from a user's file."""
        return self.origin not in self.named

    def variant(self, **fields: Any) -> Task:
        """The same task with these fields fixed; another origin with its own SHA-256."""
        if fields.get("origin", self.origin) != self.origin:
            fields["sha256"] = self.file_digest(fields["origin"])
        return super().variant(**fields)

    @property
    def chance(self) -> float:
        """Nobody guesses every cell of a puzzle."""
        return 0.0


class SudokuEvaluation(PuzzleEvaluation):
    """Sudoku is measured on puzzles of each of these origins, trained on or not."""

    origins: list[str] = Field(
        default=[],
        description=(
            "Sources of puzzles to measure, as in the task; default: the task's. Add hard to see whether what was learned on generated puzzles "
            "is enough for those that need search."
        ),
    )

    def points(self, task: Any) -> list[Any]:
        """One task per origin."""
        files = [origin for origin in self.origins if origin not in task.named]
        lists = {"mix", "hard", "clues17"} & set(self.origins)
        if len(set(self.origins)) < len(self.origins) or len(files) > 1 or (len(lists) > 1 and "mix" in lists):
            raise FieldConflict(f"got {self.origins}; expected different origins, at most one file, and mix without its parts", "origins")
        return [task.variant(origin=origin) for origin in self.origins] or [task]


ORIGINS = ("generated", "hard", "clues17", "mix")
BLANKS = {"hard": 0.709, "clues17": 64 / 81, "mix": 0.738}
"""Mean share of blank cells of the stored lists."""
GENERATED_BLANKS = {4: 0.730, 6: 0.719, 9: 0.699}
"""Mean share of blank cells of generated puzzles by side, measured on 20,000."""


PAPER = "#ffffff"


class Sudoku(StoredPuzzle):
    """Fill a Sudoku so that every row, column and box has every digit once. The published task is `origin: hard` or `mix` with `puzzles: 1000`.

    A row's tokens are the puzzle, its labels the solution, cell by cell: 0 padding, 1 blank, 2 and up the digits. Accuracy is the share of
    puzzles that are solved.
    """

    implementation: ClassVar[str] = "pipeline.tasks.sudoku:Sudoku"
    source: ClassVar[str] = "Wang et al. 2025, Hierarchical reasoning model: arXiv:2506.21734; Jolicoeur-Martineau 2025: arXiv:2510.04871"
    evaluation: ClassVar[type[Evaluation]] = SudokuEvaluation
    named: ClassVar[tuple[str, ...]] = ORIGINS
    glyphs: ClassVar[tuple[Glyph, ...]] = (Glyph(PAPER), Glyph(PAPER), *(Glyph(PAPER, str(digit)) for digit in range(1, 10)))
    boxes: ClassVar[Mapping[int, tuple[int, int]]] = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
    columns: ClassVar[Mapping[str, Column]] = {
        "origin": Column("origin", "where the puzzle comes from", categories=("generated", "hard", "clues17", "file")),
        **DESCRIBING,
    }

    name: Literal["sudoku"] = "sudoku"
    side: Literal[4, 6, 9] = Field(
        default=9, description="Cells per side; boxes are 2x2, 2x3 and 3x3. Choose 4 or 6 for quick experiments."
    )
    origin: str = Field(
        default="generated",
        description=(
            "generated: minimal puzzles, most of them easy; hard: 50,475 that need search; clues17: 49,158 with 17 clues; mix: "
            "64 % hard, 36 % clues17, like Sudoku-Extreme; or a csv file with columns question and answer. Choose hard to test "
            "reasoning."
        ),
    )

    def check(self) -> None:
        """The lists have puzzles of side 9."""
        if self.side != 9 and self.origin in self.named[1:]:
            raise FieldConflict(f"got origin {self.origin} and side {self.side}; expected side 9, or origin generated", "origin", "side")

    @property
    def vocabulary(self) -> int:
        """Padding, blank, digits."""
        return self.side + 2

    @property
    def classes(self) -> int:
        """Labels are tokens."""
        return self.side + 2

    @property
    def longest(self) -> int:
        """Every cell."""
        return self.side**2

    @property
    def baseline(self) -> float:
        """A given is its own answer, and any digit may stand in a blank: their mean share times the entropy of a digit."""
        return BLANKS.get(self.origin, GENERATED_BLANKS[self.side]) * math.log(self.side)

    @property
    def overlap(self) -> str:
        """Puzzles of side 4 are too few to be kept apart up to symmetry."""
        if self.side > 4:
            return ""
        return "No puzzle is in two splits, nor with its digits renamed; turned or rearranged it may be, as only 36 of side 4 differ up to symmetry."


class MazeEvaluation(PuzzleEvaluation):
    """Mazes are measured at each of these sides, trained on or not."""

    sides: Grid = Field(
        default=[],
        description="Sides to measure; default: the task's. Add larger ones to see whether a network generalizes to longer paths.",
    )

    def points(self, task: Any) -> list[Any]:
        """One task per side."""
        if self.sides and task.is_file:
            raise FieldConflict(f"got sides {self.sides} with mazes of a file; expected no sides, its mazes have one", "sides")
        return [task.variant(side=side) for side in self.sides] or [task]


SMALLEST_MAZE, LARGEST_MAZE = 5, 128


class Maze(StoredPuzzle):
    """Mark the shortest path through a maze, or every cell that can be reached. Mazes as hard as the published ones have `side: 30, min_path: 111`.

    A row's tokens are the cells: 0 padding, 1 wall, 2 open, 3 start, 4 goal; its labels are the same with 5 on every marked cell.
    Accuracy is the share of mazes answered by the label, one of the shortest paths; valid answers may mark any of them.
    """

    implementation: ClassVar[str] = "pipeline.tasks.maze:Maze"
    source: ClassVar[str] = "Wang et al. 2025, Hierarchical reasoning model: arXiv:2506.21734"
    evaluation: ClassVar[type[Evaluation]] = MazeEvaluation
    glyphs: ClassVar[tuple[Glyph, ...]] = (
        Glyph(PAPER),
        Glyph("#3b3b3b", name="wall"),
        Glyph("#efefef"),
        Glyph("#009e73", name="start"),
        Glyph("#e69f00", name="goal"),
        Glyph("#56b4e9", name="marked"),
    )
    columns: ClassVar[Mapping[str, Column]] = {"side": Column("side", "cells per side", "cells"), **DESCRIBING}

    name: Literal["maze"] = "maze"
    side: int = Field(
        default=9,
        ge=SMALLEST_MAZE,
        le=LARGEST_MAZE,
        description="Cells per side, walls included; 30 as published. Raise it for longer paths.",
    )
    walls: Literal["perfect", "percolation"] = Field(
        default="perfect",
        description=(
            "perfect: passages form a tree, so there is one path; percolation: random walls on 30 to 50 % of the cells, as in "
            "Maze-Hard, and paths are seldom unique. Choose percolation to compare with published results."
        ),
    )
    asks: Literal["path", "reach"] = Field(
        default="path",
        description=(
            "path: mark the shortest path from start to goal; reach: mark every cell that can be reached from the start. Choose "
            "reach for a problem that needs depth but no choice."
        ),
    )
    min_path: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description=(
            "Moves that the shortest path has at least; with asks: reach, the path to the farthest cell. Raise it for harder mazes: 111 with "
            "side 30 is as hard as Maze-Hard."
        ),
    )
    origin: str = Field(
        default="generated",
        description=(
            "Where mazes come from: generated, or the path of a csv file with columns question and answer, such as Maze-Hard's. "
            "Set it to train on published mazes."
        ),
    )

    def check(self) -> None:
        """Some maze has such a path; cells are cut off by percolation only; a file's mazes are as they are."""
        if not SMALLEST_MAZE <= self.side <= LARGEST_MAZE:
            raise FieldConflict(f"got side {self.side}; expected {SMALLEST_MAZE} to {LARGEST_MAZE}", "side")
        if self.asks == "reach" and self.walls == "perfect" and not self.is_file:
            raise FieldConflict(
                "every cell of a perfect maze can be reached; expected walls: percolation with asks: reach", "asks", "walls"
            )
        if self.is_file and self.min_path > 1:
            raise FieldConflict(
                f"got min_path {self.min_path} with mazes of a file, which are as they are; expected no min_path", "min_path"
            )
        most = 2 * self.side**2 // 3  # a path that is the shortest between its ends passes no cell beside one it passed before
        if self.min_path > most and not self.is_file:
            raise FieldConflict(f"got min_path {self.min_path} with side {self.side}; expected at most {most} moves", "min_path", "side")

    @property
    def vocabulary(self) -> int:
        """Padding, wall, open, start, goal, marked."""
        return 6

    @property
    def classes(self) -> int:
        """Labels are tokens."""
        return 6

    @property
    def longest(self) -> int:
        """Every cell."""
        return self.side**2

    @property
    def baseline(self) -> float:
        """An upper bound: an open cell is marked or not, one bit at most; every other cell is its own answer."""
        rooms = (self.side + 1) // 2
        tree = (2 * rooms**2 - 1) / self.side**2
        return math.log(2) * (tree if self.walls == "perfect" and not self.is_file else 0.65)


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


COLOURS = ("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25")
"""The ten colours as the puzzles are usually shown."""


class Arc(Puzzle):
    """Puzzles of coloured grids: from a few demonstrations of a rule to the output of a further input.

    The network learns each puzzle's rule in training, as published: its demonstrations are training rows, also those of the measured
    puzzles, whose test pairs are the test rows. A learned identifier of the puzzle and its symmetry is all that says which rule to apply.
    """

    implementation: ClassVar[str] = "pipeline.tasks.arc:Arc"
    source: ClassVar[str] = (
        "Chollet 2019 (arXiv 1911.01547); Moskvichev et al. 2023 (ConceptARC); ARC-AGI-2 2025; rows as in Wang et al. 2025"
    )
    measurement: ClassVar[str] = "arc_votes"
    evaluation: ClassVar[type[Evaluation]] = ArcEvaluation
    glyphs: ClassVar[tuple[Glyph, ...]] = tuple(map(Glyph, (PAPER, "#d9d9d9", *COLOURS)))
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
    def published(self) -> str:
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
