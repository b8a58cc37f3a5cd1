"""The compiled product of small matrices against float64, over odd sizes and strides.

Notation: M = rows, K = depth, N = columns.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.ops import multiplicative_c, native, packed_matrix

pytestmark = pytest.mark.skipif(
    native.unavailable_reason(multiplicative_c.SOURCE, torch.zeros(1)) is not None, reason="there is no compiler to build the products with"
)
SIZES = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100]
DEEP = [*SIZES, 255, 256, 257, 600]
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


class Matrix(ctypes.Structure):
    """`struct matrix`."""

    _fields_ = [("data", ctypes.c_void_p), ("row", ctypes.c_size_t), ("column", ctypes.c_size_t)]


def product(start: Tensor, a_MK: Tensor, b_KN: Tensor, out: Tensor | None = None) -> Tensor:
    """start + a b, where start is (N) or (M, N), and `out` may be the same."""
    library, (rows, depth), columns = native.load_for(a_MK.dtype, multiplicative_c.SOURCE), a_MK.shape, b_KN.shape[1]
    out = start.new_full((rows, columns), torch.nan) if out is None else out
    panels, a = packed_matrix.packed(library, b_KN), Matrix(a_MK.data_ptr(), *a_MK.stride())
    places = (out.data_ptr(), out.stride(0), start.data_ptr(), start.stride(0) if start.dim() == 2 else 0)
    numbers: Any = [ctypes.c_void_p(place) if index % 2 == 0 else native.size(place) for index, place in enumerate(places)]
    library.matmul(*numbers, a, ctypes.c_void_p(panels.data_ptr()), *map(native.size, (rows, columns, depth)))
    return out


def matrix(random: torch.Generator, rows: int, columns: int, dtype: torch.dtype, form: str) -> Tensor:
    """One that lies row by row, column by column, or as a part of a wider one."""
    if form == "turned":
        return torch.randn(columns, rows, dtype=dtype, generator=random).t()
    return torch.randn(rows, columns + (form == "part") * 3, dtype=dtype, generator=random)[:, :columns]


@every_dtype
@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_equals_float64(dtype: torch.dtype, data: st.DataObject) -> None:
    rows, columns, depth = (data.draw(st.sampled_from(sizes)) for sizes in (SIZES, SIZES, DEEP))
    random, forms = torch.Generator().manual_seed(rows + columns + depth), st.sampled_from(["plain", "turned", "part"])
    a, b = (matrix(random, *shape, dtype, data.draw(forms)) for shape in ((rows, depth), (depth, columns)))
    bias = torch.randn(columns, dtype=dtype, generator=random)
    exact = a.double().numpy() @ b.double().numpy() + bias.double().numpy()
    tolerance = 4 * depth**0.5 * torch.finfo(dtype).eps
    found = product(bias, a, b)
    assert np.abs(found.double().numpy() - exact).max() <= tolerance * max(1.0, np.abs(exact).max())
    wide = torch.full((rows, columns + 2), 7.0, dtype=dtype)
    wide[:, :columns] = bias
    product(wide, a, b, wide)
    assert torch.equal(wide[:, :columns], found) and bool((wide[:, columns:] == 7).all())


@every_dtype
@pytest.mark.parametrize("columns", [40, 128])
def test_a_row_does_not_depend_on_those_beside_it(dtype: torch.dtype, columns: int) -> None:
    random = torch.Generator().manual_seed(0)
    a, b, bias = (torch.randn(shape, dtype=dtype, generator=random) for shape in ((67, 300), (300, columns), (columns,)))
    whole = product(bias, a, b)
    assert torch.equal(product(bias, a, b), whole)
    for rows in (1, 2, 3, 4, 6, 7, 8, 13):
        for first in (0, 1, 5, 67 - rows):
            assert torch.equal(product(bias, a[first : first + rows], b), whole[first : first + rows])
    assert torch.equal(product(bias, a.t().contiguous().t(), b.t().contiguous().t()), whole)
    narrow = product(bias[:33], a, b[:, :33])
    assert torch.equal(narrow, whole[:, :33])


def test_what_is_not_a_number_stays_in_its_row() -> None:
    a, b = torch.ones(9, 20), torch.ones(20, 33)
    a[4, 3] = torch.nan
    found = product(torch.zeros(33), a, b)
    assert bool(found[4].isnan().all()) and bool((found[[0, 3, 5, 8]] == 20).all())
