"""A tiny task of grids: the answer at every cell is the token at the opposite one.

tokens   2 0 1 1      a grid of 2 x 2 cells
target   1 1 0 2      all positions are scored
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.config.base import Draw, largest
from pipeline.config.tasks.base import Column, Task
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, Ragged, TokenTask, rows_of, sample_integers

TOKENS = 3


class Opposite(Task):
    """Every cell asks for the token at the opposite cell; rows have one of two identifiers."""

    grid: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("identifier",)
    columns: ClassVar[Mapping[str, Column]] = {"identifier": Column("identifier", "number of the row", point=False)}
    implementation: ClassVar[str] = "tests.learners.grids:OppositeRows"
    identifiers: ClassVar[int] = 2

    name: Literal["opposite"] = "opposite"
    side: Draw = 3

    @property
    def vocabulary(self) -> int:
        return TOKENS

    @property
    def classes(self) -> int:
        return TOKENS

    @property
    def longest(self) -> int:
        return largest(self.side) ** 2


class OppositeRows(TokenTask):
    """Its rows."""

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Any = "train") -> pa.RecordBatch:
        rng = generator(key)
        length_B = sample_integers("opposite", "side", self.config.side, rows, rng, level) ** 2
        grids = [rng.integers(TOKENS, size=length) for length in length_B.tolist()]
        lengths, layout_B = np.unique(length_B, return_inverse=True)
        return rows_of(
            tokens=Ragged(np.concatenate(grids), length_B, fixed=False),
            layouts=[bytes([ANSWER]) * length for length in lengths.tolist()],
            layout_B=layout_B,
            target=Ragged(np.concatenate([grid[::-1] for grid in grids]), length_B, fixed=False),
            columns={"identifier": rng.integers(2, size=rows)},
            padding=self.padding,
        )
