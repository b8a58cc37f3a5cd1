"""The four tasks of symbols once more, as text and slowly: who answers them, who writes their traces, and what their searches find.

Words are as `pipeline.tasks.vocabulary.word` spells tokens; letters and keys are numbers below and above the alphabet.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np

from pipeline.tasks.retriever import Query, RegexSearches
from pipeline.tasks.vocabulary import token_of, word

Policy = Generator[str, str | None, str]
"""Writes a trace word by word, gets the result of each search for its `end`, and returns the answer."""


def words_of(tokens: list[int]) -> list[str]:
    """Tokens as words."""
    return [word(token) for token in tokens]


def parts(prompt: list[str]) -> tuple[list[str], list[str]]:
    """The row and the question of a prompt."""
    found = re.fullmatch(r"bos ((?:\d+ )*\d+) query ((?:\d+ )(?:cnt |\d+ )*)sep", " ".join(prompt))
    assert found, prompt
    return found[1].split(), found[2].split()


def number(config: Any, value: int) -> str:
    """A number's word."""
    return str(config.alphabet + value)


def solution(config: Any, prompt: list[str]) -> str:
    """The answer that a prompt asks for."""
    row, question = parts(prompt)
    match config.name:
        case "index":
            return row[int(question[0]) - config.alphabet]
        case "associative_recall":
            (place,) = [place for place in range(0, len(row), 2) if row[place] == question[0]]
            return row[place + 1]
        case "c_gram":
            text, context = f" {' '.join(row)} ", f" {' '.join(question)} "
            places = [place for place in range(len(text)) if text.startswith(context, place)]
            assert len(places) == 1
            return text[places[0] + len(context) :].split()[0]
        case _:
            letter, marker, bound = question
            assert marker == "cnt"
            return "true" if sum(other == letter for other in row) >= int(bound) - config.alphabet else "false"


def policy(config: Any, prompt: list[str]) -> Policy:
    """Writes what stands between a prompt and its EOS, from the prompt alone."""
    row, question = parts(prompt)
    if config.layout == "direct":
        yield from ()
        return solution(config, prompt)
    writers: dict[str, Any] = {"cot": {"counting": _count}, "icr": {"counting": _search_and_count}}
    writer = writers[config.layout].get(config.name, _walk if config.layout == "cot" else _search)
    return (yield from writer(config, row, question))


def _walk(config: Any, row: list[str], question: list[str]) -> Policy:
    size = {"index": 1, "associative_recall": 2, "c_gram": len(question) + 1}[config.name]
    for step in range(0, len(row), size if config.name == "associative_recall" else 1):
        chunk = row[step : step + size]
        if config.name == "index":
            chunk = [number(config, step), *chunk]
        yield from chunk
        if chunk[:-1] == question:
            return chunk[-1]
    raise AssertionError("the row ended before the walk did")


def _search(config: Any, row: list[str], question: list[str]) -> Policy:
    yield from ["search", *question]
    result = yield "end"
    assert result
    return result


def _count(config: Any, row: list[str], question: list[str]) -> Policy:
    count = 0
    for letter in row:
        yield letter
        if letter == question[0]:
            count += 1
            yield "cnt"
            yield number(config, count)
    return "true" if count >= int(question[2]) - config.alphabet else "false"


def _search_and_count(config: Any, row: list[str], question: list[str]) -> Policy:
    count, query = 0, [question[0]]
    while True:
        yield from ["search", *query]
        result = yield "end"
        assert result
        if result == "fail":
            return "true" if count >= int(question[2]) - config.alphabet else "false"
        count, query = count + 1, [question[0], result]
        yield "cnt"
        yield number(config, count)


class Reference(RegexSearches):
    """What the searches of a row find, by regular expressions on its prompt."""

    def __init__(self, config: Any, prompt: list[int]) -> None:
        self.config = config
        super().__init__(np.array(prompt), self.expression)

    def expression(self, query: Query) -> str | None:
        """What a query looks for."""
        asked, letters = [word(token) for token in query], self.config.alphabet
        if not asked or not all(name.isdecimal() for name in asked):
            return None
        match self.config.name:
            case "index":
                place = int(asked[0]) - letters
                return rf"^bos (?:\d+ ){{{place}}}(\d+) " if len(asked) == 1 and place >= 0 else None
            case "associative_recall":
                return rf"^bos (?:\d+ \d+ )*?{asked[0]} (\d+) " if len(asked) == 1 else None
            case "c_gram":
                return rf"^bos (?:\d+ )*?{' '.join(asked)} (\d+) " if len(asked) == self.config.gram - 1 else None
            case _:
                if len(asked) > 2 or (len(asked) == 2 and int(asked[1]) < letters):
                    return None
                behind = int(asked[1]) - letters + 1 if len(asked) == 2 else 0
                return rf"^bos (?=(?:\d+ ){{{behind}}})((?:\d+ ){{{behind},}}?){asked[0]} "

    def look_up(self, query: Query) -> int | None:
        """Of counting: a position, the number of words before what was found; else the word that was."""
        if self.config.name != "counting":
            return super().look_up(query)
        pattern = self.expression(query)
        found = re.search(pattern, self.text) if pattern else None
        return token_of(number(self.config, len(found[1].split()))) if found else None
