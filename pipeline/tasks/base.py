"""What token tasks have in common: how rows become Arrow columns, which split a row belongs to, and how answers are scored.

Shapes: B rows, T tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.storage.arrow import fixed_lists, from_numpy, lists, texts
from pipeline.storage.keys import Key

Split = Literal["train", "validation", "test"]

BUCKETS: dict[str, tuple[int, int]] = {"test": (0, 10), "validation": (10, 15), "train": (15, 100)}
"""Which of the hundred buckets of a row's canonical hash each split takes, the end excluded."""

PROMPT, TARGET, INJECTED, ANSWER = range(4)

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words so that every bit depends on every other: SplitMix64's finaliser (Steele et al. 2014)."""
    values = np.asarray(values, np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_weights(count: int) -> np.ndarray:
    """Odd 64-bit weights, one per position, for a hash that is a weighted sum."""
    return mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)


def in_split(hash_B: np.ndarray, split: Split) -> np.ndarray:
    """Which rows belong to a split, by their canonical hash."""
    low, high = BUCKETS[split]
    bucket = mix(hash_B) % np.uint64(100)
    return (bucket >= low) & (bucket < high)


class Ragged(NamedTuple):
    """Lists of uint16 end to end. `fixed`: by the task's definition they all have one length, in every shard."""

    values: np.ndarray
    lengths: np.ndarray
    fixed: bool

    def array(self) -> pa.Array:
        """As an Arrow array of lists without nulls, which Parquet reads and writes faster."""
        values = from_numpy(self.values.astype(np.uint16, copy=False))
        return fixed_lists(values, int(self.lengths[0])) if self.fixed and len(self.lengths) else lists(values, self.lengths)


def rows_of(
    tokens: Ragged,
    layouts: list[bytes],
    layout_B: np.ndarray,
    columns: Mapping[str, np.ndarray],
    padding: int,
    target: Ragged | None = None,
) -> pa.RecordBatch:
    """A task's rows in the form that every shard and every stream has.

    `layouts` are the distinct role columns, `layout_B` the one of each row; `columns` the metadata; `padding` the token that fills rows up.
    """
    arrays = {"tokens": tokens.array(), "role": texts(layouts, layout_B)}
    if target is not None:
        arrays["target"] = target.array()
    arrays.update({name: from_numpy(values.astype(np.int32)) for name, values in columns.items()})
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    return pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(fields, {"padding": str(padding)}))


class TokenTask:
    """A task whose rows are tokens: it makes rows from a key and scores answers."""

    meanings: ClassVar[dict[str, str]] = {}
    """What each metadata column means, for the dataset's card."""

    padding: int = 0

    def __init__(self, config: Any) -> None:
        self.config = config

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Make rows; a pure function of its arguments.

        `level` is an upper bound on `column`, by default the task's first; such rows have the distribution of all rows under that bound.
        Rows of different splits never meet, except where `overlap` says so.
        Raises UserError where no row lies under the bound.
        """
        raise NotImplementedError

    def overlap(self) -> str:
        """Which rows, if any, are too few to be kept apart between the splits; one sentence for the card."""
        return "No row is in two splits."

    def score(self, scored_BT: np.ndarray, hit_BT: np.ndarray, loss_BT: np.ndarray) -> dict[str, pa.Array]:
        """The columns of an evaluation, a value per row, from what happened at each position.

        scored_BT: positions that count; hit_BT: the answer was right; loss_BT: cross-entropy in nats. Values elsewhere are ignored.
        Columns: scored and correct (positions), loss (nats, summed), hits (0 or 1 per scored position, in order).
        """
        scored = np.count_nonzero(scored_BT, axis=1)
        return {
            "scored": from_numpy(scored.astype(np.int32)),
            "correct": from_numpy(np.count_nonzero(hit_BT & scored_BT, axis=1).astype(np.int32)),
            "loss": from_numpy(np.where(scored_BT, loss_BT, 0.0).sum(axis=1, dtype=np.float64).astype(np.float32)),
            "hits": lists(from_numpy(hit_BT[scored_BT].astype(np.uint8)), scored),
        }
