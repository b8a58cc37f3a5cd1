"""Parity: random bits; the answer at every step is whether the number of ones so far is odd.

`length: 6` gives rows like

    tokens   1 0 1 1 0 1
    role     . a a a a a      a: answer, the scored positions
    target     1 0 1 1 0

The first position is not scored: its answer is its token, and needs no memory. Token 2 is padding.

Source: Grazzi et al. 2025; a linear recurrence whose eigenvalues are all in [0, 1] cannot solve it for all lengths.
"""

from __future__ import annotations

import numpy as np

from pipeline.config.tasks import Parity as Config
from pipeline.tasks.running import RunningProduct


class Parity(RunningProduct):
    """The word problem of the group of two elements: the running product is the XOR of the bits."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, np.array([[0, 1], [1, 0]]))
