"""Tasks of the retrieval family: what a network retrieves from its context: directly, by chain of thought, or by in-context retrieval.

Code: `pipeline/tasks/`, one file each; the tokens are in `vocabulary.py` there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise, product
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from pipeline.config.base import Draw, FieldConflict, largest, smallest
from pipeline.config.tasks.base import ENOUGH, Column, Evaluation, Grid, Task

APART = 8
"""Nodes from which on every family has more than ENOUGH different graphs with each answer, whatever their names."""
NODES = 16
"""Special tokens; the name v is the token NODES + v."""


class RetrievalTask(Task):
    """What the tasks of the family share: their tokens, and that a network may be left to write a row's trace by itself.

    `chance` is that of the answer, the row's last token; `baseline` is over all scored positions, those of the trace included.
    """

    measurement: ClassVar[str] = "free_running"

    names: int = Field(
        default=64,
        ge=2,
        le=60_000,
        description=("Number of distinct names of nodes or symbols, the tokens from 16 on. Raise it with the size of the rows."),
    )

    @property
    def vocabulary(self) -> int:
        """Special tokens, then names."""
        return NODES + self.names

    @property
    def classes(self) -> int:
        """The next token may be any."""
        return self.vocabulary


NAME = "name"
"""The kind of all names, where kinds of tokens are counted."""


def memoryless(follows: Mapping[tuple[str, str], float], names: int, others: Mapping[str, int] | None = None) -> float:
    """Nats per scored position of the best predictor that sees one token at a time.

    `follows[one, other]`: how many scored tokens of kind `other` follow one of kind `one` in a typical row. A kind is one special token, or
    all names (NAME): which of them comes is as good as uniform, whatever the token before. So it is with the kinds in `others`, which have
    so many tokens.
    """
    before: dict[str, float] = {}
    for (one, _), count in follows.items():
        before[one] = before.get(one, 0) + count
    choice = sum(count * math.log(before[one] / count) for (one, _), count in follows.items() if count)
    sizes = {NAME: names, **(others or {})}
    which = sum(count * math.log(sizes.get(other, 1)) for (_, other), count in follows.items())
    return (choice + which) / sum(before.values())


Family = Literal[
    "double_star",
    "uniform_tree",
    "recursive_tree",
    "path",
    "caterpillar",
    "balanced_binary",
    "unicyclic",
    "forest",
    "upstream_random",
]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""Families of graphs; the metadata column `family` holds the place in this list."""

LEAST_NODES: dict[Family, int] = {"caterpillar": 7, "balanced_binary": 8}
"""From how many nodes on there are graphs of these families; all others have six."""

EXTRA_EDGES: dict[Family, int] = {"unicyclic": 1, "forest": -1, "upstream_random": 1}
"""How many edges more than a tree a graph of these families has at most; all others have as many."""

QUERIES = {
    "icr": ("v ~", "v -", "v - w"),
    "icr_regex": ("v ~ any", "v - any | any - v", "( v - w | w - v ) skip ( v - any | any - v )"),
}
"""What stands between SEARCH and END to ask for the parent of node v, its first edge, and its next one after that to w."""

PIECES = ("any", "|", "(", ")", "skip")
"""What regular expressions are made of besides: tokens of their own after the names."""


def _longer(ratios: list[float]) -> list[float]:
    if ratios and min(ratios) <= 1:
        raise ValueError(f"got {min(ratios)} in the list; expected ratios above 1")
    if len(set(ratios)) < len(ratios):
        raise ValueError(f"got {ratios}; expected different ratios")
    return sorted(ratios)


def _different(families: list[Family]) -> list[Family]:
    if len(set(families)) < len(families):
        raise ValueError(f"got {families}; expected different families")
    return sorted(families, key=FAMILIES.index)


class IsTreeEvaluation(Evaluation):
    """IsTree is measured at each of these sizes in each of these families (their product), in training or not."""

    nodes: Grid = Field(
        default=[], description=("Numbers of nodes to measure; default: the task's largest. Add others to measure accuracy by size.")
    )
    longer: Annotated[list[float], AfterValidator(_longer)] = Field(
        default=[],
        description=(
            "Further sizes to measure, as multiples of the task's largest number of nodes: [1.5, 2, 4]. "
            "Add some to test size generalization."
        ),
    )
    families: Annotated[list[Family], AfterValidator(_different)] = Field(
        default=[],
        description=("Graph families to measure; default: the task's own. Add others to test whether the algorithm was learned."),
    )

    def points(self, task: Any) -> list[Any]:
        """One task of a fixed number of nodes and one family per point of the grid."""
        known = largest(task.nodes)
        sizes = {*(self.nodes or [known]), *(round(ratio * known) for ratio in self.longer)}
        grid = product(sorted(sizes), self.families or [task.family])
        return [task.variant(nodes=nodes, family=family) for nodes, family in grid]


class IsTree(RetrievalTask):
    """Is this graph, given as its edges in random order, a tree? Half of the graphs are; the others have as many edges.

    Before the answer, `direct` has nothing, `cot` a depth-first walk through the graph, `icr` the same walk with a search for every step, in
    the edges and in the walk's own records, whose results are injected; `icr_regex` writes the searches as regular expressions.
    """

    implementation: ClassVar[str] = "pipeline.tasks.is_tree:IsTree"
    source: ClassVar[str] = "Wen, Dang & Lyu 2024"
    evaluation: ClassVar[type[Evaluation]] = IsTreeEvaluation
    columns: ClassVar[Mapping[str, Column]] = {
        "nodes": Column("nodes", "nodes of the graph", "nodes"),
        "family": Column("family", "what the graph is sampled from", categories=FAMILIES),
    }

    name: Literal["is_tree"] = "is_tree"
    nodes: Draw = Field(
        default=16,
        description=("Nodes per graph, 6 to 1024 (caterpillar from 7, balanced_binary from 8). Raise it to test how much the state holds."),
    )
    family: Family = Field(
        default="double_star",
        description=(
            "Distribution of the graphs; no graph of unicyclic and forest is a tree, some labels of upstream_random are "
            "wrong. "
            "Change it to test other shapes of tree."
        ),
    )
    long_cycles: bool = Field(
        default=False,
        description=(
            "Graphs that are not trees get long cycles: the longest of eight edge swaps is taken, in families where edges are"
            " swapped. "
            "Turn it on against local shortcuts."
        ),
    )
    layout: Literal["direct", "cot", "icr", "icr_regex"] = Field(
        default="direct",
        description=(
            "What stands between the edges and the answer: direct, nothing; cot, a chain of thought; icr, in-context "
            "retrieval; icr_regex, the same with regular expressions. "
            "Sweep it to compare them."
        ),
    )
    pause_tokens: int = Field(
        default=0,
        ge=0,
        le=4_096,
        description=("Pause tokens before the answer of layout direct. Raise it to give a network more steps without a trace."),
    )
    upstream: bool = Field(
        default=False,
        description=(
            "Use token numbers and row lengths of the published code: names 0..n-1, larger end of an edge first, no ROOT "
            "record; not with icr_regex. "
            "Turn it on to compare with that code."
        ),
    )

    def check(self) -> None:
        """Graphs have names enough, and fields that others leave without meaning stay as they are."""
        few, most, least = smallest(self.nodes), largest(self.nodes), LEAST_NODES.get(self.family, 6)
        if few < least or most > 1024:
            raise FieldConflict(f"got {self.family} of {few if few < least else most} nodes; expected {least} to 1024", "nodes", "family")
        if most > self.names:
            raise FieldConflict(f"got {most} nodes and {self.names} names; expected a name for each", "nodes", "names")
        if self.pause_tokens and self.layout != "direct":
            raise FieldConflict(f"got pause tokens in layout {self.layout}; expected them in layout direct only", "pause_tokens", "layout")
        if self.upstream and self.layout == "icr_regex":
            raise FieldConflict("got upstream in layout icr_regex; the public code has direct, cot and icr", "upstream", "layout")

    @property
    def vocabulary(self) -> int:
        """Special tokens and names; then the pieces of regular expressions, or the one name more that the public code has."""
        return super().vocabulary + (len(PIECES) if self.layout == "icr_regex" else int(self.upstream))

    @property
    def longest(self) -> int:
        """The edges between BOS and SEP, the trace of a tree with its EOS, the answer."""
        nodes = largest(self.nodes)
        prompt = 3 * (nodes - 1 + EXTRA_EDGES.get(self.family, 0)) + 2
        if self.layout == "direct":
            return prompt + self.pause_tokens + 1
        return prompt + (2 * nodes - 1 if self.layout == "cot" else self._searched(nodes)) + 2

    def _searched(self, nodes: int) -> int:
        """Tokens of a tree's trace of searches: 37 n - 26 in layout icr, and 3 for the ROOT record."""
        parent, first, following = (len(query.split()) + 3 for query in QUERIES[self.layout])
        visits = (2 * nodes - 1) * (1 + parent) + nodes * first + (nodes - 1) * following
        return visits + (nodes - 1) * (following + parent + 3) + (0 if self.upstream else 3)

    def apart(self, nodes: int) -> bool:
        """Whether graphs of so many nodes are enough to be kept apart between the splits."""
        names = nodes if self.upstream else self.names
        return nodes >= APART or math.comb(names, nodes) >= ENOUGH

    @property
    def overlap(self) -> str:
        """Small graphs of few names are in every split."""
        if self.apart(smallest(self.nodes)):
            return ""
        return (
            f"No graph is in two splits, except those of fewer than {APART} nodes: with so few names there are not {ENOUGH} of each kind."
        )

    @property
    def chance(self) -> float:
        """Half of the graphs are trees."""
        return 1 / 2

    @property
    def baseline(self) -> float:
        """Nats per scored position of a row that is a tree: ln 2 of the answer, and the trace's as `memoryless` counts them."""
        answers = {("eos", "true"): 0.5, ("eos", "false"): 0.5}
        if self.layout == "direct":
            return math.log(2)
        edges = largest(self.nodes) - 1
        if self.layout == "cot":
            return memoryless({("sep", NAME): 1, (NAME, NAME): 2 * edges, (NAME, "eos"): 1, **answers}, self.names)
        return memoryless({**self._follows(edges), **answers}, self.names)

    @property
    def memory_bits(self) -> float | None:
        """Double stars: on which of the two hubs each leaf hangs, since any two may yet be joined; but not which hub is which."""
        return largest(self.nodes) - 3 if self.family == "double_star" else None

    def _follows(self, edges: int) -> Counter[tuple[str, str]]:
        """How often a kind of token follows another in the trace of searches of a tree, its root being visited twice."""
        parent, first, following = (f"search {query} end" for query in QUERIES[self.layout])
        root = "fail" if self.upstream else "root"
        chains = {
            "sep v" if self.upstream else "sep v ~ root v": 1,
            f"v {parent}": 3 * edges + 1,  # at every visit, and before every descent
            f"{root} search": 2,
            "v search": 2 * edges - 1,
            first: edges + 1,
            following: edges,
            f"v {following}": edges,  # the edge to the father is passed over
            "fail v": edges,
            "fail eos": 1,
            "fail v ~ v v": edges,
        }
        follows: Counter[tuple[str, str]] = Counter()
        for chain, count in chains.items():
            for pair in pairwise(NAME if kind in ("v", "w") else kind for kind in chain.split()):
                follows[pair] += count
        return follows
