"""Tasks of the memory family: what a network carries across a gap. Code: `pipeline/tasks/`, one file each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Draw, FieldConflict, largest, smallest
from pipeline.config.tasks.base import ENOUGH, Column, Evaluation, Grid, LengthEvaluation, Task, long_enough, shortest_apart


class CopyEvaluation(Evaluation):
    """Copy is measured at each of these delays and symbol counts (their product), in training or not."""

    delays: Grid = Field(
        default=[], description=("Delays to measure, in tokens; default: the task's longest. Add longer ones to test generalization.")
    )
    symbols: Grid = Field(
        default=[], description=("Numbers of symbols to measure; default: the task's largest. Add others to measure capacity.")
    )

    def points(self, task: Any) -> list[Any]:
        """One task of fixed delay and symbol count per point of the grid."""
        grid = product(self.symbols or [largest(task.symbols)], self.delays or [largest(task.delay)])
        return [task.variant(symbols=symbols, delay=delay) for symbols, delay in grid]


class Copy(Task):
    """Symbols, then a delay, then the same symbols again from memory.

    A fixed `delay` is the classic task, a distribution the variable one (only the delimiter says when to answer); a distribution of
    `symbols` gives length copy; `selective` gives selective copy; `recall: reverse` asks for the symbols backwards.
    """

    implementation: ClassVar[str] = "pipeline.tasks.copy:Copy"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997; Arjovsky et al. 2016; selective: Gu & Dao 2023"
    evaluation: ClassVar[type[Evaluation]] = CopyEvaluation
    columns: ClassVar[Mapping[str, Column]] = {
        "delay": Column("delay", "tokens before the answer, the delimiter counted, that are not symbols", "tokens"),
        "symbols": Column("symbols", "symbols to remember", "symbols"),
    }
    apart_by: ClassVar[tuple[str, str]] = ("symbols", "symbols")

    name: Literal["copy"] = "copy"
    symbols: Draw = Field(default=10, description="Symbols to remember per row. Raise it to test capacity.")
    delay: Draw = Field(
        default=100,
        description=(
            "Tokens from the last symbol to the delimiter, the delimiter included. Raise it to test how long a network remembers."
        ),
    )
    alphabet: int = Field(default=8, ge=2, le=60_000, description=("Number of distinct symbols. Raise it to store more bits per symbol."))
    recall: Literal["forward", "reverse"] = Field(
        default="forward",
        description=("Order in which the symbols are recalled. Use reverse to ask for the last one first, as from a stack."),
    )
    selective: bool = Field(
        default=False,
        description=("Selective copying: symbols are scattered among the tokens of the delay. Turn it on to test content-based gating."),
    )
    noise: int = Field(
        default=0,
        ge=0,
        le=4_096,
        description=(
            "Number of distinct noise tokens that fill the delay; 0: blanks. Raise it to test whether a network ignores distractors."
        ),
    )

    @property
    def vocabulary(self) -> int:
        """The alphabet, then blank, delimiter and padding, then noise."""
        return self.alphabet + 3 + self.noise

    @property
    def classes(self) -> int:
        """Answers are always letters of the alphabet."""
        return self.alphabet

    @property
    def separable(self) -> int:
        """There are enough strings of symbols."""
        return shortest_apart(self.alphabet)

    @property
    def longest(self) -> int:
        """Symbols, delay, symbols."""
        return 2 * largest(self.symbols) + largest(self.delay)

    @property
    def chance(self) -> float:
        """Symbols are independent and uniform."""
        return 1 / self.alphabet

    @property
    def baseline(self) -> float:
        """ln of the alphabet's size, in nats per recalled symbol."""
        return math.log(self.alphabet)


class MqarEvaluation(Evaluation):
    """Associative recall is measured at each of these lengths and numbers of pairs (their product), in training or not."""

    lengths: Grid = Field(
        default=[], description=("Lengths to measure, in tokens; default: the task's longest. Add longer ones to test generalization.")
    )
    pairs: Grid = Field(
        default=[], description=("Numbers of key-value pairs to measure; default: the task's largest. Add others to measure capacity.")
    )

    def points(self, task: Any) -> list[Any]:
        """One task of fixed length and number of pairs per point of the grid."""
        grid = product(self.lengths or [largest(task.length)], self.pairs or [largest(task.pairs)])
        return [task.variant(length=length, pairs=pairs) for length, pairs in grid]


def grid_side(pairs: int) -> int:
    """Side of the smallest square grid of so many cells."""
    return math.isqrt(pairs - 1) + 1


class Mqar(Task):
    """Multi-query associative recall: pairs of key and value, then every key once more, each to be answered by its value.

    `forgetting` gives some keys a second value, of which the later counts; `compositional` makes each key of two words, neither of
    which suffices alone; `continuous` makes it a vector of real numbers, new in every row, so that keys can only be compared, not memorised.
    """

    implementation: ClassVar[str] = "pipeline.tasks.mqar:Mqar"
    source: ClassVar[str] = "Arora et al. 2023"
    evaluation: ClassVar[type[Evaluation]] = MqarEvaluation
    columns: ClassVar[Mapping[str, Column]] = {
        "length": Column("length", "tokens of the row", "tokens"),
        "pairs": Column("pairs", "different keys, each asked for once", "pairs"),
    }
    apart_by: ClassVar[tuple[str, str]] = ("pairs", "pairs")

    name: Literal["mqar"] = "mqar"
    length: Draw = Field(
        default=64,
        description=(
            "Tokens per row, at least 4 per pair and 2 more per updated key (6 and 3 with compositional keys). "
            "Raise it to put keys further from their queries."
        ),
    )
    pairs: Draw = Field(
        default=4, description=("Key-value pairs per row; every key is queried once. Raise it to test how much the state holds.")
    )
    vocab_size: int = Field(
        default=8192,
        ge=4,
        le=65_536,
        description=("Number of distinct tokens: 0 is filler, the lower half keys, the upper half values. Lower it for faster training."),
    )
    power_a: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description=(
            "Exponent of the power law of the distances between a key and its query, zoology's power_a; 1: uniform, small: "
            "soon after the pairs. "
            "Raise it for longer distances."
        ),
    )
    filler: Literal["random", "zero"] = Field(
        default="random",
        description=("Tokens between queries: random, of the whole vocabulary, or zero, always token 0. Use zero for an easier task."),
    )
    forgetting: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=("Share of keys, 0..1, that get a second value, which is then the answer. Raise it to test overwriting."),
    )
    updates: Literal["mixed", "last"] = Field(
        default="mixed",
        description=(
            "Where second values stand: mixed among the pairs, or last, behind them, as in zoology. Set last to compare with zoology."
        ),
    )

    compositional: bool = Field(
        default=False, description=("Keys of two tokens each, from a square grid: neither alone decides. Turn it on to test joint lookup.")
    )
    continuous: int = Field(
        default=0,
        ge=0,
        le=1024,
        description=(
            "Dimension of keys that are standard normal vectors, new in every row; 0: keys are tokens. Set it to test lookup by similarity."
        ),
    )

    def changed(self, pairs: int) -> int:
        """How many of so many keys get a second value."""
        return round(self.forgetting * pairs)

    @property
    def pair(self) -> int:
        """Tokens of one pair: those of its key, then the value."""
        return 3 if self.compositional else 2

    def check(self) -> None:
        """Every pair and every question has room, and there are enough words."""
        if self.compositional and self.continuous:
            raise FieldConflict("got compositional and continuous; expected at most one of them", "compositional", "continuous")
        pairs, changed = largest(self.pairs), self.changed(largest(self.pairs))
        needed, length = self.pair * (2 * pairs + changed), smallest(self.length)
        if length < needed:
            message = f"got {pairs} pairs in {length} tokens; expected at least {needed} tokens"
            raise FieldConflict(message, "length", "pairs", "forgetting", "compositional")
        keys = self.vocab_size - self.classes - 1
        used, kind = (2 * grid_side(pairs), "words of keys") if self.compositional else (pairs, "keys")
        if used > keys or pairs + changed > self.classes:
            message = f"got {used} {kind} and {pairs + changed} values in a row; vocab_size {self.vocab_size} has {keys} and {self.classes}"
            raise FieldConflict(message, "vocab_size", "pairs", "forgetting", "compositional")

    @property
    def vocabulary(self) -> int:
        """Filler, which also pads, then keys and values; one token stands for all keys that are real numbers."""
        return self.classes + 2 if self.continuous else self.vocab_size

    @property
    def features(self) -> int:
        """The numbers of a key; of every other token they are zero."""
        return self.continuous

    @property
    def classes(self) -> int:
        """Answers are always values."""
        return self.vocab_size - self.vocab_size // 2

    @property
    def separable(self) -> int:
        """The keys of a row have enough different answers."""
        enough = (pairs for pairs in range(1, self.classes + 1) if math.perm(self.classes, pairs) >= ENOUGH)
        return next(enough, self.classes + 1)

    @property
    def overlap(self) -> str:
        """Keys of real numbers never come twice."""
        return "" if self.continuous else super().overlap

    @property
    def first_class(self) -> int:
        """Values come last."""
        return self.vocabulary - self.classes

    @property
    def longest(self) -> int:
        """The longest row."""
        return largest(self.length)

    @property
    def chance(self) -> float:
        """Whichever key is asked for, its value is uniform."""
        return 1 / self.classes

    @property
    def baseline(self) -> float:
        """ln of the number of values, in nats per question."""
        return math.log(self.classes)


class Parity(Task):
    """Random bits; at every step after the first, their parity so far."""

    implementation: ClassVar[str] = "pipeline.tasks.parity:Parity"
    source: ClassVar[str] = "Grazzi et al. 2025"
    evaluation: ClassVar[type[Evaluation]] = LengthEvaluation
    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "bits of the row", "bits")}

    name: Literal["parity"] = "parity"
    length: Draw = Field(
        default=40,
        description=("Bits per row, at least 2; every position but the first is scored. Raise it to test state tracking over longer rows."),
    )

    def check(self) -> None:
        """Every row has something to answer."""
        long_enough(self.length, 2, "the first is not scored")

    @property
    def vocabulary(self) -> int:
        """The bits, then padding."""
        return 3

    @property
    def classes(self) -> int:
        """Even or odd."""
        return 2

    @property
    def separable(self) -> int:
        """There are enough strings of bits."""
        return shortest_apart(2)

    @property
    def longest(self) -> int:
        """The longest row."""
        return largest(self.length)

    @property
    def chance(self) -> float:
        """After the first position either parity is as likely, whatever the bit."""
        return 1 / 2

    @property
    def baseline(self) -> float:
        """ln 2, in nats per scored position: the first, which needs no memory, is none."""
        return math.log(2)


class GroupWord(Task):
    """Random permutations; at every step after the first, the product of all so far: the word problem of a group."""

    implementation: ClassVar[str] = "pipeline.tasks.group_word:GroupWord"
    source: ClassVar[str] = "Merrill, Petty & Sabharwal 2024"
    evaluation: ClassVar[type[Evaluation]] = LengthEvaluation
    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "permutations of the row", "permutations")}

    name: Literal["group_word"] = "group_word"
    length: Draw = Field(
        default=16,
        description=(
            "Permutations per row, at least 2; every position but the first is scored. Raise it to test state tracking over longer rows."
        ),
    )
    group: Literal["S3", "A5", "S5"] = Field(
        default="S5", description=("Permutation group: S3, A5 or S5. Use A5 or S5, which are not solvable, to separate architectures.")
    )

    def check(self) -> None:
        """Every row has something to answer."""
        long_enough(self.length, 2, "the first is not scored")

    @property
    def vocabulary(self) -> int:
        """The permutations, then padding."""
        return self.classes + 1

    @property
    def classes(self) -> int:
        """Every permutation of the group."""
        return {"S3": 6, "A5": 60, "S5": 120}[self.group]

    @property
    def separable(self) -> int:
        """There are enough strings of permutations."""
        return shortest_apart(self.classes)

    @property
    def longest(self) -> int:
        """The longest row."""
        return largest(self.length)

    @property
    def chance(self) -> float:
        """After the first position every product is as likely, whatever the token."""
        return 1 / self.classes

    @property
    def baseline(self) -> float:
        """ln of the group's size, in nats per scored position: the first, which needs no memory, is none."""
        return math.log(self.classes)


class Induction(Task):
    """Induction heads: a special token is followed by a letter; when it comes again, at the end, that letter is the answer."""

    implementation: ClassVar[str] = "pipeline.tasks.induction:Induction"
    source: ClassVar[str] = "Olsson et al. 2022; as a task: Gu & Dao 2023"
    evaluation: ClassVar[type[Evaluation]] = LengthEvaluation
    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "tokens of the row", "tokens")}

    name: Literal["induction"] = "induction"
    length: Draw = Field(
        default=256, description=("Tokens per row, at least 3; only the last is scored. Raise it to put the answer further back.")
    )
    alphabet: int = Field(
        default=15,
        ge=2,
        le=60_000,
        description=("Number of distinct ordinary tokens, the special one not included. Raise it to lower chance."),
    )

    def check(self) -> None:
        """Every row has room for the special token twice and the letter between."""
        long_enough(self.length, 3, "the special token, its letter and the special token again")

    @property
    def vocabulary(self) -> int:
        """The alphabet, then the special token and padding."""
        return self.alphabet + 2

    @property
    def separable(self) -> int:
        """There are enough strings of letters, beside the special token that stands twice."""
        return shortest_apart(self.alphabet) + 2

    @property
    def classes(self) -> int:
        """Answers are always letters of the alphabet."""
        return self.alphabet

    @property
    def longest(self) -> int:
        """The longest row."""
        return largest(self.length)

    @property
    def chance(self) -> float:
        """The letter is uniform, and the last token always the same."""
        return 1 / self.alphabet

    @property
    def baseline(self) -> float:
        """ln of the alphabet's size, in nats per row."""
        return math.log(self.alphabet)


class Adding(Task):
    """Real numbers of 0..1, two of them marked, one in each half; the answer, at the last token, is their sum.

    Answers are real: the loss is the squared error, and an answer within 0.04 of the sum is right.
    """

    implementation: ClassVar[str] = "pipeline.tasks.adding:Adding"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997"
    evaluation: ClassVar[type[Evaluation]] = LengthEvaluation
    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "tokens of the row", "tokens")}

    name: Literal["adding"] = "adding"
    length: Draw = Field(
        default=100, description=("Tokens per row, at least 3; only the last is scored. Raise it to put the marked numbers further apart.")
    )

    def check(self) -> None:
        """Every row has room for two marks before the question."""
        long_enough(self.length, 3, "two marked numbers and the question")

    @property
    def vocabulary(self) -> int:
        """Unmarked, marked, padding."""
        return 3

    @property
    def features(self) -> int:
        """The number to add or to pass over."""
        return 1

    @property
    def classes(self) -> int:
        """The sum."""
        return 1

    @property
    def tolerance(self) -> float:
        """Hochreiter & Schmidhuber's: a larger error is a wrong answer."""
        return 0.04

    @property
    def longest(self) -> int:
        """The longest row."""
        return largest(self.length)

    @property
    def chance(self) -> float:
        """Always answering 1 is right for sums within the tolerance of it: all but two triangles of the unit square."""
        return 1 - (1 - self.tolerance) ** 2

    @property
    def baseline(self) -> float:
        """The variance of the sum of two numbers, the squared error of always answering 1."""
        return 1 / 6
