"""Group an evaluation's rows into points and score them. An evaluation has a row per example:

    dataset, row        which example it is
    delay, symbols, ... metadata columns of the task; examples with equal values form a point, but for columns that the schema's note
                        `describing` names
    supervision, ...    coordinates of its measurement: an example has a row for each of their values
    ...                 the columns of its measurement, see `pipeline.evaluation.measurements`
    state_bytes         bytes of state the network carries at the example's end
    memory_bits         bits that the longest row of its dataset asks a network to carry, if known

The file's schema metadata names the measurement.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pipeline.storage.lazy import np, pa

if TYPE_CHECKING:
    from pipeline.evaluation.measurements.base import Measurement, Point

COMMON = ("dataset", "row", "state_bytes", "memory_bits")
"""The columns of every evaluation, whatever its measurement."""


def metadata_columns(table: pa.Table, measurement: Measurement) -> list[str]:
    """Return the columns of an evaluation that make its points: the task's metadata, but for what only describes a row, and coordinates."""
    describing = json.loads((table.schema.metadata or {}).get(b"describing", b"[]"))
    return [name for name in table.column_names if name not in COMMON and name not in measurement.columns and name not in describing]


def score_points(table: pa.Table, measurement: Measurement, run: Point) -> list[Point]:
    """Return metadata and scores of every point of an evaluation, ordered by metadata. run: see `Measurement.score`."""
    columns = {
        name: table.column(name).to_numpy()
        for name in ("state_bytes", "memory_bits", *measurement.columns)
        if name in table.column_names and not _is_nested(table.column(name).type)
    }
    points = []
    for metadata, chosen in groups(table, measurement):
        examples = {name: values[chosen] for name, values in columns.items()}
        common: Point = {name: examples[name].max().item() for name in ("state_bytes", "memory_bits") if name in examples}
        if math.isnan(common.get("memory_bits", 0.0)):
            common["memory_bits"] = None
        scores = measurement.score(examples, run)
        assert not metadata.keys() & (scores.keys() | set(COMMON)), "a metadata column has the name of a score"
        points.append(metadata | scores | common)
    return points


def _is_nested(arrow_type: pa.DataType) -> bool:
    """Whether values are lists or pictures, which cannot be averaged."""
    return pa.types.is_list(arrow_type) or pa.types.is_binary(arrow_type)


def groups(table: pa.Table, measurement: Measurement) -> list[tuple[Point, np.ndarray]]:
    """Return the points in order, each with the indices of its examples."""
    names = metadata_columns(table, measurement)
    if not table.num_rows:
        return []
    if not names:
        return [({}, np.arange(table.num_rows))]
    values = np.stack([table.column(name).to_numpy() for name in names], axis=1)
    points, group = np.unique(values, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group.reshape(-1)))[:-1])
    return [(dict(zip(names, point.tolist(), strict=True)), chosen) for point, chosen in zip(points, members, strict=True)]
