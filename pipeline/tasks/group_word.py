"""The word problem of a permutation group: random permutations; the answer at every step is the product of all so far.

S3 is the permutations of three elements, numbered in lexicographic order: 0 is 012, 1 is 021, 2 is 102, 3 is 120, 4 is 201, 5 is 210.
Applying 1 and then 2 turns 012 into 021 and then into 201, which is number 4; `group: S3, length: 5` gives rows like

    tokens   1 2 0 5 5
    role     . a a a a      a: answer, the scored positions
    target     4 4 2 4

A permutation p takes the arrangement (s0, s1, s2) to (s[p0], s[p1], s[p2]). The first position is not scored: its answer is its token.
The padding token follows the last permutation. A5 is the even permutations of five elements, S5 all of them.

Source: Merrill, Petty & Sabharwal 2024; for A5 and S5 the problem is complete for NC1 (Barrington 1989).
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np

from pipeline.config.tasks import GroupWord as Config
from pipeline.tasks.running import RunningProduct

Permutation = tuple[int, ...]


class GroupWord(RunningProduct):
    """The running product of permutations."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, _table(elements(config.group)))


def elements(group: str) -> list[Permutation]:
    """Return the permutations of a group in lexicographic order, identity first. Group names: S symmetric or A alternating, then the degree."""
    found = list(permutations(range(int(group[1:]))))
    return found if group.startswith("S") else [item for item in found if _even(item)]


def _even(item: Permutation) -> bool:
    return sum(one > two for one, two in combinations(item, 2)) % 2 == 0


def _table(group: list[Permutation]) -> np.ndarray:
    """Return the multiplication table: the index of the product of each element followed by another."""
    number = {item: index for index, item in enumerate(group)}
    return np.array([[number[tuple(first[place] for place in second)] for second in group] for first in group])
