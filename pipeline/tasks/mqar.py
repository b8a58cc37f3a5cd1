"""Multi-query associative recall: pairs of key and value, then every key once more, to be answered by its value.

With `words: 16` the token 0 is filler, 1..7 are keys and 8..15 values; `pairs: 2, length: 12, filler: zero` gives rows like

    tokens   3 9   5 14   5 0 0 0 3 0 0 0
    role     . .   . .    a . . . a . . .      a: answer, the positions that count
    target                6       1            the value, counted from 0

Keys stand at even offsets g = 0, 1, 2, ... of two tokens behind the pairs, different ones drawn one after the other with probability in
proportion to (g + 1)^(alpha - 1), the first pair's first: alpha 1 spreads them evenly, 0.01 puts most of them close behind the pairs.
`filler: random` fills the rest with tokens drawn from all words, 0 in place of the row's own keys: so the value behind the last earlier
occurrence of a key is always its answer. With `forgetting` some keys have two pairs, all pairs are in random order, and the later counts:

    tokens   3 9   5 14   3 12   5 0 3 0       target 6 4

Source: Arora et al. 2023 (zoology), where a random filler may also be a key of the row.

Shapes: B rows, N keys of the largest row, M pairs of the largest row, second ones included, G offsets, T tokens, S things of all rows.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.base import largest, smallest
from pipeline.config.tasks import Mqar as Config
from pipeline.storage.keys import Key, generator
from pipeline.tasks.base import ANSWER, ENOUGH, PROMPT, Ragged, Split, TokenTask, draw, in_split, mix, rows_of

CELLS = 1 << 22
"""Numbers held at once for each step of the drawing."""


class Pairs(NamedTuple):
    """Pairs of some rows: key i has its value in column i of the values, its second one, if any, in column pairs + i."""

    key_BN: np.ndarray
    value_BM: np.ndarray
    place_BM: np.ndarray
    """Which pair of its row each value stands in."""
    answer_BN: np.ndarray
    """The value that counts."""
    rank_BN: np.ndarray
    """The order in which the keys first appear."""


class Mqar(TokenTask):
    """Generator of multi-query associative recall; the tokens are filler 0, then keys, then values."""

    meanings: ClassVar[dict[str, str]] = {"length": "tokens of the row", "pairs": "different keys, each asked for once"}

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.keys = largest(config.pairs)
        self.pairs = self.keys + config.changed(self.keys)
        self.first_value = config.words - config.classes
        enough = (count for count in range(1, config.classes + 1) if math.perm(config.classes, count) >= ENOUGH)
        self.separable = next(enough, config.classes + 1)

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Make rows; a pure function of its arguments.

        `level` is an upper bound on `column` (length, the default, or pairs); the other is drawn as ever.
        Raises UserError where no row lies under the bound.
        """
        rng = generator(key)
        bounds = {column or "length": level}
        length_B = draw("mqar", "length", self.config.length, rows, rng, bounds.get("length"))
        pairs_B = draw("mqar", "pairs", self.config.pairs, rows, rng, bounds.get("pairs"))
        step = max(1, CELLS // max(self.config.longest, self.config.words))
        blocks = [slice(at, at + step) for at in range(0, rows, step)]
        parts = [self._rows(rng, length_B[block], pairs_B[block], split) for block in blocks]
        nothing = np.empty(0, np.uint16)
        return rows_of(
            tokens=Ragged(np.concatenate([nothing, *(tokens for tokens, _, _ in parts)]), length_B, isinstance(self.config.length, int)),
            layouts=[layout for _, _, layouts in parts for layout in layouts],
            layout_B=np.arange(rows),
            target=Ragged(np.concatenate([nothing, *(labels for _, labels, _ in parts)]), pairs_B, isinstance(self.config.pairs, int)),
            columns={"length": length_B, "pairs": pairs_B},
            padding=self.padding,
        )

    def overlap(self) -> str:
        """Which rows are too few to be kept apart between the splits."""
        if smallest(self.config.pairs) >= self.separable:
            return "Rows of one split never have all keys and their answers of another's."
        return (
            f"Rows of one split never have all keys and their answers of another's, except rows of fewer than {self.separable} pairs:"
            f" their keys have not {ENOUGH} different answers, so every split draws from all of them."
        )

    def _rows(
        self, rng: np.random.Generator, length_B: np.ndarray, pairs_B: np.ndarray, split: Split
    ) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
        """Flat tokens, flat labels and a layout per row."""
        drawn = self._pairs_of_split(rng, pairs_B, split)
        context_B = 2 * (pairs_B + self._changed(pairs_B))
        tokens_BT = self._filler(rng, drawn.key_BN, pairs_B, int(length_B.max()))
        self._write_pairs(tokens_BT, drawn, pairs_B)
        row_S, key_S = np.nonzero(np.arange(self.keys) < pairs_B[:, None])
        offset_S = self._offsets(rng, (length_B - context_B) // 2)[row_S, drawn.rank_BN[row_S, key_S]]
        asked_S = context_B[row_S] + 2 * offset_S
        tokens_BT[row_S, asked_S] = drawn.key_BN[row_S, key_S]
        answer_BT = np.zeros(tokens_BT.shape, np.uint16)
        answer_BT[row_S, asked_S] = drawn.answer_BN[row_S, key_S]
        role_BT = np.where(answer_BT, ANSWER, PROMPT).astype(np.uint8)  # no value is token 0
        layouts = [role[:length].tobytes() for role, length in zip(role_BT, length_B.tolist(), strict=True)]
        inside_BT = np.arange(tokens_BT.shape[1]) < length_B[:, None]
        return tokens_BT[inside_BT], answer_BT[answer_BT > 0] - np.uint16(self.first_value), layouts

    def _write_pairs(self, tokens_BT: np.ndarray, drawn: Pairs, pairs_B: np.ndarray) -> None:
        row_S, pair_S = np.nonzero(np.arange(self.pairs) < (pairs_B + self._changed(pairs_B))[:, None])
        key_S = np.where(pair_S < pairs_B[row_S], pair_S, pair_S - pairs_B[row_S])
        place_S = 2 * drawn.place_BM[row_S, pair_S]
        tokens_BT[row_S, place_S] = drawn.key_BN[row_S, key_S]
        tokens_BT[row_S, place_S + 1] = drawn.value_BM[row_S, pair_S]

    def _filler(self, rng: np.random.Generator, key_BN: np.ndarray, pairs_B: np.ndarray, longest: int) -> np.ndarray:
        shape = (len(key_BN), longest)
        if self.config.filler == "zero":
            return np.zeros(shape, np.uint16)
        tokens_BT = rng.integers(self.config.words, size=shape, dtype=np.uint16)
        own_BV = np.zeros((len(key_BN), self.config.words), bool)
        np.put_along_axis(own_BV, np.where(np.arange(self.keys) < pairs_B[:, None], key_BN, 0), True, axis=1)
        tokens_BT[np.take_along_axis(own_BV, tokens_BT, axis=1)] = 0
        return tokens_BT

    def _offsets(self, rng: np.random.Generator, room_B: np.ndarray) -> np.ndarray:
        """Different offsets per row, in the order they are drawn in: the first arrivals of a race of exponential clocks."""
        offset_G = np.arange(int(room_B.max()))
        arrival_BG = rng.exponential(size=(len(room_B), len(offset_G))) * (offset_G + 1.0) ** (1 - self.config.alpha)
        arrival_BG[offset_G >= room_B[:, None]] = np.inf
        return np.argsort(arrival_BG, axis=1)[:, : self.keys]

    def _pairs_of_split(self, rng: np.random.Generator, pairs_B: np.ndarray, split: Split) -> Pairs:
        """Pairs of rows that belong to `split`: rows that do not are drawn again until they do."""
        drawn = self._pairs(rng, pairs_B)
        wrong_B = self._wrong(drawn, pairs_B, split)
        while wrong_B.any():
            fresh = self._pairs(rng, pairs_B[wrong_B])
            for part, values in zip(drawn, fresh, strict=True):
                part[wrong_B] = values
            wrong_B[wrong_B] = self._wrong(fresh, pairs_B[wrong_B], split)
        return drawn

    def _wrong(self, drawn: Pairs, pairs_B: np.ndarray, split: Split) -> np.ndarray:
        """Rows whose keys and answers, in whatever order, belong to another split."""
        code_BN = mix(drawn.key_BN.astype(np.uint64) << np.uint64(16) | drawn.answer_BN.astype(np.uint64))
        hash_B = np.where(np.arange(self.keys) < pairs_B[:, None], code_BN, np.uint64(0)).sum(axis=1, dtype=np.uint64)
        return (pairs_B >= self.separable) & ~in_split(hash_B, split)

    def _pairs(self, rng: np.random.Generator, pairs_B: np.ndarray) -> Pairs:
        key_BN = _different(rng, len(pairs_B), self.keys, 1, self.first_value)
        value_BM = _different(rng, len(pairs_B), self.pairs, self.first_value, self.config.words)
        changed_B = self._changed(pairs_B)
        place_BM = _shuffled(rng, pairs_B + changed_B, self.pairs)
        number_N = np.arange(self.keys)
        again_BN = np.minimum(pairs_B[:, None] + number_N, self.pairs - 1)
        place_BN, twin_BN = place_BM[:, : self.keys], np.take_along_axis(place_BM, again_BN, axis=1)
        twice_BN = number_N < changed_B[:, None]
        answer_BN = np.where(twice_BN & (twin_BN > place_BN), np.take_along_axis(value_BM, again_BN, axis=1), value_BM[:, : self.keys])
        first_BN = np.where(twice_BN, np.minimum(place_BN, twin_BN), place_BN)
        first_BN[number_N >= pairs_B[:, None]] = self.pairs  # no key of this row: behind all that are
        rank_BN = np.argsort(np.argsort(first_BN, axis=1), axis=1)
        return Pairs(key_BN, value_BM, place_BM, answer_BN, rank_BN)

    def _changed(self, pairs_B: np.ndarray) -> np.ndarray:
        """Keys with a second value, per row."""
        return np.array([self.config.changed(pairs) for pairs in range(self.keys + 1)])[pairs_B]


def _different(rng: np.random.Generator, rows: int, count: int, low: int, high: int) -> np.ndarray:
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


def _shuffled(rng: np.random.Generator, counts_B: np.ndarray, width: int) -> np.ndarray:
    """In each row 0..count-1 in random order, then the rest up to width-1 in any."""
    drawn = rng.random((len(counts_B), width))
    drawn[np.arange(width) >= counts_B[:, None]] = 2.0
    return np.argsort(np.argsort(drawn, axis=1), axis=1)
