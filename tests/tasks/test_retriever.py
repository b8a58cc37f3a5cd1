"""What retrievers share: which tokens are queries, which are results, and what is left of the context."""

from __future__ import annotations

import re

import numpy as np

from pipeline.tasks.retriever import Query, RegexSearches, Searches
from pipeline.tasks.vocabulary import BOS, END, FAIL, NODES, REC, ROOT, SEARCH, SEP, WORDS, token_of, word

A, B, C = range(NODES, NODES + 3)


class Diary(Searches):
    """Answers every query of one token with that token, and keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[int]] = [[]]

    def look_up(self, query: Query) -> int | None:
        return query[0] if len(query) == 1 else None

    def write(self, token: int) -> None:
        self.lines[-1].append(token)

    def interrupt(self) -> None:
        self.lines.append([])


def told(retriever: Searches, tokens: list[int]) -> list[int]:
    """What a retriever answers on the way through tokens."""
    return [answer for token in tokens if (answer := retriever.feed(token)) is not None]


def test_words_and_tokens_are_one_to_one() -> None:
    assert len(WORDS) == len(set(WORDS)) == NODES
    assert [token_of(word(token)) for token in range(NODES + 200)] == list(range(NODES + 200))


def test_queries_and_results_are_not_written() -> None:
    diary = Diary()
    assert told(diary, [A, SEARCH, B, END, B, C, REC, SEARCH, END, FAIL, A]) == [B, FAIL]
    assert diary.lines == [[A], [C, REC], [A]]


def test_what_is_malformed_fails() -> None:
    for tokens in ([END, FAIL], [SEARCH, END], [SEARCH, A, B, END], [SEARCH, A, SEARCH, A, END], [A, END]):
        assert told(Diary(), tokens) == [FAIL]


def test_a_result_is_skipped_whatever_it_is() -> None:
    for result in (SEARCH, END, FAIL, A):
        diary = Diary()
        assert told(diary, [SEARCH, A, END, result, B, SEARCH, C, END]) == [A, C]
        assert diary.lines == [[], [B], []]


def record(query: Query) -> str | None:
    return rf"\n(?:.*? )??{re.escape(word(query[0]))} ~ (\d+|root) " if len(query) == 1 else None


def test_the_reference_searches_the_context_as_text() -> None:
    reference = RegexSearches(np.array([BOS, A, B, SEP]), record)
    assert told(reference, [A, REC, ROOT, SEARCH, A, END, ROOT, B, SEARCH, B, END, FAIL, REC, A]) == [ROOT, FAIL]
    assert reference.text == "bos 0 1 sep \n0 ~ root \n1 \n~ 0 "
    assert told(reference, [SEARCH, B, END, FAIL, B, REC, C, SEARCH, B, END, C, SEARCH, B, C, END]) == [FAIL, C, FAIL]
