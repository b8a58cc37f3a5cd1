"""Common code of parity and group word problems: uniform random elements; the answer at every step is the product of all so far.

Notation: B = rows, T = elements of the longest row, S = elements of all rows, concatenated, G = elements of the group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, rows_of, sample_integers, sample_letters


class RunningProduct(TokenTask):
    """Running products; tokens: the group's elements, identity 0, then padding.

    `product_GG[a, b]` is a followed by b. The first position is not scored, since its product is the token itself; at every later position
    the product is uniform given the token, so that a predictor without memory is at chance.
    """

    def __init__(self, config: Any, product_GG: np.ndarray) -> None:
        super().__init__(config)
        self.product_GG = product_GG.astype(np.uint16)
        self.padding = len(product_GG)
        self.separable = config.separable

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError if no row satisfies the bound.
        """
        rng = generator(key)
        length_B = sample_integers(self.config.name, "length", self.config.length, rows, rng, level)
        elements_S = sample_letters(rng, len(self.product_GG), length_B, length_B, split)
        lengths, layout_B = np.unique(length_B, return_inverse=True)
        fixed = isinstance(self.config.length, int)
        return rows_of(
            tokens=Ragged(elements_S, length_B, fixed),
            layouts=[bytes([PROMPT]) + bytes([ANSWER]) * (length - 1) for length in lengths.tolist()],
            layout_B=layout_B,
            target=Ragged(self._products(elements_S, length_B), length_B - 1, fixed),
            columns={"length": length_B},
            padding=self.padding,
        )

    def _products(self, elements_S: np.ndarray, length_B: np.ndarray) -> np.ndarray:
        """Compute the products after the second element, the third, ..., in row-major order."""
        inside_BT = np.arange(int(length_B.max(initial=0))) < length_B[:, None]
        element_BT = np.zeros(inside_BT.shape, np.uint16)
        element_BT[inside_BT] = elements_S
        product_TB = np.ascontiguousarray(element_BT.T)  # time-major, so that each step is contiguous
        for step in range(1, len(product_TB)):
            product_TB[step] = self.product_GG[product_TB[step - 1], product_TB[step]]
        return product_TB.T[:, 1:][inside_BT[:, 1:]]
