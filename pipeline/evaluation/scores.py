"""From an evaluation's rows to its points: what is scored, by which names, in which units.

An evaluation holds a row per example:

    dataset, row        where the example stands
    delay, symbols, ... metadata columns of the task; the examples that share them are one point
    tokens, state_bytes tokens in the example, bytes of state the network carries at its end
    scored, correct     scored positions, and how many of them were answered right
    loss                nats, or squared error where answers are real numbers, summed over the scored positions
    hits                1 or 0 per scored position, in order

and where the task is decoded, what the network did when it ran freely,

    outcome             correct, wrong or no answer: of the answer it came to by itself
    exact               everything it wrote is what truly follows the prompt
    first_error         place of its first wrong token, the first after the prompt being 0; null where there is none
    continuation        tokens that truly follow the prompt
    queries             searches that it made and were answered, and
    valid_queries       how many of them have the form of a query in a true trace, whichever names of their prompt they ask for

where all of `scored`, `correct`, `loss` and `hits` are teacher-forced: each next token is judged after the true ones. Where known,

    memory_bits         bits that the longest row of its dataset asks a network to carry

An example of an environment is an episode, which has instead of `tokens` to `hits`

    success             1 where it was solved, else 0
    return              sum of its rewards
    episode_length      its steps
    state_bytes         as above
    best                return of the best policy, where that is known
    frames              pictures of it one after the other, three bytes a pixel, and
    frames_shape        their number, height, width and channels: of the first episodes, null for the others
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evaluation.statistics import LEVEL, rows_interval, student_interval, wilson_interval

FIRST = ("dataset", "row")
LAST = ("tokens", "state_bytes", "scored", "correct", "loss", "hits")
FREE = ("outcome", "exact", "first_error", "continuation", "queries", "valid_queries")
PLAYED = ("success", "return", "episode_length", "best", "frames", "frames_shape")
OPTIONAL = (*FREE, *PLAYED, "memory_bits")
BINS = 20
"""Parts of a continuation in which first errors are counted."""

Point = dict[str, Any]
"""The metadata of a point, then its scores."""


def metadata_columns(table: pa.Table) -> list[str]:
    """The metadata columns of an evaluation: those that are not scores."""
    return [name for name in table.column_names if name not in FIRST + LAST + OPTIONAL]


def score_points(table: pa.Table, baseline: float, nats: bool = True) -> list[Point]:
    """Scores of every point of an evaluation, in the order of its metadata.

    `baseline` is the loss of the best predictor without memory, per scored position as `loss` is. Accuracies are shares. `bits` is the
    information recalled per example: what the answers hold less what their cross-entropy leaves, never below zero; None where losses are
    not `nats`. A point without scored positions has no scores (None). `accuracy_low` and `accuracy_high` are the ends of the 95 % interval
    of `accuracy` over the examples of this one run: other examples would leave it there, another seed need not.

    Of a decoded task `accuracy` is that of the answers that the network came to by itself; see `_free_scores` for what else there is. Of an
    environment it is the share of episodes that were solved; see `_played_scores`.
    """
    wanted = ("tokens", "state_bytes", "scored", "correct", "loss", *(name for name in OPTIONAL if not name.startswith("frames")))
    columns = {name: table.column(name).to_numpy() for name in wanted if name in table.column_names}
    return [
        metadata | _scores({name: values[chosen] for name, values in columns.items()}, baseline, nats)
        for metadata, chosen in _groups(table)
    ]


def _scores(columns: dict[str, np.ndarray], baseline: float, nats: bool) -> Point:
    if "success" in columns:
        return _played_scores(columns)
    rows, scored = len(columns["scored"]), int(columns["scored"].sum(dtype=np.int64))
    total = float(columns["loss"].sum(dtype=np.float64))
    loss = total / scored if scored else None
    low, high = rows_interval(columns["correct"], columns["scored"])
    found = {
        "rows": rows,
        "scored": scored,
        "tokens": float(columns["tokens"].mean(dtype=np.float64)),
        "accuracy": int(columns["correct"].sum(dtype=np.int64)) / scored if scored else None,
        "accuracy_low": low if scored else None,
        "accuracy_high": high if scored else None,
        "sequence_accuracy": float(np.mean(columns["correct"] == columns["scored"])) if scored else None,
        "loss": loss,
        "loss_over_baseline": loss / baseline if loss is not None and baseline > 0 else None,
        "bits": max(0.0, (scored * baseline - total) / math.log(2) / rows) if scored and nats else None,
        "state_bytes": int(columns["state_bytes"].max()),
    }
    if "memory_bits" in columns:
        found["memory_bits"] = float(columns["memory_bits"].max())
    if "outcome" not in columns:
        return found
    return {**found, **_free_scores(columns), **{f"forced_{name}": found[name] for name in ("accuracy", "accuracy_low", "accuracy_high")}}


def _free_scores(columns: dict[str, np.ndarray]) -> Point:
    """What free runs came to, as shares of the rows; and of the searches that they made.

    `first_error` is the median place, counted in tokens, over the rows that went wrong, `first_errors` how many rows went wrong first in
    each of so many equal parts of their continuation.
    """
    outcome, wrong = columns["outcome"], ~columns["exact"].astype(bool)
    rows, right, queries = len(outcome), int((outcome == "correct").sum()), int(columns["queries"].sum())
    low, high = wilson_interval(right, rows)
    first = columns["first_error"][wrong].astype(np.int64)
    parts = np.minimum(BINS * first // columns["continuation"][wrong], BINS - 1)
    return {
        "accuracy": right / rows,
        "accuracy_low": low,
        "accuracy_high": high,
        "no_answer": float(np.mean(outcome == "no answer")),
        "exact": 1 - float(np.mean(wrong)),
        "first_error": float(np.median(first)) if len(first) else None,
        "first_errors": np.bincount(parts, minlength=BINS).tolist(),
        "queries": queries,
        "valid_queries": int(columns["valid_queries"].sum()) / queries if queries else None,
    }


def _played_scores(columns: dict[str, np.ndarray]) -> Point:
    """How episodes were played: the share solved and the mean return with their 95 % intervals, means of steps and the best possible return."""
    rows, solved = len(columns["success"]), int(columns["success"].sum())
    low, high = wilson_interval(solved, rows)
    least, most = student_interval(columns["return"].astype(np.float64), LEVEL)
    return {
        "rows": rows,
        "accuracy": solved / rows,
        "accuracy_low": low,
        "accuracy_high": high,
        "return": float(columns["return"].mean()),
        "return_low": least if rows > 1 else None,
        "return_high": most if rows > 1 else None,
        "best_return": float(columns["best"].mean()) if "best" in columns else None,
        "episode_length": float(columns["episode_length"].mean()),
        "state_bytes": int(columns["state_bytes"].max()),
    }


def score_positions(table: pa.Table) -> list[Point]:
    """Accuracy at each scored position of every point: position 0 is the first answer. `rows` counts the examples that have it.

    Episodes have no such positions.
    """
    if "hits" not in table.column_names:
        return []
    lists = table.column("hits").combine_chunks()
    lengths = lists.value_lengths().to_numpy()
    hits = lists.flatten().to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    points: list[Point] = []
    for metadata, chosen in _groups(table):
        for position in range(int(lengths[chosen].max(initial=0))):
            having = chosen[lengths[chosen] > position]
            right, rows = int(hits[starts[having] + position].sum(dtype=np.int64)), len(having)
            low, high = wilson_interval(right, rows)
            scores = {"accuracy": right / rows, "accuracy_low": low, "accuracy_high": high}
            points.append(metadata | {"position": position, "rows": rows, **scores})
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
