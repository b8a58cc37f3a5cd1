"""The tokens of every retrieval task: sixteen that mean the same everywhere, then the names of nodes or symbols.

    BOS 3 - 7  7 - 5  SEP  3 ~ ROOT  3 SEARCH 3 ~ END ROOT  ...  EOS TRUE

A row is its prompt up to SEP (or QUERY ...), then perhaps a trace and EOS, then one answer, its last token.
"""

from __future__ import annotations

from pipeline.config.tasks.retrieval import NODES

PAD, BOS, SEP, EOS, TRUE, FALSE, EDGE, REC, SEARCH, END, FAIL, ROOT, IDLE, QUERY, CNT = range(15)
"""EDGE joins two nodes, REC writes down a node's parent; between SEARCH and END stands a query, behind END its result, FAIL if there is none."""

WORDS = ("pad", "bos", "sep", "eos", "true", "false", "-", "~", "search", "end", "fail", "root", "idle", "query", "cnt", "reserved")
"""How the special tokens are spelt in text; a name is spelt as its number."""


def word(token: int) -> str:
    """A token as text."""
    return WORDS[token] if token < NODES else str(token - NODES)


def token_of(text: str) -> int:
    """The token that is spelt so. Raises ValueError for a word there is not."""
    return NODES + int(text) if text.isdecimal() else WORDS.index(text)
