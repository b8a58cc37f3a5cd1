"""Packed matrices: the format of the second factor of the products in `matmul.h`.

Notation: (K, N) = shape of a matrix, K = depth.
"""

from __future__ import annotations

import ctypes

from torch import Tensor

from pipeline.ops import native


def panels(library: ctypes.CDLL, depth: int, columns: int, like: Tensor) -> Tensor:
    """Allocate a packed matrix."""
    library.packed_size.restype = ctypes.c_size_t
    return like.new_empty(library.packed_size(*map(native.size, (depth, columns))))


def packed(library: ctypes.CDLL, matrix_KN: Tensor) -> Tensor:
    """Pack a matrix of any strides."""
    found = panels(library, matrix_KN.shape[0], matrix_KN.shape[1], matrix_KN)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (found, matrix_KN))
    library.pack(*pointers, *map(native.size, (*matrix_KN.stride(), *matrix_KN.shape)))
    return found
