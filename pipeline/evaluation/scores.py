"""From an evaluation's rows to its points: what is scored, by which names, in which units.

An evaluation holds a row per example:

    dataset, row        where the example stands
    delay, symbols, ... metadata columns of the task; the examples that share them are one point
    tokens, state_bytes tokens in the example, bytes of state the network carries at its end
    scored, correct     scored positions, and how many of them were answered right
    loss                nats, or squared error where answers are real numbers, summed over the scored positions
    hits                1 or 0 per scored position, in order
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

FIRST = ("dataset", "row")
LAST = ("tokens", "state_bytes", "scored", "correct", "loss", "hits")

Point = dict[str, Any]
"""The metadata of a point, then its scores."""


def metadata_columns(table: pa.Table) -> list[str]:
    """The metadata columns of an evaluation: those that are not scores."""
    return [name for name in table.column_names if name not in FIRST + LAST]


def score_points(table: pa.Table, floor: float, nats: bool = True) -> list[Point]:
    """Scores of every point of an evaluation, in the order of its metadata.

    `floor` is the loss of the best predictor without memory, per scored position as `loss` is. Accuracies are shares. `bits` is the
    information recalled per example: what the answers hold less what their cross-entropy leaves, never below zero; None where losses are
    not `nats`. A point without scored positions has no scores (None).
    """
    columns = {name: table.column(name).to_numpy() for name in ("tokens", "state_bytes", "scored", "correct", "loss")}
    return [
        metadata | _scores({name: values[chosen] for name, values in columns.items()}, floor, nats) for metadata, chosen in _groups(table)
    ]


def _scores(columns: dict[str, np.ndarray], floor: float, nats: bool) -> Point:
    rows, scored = len(columns["scored"]), int(columns["scored"].sum(dtype=np.int64))
    total = float(columns["loss"].sum(dtype=np.float64))
    loss = total / scored if scored else None
    return {
        "rows": rows,
        "scored": scored,
        "tokens": float(columns["tokens"].mean(dtype=np.float64)),
        "accuracy": int(columns["correct"].sum(dtype=np.int64)) / scored if scored else None,
        "sequence_accuracy": float(np.mean(columns["correct"] == columns["scored"])) if scored else None,
        "loss": loss,
        "loss_over_floor": loss / floor if loss is not None and floor > 0 else None,
        "bits": max(0.0, (scored * floor - total) / math.log(2) / rows) if scored and nats else None,
        "state_bytes": int(columns["state_bytes"].max()),
    }


def score_positions(table: pa.Table) -> list[Point]:
    """Accuracy at each scored position of every point: position 0 is the first answer. `rows` counts the examples that have it."""
    lists = table.column("hits").combine_chunks()
    lengths = lists.value_lengths().to_numpy()
    hits = lists.flatten().to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    points: list[Point] = []
    for metadata, chosen in _groups(table):
        for position in range(int(lengths[chosen].max(initial=0))):
            having = chosen[lengths[chosen] > position]
            accuracy = float(hits[starts[having] + position].mean(dtype=np.float64))
            points.append(metadata | {"position": position, "rows": len(having), "accuracy": accuracy})
    return points


def _groups(table: pa.Table) -> list[tuple[Point, np.ndarray]]:
    """The points in order, each with the indices of its examples."""
    names = metadata_columns(table)
    if not table.num_rows:
        return []
    if not names:
        return [({}, np.arange(table.num_rows))]
    values = np.stack([table.column(name).to_numpy() for name in names], axis=1)
    points, group = np.unique(values, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group.reshape(-1)))[:-1])
    return [(dict(zip(names, point.tolist(), strict=True)), chosen) for point, chosen in zip(points, members, strict=True)]
