"""Drawing the pairs of associative recall: keys, values, the order they stand in, and the split that a row belongs to.

Shapes: B rows, N keys of the largest row, K words of a key, M pairs of the largest row, second ones included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.base import largest
from pipeline.config.tasks.memory import Mqar, grid_side
from pipeline.tasks.base import Split, in_split, mix


class Pairs(NamedTuple):
    """Pairs of some rows: key i has its value in column i of the values, its second one, if any, in column pairs + i."""

    key_BNK: np.ndarray
    value_BM: np.ndarray
    place_BM: np.ndarray
    """Which pair of its row each value stands in."""
    answer_BN: np.ndarray
    """The value that counts."""
    rank_BN: np.ndarray
    """The order in which the keys first appear."""


class PairDrawing:
    """Draws pairs for rows of different numbers of them; `keys` and `pairs` are the most that a row has."""

    def __init__(self, config: Mqar) -> None:
        self.config = config
        self.keys = largest(config.pairs)
        self.pairs = self.keys + config.changed(self.keys)
        self.first_value = config.vocab_size - config.classes
        self.separable = config.separable

    def of_split(self, rng: np.random.Generator, pairs_B: np.ndarray, split: Split) -> Pairs:
        """Pairs of rows that belong to `split`: rows that do not are drawn again until they do."""
        drawn = self._pairs(rng, pairs_B)
        wrong_B = self._wrong(drawn, pairs_B, split)
        while wrong_B.any():
            fresh = self._pairs(rng, pairs_B[wrong_B])
            for part, values in zip(drawn, fresh, strict=True):
                part[wrong_B] = values
            wrong_B[wrong_B] = self._wrong(fresh, pairs_B[wrong_B], split)
        return drawn

    def changed(self, pairs_B: np.ndarray) -> np.ndarray:
        """Keys with a second value, per row."""
        return np.array([self.config.changed(pairs) for pairs in range(self.keys + 1)])[pairs_B]

    def _wrong(self, drawn: Pairs, pairs_B: np.ndarray, split: Split) -> np.ndarray:
        """Rows whose keys and answers, in whatever order, belong to another split."""
        code_BN = np.zeros(drawn.answer_BN.shape, np.uint64)
        for word_BN in (*np.moveaxis(drawn.key_BNK, 2, 0), drawn.answer_BN):
            code_BN = code_BN << np.uint64(16) | word_BN.astype(np.uint64)
        hash_B = np.where(np.arange(self.keys) < pairs_B[:, None], mix(code_BN), np.uint64(0)).sum(axis=1, dtype=np.uint64)
        return (pairs_B >= self.separable) & ~in_split(hash_B, split)

    def _pairs(self, rng: np.random.Generator, pairs_B: np.ndarray) -> Pairs:
        key_BNK = self._keys(rng, pairs_B)
        value_BM = different(rng, len(pairs_B), self.pairs, self.first_value, self.config.vocab_size)
        changed_B = self.changed(pairs_B)
        place_BM = _shuffled(rng, pairs_B + changed_B, self.pairs, pairs_B if self.config.updates == "last" else None)
        number_N = np.arange(self.keys)
        again_BN = np.minimum(pairs_B[:, None] + number_N, self.pairs - 1)
        place_BN, twin_BN = place_BM[:, : self.keys], np.take_along_axis(place_BM, again_BN, axis=1)
        twice_BN = number_N < changed_B[:, None]
        answer_BN = np.where(twice_BN & (twin_BN > place_BN), np.take_along_axis(value_BM, again_BN, axis=1), value_BM[:, : self.keys])
        first_BN = np.where(twice_BN, np.minimum(place_BN, twin_BN), place_BN)
        first_BN[number_N >= pairs_B[:, None]] = self.pairs  # no key of this row: behind all that are
        rank_BN = np.argsort(np.argsort(first_BN, axis=1), axis=1)
        return Pairs(key_BNK, value_BM, place_BM, answer_BN, rank_BN)

    def _keys(self, rng: np.random.Generator, pairs_B: np.ndarray) -> np.ndarray:
        """Different keys per row: words, or cells of a grid whose rows and columns are words.

        The grid of n keys is the smallest square one that holds them. Its cells are taken diagonal by diagonal, so that every word is in as
        many keys as every other, or in one more: at least two where there are 4 keys, or 6 and more.
        """
        if not self.config.compositional:
            return different(rng, len(pairs_B), self.keys, 1, self.first_value)[:, :, None]
        widest = grid_side(self.keys)
        word_BG = different(rng, len(pairs_B), 2 * widest, 1, self.first_value)
        side_B1 = np.array([0, *map(grid_side, range(1, self.keys + 1))])[pairs_B][:, None]
        diagonal_BN, row_BN = np.divmod(np.arange(self.keys), side_B1)
        column_BN = (row_BN + diagonal_BN) % side_B1
        return np.stack([np.take_along_axis(word_BG, place_BN, axis=1) for place_BN in (row_BN, widest + column_BN)], axis=2)


def different(rng: np.random.Generator, rows: int, count: int, low: int, high: int) -> np.ndarray:
    """In each row `count` different numbers of low..high-1, in random order.

    Repetitions are drawn again until there are none. Since this treats all numbers alike, every choice is equally likely; where it would
    take long, the numbers are shuffled instead.
    """
    if 4 * count > high - low:
        return np.argsort(rng.random((rows, high - low)), axis=1)[:, :count].astype(np.uint16) + np.uint16(low)
    chosen = rng.integers(low, high, size=(rows, count), dtype=np.uint16)
    open_B = np.arange(rows)
    while len(open_B):
        part = chosen[open_B]
        order = np.argsort(part, axis=1, kind="stable")
        sorted_part = np.take_along_axis(part, order, axis=1)
        again = np.zeros(part.shape, bool)
        np.put_along_axis(again, order[:, 1:], sorted_part[:, 1:] == sorted_part[:, :-1], axis=1)
        part[again] = rng.integers(low, high, size=np.count_nonzero(again), dtype=np.uint16)
        chosen[open_B] = part
        open_B = open_B[again.any(axis=1)]
    return chosen


def _shuffled(rng: np.random.Generator, counts_B: np.ndarray, width: int, first_B: np.ndarray | None = None) -> np.ndarray:
    """In each row 0..count-1 in random order, then the rest up to width-1 in any; with `first_B` 0..first-1 come before first..count-1."""
    drawn = rng.random((len(counts_B), width))
    if first_B is not None:
        drawn[np.arange(width) >= first_B[:, None]] += 1.0
    drawn[np.arange(width) >= counts_B[:, None]] = 2.0
    return np.argsort(np.argsort(drawn, axis=1), axis=1)
