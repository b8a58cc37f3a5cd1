"""numpy and pyarrow, imported at their first use.

Planning a suite reads the declarations of measurements, but computes nothing. Their modules, and those that they import, take `np` and `pa`
from here, which saves a quarter of a second in every `pipeline plan` and `snakemake -n`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:

    class _Lazy:
        """A module that is imported when one of its names is first looked up."""

        def __init__(self, module: str) -> None:
            self._module = module

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module(self._module), name)
            setattr(self, name, value)
            return value

    np, pa = _Lazy("numpy"), _Lazy("pyarrow")

__all__ = ["np", "pa"]
