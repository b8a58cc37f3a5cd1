"""C-grams: letters, then gram - 1 of them that stand in the row once, one behind the other; the answer is the letter that follows them.

With `gram: 3` and `length: 6`, the row b a c a b c and the context c a:

    direct   BOS b a c a b c QUERY c a SEP | b
    cot      BOS b a c a b c QUERY c a SEP | b a c  a c a  c a b EOS b       every three in a row up to those asked for
    icr      BOS b a c a b c QUERY c a SEP | SEARCH c a END *b EOS b         *: the result of the search, which the network does not write

The context stands anywhere with the same probability. It is uniform, but never one letter again and again, and the letter behind it is
uniform: of all letters, or with `gram: 2` of the others. From there every further letter, to the right and to the left, is uniform among those that
do not complete the context a second time; so nothing is ever drawn again for standing twice. A query is gram - 1 letters; the result is
the letter behind the first place where they stand and one follows, FAIL where there is none.

Memory: about length x log2(alphabet) bits, as long as there are many more contexts than letters in the row; a letter for every context,
alphabet ** (gram - 1) of them, is always enough. A trace does not help (Wen, Dang & Lyu 2024). With a search the context is enough.

Shapes: B rows, N letters of the longest row, C letters of a gram, W places left and right of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks import CGram as Config
from pipeline.tasks.base import TARGET
from pipeline.tasks.retriever import Query, Searches
from pipeline.tasks.symbols import SymbolTask, Writer, inside, letters_hash, write_prompt, write_search
from pipeline.tasks.vocabulary import NODES


class Drawn(NamedTuple):
    """Letters, and where the gram asked for begins."""

    letter_BN: np.ndarray
    place_B: np.ndarray


class CGram(SymbolTask):
    """Generator of c-gram retrieval."""

    config: Config

    def drawn(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> Drawn:
        """A gram, a uniform place for it, and letters around it."""
        (length_B,) = settled
        place_B = rng.integers(length_B - self.config.gram + 1)
        around_BW = self._around(rng, self._grams(rng, len(length_B)), width)
        return Drawn(np.take_along_axis(around_BW, width + np.arange(width) - place_B[:, None], axis=1), place_B)

    def hashes(self, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Of the letters and the context's place."""
        return letters_hash(drawn.letter_BN, length_B, drawn.place_B)

    def write(self, rows: Writer, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Prompt, then the walk or the search."""
        letter_BN, size, width = drawn.letter_BN + NODES, self.config.gram, drawn.letter_BN.shape[1]
        gram_BC = np.take_along_axis(letter_BN, drawn.place_B[:, None] + np.arange(size), axis=1)
        write_prompt(rows, letter_BN, inside(length_B, width), gram_BC[:, :-1])
        if self.config.layout == "cot" and width:
            walk_BK = np.lib.stride_tricks.sliding_window_view(letter_BN, size, axis=1).reshape(len(letter_BN), -1)
            rows.add(TARGET, walk_BK, keep_BK=inside(size * (drawn.place_B + 1), walk_BK.shape[1]))
        elif self.config.layout == "icr":
            write_search(rows, gram_BC[:, -1], gram_BC[:, :-1])
        return gram_BC[:, -1]

    def searches(self, body: list[int]) -> ContextSearches:
        """Letters by what stands before them."""
        return ContextSearches(body, self.config.gram - 1)

    def _grams(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Contexts with the letter behind them."""
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
        """`width` letters, the gram, and letters again, so that no other place of them all holds the context.

        A context that ends or begins with the new letter is complete where the rest of it stands already.
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
        """A uniform letter per row; of the others, where it is restricted."""
        drawn_B = rng.integers(self.config.alphabet - restricted_B)
        return drawn_B + (restricted_B & (drawn_B >= letter_B))


class ContextSearches(Searches):
    """Answers a context with the letter behind its first place in `body`."""

    def __init__(self, body: list[int], context: int) -> None:
        super().__init__()
        places = reversed(range(len(body) - context))
        self.behind = {tuple(body[place : place + context]): body[place + context] for place in places}

    def look_up(self, query: Query) -> int | None:
        """As many letters as a context has."""
        return self.behind.get(query)
