"""The vocabulary of retrieval tasks: sixteen special tokens shared by all, then the names of nodes or symbols.

    BOS 3 - 7  7 - 5  SEP  3 ~ ROOT  3 SEARCH 3 ~ END ROOT  ...  EOS TRUE

A row is a prompt up to SEP (or QUERY ...), optionally a trace and EOS, then one answer, its last token.
"""

from __future__ import annotations

from pipeline.config.tasks.retrieval import NODES

PAD, BOS, SEP, EOS, TRUE, FALSE, EDGE, REC, SEARCH, END, FAIL, ROOT, IDLE, QUERY, CNT = range(15)
"""EDGE joins two nodes, REC records a node's parent; a query is between SEARCH and END, its result after END, FAIL if there is none."""

WORDS = ("pad", "bos", "sep", "eos", "true", "false", "-", "~", "search", "end", "fail", "root", "idle", "query", "cnt", "reserved")
"""The special tokens as text; a name's text is its number."""


def word(token: int) -> str:
    """Return a token as text."""
    return WORDS[token] if token < NODES else str(token - NODES)


def token_of(text: str) -> int:
    """Return the token with this text. Raises ValueError for an unknown word."""
    return NODES + int(text) if text.isdecimal() else WORDS.index(text)
