"""Multi-query associative recall (MQAR): key-value pairs, then every key once more; the answer is its value.

With `vocab_size: 16` token 0 is filler, 1..7 are keys and 8..15 values; `pairs: 2, length: 12, filler: zero` gives rows like

    tokens   3 9   5 14   5 0 0 0 3 0 0 0
    role     . .   . .    a . . . a . . .      a: answer, the scored positions
    target                6       1            the value, counted from 0

Queries are at offsets g = 0, 1, 2, ... of two tokens after the pairs, sampled without replacement, the first pair's key first, with
probability proportional to (g + 1)^(power_a - 1): power_a 1 is uniform, 0.01 puts most of them right after the pairs. `filler: random` fills
the rest with uniform tokens, with 0 in place of the row's own keys, so that the answer is always the value after the key's last earlier
occurrence. With `forgetting` some keys have two pairs, of which the later one is the answer. Pairs are in random order; here the second one of
3 comes last. With `updates: last` all second pairs come last, as in zoology:

    tokens   3 9   5 14   3 12   5 0 3 0       target 6 4

With `compositional` a key is two words and an offset three tokens; the answer is scored at the key's second word. The n keys are cells of the
smallest square grid that fits them, here {3, 5} x {2, 7}: every word is in two keys or more (except with 1, 2, 3 or 5 pairs).

    tokens   3 2 9   5 7 14   3 7 12   5 2 8   5 7 0 3 2 0 5 2 0 3 7 0       target 6 1 0 4

With `continuous: 2` a key is two standard normal numbers, new in every row, with token 1; values are then 2..9. Keys in random filler have
other numbers.

    tokens   1    3   1    8   1    0   0    0   1    0   0    0             target 6 1
    values   .7   0   -.4  0   -.4  0   0    0   .7   0   0    0
             -1.2 0   .3   0   .3   0   0    0   -1.2 0   0    0

Source: Arora et al. 2023 (zoology), where a random filler may also be a key of the row; in zoology's continuous form a pair is one
token, whose key and value vectors come from a table shared by all rows.

Notation: B = rows, N = keys of the largest row, K = words per key, G = offsets, T = tokens, F = real numbers, S = items of all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.tasks import Mqar as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, rows_of, sample_integers
from pipeline.tasks.pairs import Pairs, PairSampler

CELLS = 1 << 22
"""Numbers held at once in each step of sampling."""


class MqarRows(NamedTuple):
    """Finished rows, concatenated."""

    tokens: np.ndarray
    labels: np.ndarray
    values: np.ndarray
    layouts: list[bytes]


class Mqar(TokenTask):
    """The MQAR task; tokens: filler 0, then keys, then values."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pair_sampler = PairSampler(config)

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments.

        `level` is an upper bound on `column`: length (default) or pairs; the other is sampled as usual.
        Raises UserError if no row satisfies the bound.
        """
        rng, features = generator(key), self.config.features
        bounds = {column or "length": level}
        length_B = sample_integers("mqar", "length", self.config.length, rows, rng, bounds.get("length"))
        pairs_B = sample_integers("mqar", "pairs", self.config.pairs, rows, rng, bounds.get("pairs"))
        step = max(1, CELLS // max(self.config.longest * max(1, features), self.config.vocab_size))
        blocks = [slice(at, at + step) for at in range(0, rows, step)]
        parts = [self._rows(rng, length_B[block], pairs_B[block], split) for block in blocks]
        nothing, fixed = np.empty(0, np.uint16), isinstance(self.config.length, int)
        values = np.concatenate([np.empty(0, np.float32), *(part.values for part in parts)])
        return rows_of(
            tokens=Ragged(np.concatenate([nothing, *(part.tokens for part in parts)]), length_B, fixed),
            layouts=[layout for part in parts for layout in part.layouts],
            layout_B=np.arange(rows),
            target=Ragged(np.concatenate([nothing, *(part.labels for part in parts)]), pairs_B, isinstance(self.config.pairs, int)),
            columns={"length": length_B, "pairs": pairs_B},
            padding=self.padding,
            values=Ragged(values, features * length_B, fixed) if features else None,
        )

    def overlap(self) -> str:
        """Describe which rows are too few for disjoint splits."""
        pairs = "Rows of one split never have all keys and their answers of another's."
        return self.config.overlap or ("No two rows share a key." if self.config.continuous else pairs)

    def _rows(self, rng: np.random.Generator, length_B: np.ndarray, pairs_B: np.ndarray, split: Split) -> MqarRows:
        sampled, pair = self.pair_sampler.sample_in_split(rng, pairs_B, split), self.config.pair
        context_B = pair * (pairs_B + self.pair_sampler.changed(pairs_B))
        tokens_BT = self._filler(rng, sampled.key_BNK, pairs_B, int(length_B.max()))
        row_P, place_P, key_P = self._write_pairs(tokens_BT, sampled, pairs_B)
        row_S, key_S = np.nonzero(np.arange(self.pair_sampler.keys) < pairs_B[:, None])
        offset_S = self._offsets(rng, (length_B - context_B) // pair)[row_S, sampled.rank_BN[row_S, key_S]]
        place_S = context_B[row_S] + pair * offset_S
        _write_keys(tokens_BT, row_S, place_S, sampled.key_BNK[row_S, key_S])
        asked_S = place_S + pair - 2
        answer_BT = np.zeros(tokens_BT.shape, np.uint16)
        answer_BT[row_S, asked_S] = sampled.answer_BN[row_S, key_S]
        role_BT = np.where(answer_BT, ANSWER, PROMPT).astype(np.uint8)  # no value is token 0
        layouts = [role[:length].tobytes() for role, length in zip(role_BT, length_B.tolist(), strict=True)]
        inside_BT = np.arange(tokens_BT.shape[1]) < length_B[:, None]
        values = np.empty(0, np.float32)
        if self.config.continuous:
            shown = np.concatenate([row_P, row_S]), np.concatenate([place_P, place_S]), np.concatenate([key_P, key_S])
            values = self._numbers(rng, tokens_BT, *shown)[inside_BT].reshape(-1)
        return MqarRows(tokens_BT[inside_BT], answer_BT[answer_BT > 0] - np.uint16(self.pair_sampler.first_value), values, layouts)

    def _write_pairs(self, tokens_BT: np.ndarray, sampled: Pairs, pairs_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Write all pairs; returns the row, position and index of each pair's key."""
        row_S, pair_S = np.nonzero(np.arange(self.pair_sampler.pairs) < (pairs_B + self.pair_sampler.changed(pairs_B))[:, None])
        key_S = np.where(pair_S < pairs_B[row_S], pair_S, pair_S - pairs_B[row_S])
        place_S = self.config.pair * sampled.place_BM[row_S, pair_S]
        _write_keys(tokens_BT, row_S, place_S, sampled.key_BNK[row_S, key_S])
        tokens_BT[row_S, place_S + self.config.pair - 1] = sampled.value_BM[row_S, pair_S]
        return row_S, place_S, key_S

    def _filler(self, rng: np.random.Generator, key_BNK: np.ndarray, pairs_B: np.ndarray, longest: int) -> np.ndarray:
        shape = (len(key_BNK), longest)
        if self.config.filler == "zero":
            return np.zeros(shape, np.uint16)
        tokens_BT = rng.integers(self.config.vocab_size, size=shape, dtype=np.uint16)
        own_BV = np.zeros((len(key_BNK), self.config.vocab_size), bool)
        own_BNK = np.where(np.arange(self.pair_sampler.keys)[:, None] < pairs_B[:, None, None], key_BNK, 0)
        np.put_along_axis(own_BV, own_BNK.reshape(len(key_BNK), -1), True, axis=1)
        tokens_BT[np.take_along_axis(own_BV, tokens_BT, axis=1)] = 0
        return tokens_BT

    def _offsets(self, rng: np.random.Generator, room_B: np.ndarray) -> np.ndarray:
        """Sample distinct offsets per row, in order: the first arrivals of independent exponential clocks."""
        offset_G = np.arange(int(room_B.max()))
        arrival_BG = rng.exponential(size=(len(room_B), len(offset_G))) * (offset_G + 1.0) ** (1 - self.config.power_a)
        arrival_BG[offset_G >= room_B[:, None]] = np.inf
        return np.argsort(arrival_BG, axis=1)[:, : self.pair_sampler.keys]

    def _numbers(
        self, rng: np.random.Generator, tokens_BT: np.ndarray, row_S: np.ndarray, place_S: np.ndarray, key_S: np.ndarray
    ) -> np.ndarray:
        """Sample the real numbers of every token, given the positions of the keys; replaces all keys in `tokens_BT` by token 1."""
        first, features = self.pair_sampler.first_value, self.config.continuous
        values_BTF = rng.standard_normal((*tokens_BT.shape, features), np.float32)
        key_BNF = rng.standard_normal((len(tokens_BT), self.pair_sampler.keys, features), np.float32)
        values_BTF[row_S, place_S] = key_BNF[row_S, key_S]
        values_BTF[(tokens_BT == 0) | (tokens_BT >= first)] = 0
        tokens_BT[:] = np.where(tokens_BT < first, np.minimum(tokens_BT, 1), tokens_BT - np.uint16(first - 2))
        return values_BTF


def _write_keys(tokens_BT: np.ndarray, row_S: np.ndarray, place_S: np.ndarray, key_SK: np.ndarray) -> None:
    for word in range(key_SK.shape[1]):
        tokens_BT[row_S, place_S + word] = key_SK[:, word]
