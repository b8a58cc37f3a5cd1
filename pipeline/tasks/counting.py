"""Counting: letters, then one of them and a number k; the answer is whether the letter stands in the row k times or more.

`length: 5`, the row b a c a b, the letter a, k = 3; it stands there twice:

    direct   BOS b a c a b QUERY a CNT 3 SEP | FALSE
    cot      BOS b a c a b QUERY a CNT 3 SEP | b a CNT 1 c a CNT 2 b EOS FALSE         every letter, and the count where it is one more
    icr      BOS b a c a b QUERY a CNT 3 SEP | SEARCH a END *1 CNT 1 SEARCH a 1 END *3 CNT 2 SEARCH a 3 END *FAIL EOS FALSE

A query is a letter, and from the second on the position found last; the result, *, is the position of the letter's next occurrence,
counted from 0, which the network does not write, or FAIL.

What is asked for: `low` < `high` are two counts the letter could have, k lies in low + 1 .. high, and the letter stands there `low` or
`high` times with equal probability, whatever they and k are, so that without the row nothing can be said; of any number of rows made
at once, half are true. `margin: one`: low is the first part of length - 1 split into `alphabet` parts, every way to do so equally likely, and
high = low + 1 = k. `margin: any`: both are first parts of splits of length, given that they differ; k is uniform between. The other
letters share what is left in a way that is uniform too. So all counts of a row vary alike, and the row does not tell which letter will be
asked for, but that one which is not there is about half as likely.

Memory: with `margin: any` whatever reads the row once and takes two rows with different counts for the same answers one of the questions
wrong: log2 of the number of possible counts, up to alphabet x log2(length + 1) bits. With `margin: one` the parities of all counts and k are
enough: alphabet bits. With searches two numbers and the letter are enough (Wen, Dang & Lyu 2024).

Shapes: B rows, N letters of the longest row, E occurrences of the letter in the row that has most, V other letters.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import ClassVar, NamedTuple

import numpy as np

from pipeline.config.tasks import Counting as Config
from pipeline.tasks.base import INJECTED, TARGET
from pipeline.tasks.retriever import Query, Searches
from pipeline.tasks.symbols import SymbolTask, Writer, in_turns, inside, letters_hash, write_prompt
from pipeline.tasks.vocabulary import CNT, END, FAIL, FALSE, NODES, SEARCH, TRUE


class Drawn(NamedTuple):
    """Letters, the letter asked for, and k."""

    letter_BN: np.ndarray
    letter_B: np.ndarray
    bound_B: np.ndarray


class Counting(SymbolTask):
    """Generator of the counting task."""

    steady: ClassVar[tuple[str, ...]] = ("direct",)

    config: Config

    def settle(self, rng: np.random.Generator, length_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """Lengths and answers, half of them true."""
        return length_B, (rng.permutation(len(length_B)) + rng.integers(2)) % 2 == 1

    def drawn(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> Drawn:
        """Two counts, k between, and as many of the letter as the answer takes, anywhere in the row."""
        length_B, true_B = settled
        letter_B = rng.integers(self.config.alphabet, size=len(length_B), dtype=np.uint16)
        low_B, high_B = self._counts(rng, length_B)
        counted_BN = _scattered(rng, np.where(true_B, high_B, low_B), length_B, width)
        other_BN = _others(rng, len(length_B), width, self.config.alphabet - 1)
        other_BN += other_BN >= letter_B[:, None]
        return Drawn(np.where(counted_BN, letter_B[:, None], other_BN), letter_B, low_B + 1 + rng.integers(high_B - low_B))

    def hashes(self, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Of the letters, the one asked for and k."""
        return letters_hash(drawn.letter_BN, length_B, drawn.letter_B.astype(np.int64) << 32 | drawn.bound_B)

    def write(self, rows: Writer, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Prompt, then the walk or the searches."""
        letter_BN, letter_B, width = drawn.letter_BN + NODES, drawn.letter_B + NODES, drawn.letter_BN.shape[1]
        inside_BN = inside(length_B, width)
        counted_BN = (letter_BN == letter_B[:, None]) & inside_BN
        count_B = np.count_nonzero(counted_BN, axis=1)
        write_prompt(rows, letter_BN, inside_BN, letter_B, CNT, self.number(drawn.bound_B))
        if self.config.layout == "cot":
            walk_BK = in_turns(letter_BN, CNT, self.number(np.cumsum(counted_BN, axis=1)))
            rows.add(TARGET, walk_BK, keep_BK=in_turns(inside_BN, counted_BN, counted_BN))
        elif self.config.layout == "icr":
            most = int(count_B.max(initial=0))
            place_BE = self.number(np.argsort(~counted_BN, axis=1, kind="stable")[:, :most])
            loop_BK = in_turns(place_BE, CNT, self.number(np.arange(1, most + 1)), SEARCH, letter_B[:, None], place_BE, END)
            rows.add(TARGET, SEARCH, letter_B, END)
            rows.add((INJECTED, *[TARGET] * 6), loop_BK, keep_BK=inside(7 * count_B, 7 * most))
            rows.add(INJECTED, FAIL)
        return np.where(count_B >= drawn.bound_B, TRUE, FALSE)

    def searches(self, body: list[int]) -> OccurrenceSearches:
        """Positions by letter."""
        return OccurrenceSearches(body, self.number(0))

    def _counts(self, rng: np.random.Generator, length_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two counts, the lower one first."""
        if self.config.margin == "one":
            low_B = self._first_part(rng, length_B - 1)
            return low_B, low_B + 1
        count_2B = np.stack([self._first_part(rng, length_B) for _ in range(2)])
        while len(equal := np.flatnonzero(count_2B[0] == count_2B[1])):
            count_2B[:, equal] = [self._first_part(rng, length_B[equal]) for _ in range(2)]
        return count_2B.min(axis=0), count_2B.max(axis=0)

    def _first_part(self, rng: np.random.Generator, total_B: np.ndarray) -> np.ndarray:
        """The first part of a number split into `alphabet` parts, all ways equally likely: that of throws of a uniformly drawn die."""
        return rng.binomial(total_B, rng.beta(1, self.config.alphabet - 1, size=len(total_B)))


def _scattered(rng: np.random.Generator, count_B: np.ndarray, length_B: np.ndarray, width: int) -> np.ndarray:
    """So many places of each row, all choices equally likely."""
    drawn_BN = np.where(inside(length_B, width), rng.random((len(length_B), width)), 2.0)
    chosen_BN = np.zeros(drawn_BN.shape, bool)
    np.put_along_axis(chosen_BN, np.argsort(drawn_BN, axis=1), inside(count_B, width), axis=1)
    return chosen_BN


def _others(rng: np.random.Generator, rows: int, width: int, letters: int) -> np.ndarray:
    """Letters 0..V-1, thrown by a die per row that is drawn uniformly from all dice: of any number of throws, all counts are equally likely."""
    edge_BV = np.cumsum(rng.standard_exponential((rows, letters)), axis=1)
    thrown_BN = rng.random((rows, width)) * edge_BV[:, -1:]
    letter_BN = np.zeros((rows, width), np.uint16)
    for edge_B in edge_BV.T[:-1]:
        letter_BN += thrown_BN >= edge_B[:, None]
    return letter_BN


class OccurrenceSearches(Searches):
    """Answers a letter, or a letter and a position, with the position of its first occurrence, or its first behind that position."""

    def __init__(self, body: list[int], zero: int) -> None:
        super().__init__()
        self.zero, self.length = zero, len(body)
        self.places: dict[int, list[int]] = {}
        for place, letter in enumerate(body):
            self.places.setdefault(letter, []).append(place)

    def look_up(self, query: Query) -> int | None:
        """One letter, and perhaps one position of the row."""
        if not 1 <= len(query) <= 2:
            return None
        last = query[1] - self.zero if len(query) == 2 else -1
        if len(query) == 2 and not 0 <= last < self.length:
            return None
        places = self.places.get(query[0], [])
        found = bisect_right(places, last)
        return self.zero + places[found] if found < len(places) else None
