"""What parity and the word problem of a group share: uniform random elements, and at every step the product of all so far.

Shapes: B rows, T elements of the longest row, S elements of all rows end to end, G elements of the group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, draw, letters_of_split, rows_of


class RunningProduct(TokenTask):
    """Generator of running products; the tokens are the group's elements, the neutral one 0, then padding.

    `product_GG[a, b]` is a followed by b. The first position is not scored, since the product there is the token itself; at every later
    one the product is uniform whatever the token, so that a predictor without memory has nothing to go by.
    """

    def __init__(self, config: Any, product_GG: np.ndarray) -> None:
        super().__init__(config)
        self.product_GG = product_GG.astype(np.uint16)
        self.padding = len(product_GG)
        self.separable = config.separable

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Make rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError where no row lies under the bound.
        """
        rng = generator(key)
        length_B = draw(self.config.name, "length", self.config.length, rows, rng, level)
        elements_S = letters_of_split(rng, len(self.product_GG), length_B, length_B, split)
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
        """The products after the second element, the third, ..., row after row."""
        inside_BT = np.arange(int(length_B.max(initial=0))) < length_B[:, None]
        element_BT = np.zeros(inside_BT.shape, np.uint16)
        element_BT[inside_BT] = elements_S
        product_TB = np.ascontiguousarray(element_BT.T)  # step by step along the first axis: memory in order
        for step in range(1, len(product_TB)):
            product_TB[step] = self.product_GG[product_TB[step - 1], product_TB[step]]
        return product_TB.T[:, 1:][inside_BT[:, 1:]]
