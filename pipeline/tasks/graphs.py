"""Graphs for IsTree: trees of several families, and graphs of as many edges that are none.

Nodes are numbered 0..n-1 in the order a family makes them in; names come later. Every family of trees is one array: the parent of each node,
whose number is lower.

    path             0-1-2-...
    caterpillar      half the nodes are a path, each of the others hangs on any of those
    balanced_binary  the parent of i is (i - 1) / 2, rounded down
    recursive_tree   the parent of i is uniform among 0..i-1
    uniform_tree     every labelled tree equally likely, once names are random

A tree becomes no tree by a swap of two edges that leaves every node's degree as it is: where a-b and c-d lie so that a path of two edges
or more joins b and c, they become a-d and b-c. That closes a cycle and cuts it off from the rest. One of a and d must be no leaf, or they
would be a graph by themselves, seen at a glance. There is such a swap in every tree of diameter 5 or more; others are drawn again, whichever
label is wanted, so that degrees tell nothing of it.

In a double star two hubs share the leaves, and one more edge joins two leaves: of different hubs, which makes a tree, or of one.

unicyclic is a uniform tree with an edge more, forest one with an edge less, upstream_random what the public code's `random` draws: its
answers are whether a graph hangs together, so that trees with an edge more pass for trees, and the number of edges tells most of it.

Sources: Wen, Dang & Lyu 2024 (double star; random in its code); Aldous 1990 (uniform trees without Prüfer's sequence).

Shapes: B graphs, N nodes of the largest, E edges of the largest, K swaps to choose from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks.retrieval import Family

TRIES = 200
"""Pairs of nodes drawn for upstream_random's last edge before it goes without: the public code would look for ever."""
CHOICE = 8
"""Swaps of which far negatives take the one with the longest cycle."""


class Graphs(NamedTuple):
    """Some graphs as lists of edges, uint32; the first `edges_B` places of each list hold one."""

    one_BE: np.ndarray
    other_BE: np.ndarray
    edges_B: np.ndarray

    @property
    def beyond_BE(self) -> np.ndarray | None:
        """The places that hold no edge; None where there are none."""
        most = self.one_BE.shape[1]
        return None if self.edges_B.min(initial=most) == most else np.arange(most) >= self.edges_B[:, None]


def draw_graphs(family: Family, far: bool, rng: np.random.Generator, nodes_B: np.ndarray, label_B: np.ndarray, width: int) -> Graphs:
    """Graphs of these numbers of nodes that are trees where `label_B`; only upstream_random has more and other labels.

    `width` is the number of nodes that arrays have room for; `far` asks for negatives with long cycles.
    """
    if family == "double_star":
        return _double_stars(rng, nodes_B, label_B, width)
    if family == "upstream_random":
        return _upstream_random(rng, nodes_B, label_B, width)
    if family == "unicyclic":
        return _unicyclic(rng, nodes_B, width)
    if family == "forest":
        return _forests(rng, nodes_B, width)
    parent_BN = _swappable(family, rng, nodes_B, width)
    one_BE, other_BE = _edges(parent_BN)
    rows = np.flatnonzero(~label_B)
    if len(rows):
        edge_R2, swapped_R2, with_R2 = _swaps(rng, parent_BN[rows], nodes_B[rows], CHOICE if far else 1)
        one_BE[rows[:, None], edge_R2], other_BE[rows[:, None], edge_R2] = swapped_R2, with_R2
    return Graphs(one_BE, other_BE, nodes_B - 1)


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random 32-bit words: half a 64-bit word each, since those are what a generator makes."""
    count = int(np.prod(shape))
    return rng.integers(0, 1 << 64, size=(count + 1) // 2, dtype=np.uint64).view(np.uint32)[:count].reshape(shape)


def below(words: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Words as whole numbers from 0 to below the bound."""
    return ((words.astype(np.uint64) * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int64)


def parents(family: str, rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> np.ndarray:
    """The parent of every node of trees of a family; column 0, the root's, is 0, columns from a tree's number of nodes on mean nothing."""
    shape, node_N = (len(nodes_B), width), np.arange(width)
    chain_N = np.maximum(node_N - 1, 0)
    if family == "path":
        parent_BN = np.broadcast_to(chain_N, shape).copy()
    elif family == "balanced_binary":
        parent_BN = np.broadcast_to(chain_N // 2, shape).copy()
    elif family == "caterpillar":
        spine_B1 = (nodes_B[:, None] + 1) // 2
        parent_BN = np.where(node_N < spine_B1, chain_N, below(words(rng, *shape), spine_B1))
    elif family == "recursive_tree":
        parent_BN = below(words(rng, *shape), node_N)
    else:
        assert family == "uniform_tree"
        parent_BN = np.minimum(below(words(rng, *shape), nodes_B[:, None]), chain_N)
    return parent_BN


def _edges(parent_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edge of node i to its parent stands at place i - 1."""
    one_BE = parent_BN[:, 1:].astype(np.uint32)
    return one_BE, np.broadcast_to(np.arange(1, parent_BN.shape[1], dtype=np.uint32), one_BE.shape).copy()


def _swappable(family: str, rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> np.ndarray:
    """Parents of trees in which there is a swap."""
    parent_BN = parents(family, rng, nodes_B, width)
    open_B = np.arange(len(nodes_B))
    while len(open_B := open_B[~_long(parent_BN[open_B], nodes_B[open_B])]):
        parent_BN[open_B] = parents(family, rng, nodes_B[open_B], width)
    return parent_BN


def _inner(parent_BN: np.ndarray, nodes_B: np.ndarray) -> np.ndarray:
    """Which nodes are no leaves: those with a child; of the root, those with two."""
    rows, width = parent_BN.shape
    at_BE = (np.arange(rows) * width)[:, None] + parent_BN[:, 1:]
    children_BN = np.bincount(at_BE[np.arange(1, width) < nodes_B[:, None]], minlength=rows * width).reshape(rows, width)
    children_BN[:, 0] -= 1
    return children_BN > 0


def _long(parent_BN: np.ndarray, nodes_B: np.ndarray) -> np.ndarray:
    """Which trees have a diameter of 5 or more: the ends of some edge have each two neighbours that are no leaves."""
    (rows, width), inner_BN = parent_BN.shape, _inner(parent_BN, nodes_B)
    at_BE = (np.arange(rows) * width)[:, None] + parent_BN[:, 1:]
    near_BN = np.bincount(at_BE[inner_BN[:, 1:]], minlength=rows * width).reshape(rows, width)
    near_BN[:, 1:] += inner_BN.reshape(-1)[at_BE]
    middle_BN = inner_BN & (near_BN >= 2)
    return np.any(middle_BN[:, 1:] & middle_BN.reshape(-1)[at_BE], axis=1)


def _swaps(rng: np.random.Generator, parent_BN: np.ndarray, nodes_B: np.ndarray, choice: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every tree the places of two edges, and the ends of the two that replace them: of all swaps, each equally likely.

    With a `choice` of several, that of so many with the longest cycle.
    """
    inner_BN, best_B = _inner(parent_BN, nodes_B), np.zeros(len(nodes_B), np.int64)
    edge_B2, one_B2, other_B2 = np.zeros((3, len(nodes_B), 2), np.int64)
    for _ in range(choice):
        open_B = np.arange(len(nodes_B))
        while len(open_B):
            cycle_R, *swap = _try_swap(rng, parent_BN[open_B], inner_BN[open_B], nodes_B[open_B])
            better_R = cycle_R > best_B[open_B]
            better_B = open_B[better_R]
            best_B[better_B] = cycle_R[better_R]
            edge_B2[better_B], one_B2[better_B], other_B2[better_B] = (part[better_R] for part in swap)
            open_B = open_B[cycle_R < 3]
    return edge_B2, one_B2, other_B2


def _try_swap(
    rng: np.random.Generator, parent_BN: np.ndarray, inner_BN: np.ndarray, nodes_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two different edges of every tree, swapped; and how many nodes the cycle would have, less than 3 where this is no swap."""
    row_B = np.arange(len(nodes_B))
    word_2B = words(rng, 2, len(nodes_B))
    upper_B, lower_B = below(word_2B[0], nodes_B - 1) + 1, below(word_2B[1], nodes_B - 2) + 1
    lower_B += lower_B >= upper_B
    upper_B, lower_B = np.minimum(upper_B, lower_B), np.maximum(upper_B, lower_B)  # a node's number is above its ancestors'
    meet_B, steps_B = _meeting(parent_BN, upper_B, lower_B)
    above_B, far_B = parent_BN[row_B, upper_B], parent_BN[row_B, lower_B]
    under_B = meet_B == upper_B  # the second edge lies below the first: the path between them leads down from the first's lower end
    near_B, off_B = np.where(under_B, upper_B, above_B), np.where(under_B, above_B, upper_B)
    cycle_B = (steps_B - np.where(under_B, 0, 1)) * (inner_BN[row_B, off_B] | inner_BN[row_B, lower_B])
    return cycle_B, np.stack([upper_B, lower_B], 1) - 1, np.stack([near_B, off_B], 1), np.stack([far_B, lower_B], 1)


def connected(graphs: Graphs, nodes_B: np.ndarray, width: int) -> np.ndarray:
    """Which graphs hang together: what the first edge's first node reaches, edge by edge until it reaches no more."""
    rows = len(nodes_B)
    base_B1 = (np.arange(rows) * width)[:, None]
    there_BE = np.arange(graphs.one_BE.shape[1]) < graphs.edges_B[:, None]
    one_S, other_S = ((base_B1 + part)[there_BE] for part in graphs[:2])
    reached = np.zeros(rows * width, bool)
    reached[base_B1[:, 0] + graphs.one_BE[:, 0]] = True
    before = -1
    while before != (before := np.count_nonzero(reached)):
        touched_S = reached[one_S] | reached[other_S]
        reached[one_S[touched_S]] = reached[other_S[touched_S]] = True
    return np.count_nonzero(reached.reshape(rows, width), axis=1) == nodes_B


def _meeting(parent_BN: np.ndarray, one_B: np.ndarray, other_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest common ancestor of two nodes, and the edges between them: the one with the higher number goes up until they meet."""
    one_B, other_B, steps_B = one_B.copy(), other_B.copy(), np.zeros(len(one_B), np.int64)
    apart_B = np.flatnonzero(one_B != other_B)
    while len(apart_B):
        low, high = np.minimum(one_B[apart_B], other_B[apart_B]), np.maximum(one_B[apart_B], other_B[apart_B])
        high = parent_BN[apart_B, high]
        one_B[apart_B], other_B[apart_B] = low, high
        steps_B[apart_B] += 1
        apart_B = apart_B[low != high]
    return one_B, steps_B


def _double_stars(rng: np.random.Generator, nodes_B: np.ndarray, label_B: np.ndarray, width: int) -> Graphs:
    """Leaf i hangs on hub 0 up to its share, then on hub 1; the last edge joins two leaves.

    Shares are drawn alike for both labels, so that the degrees of the hubs tell nothing: any leaf is as likely on either hub, but none may be
    without.
    """
    share_B = _coins(rng, nodes_B - 2)
    while len(bare := np.flatnonzero((share_B == 0) | (share_B == nodes_B - 2))):
        share_B[bare] = _coins(rng, nodes_B[bare] - 2)
    leaf_E = np.minimum(np.arange(2, width + 1, dtype=np.uint32), np.uint32(width - 1))
    one_BE = (leaf_E >= (2 + share_B[:, None]).astype(np.uint32)).astype(np.uint32)
    other_BE = np.broadcast_to(leaf_E, one_BE.shape).copy()
    first_B = words(rng, len(nodes_B)) >> np.uint32(31) > 0  # whose two leaves are joined where it is to be no tree
    first_B = (first_B | (share_B == nodes_B - 3)) & (share_B > 1)
    row_B = np.arange(len(nodes_B))
    one_BE[row_B, nodes_B - 2] = np.where(label_B | first_B, 2, nodes_B - 2)
    other_BE[row_B, nodes_B - 2] = np.where(~label_B & first_B, 3, nodes_B - 1)
    return Graphs(one_BE, other_BE, nodes_B - 1)


def _coins(rng: np.random.Generator, count_B: np.ndarray) -> np.ndarray:
    """How many of so many coins show heads: bits of random words."""
    if not len(count_B):
        return count_B
    word_BW = rng.integers(0, 1 << 64, size=(len(count_B), -(-int(count_B.max()) // 64)), dtype=np.uint64)
    spare_BW = np.clip(64 * np.arange(1, word_BW.shape[1] + 1) - count_B[:, None], 0, 64)
    word_BW = np.where(spare_BW < 64, word_BW >> np.minimum(spare_BW, 63).astype(np.uint64), 0)
    return np.bitwise_count(word_BW).sum(axis=1, dtype=np.int64)


def _unicyclic(rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> Graphs:
    """A uniform tree with one edge more, between any two nodes that have none."""
    parent_BN, open_B = parents("uniform_tree", rng, nodes_B, width), np.arange(len(nodes_B))
    one_BE, other_BE = (np.concatenate([part, np.zeros((len(part), 1), np.uint32)], axis=1) for part in _edges(parent_BN))
    while len(open_B):
        one_R, other_R = below(words(rng, 2, len(open_B)), nodes_B[open_B])
        one_BE[open_B, nodes_B[open_B] - 1], other_BE[open_B, nodes_B[open_B] - 1] = one_R, other_R
        low_R, high_R = np.minimum(one_R, other_R), np.maximum(one_R, other_R)
        open_B = open_B[(low_R == high_R) | (parent_BN[open_B, high_R] == low_R)]
    return Graphs(one_BE, other_BE, nodes_B)


def _forests(rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> Graphs:
    """A uniform tree with one edge less, which led to no leaf: a node without edges would not be seen in the prompt."""
    parent_BN, gone_B, open_B = np.empty((len(nodes_B), width), np.int64), np.empty(len(nodes_B), np.int64), np.arange(len(nodes_B))
    while len(open_B):
        parent_RN, row_R = parents("uniform_tree", rng, nodes_B[open_B], width), np.arange(len(open_B))
        gone_R = below(words(rng, len(open_B)), nodes_B[open_B] - 1) + 1
        parent_BN[open_B], gone_B[open_B] = parent_RN, gone_R
        inner_RN = _inner(parent_RN, nodes_B[open_B])
        open_B = open_B[~(inner_RN[row_R, gone_R] & inner_RN[row_R, parent_RN[row_R, gone_R]])]
    one_BE, other_BE = _edges(parent_BN)
    for part_BE in (one_BE, other_BE):
        part_BE[np.arange(len(nodes_B)), gone_B - 1] = part_BE[np.arange(len(nodes_B)), nodes_B - 2]
    return Graphs(one_BE, other_BE, nodes_B - 2)


def _upstream_random(rng: np.random.Generator, nodes_B: np.ndarray, tree_B: np.ndarray, width: int) -> Graphs:
    """Recursive trees where `tree_B`; else an edge from every node but one to any node, and one more that does not touch another one.

    Loops and repetitions vanish. The other node is a slip of the public code: it takes the number of the one without an edge for a name.
    """
    node_N = np.arange(width)
    any_BN = below(words(rng, len(nodes_B), width), np.where(tree_B[:, None], np.maximum(node_N, 1), nodes_B[:, None]))
    bare_B = np.where(tree_B, 0, 1 + below(words(rng, len(nodes_B)), nodes_B - 1))
    there_BN = (node_N < nodes_B[:, None]) & (node_N != bare_B[:, None]) & (any_BN != node_N)
    back_BN = np.take_along_axis(any_BN, any_BN, axis=1) == node_N
    there_BN &= ~(back_BN & (any_BN > node_N) & np.take_along_axis(there_BN, any_BN, axis=1))  # both ways is one edge
    barred_B, open_B = below(words(rng, len(nodes_B)), nodes_B), np.flatnonzero(~tree_B)
    one_BN, other_BN = np.broadcast_to(node_N, any_BN.shape).copy(), any_BN
    for _ in range(TRIES):
        pair_R2 = below(words(rng, len(open_B), 2), nodes_B[open_B, None])
        low_R1, high_R1 = pair_R2.min(axis=1, keepdims=True), pair_R2.max(axis=1, keepdims=True)
        low_RN, high_RN = np.minimum(one_BN[open_B], other_BN[open_B]), np.maximum(one_BN[open_B], other_BN[open_B])
        wrong_R = (there_BN[open_B] & (low_RN == low_R1) & (high_RN == high_R1)).any(axis=1)
        wrong_R |= (low_R1 == high_R1)[:, 0] | (pair_R2 == barred_B[open_B, None]).any(axis=1)
        place = open_B[~wrong_R], bare_B[open_B[~wrong_R]]  # the node without an edge of its own has room for this one
        one_BN[place], other_BN[place], there_BN[place] = *pair_R2[~wrong_R].T, True
        open_B = open_B[wrong_R]
    order_BN = np.argsort(~there_BN, axis=1, kind="stable")
    one_BE, other_BE = (np.take_along_axis(part, order_BN, axis=1).astype(np.uint32) for part in (one_BN, other_BN))
    return Graphs(one_BE, other_BE, np.count_nonzero(there_BN, axis=1))
