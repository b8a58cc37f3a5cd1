"""Parity: random bits, and at every step whether the ones so far are odd in number.

`length: 6` gives rows like

    tokens   1 0 1 1 0 1
    role     . a a a a a      a: answer, the positions that count
    target     1 0 1 1 0

The first position does not count: its answer is its token, and needs no memory. Token 2 pads.

Source: Grazzi et al. 2025; a sequence model with decay rates between 0 and 1 alone cannot do it at all lengths.
"""

from __future__ import annotations

import numpy as np

from pipeline.config.tasks import Parity as Config
from pipeline.tasks.running import RunningProduct


class Parity(RunningProduct):
    """The word problem of the group of two elements: the product is the exclusive or."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, np.array([[0, 1], [1, 0]]))
