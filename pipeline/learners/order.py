"""Which row comes next: one epoch over a dataset, shuffled, re-derived from a few numbers instead of stored.

Where all rows are in memory, every order of the rows is equally likely. Where they are read by row groups, the groups are shuffled and
the rows of a few neighbouring groups mixed, so that each group is decoded about once an epoch.
"""

from __future__ import annotations

import numpy as np

from pipeline.storage.keys import derive_key, generator
from pipeline.storage.loader import OPEN_GROUPS, Rows


class Order:
    """The eligible rows of one epoch in the order that `name` stands for. `eligible`: a flag per row; None: all."""

    def __init__(self, rows: Rows, eligible: np.ndarray | None, name: tuple[str | int | None, ...]) -> None:
        self._rows, self._eligible, self._name = rows, eligible, name
        groups = generator(derive_key("groups", *name)).permutation(len(rows.groups) - 1)
        self._pools = [groups[start : start + OPEN_GROUPS] for start in range(0, len(groups), OPEN_GROUPS)]
        self._edges = np.cumsum([0, *(sum(self._count(group) for group in pool) for pool in self._pools)])
        self._held: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._edges[-1])

    def take(self, start: int, stop: int) -> np.ndarray:
        """The rows from place `start` of the epoch up to place `stop`, which must not pass its end."""
        assert 0 <= start <= stop <= len(self)
        pieces = [np.empty(0, np.int64)]
        while start < stop:
            pool = int(np.searchsorted(self._edges, start, side="right")) - 1
            end = min(stop, int(self._edges[pool + 1]))
            pieces.append(self._pool(pool)[start - self._edges[pool] : end - self._edges[pool]])
            start = end
        return np.concatenate(pieces)

    def _pool(self, pool: int) -> np.ndarray:
        if self._held is None or self._held[0] != pool:
            rows = np.concatenate([self._of_group(group) for group in self._pools[pool]])
            self._held = (pool, generator(derive_key("pool", *self._name, pool)).permutation(rows))
        return self._held[1]

    def _of_group(self, group: int) -> np.ndarray:
        first, end = self._rows.groups[group : group + 2]
        return np.arange(first, end) if self._eligible is None else first + np.flatnonzero(self._eligible[first:end])

    def _count(self, group: int) -> int:
        first, end = self._rows.groups[group : group + 2]
        return int(end - first if self._eligible is None else np.count_nonzero(self._eligible[first:end]))
