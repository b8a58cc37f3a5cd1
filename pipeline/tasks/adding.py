"""The adding problem: two of many real numbers are marked, one in each half; the answer, at the end, is their sum.

Every token is a marker, 1 or 0, with one number in [0, 1); `length: 6` gives rows like

    tokens   0    1    0    0    1    0
    values   .17  .52  .88  .03  .30  .71
    role     .    .    .    .    .    a        a: answer, the scored position
    target                            .82

The first mark is uniform in the first half, the second uniform in the second half except its last position, the scored one, whose input is
thus uninformative. Token 2 is padding.

Source: Hochreiter & Schmidhuber 1997, experiment 4; numbers and halves as in Arjovsky, Shah & Bengio 2016.

Notation: B = rows, S = tokens of all rows, concatenated.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.config.tasks import Adding as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, canonical_hash, in_split, rows_of, sample_integers


class Adding(TokenTask):
    """The adding problem; tokens: 0 unmarked, 1 marked, 2 padding."""

    padding = 2
    config: Config

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError if no row satisfies the bound.
        """
        rng = generator(key)
        length_B = sample_integers("adding", "length", self.config.length, rows, rng, level)
        half_B, starts_B = length_B // 2, np.cumsum(length_B) - length_B
        marked_B2 = starts_B[:, None] + np.stack([rng.integers(half_B), rng.integers(half_B, length_B - 1)], axis=1)
        tokens_S = np.zeros(length_B.sum(), np.uint16)
        tokens_S[marked_B2] = 1
        values_S = rng.random(len(tokens_S), np.float32)
        numbers_B2 = _sample_numbers(rng, rows, split)
        values_S[marked_B2] = numbers_B2
        lengths, layout_B = np.unique(length_B, return_inverse=True)
        fixed = isinstance(self.config.length, int)
        return rows_of(
            tokens=Ragged(tokens_S, length_B, fixed),
            layouts=[bytes([PROMPT]) * (length - 1) + bytes([ANSWER]) for length in lengths.tolist()],
            layout_B=layout_B,
            target=Ragged(numbers_B2.sum(axis=1), np.ones(rows, np.int64), True),
            columns={"length": length_B},
            padding=self.padding,
            values=Ragged(values_S, length_B, fixed),
        )

    def overlap(self) -> str:
        """Describe what is disjoint between splits."""
        return "No two marked numbers are in two splits."


def _sample_numbers(rng: np.random.Generator, rows: int, split: Split) -> np.ndarray:
    """Sample two numbers per row, uniform in [0, 1), that belong to `split`, by rejection."""
    numbers_B2 = rng.random((rows, 2), np.float32)
    open_B = np.arange(rows)
    while len(open_B := open_B[~in_split(_hash(numbers_B2[open_B]), split)]):
        numbers_B2[open_B] = rng.random((len(open_B), 2), np.float32)
    return numbers_B2


def _hash(numbers_B2: np.ndarray) -> np.ndarray:
    """Return the canonical hash of each row's two numbers, by their bits, in order."""
    rows = len(numbers_B2)
    return canonical_hash(numbers_B2.view(np.uint32).reshape(-1), np.full(rows, 2), np.zeros(rows))
