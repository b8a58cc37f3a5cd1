"""The searches of IsTree: a node's parent, its first edge, its next edge; by an index, or spelt as regular expressions.

v ~       the parent p in the first record `v ~ p` written so far: a node, or ROOT
v -       the other end of the first edge of the prompt at v
v - w     the other end of the next edge of the prompt at v, after its edge to w
"""

from __future__ import annotations

import numpy as np

from pipeline.config.tasks.retrieval import PIECES
from pipeline.tasks.retriever import Query, Retriever, Searches
from pipeline.tasks.vocabulary import EDGE, NODES, PAD, REC, ROOT, word

SPELLING = dict(zip(PIECES, (r"(\d+|root) ", "|", "(?:", ")", r"(?:.*? )??"), strict=True))
"""Regular expression of each piece of a spelt query; every word is followed by a space."""


def is_name(token: int) -> bool:
    """Whether a token is a node's name."""
    return token >= NODES


class GraphSearches(Searches):
    """Indexes edges by their ends and parents by their children, so that every search is one dictionary lookup."""

    def __init__(self, prompt_T: np.ndarray) -> None:
        super().__init__()
        self._neighbours: dict[int, list[int]] = {}
        self._following: dict[tuple[int, int], int] = {}
        self._parents: dict[int, int] = {}
        self._written = (0, 0)
        tokens = prompt_T.tolist()
        for one, other in zip(tokens[1:-1:3], tokens[3:-1:3], strict=True):
            for node, far in ((one, other), (other, one)):
                known = self._neighbours.setdefault(node, [])
                if known:
                    self._following[node, known[-1]] = far
                known.append(far)

    def look_up(self, query: Query) -> int | None:
        """Run one of the three searches; None if the query is none of them."""
        match query:
            case (node, end) if end == REC:
                return self._parents.get(node)
            case (node, end) if end == EDGE:
                return self._neighbours.get(node, [None])[0]
            case (node, middle, last) if middle == EDGE:
                return self._following.get((node, last))
        return None

    def write(self, token: int) -> None:
        """Index a record once it is complete; only the first record of a node counts."""
        child, middle = self._written
        if middle == REC and is_name(child) and (is_name(token) or token == ROOT):
            self._parents.setdefault(child, token)
        self._written = middle, token

    def interrupt(self) -> None:
        """Discard an incomplete record that a search interrupts."""
        self._written = (0, 0)


class SpelledPattern:
    """Parses a query spelt as a regular expression: words of the context, and tokens that stand for parts of the expression."""

    def __init__(self, names: int) -> None:
        self.first = NODES + names

    def __call__(self, query: Query) -> str | None:
        """Return the expression, over whole words; None if it is empty or has more than one gap, unlike any search in a trace."""
        if not query or query.count(self.first + PIECES.index("skip")) > 1:
            return None
        return rf"(?<!\S)(?:{''.join(map(self._spelt, query))})"

    def _spelt(self, token: int) -> str:
        return f"{word(token)} " if token < self.first else SPELLING[PIECES[token - self.first]]


class RenumberedRetriever:
    """Wraps a retriever to use the token numbers of the public code."""

    def __init__(self, inner: Retriever, number_V: np.ndarray) -> None:
        """`number_V[token]` is the public number of each of our tokens; if two share a number, the later one is used for the inverse."""
        self.inner, self.number_V = inner, number_V
        self.ours = {int(number): token for token, number in enumerate(number_V)}

    def feed(self, token: int) -> int | None:
        """Call the inner retriever, translating tokens both ways."""
        found = self.inner.feed(self.ours.get(token, PAD))
        return None if found is None else int(self.number_V[found])
