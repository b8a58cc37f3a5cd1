"""Large buffers on large pages.

The allocator hands a buffer above 32 MiB back to the kernel as soon as it is free, so every training step would get it anew, zeroed
4 KiB at a time: measured, a tenth of the step. Linux gives 2 MiB pages where asked to; where it does not, nothing changes.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

PAGE = 2 << 20
"""Bytes of a large page."""
SMALLEST = 8 * PAGE
"""Smaller buffers are left to the allocator, which keeps them."""
HUGEPAGE = 14
"""MADV_HUGEPAGE."""


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of the device and number type of `like`."""
    tensor = torch.empty(shape, device=like.device, dtype=like.dtype)
    if tensor.device.type == "cpu" and tensor.nbytes >= SMALLEST:
        start = -(-tensor.data_ptr() // PAGE) * PAGE
        stop = (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE
        _advise()(start, stop - start, HUGEPAGE)
    return tensor


@functools.cache
def _advise() -> Callable[[int, int, int], int]:
    """madvise(2), or something that does nothing; what it returns does not matter, it is advice."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
    if madvise is None:
        return lambda start, length, advice: 0
    madvise.argtypes, madvise.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return madvise
