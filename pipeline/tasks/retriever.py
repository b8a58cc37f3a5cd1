"""Retrieval from a row's own context: who reads what a network writes, and answers the searches in it.

A network writes `SEARCH query END`, and the token that comes next is not its own: it is the result, FAIL where the query is malformed or
finds nothing. What stands from SEARCH to the result is no part of the context, so no search finds another's query or result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import numpy as np

from pipeline.tasks.vocabulary import END, FAIL, SEARCH, token_of, word

Query = tuple[int, ...]
"""The tokens between SEARCH and END."""


class Retriever(Protocol):
    """What answers the searches of one row."""

    def feed(self, token: int) -> int | None:
        """Take in the row's next token after its prompt, forced ones included.

        After END: the token that must come next; else None.
        """
        ...


class Searches:
    """What all retrievers share: telling queries, their results and the rest apart. Subclasses look things up in what they have indexed."""

    def __init__(self) -> None:
        self._query: list[int] | None = None
        self._forced = False

    def feed(self, token: int) -> int | None:
        """Take in one token; after END, the result."""
        if self._forced:
            self._forced = False
        elif token == END:
            query, self._query, self._forced = self._query, None, True
            found = None if query is None else self.look_up(tuple(query))
            return FAIL if found is None else found
        elif self._query is not None:
            self._query.append(token)
        elif token == SEARCH:
            self._query = []
            self.interrupt()
        else:
            self.write(token)
        return None

    def look_up(self, query: Query) -> int | None:
        """The result of a query; None where there is none, or it is no query."""
        raise NotImplementedError

    def write(self, token: int) -> None:
        """Index a token that the row goes on with outside of searches."""

    def interrupt(self) -> None:
        """A search begins: what is written after it does not continue what was written before."""


class RegexSearches(Searches):
    """The slow reference of every retriever: a regular expression over the context as text.

    The prompt is the first line, words with a space behind each; what is written follows on lines of its own, a new one after each search.
    `pattern` spells a query as an expression whose one group that takes part is the result; None where the query is malformed.
    """

    def __init__(self, prompt_T: np.ndarray, pattern: Callable[[Query], str | None]) -> None:
        super().__init__()
        self.pattern = pattern
        self.text = "".join(f"{word(token)} " for token in prompt_T.tolist()) + "\n"

    def look_up(self, query: Query) -> int | None:
        """The first match in the text."""
        pattern = self.pattern(query)
        try:
            found = re.search(pattern, self.text) if pattern else None
        except re.error:  # a query that is spelt as an expression may be none
            return None
        return token_of(found[found.lastindex]) if found and found.lastindex else None

    def write(self, token: int) -> None:
        """One more word."""
        self.text += f"{word(token)} "

    def interrupt(self) -> None:
        """A new line."""
        self.text += "\n"
