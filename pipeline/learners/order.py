"""The order of rows: shuffled epochs over a dataset, derived from a key instead of stored.

If all rows are in memory, the order is a uniform random permutation. If they are read by row groups, the groups are shuffled and the rows of
a few consecutive groups are mixed, so that each group is decoded about once per epoch.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.storage.loader import OPEN_GROUPS, DatasetRows
from pipeline.storage.rng import derive_key, generator


class Order:
    """The eligible rows of one epoch in random order, with `name` as key. `eligible`: a flag per row; None: all."""

    def __init__(self, rows: DatasetRows, eligible: np.ndarray | None, name: tuple[str | int | None, ...]) -> None:
        self._rows, self._eligible, self._name = rows, eligible, name
        groups = generator(derive_key("groups", *name)).permutation(len(rows.groups) - 1)
        self._pools = [groups[start : start + OPEN_GROUPS] for start in range(0, len(groups), OPEN_GROUPS)]
        self._edges = np.cumsum([0, *(sum(self._count(group) for group in pool) for pool in self._pools)])
        self._held: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._edges[-1])

    def take(self, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions `start` to `stop` of the epoch; `stop` must not exceed its length."""
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


class Epochs:
    """An endless series of consecutive epochs, each with every eligible row once, split into batches.

    A batch may contain the end of one epoch and the start of the next. No batch contains a row twice: the next epoch starts with rows that
    the shared batch does not contain yet. If there are fewer rows than a batch, its rows occur equally often, to within one.

    With fewer rows than two batches, the order is kept until an epoch starts together with a batch again: any `batch` consecutive
    positions of such a cycle hold different rows, or each equally often.
    """

    def __init__(self, rows: DatasetRows, eligible: np.ndarray | None, batch: int, name: tuple[str | int | None, ...]) -> None:
        self.count = len(rows) if eligible is None else int(np.count_nonzero(eligible))
        self.batch = batch
        self._cycle = math.lcm(self.count, batch) // self.count if self.count < 2 * batch else 1
        self._rows, self._eligible, self._name = rows, eligible, name
        self._held: tuple[int, Order, np.ndarray] | None = None

    def whole_batches(self, number: int) -> range:
        """Return the batches entirely inside the epoch in which batch `number` begins; if that one spans two epochs, it is not included."""
        epoch = number * self.batch // self.count
        return range(-(-epoch * self.count // self.batch), (epoch + 1) * self.count // self.batch)

    def take(self, batches: range) -> np.ndarray:
        """Return the rows of consecutive batches: a single one, or several inside one epoch."""
        start, stop = batches.start * self.batch, batches.stop * self.batch
        epoch, place = divmod(start, self.count)
        if self._cycle > 1:
            return self._epoch(epoch, 0, self.count)[np.arange(place, place + stop - start) % self.count]
        left = min(self.count - place, stop - start)
        rows = self._epoch(epoch, place, place + left)
        return rows if left == stop - start else np.concatenate([rows, self._epoch(epoch + 1, 0, stop - start - left)])

    def _epoch(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions `start` to `stop` of an epoch."""
        number = epoch // self._cycle
        if self._held is None or self._held[0] != number:
            self._held = (number, *self._opened(number))
        _, order, first = self._held
        return np.concatenate([first[start:stop], order.take(max(start, len(first)), max(stop, len(first)))])

    def _opened(self, number: int) -> tuple[Order, np.ndarray]:
        """Create an order and its rearranged first rows: rows not yet in the batch shared with the previous epoch come first."""
        order, shared = self._order(number), number * self.count % self.batch
        if self._cycle > 1 or not shared:
            return order, np.empty(0, np.int64)
        previous = self._held[1] if self._held and self._held[0] == number - 1 else self._order(number - 1)
        first = order.take(0, self.batch)
        twice = np.isin(first, previous.take(self.count - shared, self.count))
        return order, np.concatenate([first[~twice], first[twice]])

    def _order(self, number: int) -> Order:
        return Order(self._rows, self._eligible, (*self._name, number))
