"""Running means of metrics that stay on the device until they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Means:
    """Running means by name. Values are summed one by one in double precision, so a save in between changes no bit."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor | float]) -> None:
        """Add one value to each named mean."""
        for name, value in values.items():
            double = value.detach().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
            self._sums[name] = self._sums[name] + double if name in self._sums else double
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the means so far. Waits for the device."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}

    def clear(self) -> None:
        """Reset."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore saved sums and counts."""
        self._sums, self._counts = state["sums"], state["counts"]
