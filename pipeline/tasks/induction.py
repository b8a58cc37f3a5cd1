"""Induction heads: a special token somewhere in the row is followed by a letter; when the token recurs at the end, that letter is the answer.

With an alphabet of 15 the special token is 15 and padding is 16; `length: 10` gives rows like

    tokens   3 7 0 15 4 9 4 1 12 15
    role     . . . .  . . . . .  a      a: answer, the scored position
    target                       4

The first special token's position is uniform among all but the last two; letters are uniform and independent.

Source: Gu & Dao 2023, after Olsson et al. 2022.

Notation: B = rows, S = letters of all rows, concatenated; a row of `length` tokens has length - 2 letters.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.config.tasks import Induction as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, rows_of, sample_integers, sample_letters


class Induction(TokenTask):
    """The induction heads task; tokens: letters 0..V-1, V special, V+1 padding."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.special, self.padding = config.alphabet, config.alphabet + 1
        self.separable = config.separable

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError if no row satisfies the bound.
        """
        rng = generator(key)
        length_B = sample_integers("induction", "length", self.config.length, rows, rng, level)
        place_B = rng.integers(length_B - 2)
        letters_S = sample_letters(rng, self.config.alphabet, length_B - 2, place_B, split)
        starts_B = np.cumsum(length_B) - length_B
        tokens = np.full(length_B.sum(), self.special, np.uint16)
        ordinary = np.ones(len(tokens), bool)
        ordinary[starts_B + place_B] = ordinary[starts_B + length_B - 1] = False
        tokens[ordinary] = letters_S
        lengths, layout_B = np.unique(length_B, return_inverse=True)
        return rows_of(
            tokens=Ragged(tokens, length_B, isinstance(self.config.length, int)),
            layouts=[bytes([PROMPT]) * (length - 1) + bytes([ANSWER]) for length in lengths.tolist()],
            layout_B=layout_B,
            target=Ragged(tokens[starts_B + place_B + 1], np.ones(rows, np.int64), True),
            columns={"length": length_B},
            padding=self.padding,
        )
