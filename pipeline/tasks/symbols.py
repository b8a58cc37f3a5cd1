"""What index, associative recall, c-grams and counting share: how rows are written, kept apart between the splits and searched.

    BOS letters QUERY question SEP answer                direct
    BOS letters QUERY question SEP trace EOS answer      cot: a walk through the row; icr: searches of it

Letter v is name v, the number p name `alphabet` + p. A walk begins with the row's first letter and takes one step after the other, so that
each of its tokens follows from the row, the question and the few tokens before it; so do queries and what is written after their results.

Shapes: B rows, N letters (or pairs) of the longest row, K tokens side by side.
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
    draw,
    in_split,
    rows_of,
)
from pipeline.tasks.retriever import Retriever
from pipeline.tasks.vocabulary import BOS, END, EOS, NODES, QUERY, SEARCH, SEP

CELLS = 1 << 22
"""Tokens written at once."""


class Rows(NamedTuple):
    """Finished rows, end to end."""

    tokens: np.ndarray
    roles: np.ndarray
    lengths: np.ndarray


class Writer:
    """Writes rows side by side, from left to right."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._tokens: list[np.ndarray] = []
        self._roles: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []

    def add(self, roles: int | Sequence[int], *columns: int | np.ndarray, keep_BK: np.ndarray | None = None) -> None:
        """Go on with these tokens: the same for all rows, or one (B) or several (B, K) for each.

        `roles`: that of all of them, or some that take turns. `keep_BK`: which of them all are written.
        """
        wide = [column if np.ndim(column) == 2 else np.reshape(column, (-1, 1)) for column in columns]
        tokens_BK = np.concatenate([np.broadcast_to(column, (self.rows, np.shape(column)[1])) for column in wide], axis=1)
        self._tokens.append(tokens_BK.astype(np.uint16))
        self._roles.append(np.broadcast_to(np.resize(np.asarray(roles, np.uint8), tokens_BK.shape[1]), tokens_BK.shape))
        self._kept.append(np.ones(tokens_BK.shape, bool) if keep_BK is None else keep_BK)

    def finish(self) -> Rows:
        """All that was written, row after row."""
        kept_BK = np.concatenate(self._kept, axis=1)
        tokens, roles = (np.concatenate(parts, axis=1)[kept_BK] for parts in (self._tokens, self._roles))
        return Rows(tokens, roles, np.count_nonzero(kept_BK, axis=1))


def in_turns(*columns: int | np.ndarray) -> np.ndarray:
    """The first column of each matrix, then the second of each, ...; what is less than a matrix is repeated as it must be."""
    stacked = np.stack(np.broadcast_arrays(*columns), axis=2)
    return stacked.reshape(len(stacked), stacked.shape[1] * len(columns))


class SymbolTask(TokenTask):
    """Generator of rows with one question. Subclasses draw rows, hash what each asks for, and write it all down."""

    steady: ClassVar[tuple[str, ...]] = ("direct", "icr")
    """Layouts in which all rows of one length have one number of tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.separable = config.separable

    @property
    def traced(self) -> bool:
        """Whether a trace stands before the answer."""
        return self.config.layout != "direct"

    def retriever(self, prompt_T: np.ndarray) -> Retriever | None:
        """What answers the searches of the row with this prompt, the part of it before QUERY; None where rows have none."""
        tokens = prompt_T.tolist()
        return self.searches(tokens[1 : tokens.index(QUERY)]) if self.config.layout == "icr" else None

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Make rows; a pure function of its arguments. `level` is an upper bound on the length.

        Raises UserError where no row lies under the bound.
        """
        rng = generator(key)
        length_B = draw(self.config.name, "length", self.config.length, rows, rng, level)
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
        """What stays as it is when a row of the wrong split is drawn again."""
        return (length_B,)

    def drawn(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rows, as arrays of one entry per row; what belongs to letters has `width` columns."""
        raise NotImplementedError

    def hashes(self, drawn: Any, length_B: np.ndarray) -> np.ndarray:
        """A number per row that stands for its letters and its question."""
        raise NotImplementedError

    def write(self, rows: Writer, drawn: Any, length_B: np.ndarray) -> np.ndarray:
        """Write prompts and traces, and return the answers."""
        raise NotImplementedError

    def searches(self, body: list[int]) -> Retriever:
        """What answers searches of the tokens between BOS and QUERY."""
        raise NotImplementedError

    def number(self, value: Any) -> Any:
        """The tokens of numbers."""
        return value + (NODES + self.config.alphabet)

    def _rows(self, rng: np.random.Generator, length_B: np.ndarray, split: Split) -> Rows:
        rows, drawn = Writer(len(length_B)), self._of_split(rng, length_B, split)
        answer_B = self.write(rows, drawn, length_B)
        if self.traced:
            rows.add(TARGET, EOS)
        rows.add(ANSWER, answer_B)
        return rows.finish()

    def _of_split(self, rng: np.random.Generator, length_B: np.ndarray, split: Split) -> tuple[np.ndarray, ...]:
        """Rows that belong to `split`: those that do not are drawn again until they do."""
        settled, width = self.settle(rng, length_B), int(length_B.max(initial=0))
        drawn = self.drawn(rng, width, *settled)
        wrong_B = (length_B >= self.separable) & ~in_split(self.hashes(drawn, length_B), split)
        while wrong_B.any():
            again = tuple(values[wrong_B] for values in settled)
            fresh = self.drawn(rng, width, *again)
            for part, values in zip(drawn, fresh, strict=True):
                part[wrong_B] = values
            wrong_B[wrong_B] = ~in_split(self.hashes(fresh, again[0]), split)
        return drawn


def inside(length_B: np.ndarray, width: int) -> np.ndarray:
    """Which of `width` places each row has."""
    return np.arange(width) < length_B[:, None]


def letters_hash(letter_BN: np.ndarray, length_B: np.ndarray, question_B: np.ndarray) -> np.ndarray:
    """A number per row that stands for its letters in their order and its question."""
    return canonical_hash(letter_BN[inside(length_B, letter_BN.shape[1])], length_B, question_B)


def write_prompt(rows: Writer, body_BK: np.ndarray, keep_BK: np.ndarray, *question: int | np.ndarray) -> None:
    """BOS, the row, QUERY, the question, SEP."""
    rows.add(PROMPT, BOS)
    rows.add(PROMPT, body_BK, keep_BK=keep_BK)
    rows.add(PROMPT, QUERY, *question, SEP)


def write_search(rows: Writer, result: int | np.ndarray, *query: int | np.ndarray) -> None:
    """SEARCH, the query, END and the result, which is not the network's."""
    rows.add(TARGET, SEARCH, *query, END)
    rows.add(INJECTED, result)
