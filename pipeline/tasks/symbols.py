"""Common code of index, associative recall, c-grams and counting: writing rows, disjoint splits, and search.

    BOS letters QUERY question SEP answer                direct
    BOS letters QUERY question SEP trace EOS answer      cot: a walk through the row; icr: searches in it

Letter v is name v, the number p is name `alphabet` + p. A walk starts at the row's first letter and goes step by step, so that each token is
determined by the row, the question and the few tokens before it; so are queries and the tokens after their results.

Notation: B = rows, N = letters (or pairs) of the longest row, K = tokens of a column block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import (
    ANSWER,
    INJECTED,
    PROMPT,
    TARGET,
    Ragged,
    Split,
    TokenTask,
    canonical_hash,
    in_split,
    rows_of,
    sample_integers,
)
from pipeline.tasks.retriever import Retriever
from pipeline.tasks.vocabulary import BOS, END, EOS, NODES, QUERY, SEARCH, SEP

CELLS = 1 << 22
"""Maximum number of tokens written at once."""


class SymbolRows(NamedTuple):
    """Finished rows, concatenated."""

    tokens: np.ndarray
    roles: np.ndarray
    lengths: np.ndarray


class Writer:
    """Writes rows in parallel, from left to right."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._tokens: list[np.ndarray] = []
        self._roles: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []

    def add(self, roles: int | Sequence[int], *columns: int | np.ndarray, keep_BK: np.ndarray | None = None) -> None:
        """Append tokens: the same for all rows, or one (B) or several (B, K) per row.

        roles: one role for all tokens, or a sequence that repeats. keep_BK: which of the tokens are written.
        """
        wide = [column if np.ndim(column) == 2 else np.reshape(column, (-1, 1)) for column in columns]
        tokens_BK = np.concatenate([np.broadcast_to(column, (self.rows, np.shape(column)[1])) for column in wide], axis=1)
        self._tokens.append(tokens_BK.astype(np.uint16))
        self._roles.append(np.broadcast_to(np.resize(np.asarray(roles, np.uint8), tokens_BK.shape[1]), tokens_BK.shape))
        self._kept.append(np.ones(tokens_BK.shape, bool) if keep_BK is None else keep_BK)

    def finish(self) -> SymbolRows:
        """Return all rows, concatenated."""
        kept_BK = np.concatenate(self._kept, axis=1)
        tokens, roles = (np.concatenate(parts, axis=1)[kept_BK] for parts in (self._tokens, self._roles))
        return SymbolRows(tokens, roles, np.count_nonzero(kept_BK, axis=1))


def in_turns(*columns: int | np.ndarray) -> np.ndarray:
    """Interleave matrices: the first column of each, then the second of each, ...; arguments broadcast."""
    stacked = np.stack(np.broadcast_arrays(*columns), axis=2)
    return stacked.reshape(len(stacked), stacked.shape[1] * len(columns))


class SymbolTask(TokenTask):
    """A task with one question per row. Subclasses sample instances, hash them for the split, and write rows."""

    steady: ClassVar[tuple[str, ...]] = ("direct", "icr")
    """Layouts in which all rows of the same length have the same number of tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.separable = config.separable

    @property
    def traced(self) -> bool:
        """Whether a trace precedes the answer."""
        return self.config.layout != "direct"

    def retriever(self, prompt_T: np.ndarray) -> Retriever | None:
        """Return the retriever for the row with this prompt, which indexes the part before QUERY; None if rows have no searches."""
        tokens = prompt_T.tolist()
        return self.searches(tokens[1 : tokens.index(QUERY)]) if self.config.layout == "icr" else None

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError if no row satisfies the bound.
        """
        rng = generator(key)
        length_B = sample_integers(self.config.name, "length", self.config.length, rows, rng, level)
        step = max(1, CELLS // self.config.longest)
        parts = [self._rows(rng, length_B[at : at + step], split) for at in range(0, max(rows, 1), step)]
        tokens, roles, lengths = map(np.concatenate, zip(*parts, strict=True))
        role, ends = roles.tobytes(), np.cumsum(lengths)
        return rows_of(
            tokens=Ragged(tokens, lengths, isinstance(self.config.length, int) and self.config.layout in self.steady),
            layouts=[role[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)],
            layout_B=np.arange(rows),
            columns={"length": length_B},
            padding=self.padding,
        )

    def settle(self, rng: np.random.Generator, length_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sample the properties of rows that are kept when a row of the wrong split is resampled."""
        return (length_B,)

    def sample_instances(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sample instances, as arrays with one entry per row; per-letter arrays have `width` columns."""
        raise NotImplementedError

    def hashes(self, instances: Any, length_B: np.ndarray) -> np.ndarray:
        """Hash the letters and question of each row."""
        raise NotImplementedError

    def write(self, rows: Writer, instances: Any, length_B: np.ndarray) -> np.ndarray:
        """Write prompts and traces; returns the answers."""
        raise NotImplementedError

    def searches(self, body: list[int]) -> Retriever:
        """Return the retriever for the tokens between BOS and QUERY."""
        raise NotImplementedError

    def number(self, value: Any) -> Any:
        """Return the tokens of numbers."""
        return value + (NODES + self.config.alphabet)

    def _rows(self, rng: np.random.Generator, length_B: np.ndarray, split: Split) -> SymbolRows:
        rows, instances = Writer(len(length_B)), self._sample_in_split(rng, length_B, split)
        answer_B = self.write(rows, instances, length_B)
        if self.traced:
            rows.add(TARGET, EOS)
        rows.add(ANSWER, answer_B)
        return rows.finish()

    def _sample_in_split(self, rng: np.random.Generator, length_B: np.ndarray, split: Split) -> tuple[np.ndarray, ...]:
        """Sample instances that belong to `split`, by rejection."""
        settled, width = self.settle(rng, length_B), int(length_B.max(initial=0))
        instances = self.sample_instances(rng, width, *settled)
        wrong_B = (length_B >= self.separable) & ~in_split(self.hashes(instances, length_B), split)
        while wrong_B.any():
            again = tuple(values[wrong_B] for values in settled)
            fresh = self.sample_instances(rng, width, *again)
            for part, values in zip(instances, fresh, strict=True):
                part[wrong_B] = values
            wrong_B[wrong_B] = ~in_split(self.hashes(fresh, again[0]), split)
        return instances


def inside(length_B: np.ndarray, width: int) -> np.ndarray:
    """Return the mask of the first `length_B` of `width` positions."""
    return np.arange(width) < length_B[:, None]


def letters_hash(letter_BN: np.ndarray, length_B: np.ndarray, question_B: np.ndarray) -> np.ndarray:
    """Hash the letters of each row, in order, and its question."""
    return canonical_hash(letter_BN[inside(length_B, letter_BN.shape[1])], length_B, question_B)


def write_prompt(rows: Writer, body_BK: np.ndarray, keep_BK: np.ndarray, *question: int | np.ndarray) -> None:
    """Write BOS, the row, QUERY, the question, SEP."""
    rows.add(PROMPT, BOS)
    rows.add(PROMPT, body_BK, keep_BK=keep_BK)
    rows.add(PROMPT, QUERY, *question, SEP)


def write_search(rows: Writer, result: int | np.ndarray, *query: int | np.ndarray) -> None:
    """Write SEARCH, the query, END and the injected result."""
    rows.add(TARGET, SEARCH, *query, END)
    rows.add(INJECTED, result)
