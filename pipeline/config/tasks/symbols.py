"""The retrieval family's tasks of symbols: a row of letters, then one question about it. Code: `pipeline/tasks/`, one file each.

The first `alphabet` names are letters; what else a row needs, numbers or keys, are the names behind them.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Distribution, Draw, FieldConflict, largest, smallest
from pipeline.config.tasks.base import ENOUGH, Column, Evaluation, LengthEvaluation, long_enough, shortest_apart
from pipeline.config.tasks.retrieval import RetrievalTask, memoryless

Follows = dict[tuple[str, str], float]
"""How many scored tokens of one kind follow one of another in a typical row; numbers are kinds of their own."""


def shares(length: int | Distribution) -> Iterator[tuple[int, float]]:
    """Every length that rows have, with the share of rows that have it."""
    low, high = smallest(length), largest(length)
    log = isinstance(length, Distribution) and length.kind == "log_uniform"
    for value in range(low, high + 1):
        yield value, math.log1p(1 / value) / math.log((high + 1) / low) if log else 1 / (high + 1 - low)


class SymbolTask(RetrievalTask):
    """What the four have in common."""

    evaluation: ClassVar[type[Evaluation]] = LengthEvaluation
    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "letters of the row", "letters")}
    apart_by: ClassVar[tuple[str, str]] = ("length", "letters")

    length: Draw = Field(default=32, description="Letters per row. Raise it to test how much the state holds.")
    alphabet: int = Field(
        default=16, ge=2, le=30_000, description=("Number of distinct letters, the first names. Raise it to store more bits per letter.")
    )
    layout: Literal["direct", "cot", "icr"] = Field(
        default="direct",
        description=(
            "What stands before the answer: direct, nothing; cot, a chain of thought through the row; icr, in-context "
            "retrieval. "
            "Sweep it to compare them."
        ),
    )

    def _enough_names(self, more: int = 0, what: str = "") -> None:
        """Raise FieldConflict where there are fewer names than letters and `more`."""
        needed, behind = self.alphabet + more, f" and {more} {what}" if more else ""
        if needed > self.names:
            message = f"got {self.names} names; expected at least {needed}: {self.alphabet} letters{behind}"
            raise FieldConflict(message, "names", "alphabet", "length")

    @property
    def prompt(self) -> int:
        """Tokens of the longest prompt."""
        raise NotImplementedError

    @property
    def trace(self) -> int:
        """Tokens of the longest trace."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """Prompt and answer; with a trace, that and EOS too."""
        return self.prompt + 1 if self.layout == "direct" else self.prompt + self.trace + 2

    @property
    def separable(self) -> int:
        """There are enough strings of letters."""
        return shortest_apart(self.alphabet)

    @property
    def chance(self) -> float:
        """The letter asked for is uniform."""
        return 1 / self.alphabet

    @property
    def baseline(self) -> float:
        """That of the answer, or of the average token of trace and answer, in nats."""
        sizes = {"letter": self.alphabet, "other letter": self.alphabet - 1, "key": self.names - self.alphabet, "label": 2}
        return memoryless(self.follows(), self.names, sizes)

    def follows(self) -> Follows:
        """What the scored tokens of a typical row follow."""
        raise NotImplementedError


class Index(SymbolTask):
    """Letters, then a position i, counted from 0: answer the letter there.

    The positions 0 to length - 1 are names, so that alphabet + length <= names. A network that reads the row once carries length x
    log2(alphabet) bits, all of it.
    """

    implementation: ClassVar[str] = "pipeline.tasks.index:Index"
    source: ClassVar[str] = "Wen, Dang & Lyu 2024"

    name: Literal["index"] = "index"

    def check(self) -> None:
        """Every position has a name."""
        self._enough_names(largest(self.length), "positions")

    @property
    def prompt(self) -> int:
        """BOS, letters, QUERY, position, SEP."""
        return largest(self.length) + 4

    @property
    def trace(self) -> int:
        """Every position up to i with its letter; or SEARCH i END and the result."""
        return 2 * largest(self.length) if self.layout == "cot" else 4

    @property
    def memory_bits(self) -> float:
        """Every letter may be asked for."""
        return largest(self.length) * math.log2(self.alphabet)

    def follows(self) -> Follows:
        """A position is asked for, and one reached, as often as the lengths allow."""
        if self.layout == "direct":
            return {("sep", "letter"): 1}
        asked, reached = defaultdict[str, float](float), defaultdict[str, float](float)
        for length, share in shares(self.length):
            for place in range(length):
                asked[str(place)] += share / length
                reached[str(place)] += share * (1 - place / length)
        follows: Follows = {("letter", "eos"): 1, ("eos", "letter"): 1}
        if self.layout == "icr":
            follows["sep", "search"] = 1
            for place, count in asked.items():
                follows["search", place] = follows[place, "end"] = count
        else:
            for place, count in reached.items():
                follows["sep" if place == "0" else "letter", place] = follows[place, "letter"] = count
        return follows


class AssociativeRecall(SymbolTask):
    """Pairs of key and value, then one of the keys: answer its value.

    Keys are names, different within a row, values letters, so that alphabet + length <= names. A network that reads the row once
    carries at least length x log2(alphabet) bits: the values.
    """

    implementation: ClassVar[str] = "pipeline.tasks.associative_recall:AssociativeRecall"
    source: ClassVar[str] = "Ba et al. 2016; Wen, Dang & Lyu 2024"
    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "pairs of key and value", "pairs")}
    apart_by: ClassVar[tuple[str, str]] = ("length", "pairs")

    name: Literal["associative_recall"] = "associative_recall"
    length: Draw = Field(default=32, description=("Key-value pairs per row. Raise it to test how much the state holds."))
    alphabet: int = Field(
        default=16,
        ge=2,
        le=30_000,
        description=("Number of distinct values, the first names; the other names are keys. Raise it to store more bits per value."),
    )

    def check(self) -> None:
        """There are as many keys as pairs."""
        self._enough_names(largest(self.length), "keys")

    @property
    def separable(self) -> int:
        """There are enough sets of pairs."""
        keys, values = self.names - self.alphabet, self.alphabet
        return next(pairs for pairs in itertools.count(1) if pairs > keys or math.comb(keys, pairs) * values**pairs >= ENOUGH)

    @property
    def prompt(self) -> int:
        """BOS, pairs, QUERY, key, SEP."""
        return 2 * largest(self.length) + 4

    @property
    def trace(self) -> int:
        """Every pair up to the key's; or SEARCH key END and the result."""
        return 2 * largest(self.length) if self.layout == "cot" else 4

    @property
    def memory_bits(self) -> float:
        """Every value may be asked for. To carry which keys there are takes more."""
        return largest(self.length) * math.log2(self.alphabet)

    def follows(self) -> Follows:
        """On average the key is found half-way."""
        if self.layout == "direct":
            return {("sep", "letter"): 1}
        follows: Follows = {("letter", "eos"): 1, ("eos", "letter"): 1}
        if self.layout == "icr":
            return follows | {("sep", "search"): 1, ("search", "key"): 1, ("key", "end"): 1}
        pairs = sum(share * (length + 1) / 2 for length, share in shares(self.length))
        return follows | {("sep", "key"): 1, ("key", "letter"): pairs, ("letter", "key"): pairs - 1}


class CGram(SymbolTask):
    """Letters, then a query of gram - 1 consecutive letters that occur once: answer the letter that followed them.

    A network that reads the row once carries about length x log2(alphabet) bits; but no more than one letter per context, of which there
    are alphabet ** (gram - 1).
    """

    implementation: ClassVar[str] = "pipeline.tasks.c_gram:CGram"
    source: ClassVar[str] = "Wen, Dang & Lyu 2024"

    name: Literal["c_gram"] = "c_gram"
    alphabet: int = Field(
        default=16, ge=3, le=30_000, description=("Number of distinct letters, the first names. Raise it to store more bits per letter.")
    )
    gram: int = Field(
        default=3,
        ge=2,
        le=16,
        description=("Letters of the queried context plus the one that follows, the paper's c. Raise it to test longer contexts."),
    )

    def check(self) -> None:
        """There is a name for every letter, and room for a gram."""
        self._enough_names()
        long_enough(self.length, self.gram, "a gram")

    @property
    def separable(self) -> int:
        """There are enough strings: every letter has all but one to choose from, or more."""
        return max(self.gram, shortest_apart(self.alphabet - 1))

    @property
    def prompt(self) -> int:
        """BOS, letters, QUERY, context, SEP."""
        return largest(self.length) + self.gram + 2

    @property
    def trace(self) -> int:
        """Every gram up to the one asked for; or SEARCH context END and the result."""
        return self.gram * (largest(self.length) - self.gram + 1) if self.layout == "cot" else self.gram + 2

    @property
    def memory_bits(self) -> float:
        """A letter for every place or, where there are fewer, every context."""
        return min(largest(self.length), self.alphabet ** (self.gram - 1)) * math.log2(self.alphabet)

    def follows(self) -> Follows:
        """Letters that the context has no say in are taken as independent, which they are nearly."""
        if self.layout == "direct":
            return {("sep", "letter"): 1}
        letters, context = self.alphabet, self.gram - 1
        follows: Follows = {("letter", "eos"): 1, ("eos", "letter"): 1}
        repeated = (context - 1) * (letters ** (context - 1) - letters) / max(1, letters**context - letters)
        if self.layout == "icr":
            follows |= {("sep", "search"): 1, ("search", "letter"): 1, ("letter", "end"): 1}
            moves = context - 1
        else:
            grams = sum(share * (length - context + 1) / 2 for length, share in shares(self.length))
            follows["sep", "letter"], moves = 1, self.gram * grams - 1
            repeated += (moves - (context - 1)) / letters
            if context == 1:  # a gram begins with the letter that the last one ended with; the context's differs from all before and behind
                pairs = sum(share * (length - 2) * (length - 3) / (2 * length - 2) for length, share in shares(self.length))
                repeated = grams - 1 + pairs / (letters - 1)
        return follows | {("letter", "same letter"): repeated, ("letter", "other letter"): moves - repeated}


class Counting(SymbolTask):
    """Letters, then a query letter and a number k: does the letter occur at least k times?

    Counts and positions are names too, from 0 to length, so that alphabet + length < names. A network that reads the row once
    carries the counts of all letters, at most alphabet x log2(length + 1) bits, which is what `margin: any` asks for. With
    `margin: one` the parity of each count is enough, alphabet bits.
    """

    implementation: ClassVar[str] = "pipeline.tasks.counting:Counting"
    source: ClassVar[str] = "Wen, Dang & Lyu 2024"

    name: Literal["counting"] = "counting"
    margin: Literal["one", "any"] = Field(
        default="one",
        description=(
            "How far the asked number k is from the true count: one, the count or one more; any, between the counts of two "
            "possible rows. "
            "Use any for a task that an estimate solves."
        ),
    )

    def check(self) -> None:
        """Every count has a name."""
        self._enough_names(largest(self.length) + 1, "counts")

    @property
    def prompt(self) -> int:
        """BOS, letters, QUERY, letter, CNT, number, SEP."""
        return largest(self.length) + 6

    @property
    def trace(self) -> int:
        """All letters, with CNT and a number behind those that count; or a search, seven tokens for every result, and FAIL."""
        return 3 * largest(self.length) if self.layout == "cot" else 7 * largest(self.length) + 4

    @property
    def chance(self) -> float:
        """Yes and no are as likely, whatever k."""
        return 1 / 2

    @property
    def memory_bits(self) -> float:
        """Which counts the letters have, of all that add up to the length; with `margin: one` a parity each, where that is less."""
        length = largest(self.length)
        counts = math.log2(math.comb(length + self.alphabet - 1, length))
        return min(counts, self.alphabet) if self.margin == "one" else counts

    def counts(self, length: int) -> list[float]:
        """How likely the letter asked for stands in a row of this length 0, 1, ... times."""
        if self.margin == "one":
            base = _parts(length - 1, self.alphabet)
            return [(one + other) / 2 for one, other in zip([*base, 0], [0, *base], strict=True)]
        weights = [share * (1 - share) for share in _parts(length, self.alphabet)]
        return [weight / sum(weights) for weight in weights]

    def follows(self) -> Follows:
        """Every position is as likely to hold the letter; counts go as far as they go."""
        if self.layout == "direct":
            return {("sep", "label"): 1}
        follows = defaultdict(float, {("eos", "label"): 1.0, ("sep", "search" if self.layout == "icr" else "letter"): 1.0})
        for length, share in shares(self.length):
            likely = [share * chance for chance in self.counts(length)]
            found = sum(count * chance for count, chance in enumerate(likely))
            for count in range(1, length + 1):
                follows["cnt", str(count)] += sum(likely[count:])
            if self.layout == "icr":
                self._searches(follows, likely, found)
            else:
                self._walk(follows, likely, found)
        return follows

    def _searches(self, follows: Follows, likely: list[float], found: float) -> None:
        share, length = sum(likely), len(likely) - 1
        for step, count in ((("search", "letter"), share + found), (("letter", "end"), share), (("fail", "eos"), share)):
            follows[step] += count
        for count in range(1, length + 1):
            follows[str(count), "search"] += sum(likely[count:])
        for place in range(length):
            for step in (("letter", str(place)), (str(place), "cnt"), (str(place), "end")):
                follows[step] += found / length

    def _walk(self, follows: Follows, likely: list[float], found: float) -> None:
        length = len(likely) - 1
        follows["letter", "cnt"] += found
        for count, chance in enumerate(likely):
            rest, last = length - count, chance * count / length
            repeated = 2 * rest * (rest - 1) / self.alphabet / length
            follows["letter", "same letter"] += chance * repeated
            follows["letter", "other letter"] += chance * (rest * (length - 1) / length - repeated)
            follows["letter", "eos"] += chance - last
            if count:
                follows[str(count), "letter"] += sum(likely[count:]) - last
                follows[str(count), "eos"] += last


def _parts(total: int, parts: int) -> list[float]:
    """How likely the first part is 0, 1, ..., where all ways to split a number into so many parts are equally likely."""
    shares = [(parts - 1) / (total + parts - 1)]
    for count in range(total):
        shares.append(shares[-1] * (total - count) / (total - count + parts - 2))
    return shares
