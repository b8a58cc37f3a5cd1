"""Index: letters, then a number i; the answer is the letter at position i, counted from 0.

With an alphabet of 3 (letters a, b, c) and `length: 4`, the row b c c a and the question 2:

    direct   BOS b c c a QUERY 2 SEP | c
    cot      BOS b c c a QUERY 2 SEP | 0 b 1 c 2 c EOS c          every position up to i, and its letter
    icr      BOS b c c a QUERY 2 SEP | SEARCH 2 END *c EOS c      *: the result of the search, which the network does not write

Letters are uniform and independent, i is uniform. A query is one number; the result is the letter there, FAIL beyond the row.

Memory: whatever reads the row once and forgets one of its letters answers one of the questions wrong: length x log2(alphabet) bits are
needed, and a trace does not help, since there is nothing else to write it from (Wen, Dang & Lyu 2024). With searches a number is enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks import Index as Config
from pipeline.tasks.base import TARGET
from pipeline.tasks.retriever import Query, Searches
from pipeline.tasks.symbols import SymbolTask, Writer, in_turns, inside, letters_hash, write_prompt, write_search
from pipeline.tasks.vocabulary import NODES


class Drawn(NamedTuple):
    """Letters and the position asked for."""

    letter_BN: np.ndarray
    place_B: np.ndarray


class Index(SymbolTask):
    """Generator of the index task."""

    config: Config

    def drawn(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> Drawn:
        """Uniform letters, a uniform position."""
        (length_B,) = settled
        return Drawn(rng.integers(self.config.alphabet, size=(len(length_B), width), dtype=np.uint16), rng.integers(length_B))

    def hashes(self, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Of the letters and the position."""
        return letters_hash(drawn.letter_BN, length_B, drawn.place_B)

    def write(self, rows: Writer, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Prompt, then the walk or the search."""
        letter_BN, width = drawn.letter_BN + NODES, drawn.letter_BN.shape[1]
        answer_B = np.take_along_axis(letter_BN, drawn.place_B[:, None], axis=1)[:, 0]
        write_prompt(rows, letter_BN, inside(length_B, width), self.number(drawn.place_B))
        if self.config.layout == "cot":
            walk_BK = in_turns(self.number(np.arange(width)), letter_BN)
            rows.add(TARGET, walk_BK, keep_BK=inside(2 * drawn.place_B + 2, 2 * width))
        elif self.config.layout == "icr":
            write_search(rows, answer_B, self.number(drawn.place_B))
        return answer_B

    def searches(self, body: list[int]) -> PositionSearches:
        """Letters by position."""
        return PositionSearches(body, self.number(0))


class PositionSearches(Searches):
    """Answers the number p with the token at position p of `body`; the number 0 is the token `zero`."""

    def __init__(self, body: list[int], zero: int) -> None:
        super().__init__()
        self.body, self.zero = body, zero

    def look_up(self, query: Query) -> int | None:
        """One number, less than the row is long."""
        return self.body[query[0] - self.zero] if len(query) == 1 and 0 <= query[0] - self.zero < len(self.body) else None
