"""Induction heads: somewhere a special token is followed by a letter; when it comes again, at the end, that letter is the answer.

With an alphabet of 15 the special token is 15 and padding 16; `length: 10` gives rows like

    tokens   3 7 0 15 4 9 4 1 12 15
    role     . . . .  . . . . .  a      a: answer, the position that counts
    target                       4

Every place before the last two is as likely for the first special token; the letters are independent.

Source: Gu & Dao 2023, after Olsson et al. 2022.

Shapes: B rows, S letters of all rows end to end: a row of `length` tokens has length - 2.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.config.tasks import Induction as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, draw, letters_of_split, rows_of


class Induction(TokenTask):
    """Generator of the induction heads task; the tokens are letters 0..V-1, V special, V+1 padding."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.special, self.padding = config.alphabet, config.alphabet + 1
        self.separable = config.separable

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Make rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError where no row lies under the bound.
        """
        rng = generator(key)
        length_B = draw("induction", "length", self.config.length, rows, rng, level)
        place_B = rng.integers(length_B - 2)
        letters_S = letters_of_split(rng, self.config.alphabet, length_B - 2, place_B, split)
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
