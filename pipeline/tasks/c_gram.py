"""C-grams: letters, then a context of gram - 1 consecutive letters that occurs in the row once; the answer is the letter that follows it.

With `gram: 3` and `length: 6`, the row b a c a b c and the context c a:

    direct   BOS b a c a b c QUERY c a SEP | b
    cot      BOS b a c a b c QUERY c a SEP | b a c  a c a  c a b EOS b       all 3-grams up to the queried one
    icr      BOS b a c a b c QUERY c a SEP | SEARCH c a END *b EOS b         *: search result, injected, not predicted

The position of the context is uniform. The context is uniform, except that it is never a single repeated letter, and the letter after it is
uniform over all letters, or with `gram: 2` over the others. Every further letter, to the right and to the left, is then uniform over those
that do not complete the context a second time, so no rejection is needed. A search query is gram - 1 letters; the result is the letter after
their first occurrence that is followed by one, or FAIL.

Memory: about length x log2(alphabet) bits, if there are many more contexts than letters in the row; one letter per context,
alphabet ** (gram - 1) of them, is always enough. A trace does not help (Wen, Dang & Lyu 2024). With search, the context is enough.

Notation: B = rows, N = letters of the longest row, C = letters of a gram, W = positions left and right of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks import CGram as Config
from pipeline.tasks.base import TARGET
from pipeline.tasks.retriever import Query, Searches
from pipeline.tasks.symbols import SymbolTask, Writer, inside, letters_hash, write_prompt, write_search
from pipeline.tasks.vocabulary import NODES


class CGramInstances(NamedTuple):
    """Letters, and the start of the queried gram."""

    letter_BN: np.ndarray
    place_B: np.ndarray


class CGram(SymbolTask):
    """The c-gram retrieval task."""

    config: Config

    def sample_instances(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> CGramInstances:
        """Sample a gram, a uniform position for it, and the letters around it."""
        (length_B,) = settled
        place_B = rng.integers(length_B - self.config.gram + 1)
        around_BW = self._around(rng, self._grams(rng, len(length_B)), width)
        return CGramInstances(np.take_along_axis(around_BW, width + np.arange(width) - place_B[:, None], axis=1), place_B)

    def hashes(self, instances: CGramInstances, length_B: np.ndarray) -> np.ndarray:
        """Hash the letters and the context's position."""
        return letters_hash(instances.letter_BN, length_B, instances.place_B)

    def write(self, rows: Writer, instances: CGramInstances, length_B: np.ndarray) -> np.ndarray:
        """Write the prompt, then the trace or the search."""
        letter_BN, size, width = instances.letter_BN + NODES, self.config.gram, instances.letter_BN.shape[1]
        gram_BC = np.take_along_axis(letter_BN, instances.place_B[:, None] + np.arange(size), axis=1)
        write_prompt(rows, letter_BN, inside(length_B, width), gram_BC[:, :-1])
        if self.config.layout == "cot" and width:
            walk_BK = np.lib.stride_tricks.sliding_window_view(letter_BN, size, axis=1).reshape(len(letter_BN), -1)
            rows.add(TARGET, walk_BK, keep_BK=inside(size * (instances.place_B + 1), walk_BK.shape[1]))
        elif self.config.layout == "icr":
            write_search(rows, gram_BC[:, -1], gram_BC[:, :-1])
        return gram_BC[:, -1]

    def searches(self, body: list[int]) -> ContextSearches:
        """Return searches for letters by context."""
        return ContextSearches(body, self.config.gram - 1)

    def _grams(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Sample contexts and the letter after each."""
        letters, size = self.config.alphabet, self.config.gram
        gram_BC = rng.integers(letters, size=(rows, size), dtype=np.uint16)
        if size == 2:
            gram_BC[:, 1] = rng.integers(letters - 1, size=rows, dtype=np.uint16)
            gram_BC[:, 1] += gram_BC[:, 1] >= gram_BC[:, 0]
            return gram_BC
        while len(same := np.flatnonzero((gram_BC[:, 1:-1] == gram_BC[:, :1]).all(axis=1))):
            gram_BC[same, :-1] = rng.integers(letters, size=(len(same), size - 1), dtype=np.uint16)
        return gram_BC

    def _around(self, rng: np.random.Generator, gram_BC: np.ndarray, width: int) -> np.ndarray:
        """Sample `width` letters on either side of the gram such that the context occurs nowhere else.

        A letter would complete the context where the rest of it is already adjacent; it is then sampled from the others.
        """
        context, size = gram_BC.T[:-1], self.config.gram
        letter_WB = np.empty((2 * width + size, len(gram_BC)), np.uint16)
        letter_WB[width : width + size] = gram_BC.T
        for place in range(width + size, len(letter_WB)):
            complete_B = (letter_WB[place - size + 2 : place] == context[:-1]).all(axis=0)
            letter_WB[place] = self._letters(rng, complete_B, context[-1])
        for place in reversed(range(width)):
            complete_B = (letter_WB[place + 1 : place + size - 1] == context[1:]).all(axis=0)
            letter_WB[place] = self._letters(rng, complete_B, context[0])
        return letter_WB.T

    def _letters(self, rng: np.random.Generator, restricted_B: np.ndarray, letter_B: np.ndarray) -> np.ndarray:
        """Sample a uniform letter per row; where restricted, any but `letter_B`."""
        sampled_B = rng.integers(self.config.alphabet - restricted_B)
        return sampled_B + (restricted_B & (sampled_B >= letter_B))


class ContextSearches(Searches):
    """Returns the letter after the first occurrence of a context in `body`."""

    def __init__(self, body: list[int], context: int) -> None:
        super().__init__()
        places = reversed(range(len(body) - context))
        self.following = {tuple(body[place : place + context]): body[place + context] for place in places}

    def look_up(self, query: Query) -> int | None:
        """Look up a query of one context."""
        return self.following.get(query)
