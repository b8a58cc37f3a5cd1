"""Counting: letters, then a letter and a number k; the answer is whether the letter occurs in the row at least k times.

`length: 5`, the row b a c a b, the letter a, which occurs twice, k = 3:

    direct   BOS b a c a b QUERY a CNT 3 SEP | FALSE
    cot      BOS b a c a b QUERY a CNT 3 SEP | b a CNT 1 c a CNT 2 b EOS FALSE         all letters, and each new count
    icr      BOS b a c a b QUERY a CNT 3 SEP | SEARCH a END *1 CNT 1 SEARCH a 1 END *3 CNT 2 SEARCH a 3 END *FAIL EOS FALSE

A search query is a letter and, from the second search on, the last position found; the result, *, injected and not predicted, is the
position of the letter's next occurrence, counted from 0, or FAIL.

Distribution: `low` < `high` are two possible counts, k is in low + 1 .. high, and the letter occurs `low` or `high` times with equal
probability, independently of them and k, so the question alone does not predict the answer; of any number of rows generated together, half
are true. `margin: one`: low is the first part of a uniformly random composition of length - 1 into `alphabet` parts, and high = low + 1 = k.
`margin: any`: both are first parts of random compositions of length, conditioned on being different; k is uniform in between. The counts of
the other letters are a uniformly random composition of the rest. All counts of a row are thus distributed alike, and the row does not reveal
which letter will be queried, except that a letter that does not occur is about half as likely.

Memory: with `margin: any`, a model that reads the row once and does not distinguish two rows with different counts gets one of the questions
wrong: log2 of the number of possible counts, up to alphabet x log2(length + 1) bits. With `margin: one` the parities of all counts and k are
enough: alphabet bits. With search, two numbers and the letter are enough (Wen, Dang & Lyu 2024).

Notation: B = rows, N = letters of the longest row, E = maximum number of occurrences of the queried letter, V = other letters.
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


class CountingInstances(NamedTuple):
    """Letters, the queried letter, and k."""

    letter_BN: np.ndarray
    letter_B: np.ndarray
    bound_B: np.ndarray


class Counting(SymbolTask):
    """The counting task."""

    steady: ClassVar[tuple[str, ...]] = ("direct",)

    config: Config

    def settle(self, rng: np.random.Generator, length_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return lengths and answers, half of which are true."""
        return length_B, (rng.permutation(len(length_B)) + rng.integers(2)) % 2 == 1

    def sample_instances(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> CountingInstances:
        """Sample two counts, k in between, and the count of the letter required by the answer, at uniform positions."""
        length_B, true_B = settled
        letter_B = rng.integers(self.config.alphabet, size=len(length_B), dtype=np.uint16)
        low_B, high_B = self._counts(rng, length_B)
        counted_BN = _scattered(rng, np.where(true_B, high_B, low_B), length_B, width)
        other_BN = _others(rng, len(length_B), width, self.config.alphabet - 1)
        other_BN += other_BN >= letter_B[:, None]
        return CountingInstances(np.where(counted_BN, letter_B[:, None], other_BN), letter_B, low_B + 1 + rng.integers(high_B - low_B))

    def hashes(self, instances: CountingInstances, length_B: np.ndarray) -> np.ndarray:
        """Hash the letters, the queried one and k."""
        return letters_hash(instances.letter_BN, length_B, instances.letter_B.astype(np.int64) << 32 | instances.bound_B)

    def write(self, rows: Writer, instances: CountingInstances, length_B: np.ndarray) -> np.ndarray:
        """Write the prompt, then the trace or the searches."""
        letter_BN, letter_B, width = instances.letter_BN + NODES, instances.letter_B + NODES, instances.letter_BN.shape[1]
        inside_BN = inside(length_B, width)
        counted_BN = (letter_BN == letter_B[:, None]) & inside_BN
        count_B = np.count_nonzero(counted_BN, axis=1)
        write_prompt(rows, letter_BN, inside_BN, letter_B, CNT, self.number(instances.bound_B))
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
        return np.where(count_B >= instances.bound_B, TRUE, FALSE)

    def searches(self, body: list[int]) -> OccurrenceSearches:
        """Return searches for positions by letter."""
        return OccurrenceSearches(body, self.number(0))

    def _counts(self, rng: np.random.Generator, length_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample the two counts, the lower one first."""
        if self.config.margin == "one":
            low_B = self._first_part(rng, length_B - 1)
            return low_B, low_B + 1
        count_2B = np.stack([self._first_part(rng, length_B) for _ in range(2)])
        while len(equal := np.flatnonzero(count_2B[0] == count_2B[1])):
            count_2B[:, equal] = [self._first_part(rng, length_B[equal]) for _ in range(2)]
        return count_2B.min(axis=0), count_2B.max(axis=0)

    def _first_part(self, rng: np.random.Generator, total_B: np.ndarray) -> np.ndarray:
        """Sample the first part of a uniformly random composition into `alphabet` parts: a beta-binomial count."""
        return rng.binomial(total_B, rng.beta(1, self.config.alphabet - 1, size=len(total_B)))


def _scattered(rng: np.random.Generator, count_B: np.ndarray, length_B: np.ndarray, width: int) -> np.ndarray:
    """Sample a uniform subset of `count_B` positions of each row, as a mask."""
    key_BN = np.where(inside(length_B, width), rng.random((len(length_B), width)), 2.0)
    chosen_BN = np.zeros(key_BN.shape, bool)
    np.put_along_axis(chosen_BN, np.argsort(key_BN, axis=1), inside(count_B, width), axis=1)
    return chosen_BN


def _others(rng: np.random.Generator, rows: int, width: int, letters: int) -> np.ndarray:
    """Sample letters 0..V-1 from uniformly random letter probabilities per row, so that all compositions of counts are equally likely."""
    edge_BV = np.cumsum(rng.standard_exponential((rows, letters)), axis=1)
    thrown_BN = rng.random((rows, width)) * edge_BV[:, -1:]
    letter_BN = np.zeros((rows, width), np.uint16)
    for edge_B in edge_BV.T[:-1]:
        letter_BN += thrown_BN >= edge_B[:, None]
    return letter_BN


class OccurrenceSearches(Searches):
    """Returns the position of a letter's first occurrence, or given a position, of its first occurrence after it."""

    def __init__(self, body: list[int], zero: int) -> None:
        super().__init__()
        self.zero, self.length = zero, len(body)
        self.places: dict[int, list[int]] = {}
        for place, letter in enumerate(body):
            self.places.setdefault(letter, []).append(place)

    def look_up(self, query: Query) -> int | None:
        """Look up a query of one letter and, optionally, one position of the row."""
        if not 1 <= len(query) <= 2:
            return None
        last = query[1] - self.zero if len(query) == 2 else -1
        if len(query) == 2 and not 0 <= last < self.length:
            return None
        places = self.places.get(query[0], [])
        found = bisect_right(places, last)
        return self.zero + places[found] if found < len(places) else None
