"""A dense map of every cell and its four neighbours on a square grid: the 2D convolution of a plus-shaped kernel.

Notation: B = batch size, T = sequence length = n^2 cells in row-major order, n = side of the grid, D = width.

    y_c = W [x_c, x_up, x_down, x_left, x_right]        W (D, 5 D), no bias; neighbours outside of the grid are zero

The neighbours are gathered into one operand of a matrix product.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import WholeRowMixer
from pipeline.ops.init import lecun_normal_
from pipeline.ops.padding import is_ragged
from pipeline.storage.errors import UserError


class Stencil(WholeRowMixer):
    """One linear layer of five cells. Grids of a batch may differ in size."""

    def __init__(self, config: config.Stencil, width: int) -> None:
        super().__init__(width)
        self.map = nn.Linear(5 * width, width, bias=False)
        lecun_normal_(self.map.weight)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equation above, one cell at a time."""
        side, outputs = side_of(len(x_TD)), []
        for row in range(side):
            for column in range(side):
                cells = [(row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
                inside = [0 <= r < side and 0 <= c < side for r, c in cells]
                read = [x_TD[r * side + c] if there else torch.zeros_like(x_TD[0]) for (r, c), there in zip(cells, inside, strict=True)]
                outputs.append(self.map(torch.cat(read)))
        return torch.stack(outputs)

    def mix(self, x_BTD: Tensor, length_B: Tensor | None) -> Tensor:
        """Map all cells at once, grids of one size together; see `WholeRowMixer.mix`. Raises UserError for a row that is no square grid."""
        if length_B is None or not is_ragged(length_B, x_BTD.shape[1]):
            return self._grids(x_BTD)
        y_BTD = torch.zeros_like(x_BTD)
        for length in length_B.unique().tolist():
            row_N = (length_B == length).nonzero().squeeze(1)
            y_NTD = functional.pad(self._grids(x_BTD[row_N, :length]), (0, 0, 0, x_BTD.shape[1] - length))
            y_BTD = y_BTD.index_copy(0, row_N, y_NTD)
        return y_BTD

    def _grids(self, x_BTD: Tensor) -> Tensor:
        batch, cells, width = x_BTD.shape
        place_M = neighbours(side_of(cells), x_BTD.device)
        return self.map(functional.pad(x_BTD, (0, 0, 0, 1)).index_select(1, place_M).view(batch, cells, 5 * width))


def side_of(cells: int) -> int:
    """Return the side of a square grid. Raises UserError if there is no such grid."""
    side = math.isqrt(cells)
    if side * side != cells:
        raise UserError(f"mixer stencil: got a row of {cells} cells; expected a square grid, such as {side * side} or {(side + 1) ** 2}")
    return side


@functools.lru_cache(maxsize=64)
def neighbours(side: int, device: torch.device) -> Tensor:
    """Return for every cell the positions of itself and of its neighbours above, below, left and right; side^2 stands for none."""
    with torch.inference_mode(False):
        place = torch.arange(side * side, device=device).view(side, side)
        outside = functional.pad(place, (1, 1, 1, 1), value=side * side)
        shifted = [place, outside[:-2, 1:-1], outside[2:, 1:-1], outside[1:-1, :-2], outside[1:-1, 2:]]
        return torch.stack(shifted, -1).flatten()
