"""ARC: from an input grid to its output, by the rule of a puzzle that training has shown. A row of a side of 4, of puzzle 7 as it is:

    input      tokens             labels             role
    3 0 7      5 2 9 1 2 5 9 1    9 2 5 1 9 5 2 1    t t t t t t t t      t: target, every cell of the output and its end
    0 3 7      1 1 1 0 0 0 0 0    1 1 1 . . . . .    t t t . . . . .
                                                        identifier 1 + 7 * 1001

A row of training shows the input of one pair, the labels its output; both under one random symmetry of the puzzle, and moved to one random
place. Rows of tests are not moved.

Notation: B = rows, S = cells per side, T = S * S cells, P = puzzles.
"""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.arc_puzzles import ArcPuzzle
from pipeline.config.tasks.puzzles import Arc as Config
from pipeline.storage.errors import UserError
from pipeline.storage.rng import Key, generator
from pipeline.tasks.arc_grids import END, FIRST_COLOUR, PADDING, TURNS, encode, extents, read_grid, read_set, seed_of, symmetries
from pipeline.tasks.base import PROMPT, TARGET, Ragged, Split, TokenTask, rows_of

CHUNK = 256
"""Rows whose cells are computed at a time, few enough for the cache."""


class Grids(NamedTuple):
    """Grids of different sizes in one array: where each starts in `cells`, and its height and width."""

    cells: np.ndarray
    start: np.ndarray
    height: np.ndarray
    width: np.ndarray

    @classmethod
    def of(cls, grids: list[np.ndarray]) -> Grids:
        """Concatenate grids."""
        height, width = (np.array([grid.shape[axis] for grid in grids]) for axis in range(2))
        sizes = height * width
        return cls(np.concatenate([grid.ravel() for grid in grids]), np.cumsum(sizes) - sizes, height, width)

    def grid(self, index: int) -> np.ndarray:
        """Return one grid."""
        start, height, width = self.start[index], self.height[index], self.width[index]
        return self.cells[start : start + height * width].reshape(height, width)

    def tokens(self, index_B: np.ndarray, turn_B: np.ndarray, colours_BC: np.ndarray, corner_B2: np.ndarray, side: int) -> np.ndarray:
        """Return the tokens of grids under a symmetry each, with the top left cell at `corner_B2`: (B, S, S) uint8."""
        transposed_B, flip_rows_B, flip_columns_B = TURNS[turn_B].T
        height_B, width_B = self.height[index_B], self.width[index_B]
        row_BS, column_BS = (np.arange(side) - corner_B2[:, axis, None] for axis in range(2))

        def offset(x_BS: np.ndarray, is_row_B: np.ndarray) -> np.ndarray:
            """What a coordinate adds to the place of the source's cell: `is_row_B` as the source's row, elsewhere as its column."""
            last_B = np.where(is_row_B, height_B, width_B) - 1
            flip_B, step_B = np.where(is_row_B, flip_rows_B, flip_columns_B), np.where(is_row_B, width_B, 1)
            return (np.where(flip_B[:, None], last_B[:, None] - x_BS, x_BS) * step_B[:, None]).astype(np.int32)

        start_B = self.start[index_B].astype(np.int32)
        place_BSS = (start_B[:, None] + offset(row_BS, ~transposed_B))[:, :, None] + offset(column_BS, transposed_B)[:, None]

        turned = np.where(transposed_B, (width_B, height_B), (height_B, width_B))[:, :, None]
        inside = [(axis_BS >= 0) & (axis_BS < size) for axis_BS, size in zip((row_BS, column_BS), turned, strict=True)]
        after = [axis_BS == size for axis_BS, size in zip((row_BS, column_BS), turned, strict=True)]
        inside_BSS = inside[0][:, :, None] & inside[1][:, None]
        end_BSS = (after[0][:, :, None] & inside[1][:, None]) | (inside[0][:, :, None] & after[1][:, None])

        tokens_BSS = np.where(end_BSS, np.uint8(END), np.uint8(PADDING))
        cells = self.cells[place_BSS[inside_BSS]]
        row = np.repeat(np.arange(len(index_B)) * colours_BC.shape[1], height_B * width_B)
        tokens_BSS[inside_BSS] = (colours_BC + FIRST_COLOUR).astype(np.uint8).ravel()[row + cells]
        return tokens_BSS


class Pairs(NamedTuple):
    """The pairs of all puzzles, each puzzle's test pairs before its demonstrations.

    first_P: the first pair of each puzzle. tests_P, demonstrations_P: how many it has. seed_P: of its symmetries.
    """

    inputs: Grids
    outputs: Grids
    first_P: np.ndarray
    tests_P: np.ndarray
    demonstrations_P: np.ndarray
    seed_P: np.ndarray


@functools.lru_cache(maxsize=8)
def read_pairs(puzzles: tuple[ArcPuzzle, ...]) -> Pairs:
    """Read the pairs of puzzles. Raises MissingFileError or CorruptFileError."""
    pairs = [pair for puzzle in puzzles for part in ("test", "train") for pair in read_set(puzzle.set)[puzzle.name][part]]
    inputs, outputs = (Grids.of([np.array(pair[end], np.uint8) for pair in pairs]) for end in ("input", "output"))
    tests_P, demonstrations_P = (np.array([getattr(puzzle, count) for puzzle in puzzles]) for count in ("tests", "demonstrations"))
    count_P = tests_P + demonstrations_P
    seed_P = np.array([seed_of(puzzle.name) for puzzle in puzzles], np.uint64)
    return Pairs(inputs, outputs, np.cumsum(count_P) - count_P, tests_P, demonstrations_P, seed_P)


class Arc(TokenTask):
    """Generator of the task."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.side = config.side

    @functools.cached_property
    def pairs(self) -> Pairs:
        """The pairs of all puzzles."""
        return read_pairs(self.config.selection.puzzles)

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the puzzles, by the column `group`."""
        return [puzzle.name for puzzle in self.config.selection.puzzles]

    def listed(self, split: Split) -> list[tuple[int, int]]:
        """Return puzzle and test pair of every question of validation or test, in the order of their rows: puzzles by their hashes."""
        chosen = self.config.selection
        split_puzzles = [
            (puzzle.hash, group, puzzle.tests)
            for group, puzzle in enumerate(chosen.puzzles)
            if (group < len(chosen.measured) if split == "test" else group >= len(chosen.measured) and puzzle.held_out)
        ]
        return [(group, pair) for _, group, tests in sorted(split_puzzles) for pair in range(tests)]

    def solutions(self, split: Split = "test") -> dict[tuple[int, int], np.ndarray]:
        """Return the output grid of every test pair, by puzzle and pair."""
        return {(group, pair): self.solution(group, pair) for group, pair in self.listed(split)}

    def solution(self, group: int, pair: int) -> np.ndarray:
        """Return the output grid of a pair, by the columns of its rows."""
        return self.pairs.outputs.grid(self.pairs.first_P[group] + pair)

    def available(self, split: Split) -> int | None:
        """Test pairs x votes; of validation, test pairs x all symmetries."""
        return {"train": None, "validation": self.config.validation_rows, "test": self.config.test_rows}[split]

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows of training: a puzzle, one of its symmetries, one of its pairs, each uniformly; or list the first of another split.

        Of the pairs of a puzzle, one on average is not moved, as published. Raises UserError for a level, or for more rows than are listed.
        """
        if level is not None:
            raise UserError(f"arc: rows have no order by {column}; expected no curriculum")
        if split != "train":
            return self.rows_from(0, rows, key, split)
        rng, pairs = generator(key), self.pairs
        group_B, k_B = rng.integers(len(pairs.first_P), size=rows), rng.integers(self.config.augmentations + 1, size=rows)
        hidden_B = np.where(self._hidden_P, pairs.tests_P, 0)[group_B]
        count_B = (pairs.tests_P + pairs.demonstrations_P)[group_B] - hidden_B
        pair_B = hidden_B + rng.integers(count_B)
        moved_B2 = rng.random((rows, 2)) * (rng.random((rows, 1)) * count_B[:, None] >= 1)
        return self._rows(group_B, k_B, pair_B, moved_B2)

    @functools.cached_property
    def _hidden_P(self) -> np.ndarray:
        """Which puzzles' test pairs are not trained on."""
        chosen = self.config.selection
        return np.array([group < len(chosen.measured) or puzzle.held_out for group, puzzle in enumerate(chosen.puzzles)])

    def rows_from(self, start: int, rows: int, key: Key, split: Split) -> pa.RecordBatch:
        """Generate rows `start`.. of a dataset. A test lists pair by pair, with all its votes; validation symmetry by symmetry, with all pairs.

        Raises UserError for more rows than there are.
        """
        if split == "train":
            return self.generate(rows, key)
        most = self.available(split)
        assert most is not None
        questions = np.array(self.listed(split))
        symmetric = self.config.votes if split == "test" else self.config.augmentations + 1
        if start + rows > most:
            message = f"arc: {start + rows} {split} rows; expected at most {most}: {len(questions)} test pairs x {symmetric} symmetries"
            raise UserError(message)
        index_B = np.arange(start, start + rows)
        question_B, k_B = np.divmod(index_B, symmetric) if split == "test" else np.divmod(index_B, len(questions))[::-1]
        group_B, pair_B = questions[question_B].T
        return self._rows(group_B, k_B, pair_B, np.zeros((rows, 2)))

    def _rows(self, group_B: np.ndarray, k_B: np.ndarray, pair_B: np.ndarray, moved_B2: np.ndarray) -> pa.RecordBatch:
        """Make rows of pairs under a symmetry each; `moved_B2`, 0..1: how far of what the larger grid leaves."""
        pairs, side, rows = self.pairs, self.side, len(group_B)
        index_B = pairs.first_P[group_B] + pair_B
        turn_B, colours_BC = symmetries(pairs.seed_P[group_B], k_B)
        sizes_B = [np.maximum(*(getattr(grids, axis)[index_B] for grids in (pairs.inputs, pairs.outputs))) for axis in ("height", "width")]
        height_B, width_B = np.where(TURNS[turn_B, 0], sizes_B[::-1], sizes_B)
        corner_B2 = (moved_B2 * (side + 1 - np.stack([height_B, width_B], axis=1))).astype(np.int64)
        tokens, labels = np.empty((rows, side, side), np.uint16), np.empty((rows, side, side), np.uint8)
        for first in range(0, rows, CHUNK):
            some = slice(first, first + CHUNK)
            for grids, made in ((pairs.inputs, tokens), (pairs.outputs, labels)):
                made[some] = grids.tokens(index_B[some], turn_B[some], colours_BC[some], corner_B2[some], side)
        scored = labels != PADDING
        turned = [np.where(TURNS[turn_B, 0], pairs.outputs.width[index_B], pairs.outputs.height[index_B])]
        turned += [pairs.outputs.height[index_B] + pairs.outputs.width[index_B]]
        place_B = functools.reduce(lambda code, part: code * (2 * side + 1) + part, [*corner_B2.T, *turned])
        _, example, layout_B = np.unique(place_B, return_index=True, return_inverse=True)
        roles = np.where(scored[example], np.uint8(TARGET), np.uint8(PROMPT))
        identifier_B = 1 + group_B * (self.config.augmentations + 1) + k_B if self.config.puzzle_identifiers else np.zeros(rows)
        return rows_of(
            tokens=Ragged(tokens.ravel(), np.full(rows, side**2), True),
            layouts=[layout.tobytes() for layout in roles],
            layout_B=layout_B,
            target=Ragged(labels[scored].astype(np.uint16), scored.sum(axis=(1, 2)), False),
            columns={
                "group": group_B,
                "identifier": identifier_B,
                "augmentation": k_B,
                "rating": pairs.demonstrations_P[group_B],
                "pair": pair_B,
            },
            padding=PADDING,
        )

    def valid(self, tokens_BT: np.ndarray, answer_BT: np.ndarray, label_BT: np.ndarray | None = None) -> np.ndarray:
        """Return whether the grid in the top left corner of each answer is that of the labels; there is no rule to check it by."""
        assert label_BT is not None, "there are no rules to check by"
        size_B, wanted_B = np.stack(extents(answer_BT)), np.stack(extents(label_BT))
        row_T, column_T = np.divmod(np.arange(self.side**2), self.side)
        outside_BT = (row_T >= wanted_B[0, :, None]) | (column_T >= wanted_B[1, :, None])
        return (size_B == wanted_B).all(axis=0) & ((answer_BT == label_BT) | outside_BT).all(axis=1) & (wanted_B[0] > 0)

    def text(self, tokens_T: np.ndarray) -> str:
        """Return a row of tokens as lines of digits, one per colour: the part with colours; `.` for a cell without one."""
        colours = tokens_T.reshape(self.side, self.side).astype(np.int64) - FIRST_COLOUR
        rows, columns = (np.flatnonzero((colours >= 0).any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return "."
        part = colours[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return "\n".join("".join(str(cell) if cell >= 0 else "." for cell in line) for line in part.tolist())

    def parse(self, text: str, where: str = "arc") -> np.ndarray:
        """Return the tokens of the test inputs of one puzzle in ARC's JSON, `{"train": [...], "test": [{"input": grid}, ...]}`: (N, T) uint16.

        A puzzle that was not trained on has no identifier: networks then read 0, and its demonstrations do not reach them.
        Raises UserError, one line.
        """
        try:
            puzzle: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); expected one puzzle") from None
        train, test = (puzzle.get(part) if isinstance(puzzle, dict) else None for part in ("train", "test"))
        if (
            not isinstance(train, list)
            or not isinstance(test, list)
            or not test
            or not all(isinstance(pair, dict) for pair in train + test)
        ):
            raise UserError(
                f'{where}: expected a puzzle, {{"train": [{{"input": grid, "output": grid}}, ...], "test": [{{"input": grid}}, ...]}}'
            )
        for index, pair in enumerate(train):
            for end in ("input", "output"):
                read_grid(pair.get(end), f"{where}: train {index} {end}", self.side)
        inputs = [read_grid(pair.get("input"), f"{where}: test {index} input", self.side) for index, pair in enumerate(test)]
        return np.stack([encode(grid, self.side) for grid in inputs])
