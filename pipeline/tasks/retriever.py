"""In-context retrieval: a retriever reads a row's tokens and answers the searches in it.

After a network writes `SEARCH query END`, the next token is injected: the result, or FAIL if the query is malformed or finds nothing. The
tokens from SEARCH to the result are not part of the searched context, so no search finds another search's query or result.
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
    """Answers the searches of one row."""

    def feed(self, token: int) -> int | None:
        """Process the row's next token after its prompt, including injected ones.

        Returns the token to inject after END, else None.
        """
        ...


class Searches:
    """Base class of retrievers: separates queries, results and other tokens. Subclasses index tokens and look queries up."""

    def __init__(self) -> None:
        self._query: list[int] | None = None
        self._forced = False

    def feed(self, token: int) -> int | None:
        """Process one token; after END, return the result."""
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
        """Return the result of a query; None if nothing is found or the query is malformed."""
        raise NotImplementedError

    def write(self, token: int) -> None:
        """Index a token outside of searches."""

    def interrupt(self) -> None:
        """Handle the start of a search: tokens after it do not continue those before it."""


class RegexSearches(Searches):
    """A slow reference retriever: matches a regular expression against the context as text.

    The prompt is the first line, each word followed by a space; later tokens are on further lines, with a new line after each search.
    pattern: converts a query to an expression whose one participating group is the result; None if the query is malformed.
    """

    def __init__(self, prompt_T: np.ndarray, pattern: Callable[[Query], str | None]) -> None:
        super().__init__()
        self.pattern = pattern
        self.text = "".join(f"{word(token)} " for token in prompt_T.tolist()) + "\n"

    def look_up(self, query: Query) -> int | None:
        """Return the first match in the text."""
        pattern = self.pattern(query)
        try:
            found = re.search(pattern, self.text) if pattern else None
        except re.error:  # a spelt query may be an invalid expression
            return None
        return token_of(found[found.lastindex]) if found and found.lastindex else None

    def write(self, token: int) -> None:
        """Append a word."""
        self.text += f"{word(token)} "

    def interrupt(self) -> None:
        """Start a new line."""
        self.text += "\n"
