"""Call the C files beside this module with tensors; `pipeline.storage.native` compiles and loads them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.storage import native
from pipeline.storage.native import NotAvailable

HERE = Path(__file__).parent


def load(source: str, *definitions: str) -> ctypes.CDLL:
    """Load the library compiled from a C file beside this module, with `-D` definitions. Raises NotAvailable."""
    return native.load(HERE / source, *definitions)


def load_for(dtype: torch.dtype, source: str) -> ctypes.CDLL:
    """Load the library whose REAL is this dtype, float32 or float64. Raises NotAvailable."""
    return load(source, f"REAL={'double' if dtype == torch.float64 else 'float'}")


def unavailable_reason(source: str, like: Tensor) -> str | None:
    """Return why the functions of a C file cannot process such a tensor; None if they can."""
    if like.device.type != "cpu":
        return "needs tensors on the CPU"
    if like.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64 and got {like.dtype}"
    try:
        load_for(like.dtype, source)
    except NotAvailable as error:
        return str(error)
    return None


def address(tensor: Tensor | None) -> Any:
    """Return the address of a contiguous tensor as an argument; NULL for None."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def size(number: int) -> Any:
    """Return a size_t argument."""
    return ctypes.c_size_t(number)


def structure(pointers: tuple[str, ...], sizes: tuple[str, ...]) -> type[ctypes.Structure]:
    """Return a ctypes struct of pointers followed by sizes."""
    types = [*((name, ctypes.c_void_p) for name in pointers), *((name, ctypes.c_size_t) for name in sizes)]
    return type("Structure", (ctypes.Structure,), {"_fields_": types})


def make_struct(struct: type[ctypes.Structure], tensors: Mapping[str, Tensor | None], sizes: Mapping[str, int]) -> Any:
    """Return a struct as an argument, valid as long as the tensors, which must be contiguous; NULL for None."""
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors.values())
    pointers = {name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()}
    return ctypes.byref(struct(**pointers, **sizes))
