"""The index task: letters, then a number i; the answer is the letter at position i, counted from 0.

With an alphabet of 3 (letters a, b, c) and `length: 4`, the row b c c a and the question 2:

    direct   BOS b c c a QUERY 2 SEP | c
    cot      BOS b c c a QUERY 2 SEP | 0 b 1 c 2 c EOS c          all positions up to i, with their letters
    icr      BOS b c c a QUERY 2 SEP | SEARCH 2 END *c EOS c      *: search result, injected, not predicted

Letters are uniform and independent, i is uniform. A search query is one number; the result is the letter at that position, or FAIL beyond
the row.

Memory: a model that reads the row once and forgets one of its letters gets one of the questions wrong, so length x log2(alphabet) bits are
needed, and a trace does not help, since it can only be written from memory (Wen, Dang & Lyu 2024). With search, one number is enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks import Index as Config
from pipeline.tasks.base import TARGET
from pipeline.tasks.retriever import Query, Searches
from pipeline.tasks.symbols import SymbolTask, Writer, in_turns, inside, letters_hash, write_prompt, write_search
from pipeline.tasks.vocabulary import NODES


class IndexInstances(NamedTuple):
    """Letters and the queried position."""

    letter_BN: np.ndarray
    place_B: np.ndarray


class Index(SymbolTask):
    """The index task."""

    config: Config

    def sample_instances(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> IndexInstances:
        """Sample uniform letters and a uniform position."""
        (length_B,) = settled
        return IndexInstances(rng.integers(self.config.alphabet, size=(len(length_B), width), dtype=np.uint16), rng.integers(length_B))

    def hashes(self, instances: IndexInstances, length_B: np.ndarray) -> np.ndarray:
        """Hash the letters and the position."""
        return letters_hash(instances.letter_BN, length_B, instances.place_B)

    def write(self, rows: Writer, instances: IndexInstances, length_B: np.ndarray) -> np.ndarray:
        """Write the prompt, then the trace or the search."""
        letter_BN, width = instances.letter_BN + NODES, instances.letter_BN.shape[1]
        answer_B = np.take_along_axis(letter_BN, instances.place_B[:, None], axis=1)[:, 0]
        write_prompt(rows, letter_BN, inside(length_B, width), self.number(instances.place_B))
        if self.config.layout == "cot":
            walk_BK = in_turns(self.number(np.arange(width)), letter_BN)
            rows.add(TARGET, walk_BK, keep_BK=inside(2 * instances.place_B + 2, 2 * width))
        elif self.config.layout == "icr":
            write_search(rows, answer_B, self.number(instances.place_B))
        return answer_B

    def searches(self, body: list[int]) -> PositionSearches:
        """Return searches for letters by position."""
        return PositionSearches(body, self.number(0))


class PositionSearches(Searches):
    """Returns the token at a position of `body`; the number 0 is the token `zero`."""

    def __init__(self, body: list[int], zero: int) -> None:
        super().__init__()
        self.body, self.zero = body, zero

    def look_up(self, query: Query) -> int | None:
        """Look up a query of one number, less than the row's length."""
        return self.body[query[0] - self.zero] if len(query) == 1 and 0 <= query[0] - self.zero < len(self.body) else None
