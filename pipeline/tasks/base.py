"""Common code of token tasks: sampling, assignment of rows to splits, conversion to Arrow columns, and scoring.

Notation: B = rows, T = tokens of the longest row, S = letters of all rows, concatenated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.base import Distribution
from pipeline.config.tasks.base import shortest_apart
from pipeline.storage.arrow import binary_array, fixed_size_list_array, from_numpy, list_array
from pipeline.storage.errors import UserError
from pipeline.storage.rng import Key
from pipeline.tasks.vocabulary import EOS, SEARCH

if TYPE_CHECKING:
    from pipeline.tasks.retriever import Retriever

Split = Literal["train", "validation", "test"]

BUCKETS: dict[str, tuple[int, int]] = {"test": (0, 10), "validation": (10, 15), "train": (15, 100)}
"""Buckets, out of 100, of a row's canonical hash that belong to each split, end exclusive."""

PROMPT, TARGET, INJECTED, ANSWER = range(4)

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words so that every bit depends on every other: SplitMix64's finaliser (Steele et al. 2014)."""
    values = np.asarray(values, np.uint64)
    mixed = values ^ (values >> _SHIFTS[0])
    mixed *= _FACTORS[0]
    mixed ^= mixed >> _SHIFTS[1]
    mixed *= _FACTORS[1]
    mixed ^= mixed >> _SHIFTS[2]
    return mixed


def hash_weights(count: int) -> np.ndarray:
    """Return odd 64-bit weights, one per position, for hashing by a weighted sum."""
    return mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)


def in_split(hash_B: np.ndarray, split: Split) -> np.ndarray:
    """Return which rows belong to a split, by their canonical hash."""
    low, high = BUCKETS[split]
    bucket = mix(hash_B) % np.uint64(100)
    return (bucket >= low) & (bucket < high)


def canonical_hash(letters_S: np.ndarray, counts_B: np.ndarray, other_B: np.ndarray) -> np.ndarray:
    """Compute a 64-bit hash of each row's content: its `counts_B` letters in order, and one more number."""
    if not len(counts_B):
        return np.empty(0, np.uint64)
    starts = np.cumsum(counts_B) - counts_B
    weights = hash_weights(int(counts_B.max()))
    sums = np.add.reduceat((letters_S + np.uint64(1)) * weights[within(counts_B)], starts)
    return sums + mix(other_B.astype(np.uint64))


def within(counts: np.ndarray) -> np.ndarray:
    """Return 0..n-1 for every n in `counts`, concatenated."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def sample_letters(rng: np.random.Generator, alphabet: int, counts_B: np.ndarray, other_B: np.ndarray, split: Split) -> np.ndarray:
    """Sample uniform letters of rows that belong to `split`, concatenated, by rejection of whole rows.

    Rows with too few letters for disjoint splits belong to every split.
    """
    apart = shortest_apart(alphabet)

    def wrong(letters_S: np.ndarray, counts_B: np.ndarray, other_B: np.ndarray) -> np.ndarray:
        return (counts_B >= apart) & ~in_split(canonical_hash(letters_S, counts_B, other_B), split)

    letters_S = rng.integers(alphabet, size=counts_B.sum(), dtype=np.uint16)
    wrong_B = wrong(letters_S, counts_B, other_B)
    while wrong_B.any():
        counts, chosen = counts_B[wrong_B], np.repeat(wrong_B, counts_B)
        fresh = rng.integers(alphabet, size=counts.sum(), dtype=np.uint16)
        letters_S[chosen] = fresh
        wrong_B[wrong_B] = wrong(fresh, counts, other_B[wrong_B])
    return letters_S


def sample_integers(task: str, name: str, value: int | Distribution, rows: int, rng: np.random.Generator, most: int | None) -> np.ndarray:
    """Sample one integer per row, at most `most`; `log_uniform` integers are log-uniform real numbers rounded down.

    Raises UserError, naming the task and its field, if no value satisfies the bound.
    """
    low, high = value.bounds if isinstance(value, Distribution) else (value, value)
    high = high if most is None else min(high, most)
    if high < low:
        raise UserError(f"{task}: no row has {name} <= {most}, the smallest is {low}; start the curriculum there")
    if low == high:
        return np.full(rows, low)
    if isinstance(value, Distribution) and value.kind == "log_uniform":
        return np.minimum(np.exp(rng.uniform(np.log(low), np.log(high + 1), rows)).astype(np.int64), high)
    return rng.integers(low, high, size=rows, endpoint=True)


class Ragged(NamedTuple):
    """Concatenated variable-length lists of uint16, or float32 for real values.

    `fixed`: by the task's definition, all lists have the same length, in every shard.
    """

    values: np.ndarray
    lengths: np.ndarray
    fixed: bool

    def array(self) -> pa.Array:
        """Convert to an Arrow list array without nulls, which is faster in Parquet."""
        dtype = np.float32 if self.values.dtype.kind == "f" else np.uint16
        values = from_numpy(self.values.astype(dtype, copy=False))
        return fixed_size_list_array(values, int(self.lengths[0])) if self.fixed and len(self.lengths) else list_array(values, self.lengths)


def rows_of(
    tokens: Ragged,
    layouts: list[bytes],
    layout_B: np.ndarray,
    columns: Mapping[str, np.ndarray],
    padding: int,
    target: Ragged | None = None,
    values: Ragged | None = None,
) -> pa.RecordBatch:
    """Convert a task's rows to the record batch format of shards and streams.

    layouts: the distinct role columns; layout_B: the index of each row's. columns: metadata. padding: the padding token.
    values: real numbers of the tokens, equally many per token, in token order.
    """
    arrays = {"tokens": tokens.array(), "role": binary_array(layouts, layout_B)}
    if values is not None:
        arrays["values"] = values.array()
    if target is not None:
        arrays["target"] = target.array()
    arrays.update({name: from_numpy(values.astype(np.int32)) for name, values in columns.items()})
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    return pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(fields, {"padding": str(padding)}))


class TokenTask:
    """A task whose rows are token sequences: generates rows from a key and scores answers."""

    padding: int = 0
    eos: int = EOS
    """The token between a trace and its answer."""
    search: int = SEARCH
    """The token that starts a search query."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def traced(self) -> bool:
        """Whether a trace precedes the answer, which is then the token after `eos`; otherwise the answer is the first token after the prompt."""
        return False

    def retriever(self, prompt_T: np.ndarray) -> Retriever | None:
        """Return the retriever that answers the searches of the row with this prompt; None if rows have no searches."""
        return None

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments.

        `level` is an upper bound on `column`, by default the task's first; rows have the distribution of all rows conditioned on the bound.
        Splits are disjoint, except as stated by `overlap`. Raises UserError if no row satisfies the bound.
        """
        raise NotImplementedError

    def available(self, split: Split) -> int | None:
        """Return how many different rows a split has, where they are listed rather than drawn at random; None: no limit."""
        return None

    def rows_from(self, start: int, rows: int, key: Key, split: Split) -> pa.RecordBatch:
        """Generate rows `start`.. of a stored dataset, those of one shard. Where rows are listed, `start` is the place in the list."""
        return self.generate(rows, key, split=split)

    def overlap(self) -> str:
        """Describe which rows, if any, are too few for disjoint splits; one sentence for the dataset card."""
        return self.config.overlap or "No row is in two splits."

    def valid(self, tokens_BT: np.ndarray, answer_BT: np.ndarray, label_BT: np.ndarray | None = None) -> np.ndarray:
        """Return for every grid whether an answer solves it by the rules of the puzzle, even if it is not the label.

        label_BT: labels, negative where a cell has none; needed where there are no rules to check an answer by.
        """
        raise NotImplementedError

    def score(self, scored_BT: np.ndarray, hit_BT: np.ndarray, loss_BT: np.ndarray) -> dict[str, pa.Array]:
        """Compute the per-row columns of an evaluation from per-position results.

        scored_BT: scored positions; hit_BT: the answer is correct; loss_BT: cross-entropy in nats, or squared error for real answers.
        Values at unscored positions are ignored. Columns: scored and correct (positions), loss (summed), hits (0 or 1 per scored position, in order).
        """
        scored = np.count_nonzero(scored_BT, axis=1)
        return {
            "scored": from_numpy(scored.astype(np.int32)),
            "correct": from_numpy(np.count_nonzero(hit_BT & scored_BT, axis=1).astype(np.int32)),
            "loss": from_numpy(np.where(scored_BT, loss_BT, 0.0).sum(axis=1, dtype=np.float64).astype(np.float32)),
            "hits": list_array(from_numpy(hit_BT[scored_BT].astype(np.uint8)), scored),
        }
