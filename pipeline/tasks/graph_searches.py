"""The searches of IsTree: a node's father, its first edge, its next edge; by an index, or spelt as regular expressions.

v ~       the father p of the first record `v ~ p` among what has been written: a node, or ROOT
v -       the other end of the first edge of the prompt at v
v - w     the other end of the next edge of the prompt at v, after its edge to w
"""

from __future__ import annotations

import numpy as np

from pipeline.config.tasks.retrieval import PIECES
from pipeline.tasks.retriever import Query, Retriever, Searches
from pipeline.tasks.vocabulary import EDGE, NODES, PAD, REC, ROOT, word

SPELLING = dict(zip(PIECES, (r"(\d+|root) ", "|", "(?:", ")", r"(?:.*? )??"), strict=True))
"""What each piece of a spelt query adds to the regular expression; a word is followed by a space."""


def is_name(token: int) -> bool:
    """Whether a token is a node's name."""
    return token >= NODES


class GraphSearches(Searches):
    """Edges by their ends, and fathers by their children: every search is one look into a dictionary."""

    def __init__(self, prompt_T: np.ndarray) -> None:
        super().__init__()
        self._neighbours: dict[int, list[int]] = {}
        self._following: dict[tuple[int, int], int] = {}
        self._fathers: dict[int, int] = {}
        self._written = (0, 0)
        tokens = prompt_T.tolist()
        for one, other in zip(tokens[1:-1:3], tokens[3:-1:3], strict=True):
            for node, far in ((one, other), (other, one)):
                known = self._neighbours.setdefault(node, [])
                if known:
                    self._following[node, known[-1]] = far
                known.append(far)

    def look_up(self, query: Query) -> int | None:
        """One of the three searches, or None."""
        match query:
            case (node, end) if end == REC:
                return self._fathers.get(node)
            case (node, end) if end == EDGE:
                return self._neighbours.get(node, [None])[0]
            case (node, middle, last) if middle == EDGE:
                return self._following.get((node, last))
        return None

    def write(self, token: int) -> None:
        """Index a record once it is whole; the first of a node counts."""
        child, middle = self._written
        if middle == REC and is_name(child) and (is_name(token) or token == ROOT):
            self._fathers.setdefault(child, token)
        self._written = middle, token

    def interrupt(self) -> None:
        """What a search parts is no record."""
        self._written = (0, 0)


class SpelledPattern:
    """Reads a query that is itself spelt as a regular expression: words of the context, and pieces that stand for parts of expressions."""

    def __init__(self, names: int) -> None:
        self.first = NODES + names

    def __call__(self, query: Query) -> str | None:
        """The expression, over whole words. None where it is empty or has more than one gap, which no search of a trace has."""
        if not query or query.count(self.first + PIECES.index("skip")) > 1:
            return None
        return rf"(?<!\S)(?:{''.join(map(self._spelt, query))})"

    def _spelt(self, token: int) -> str:
        return f"{word(token)} " if token < self.first else SPELLING[PIECES[token - self.first]]


class Renumbered:
    """A retriever behind other token numbers: those of the public code."""

    def __init__(self, inner: Retriever, number_V: np.ndarray) -> None:
        """`number_V[token]` is the other number of each of our tokens; of two with the same, the one that is written is ours."""
        self.inner, self.number_V = inner, number_V
        self.ours = {int(number): token for token, number in enumerate(number_V)}

    def feed(self, token: int) -> int | None:
        """As the inner one, renumbered both ways."""
        found = self.inner.feed(self.ours.get(token, PAD))
        return None if found is None else int(self.number_V[found])
