"""Sampling the pairs of multi-query associative recall: keys, values, their order, and the split of a row.

Notation: B = rows, N = keys of the largest row, K = words per key, M = pairs of the largest row, including second ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.base import largest
from pipeline.config.tasks.memory import Mqar, grid_side
from pipeline.tasks.base import Split, in_split, mix


class Pairs(NamedTuple):
    """Pairs of some rows: the value of key i is in column i, its second value, if any, in column pairs + i."""

    key_BNK: np.ndarray
    value_BM: np.ndarray
    place_BM: np.ndarray
    """Index of the pair of its row that each value belongs to."""
    answer_BN: np.ndarray
    """The value that is the answer."""
    rank_BN: np.ndarray
    """The order in which the keys first appear."""


class PairSampler:
    """Samples pairs for rows with different numbers of them; `keys` and `pairs` are the maxima per row."""

    def __init__(self, config: Mqar) -> None:
        self.config = config
        self.keys = largest(config.pairs)
        self.pairs = self.keys + config.changed(self.keys)
        self.first_value = config.vocab_size - config.classes
        self.separable = config.separable

    def sample_in_split(self, rng: np.random.Generator, pairs_B: np.ndarray, split: Split) -> Pairs:
        """Sample pairs of rows that belong to `split`, by rejection of whole rows."""
        sampled = self._pairs(rng, pairs_B)
        wrong_B = self._wrong(sampled, pairs_B, split)
        while wrong_B.any():
            fresh = self._pairs(rng, pairs_B[wrong_B])
            for part, values in zip(sampled, fresh, strict=True):
                part[wrong_B] = values
            wrong_B[wrong_B] = self._wrong(fresh, pairs_B[wrong_B], split)
        return sampled

    def changed(self, pairs_B: np.ndarray) -> np.ndarray:
        """Return the number of keys with a second value, per row."""
        return np.array([self.config.changed(pairs) for pairs in range(self.keys + 1)])[pairs_B]

    def _wrong(self, sampled: Pairs, pairs_B: np.ndarray, split: Split) -> np.ndarray:
        """Return which rows belong to another split, by a hash of their set of keys and answers."""
        code_BN = np.zeros(sampled.answer_BN.shape, np.uint64)
        for word_BN in (*np.moveaxis(sampled.key_BNK, 2, 0), sampled.answer_BN):
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
        first_BN[number_N >= pairs_B[:, None]] = self.pairs  # not a key of this row: rank it last
        rank_BN = np.argsort(np.argsort(first_BN, axis=1), axis=1)
        return Pairs(key_BNK, value_BM, place_BM, answer_BN, rank_BN)

    def _keys(self, rng: np.random.Generator, pairs_B: np.ndarray) -> np.ndarray:
        """Sample distinct keys per row: words, or cells of a grid whose rows and columns are words.

        The grid of n keys is the smallest square one that fits them. Its cells are taken diagonal by diagonal, so that the numbers of keys per
        word differ by at most one; each word is in at least two keys if there are 4 keys, or 6 or more.
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
    """Sample `count` distinct integers of low..high-1 per row, in random order.

    Duplicates are resampled until there are none, which is uniform by symmetry; if that would take long, the range is shuffled instead.
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
    """Shuffle 0..count-1 in each row, followed by the rest up to width-1; with `first_B`, 0..first-1 come before first..count-1."""
    sampled = rng.random((len(counts_B), width))
    if first_B is not None:
        sampled[np.arange(width) >= first_B[:, None]] += 1.0
    sampled[np.arange(width) >= counts_B[:, None]] = 2.0
    return np.argsort(np.argsort(sampled, axis=1), axis=1)
