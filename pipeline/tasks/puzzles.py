"""Common code of the puzzles whose rows are generated, or made from stored puzzles and their symmetries.

Where a row comes from, by the config's fields:

    origin generated                     generated, and kept if its puzzle's hash belongs to the split
    origin generated, puzzles: N, train  N different generated puzzles, always the same, and their random symmetries
    a list or file, train                its puzzles of the split, or the first N in a fixed random order, and their random symmetries
    a list or file, test, validation     its puzzles of the split as they are, each once; where rows are more, then their first symmetries, ...

The hash is the same for all symmetries of a puzzle. The k-th symmetry of a puzzle depends on the puzzle and k alone.

Notation: B = rows, C = cells of a board in row-major order, T = tokens of a row (= C), P = stored puzzles.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.storage import native
from pipeline.storage.errors import UserError
from pipeline.storage.rng import Key, derive_key, generator
from pipeline.tasks.base import BUCKETS, TARGET, Ragged, Split, TokenTask, in_split, rows_of

RESOURCES = Path(__file__).parents[2] / "resources"
ROUND = 20_000
"""Puzzles generated at a time."""
FURTHER = 1_000
"""Puzzles generated at least to find further different ones."""
AT_ONCE = 20_000
"""Stored puzzles that are checked before the first is used; of more, each is at its first use."""
HOPELESS = 20_000
"""Generated puzzles after which a split without any of them is given up."""


@dataclass(frozen=True)
class Puzzles:
    """Puzzles and their answers as tokens, and one number per puzzle of everything else that is known of them.

    group_B: the stored puzzle's index, or a hash of a generated one. origin_B: index among the categories of the column.
    """

    question_BC: np.ndarray
    answer_BC: np.ndarray
    rating_B: np.ndarray
    group_B: np.ndarray
    origin_B: np.ndarray

    def __len__(self) -> int:
        return len(self.question_BC)

    def take(self, chosen_B: np.ndarray) -> Puzzles:
        """Return those of some indices, or of a mask."""
        return Puzzles(*(values[chosen_B] for values in vars(self).values()))

    @staticmethod
    def joined(parts: list[Puzzles]) -> Puzzles:
        """Concatenate."""
        return Puzzles(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


class PuzzleTask(TokenTask):
    """A task of puzzles. A subclass makes them, transforms them, and knows their rules."""

    most_symmetries: int
    """Symmetries that a puzzle has besides itself, numbered from 1."""
    shares: Mapping[int, float] = {}
    """Share of each origin in training and tests, by index, where stored puzzles are mixed."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pools: dict[Split, np.ndarray] = {}

    def fresh(self, seed_B: np.ndarray) -> Puzzles:
        """Generate one puzzle per 64-bit seed, each a function of its seed."""
        raise NotImplementedError

    def stored(self) -> Puzzles:
        """Return all stored puzzles of the origin; for `generated`, those that `puzzles` limits training to."""
        raise NotImplementedError

    def symmetric(self, question_BC: np.ndarray, number_B: np.ndarray, board_BC: np.ndarray, inverse: bool = False) -> np.ndarray:
        """Apply the symmetry of a number, which may depend on the puzzle, to boards; or undo it. Number 0 leaves a board as it is."""
        raise NotImplementedError

    def split_hash(self, question_BC: np.ndarray) -> np.ndarray:
        """Hash puzzles to 64 bits; all symmetries of a puzzle have the same hash."""
        raise NotImplementedError

    def check_used(self, chosen_P: np.ndarray) -> None:
        """Raise UserError for stored puzzles, by index, that cannot be used, where checking all of them at once takes too long."""

    def text(self, tokens_T: np.ndarray) -> str:
        """Return a puzzle or an answer as people write it."""
        raise NotImplementedError

    def parse(self, text: str, where: str = "puzzle") -> np.ndarray:
        """Return the tokens of a puzzle that someone wrote. Raises UserError, starting with `where`, unless it can be asked."""
        raise NotImplementedError

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments. Every row has the task's own size: `level` bounds nothing else."""
        if level is not None and (column not in (None, "side") or level < self.config.side):
            raise UserError(
                f"{self.config.name}: no row has {column or 'side'} <= {level}, all have side {self.config.side}; expected no curriculum"
            )
        rng = generator(key)
        limited = self.config.puzzles is not None and split == "train"
        if self.config.origin == "generated" and not limited:
            puzzles, number_B = self.draw(rows, rng, split), np.zeros(rows, np.int64)
        else:
            puzzles, number_B = self._from_pool(rows, rng, split)
        return self._batch(puzzles, number_B)

    def draw(self, rows: int, rng: np.random.Generator, split: Split) -> Puzzles:
        """Generate puzzles of a split, by rejection. Raises UserError if none belongs to it."""
        low, high = BUCKETS[split]
        found, missing, made = [self.fresh(np.empty(0, np.uint64))], rows, 0
        while missing > 0:
            count = min(ROUND, int(missing * 110 / (high - low)) + 8)
            puzzles = self.fresh(rng.integers(2**64, size=count, dtype=np.uint64))
            found.append(puzzles.take(np.flatnonzero(in_split(self.split_hash(puzzles.question_BC), split))[:missing]))
            missing, made = missing - len(found[-1]), made + count
            if made >= HOPELESS and missing == rows:
                raise UserError(f"{self.config.name}: none of {made:,} puzzles belongs to the {split} split; expected a larger side")
        return Puzzles.joined(found)

    @functools.cached_property
    def puzzles(self) -> Puzzles:
        """All stored puzzles."""
        return self.stored()

    def pool(self, split: Split) -> np.ndarray:
        """Return the indices of a split's stored puzzles in a fixed random order; of train, as many as `puzzles` says."""
        if split not in self.pools:
            most = self.config.puzzles if split == "train" else None
            order_P = np.flatnonzero(in_split(self.split_hash(self.puzzles.question_BC), split))
            order_P = generator(derive_key("puzzles", "order", split)).permutation(order_P)
            order_P = interleaved(order_P, self.puzzles.origin_B[order_P], self.shares) if self.shares else order_P
            if not len(order_P) or (most or 0) > len(order_P):
                asked = f"got puzzles {most:,}" if most else f"no puzzle of {len(self.puzzles):,} is of the {split} split"
                where = self.config.origin if self.config.is_file else self.config.name
                raise UserError(f"{where}: {asked}; expected {f'at most {len(order_P):,}' if most else 'more of them'}")
            self.pools[split] = order_P[:most]
            if len(self.pools[split]) <= AT_ONCE:
                self.check_used(self.pools[split])
        return self.pools[split]

    def _from_pool(self, rows: int, rng: np.random.Generator, split: Split) -> tuple[Puzzles, np.ndarray]:
        """Draw stored puzzles and the number of each one's symmetry."""
        pool, most = self.pool(split), self.most_symmetries if self.config.symmetries else 0
        if split == "train":
            chosen_B, number_B = pool[rng.integers(len(pool), size=rows)], rng.integers(most + 1, size=rows)
        else:
            number_B, place_B = np.divmod(np.arange(rows), len(pool))
            chosen_B = rng.permutation(pool)[place_B]
            if rows > len(pool) * (most + 1):
                raise UserError(
                    f"{self.config.name}: got {rows:,} {split} rows; expected at most {len(pool) * (most + 1):,}, one for each of the "
                    f"{len(pool):,} puzzles of the split" + (f" and its {most} symmetries" if most else "; symmetries: true allows more")
                )
        self.check_used(np.unique(chosen_B))
        return self.puzzles.take(chosen_B), number_B

    def _batch(self, puzzles: Puzzles, number_B: np.ndarray) -> pa.RecordBatch:
        changed_B = number_B > 0
        tokens_BT, target_BT = puzzles.question_BC.copy(), puzzles.answer_BC.copy()
        for board_BT, given_BC in ((tokens_BT, puzzles.question_BC), (target_BT, puzzles.answer_BC)):
            if changed_B.any():
                board_BT[changed_B] = self.symmetric(puzzles.question_BC[changed_B], number_B[changed_B], given_BC[changed_B])
        rows, cells = tokens_BT.shape
        length_B = np.full(rows, cells)
        known = {"group": puzzles.group_B, "rating": puzzles.rating_B, "origin": puzzles.origin_B, "augmentation": number_B}
        known |= {"identifier": np.zeros(rows, np.int32), "side": np.full(rows, self.config.side)}
        return rows_of(
            tokens=Ragged(tokens_BT.reshape(-1), length_B, True),
            layouts=[bytes([TARGET]) * cells],
            layout_B=np.zeros(rows, np.int64),
            target=Ragged(target_BT.reshape(-1), length_B, True),
            columns={name: known[name] for name in self.config.columns},
            padding=0,
        )

    def group_of(self, question_BC: np.ndarray) -> np.ndarray:
        """Return a number for each generated puzzle that its symmetries share: 31 bits of its hash."""
        return (self.split_hash(question_BC) >> np.uint64(33)).astype(np.int32)

    def limited(self) -> Puzzles:
        """Generate the puzzles that training is limited to: always the same, of the train split, numbered, no two of them symmetric.

        Raises UserError if there are fewer.
        """
        most = self.config.puzzles
        rng, puzzles = generator(derive_key("puzzles", self.config.name, "limited")), self.fresh(np.empty(0, np.uint64))
        while (known := len(puzzles)) < most:
            drawn = Puzzles.joined([puzzles, self.draw(min(max(most - known, FURTHER), ROUND), rng, "train")])
            first_B = np.sort(np.unique(self.split_hash(drawn.question_BC), return_index=True)[1])
            puzzles = drawn.take(first_B)
            if len(puzzles) == known:
                raise UserError(f"{self.config.name}: got puzzles {most:,}; expected at most {known:,}, those that differ up to symmetry")
        numbered = {**vars(puzzles.take(np.arange(most))), "group_B": np.arange(most, dtype=np.int32)}
        return Puzzles(**numbered)


def interleaved(order_P: np.ndarray, origin_P: np.ndarray, shares: Mapping[int, float]) -> np.ndarray:
    """Merge the origins in an order so that every prefix has the given shares of them, as far as the scarcer one lasts."""
    members = {origin: order_P[origin_P == origin] for origin in shares}
    total = min(len(members[origin]) / share for origin, share in shares.items())
    kept = [members[origin][: int(total * share)] for origin, share in shares.items()]
    position = np.concatenate([(np.arange(len(part)) + 0.5) / share for part, share in zip(kept, shares.values(), strict=True)])
    return np.concatenate(kept)[np.argsort(position, kind="stable")]


@functools.cache
def library(source: Path) -> ctypes.CDLL:
    """Load the functions of a task's C file. Raises UserError where they cannot be compiled."""
    try:
        return native.load(source)
    except native.NotAvailable as error:
        raise UserError(f"{source.stem}: its generator is not available: {error}; expected a C compiler, or the container image") from None


def address(array: np.ndarray) -> ctypes.c_void_p:
    """Return the address of a contiguous array as an argument."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def boards_like(boards_BC: np.ndarray, offset: int = 0) -> np.ndarray:
    """Return boards as contiguous bytes, less `offset`."""
    return np.ascontiguousarray(boards_BC.astype(np.uint8) - np.uint8(offset))
