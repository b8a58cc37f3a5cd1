"""Graphs for IsTree: trees of several families, and non-trees with equally many edges.

Nodes are numbered 0..n-1 in the order of construction; names are assigned later. A tree is an array of parents; a parent's number is lower
than its child's.

    path             0-1-2-...
    caterpillar      half the nodes form a path, each of the others is attached to a uniform node of it
    balanced_binary  the parent of i is (i - 1) / 2, rounded down
    recursive_tree   the parent of i is uniform among 0..i-1
    uniform_tree     every labelled tree equally likely, once names are random

A tree becomes a non-tree by a swap of two edges that preserves all degrees: edges a-b and c-d, with b and c joined by a path of two or more
edges, become a-d and b-c. This closes a cycle and disconnects it from the rest. At least one of a and d must not be a leaf, or a-d would be
an isolated edge, which is easy to spot. Every tree of diameter 5 or more has such a swap; other trees are rejected for both labels, so that
degrees do not reveal the label.

In a double star two hubs share the leaves, and one more edge joins two leaves: of different hubs, which makes a tree, or of the same one.

unicyclic is a uniform tree with an extra edge, forest one with an edge removed, upstream_random the public code's `random`: its answer is
whether the graph is connected, so trees with extra edges count as trees, and the number of edges reveals most of the answer.

Sources: Wen, Dang & Lyu 2024 (double star; random in its code); Aldous 1990 (uniform trees without Prüfer's sequence).

Notation: B = graphs, R = graphs of a subset, N = nodes of the largest, E = edges of the largest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks.retrieval import Family

TRIES = 200
"""Attempts to sample upstream_random's last edge before it is omitted; the public code would loop forever."""
CHOICE = 8
"""Number of swaps from which far negatives take the one with the longest cycle."""


class Graphs(NamedTuple):
    """Graphs as edge lists, uint32; the first `edges_B` entries of each list are edges."""

    one_BE: np.ndarray
    other_BE: np.ndarray
    edges_B: np.ndarray

    @property
    def beyond_BE(self) -> np.ndarray | None:
        """Mask of the entries that are not edges; None if there are none."""
        most = self.one_BE.shape[1]
        return None if self.edges_B.min(initial=most) == most else np.arange(most) >= self.edges_B[:, None]


def sample_graphs(family: Family, far: bool, rng: np.random.Generator, nodes_B: np.ndarray, label_B: np.ndarray, width: int) -> Graphs:
    """Sample graphs with `nodes_B` nodes that are trees where `label_B`; upstream_random may have other labels and edge counts.

    width: node capacity of the arrays. far: sample negatives with long cycles.
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
    """Sample random 32-bit words, as halves of the generator's 64-bit words."""
    count = int(np.prod(shape))
    return rng.integers(0, 1 << 64, size=(count + 1) // 2, dtype=np.uint64).view(np.uint32)[:count].reshape(shape)


def below(words: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Map random words to integers in [0, bound)."""
    return ((words.astype(np.uint64) * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int64)


def parents(family: str, rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> np.ndarray:
    """Sample the parents of all nodes of trees of a family; column 0, the root's, is 0; columns beyond a tree's nodes are undefined."""
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
    """Return the edge lists of trees; entry i - 1 joins node i and its parent."""
    one_BE = parent_BN[:, 1:].astype(np.uint32)
    return one_BE, np.broadcast_to(np.arange(1, parent_BN.shape[1], dtype=np.uint32), one_BE.shape).copy()


def _swappable(family: str, rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> np.ndarray:
    """Sample parents of trees that have a valid swap."""
    parent_BN = parents(family, rng, nodes_B, width)
    open_B = np.arange(len(nodes_B))
    while len(open_B := open_B[~_long(parent_BN[open_B], nodes_B[open_B])]):
        parent_BN[open_B] = parents(family, rng, nodes_B[open_B], width)
    return parent_BN


def _inner(parent_BN: np.ndarray, nodes_B: np.ndarray) -> np.ndarray:
    """Return which nodes are not leaves: those with a child; for the root, with two."""
    rows, width = parent_BN.shape
    at_BE = (np.arange(rows) * width)[:, None] + parent_BN[:, 1:]
    children_BN = np.bincount(at_BE[np.arange(1, width) < nodes_B[:, None]], minlength=rows * width).reshape(rows, width)
    children_BN[:, 0] -= 1
    return children_BN > 0


def _long(parent_BN: np.ndarray, nodes_B: np.ndarray) -> np.ndarray:
    """Return which trees have diameter 5 or more: both ends of some edge have two or more neighbours that are not leaves."""
    (rows, width), inner_BN = parent_BN.shape, _inner(parent_BN, nodes_B)
    at_BE = (np.arange(rows) * width)[:, None] + parent_BN[:, 1:]
    near_BN = np.bincount(at_BE[inner_BN[:, 1:]], minlength=rows * width).reshape(rows, width)
    near_BN[:, 1:] += inner_BN.reshape(-1)[at_BE]
    middle_BN = inner_BN & (near_BN >= 2)
    return np.any(middle_BN[:, 1:] & middle_BN.reshape(-1)[at_BE], axis=1)


def _swaps(rng: np.random.Generator, parent_BN: np.ndarray, nodes_B: np.ndarray, choice: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample a uniform swap per tree: the indices of two edges, and the ends of the edges that replace them.

    choice: number of swaps sampled, of which the one with the longest cycle is kept.
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
    """Sample two different edges per tree and swap them; the length of the resulting cycle comes first, below 3 if the swap is invalid."""
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
    """Return which graphs are connected, by expanding the set reached from the first edge's first node until it stops growing."""
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
    """Find the lowest common ancestor of two nodes, and their distance: the node with the higher number moves up until they meet."""
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
    """Sample double stars: the first leaves are attached to hub 0, the others to hub 1; the last edge joins two leaves.

    The number of leaves per hub has the same distribution for both labels, so that the hubs' degrees do not reveal the label: each leaf is
    on either hub with equal probability, conditioned on both hubs having leaves.
    """
    share_B = _coins(rng, nodes_B - 2)
    while len(bare := np.flatnonzero((share_B == 0) | (share_B == nodes_B - 2))):
        share_B[bare] = _coins(rng, nodes_B[bare] - 2)
    leaf_E = np.minimum(np.arange(2, width + 1, dtype=np.uint32), np.uint32(width - 1))
    one_BE = (leaf_E >= (2 + share_B[:, None]).astype(np.uint32)).astype(np.uint32)
    other_BE = np.broadcast_to(leaf_E, one_BE.shape).copy()
    first_B = words(rng, len(nodes_B)) >> np.uint32(31) > 0  # the hub whose two leaves are joined in a non-tree
    first_B = (first_B | (share_B == nodes_B - 3)) & (share_B > 1)
    row_B = np.arange(len(nodes_B))
    one_BE[row_B, nodes_B - 2] = np.where(label_B | first_B, 2, nodes_B - 2)
    other_BE[row_B, nodes_B - 2] = np.where(~label_B & first_B, 3, nodes_B - 1)
    return Graphs(one_BE, other_BE, nodes_B - 1)


def _coins(rng: np.random.Generator, count_B: np.ndarray) -> np.ndarray:
    """Sample binomial(count_B, 1/2) by counting bits of random words."""
    if not len(count_B):
        return count_B
    word_BW = rng.integers(0, 1 << 64, size=(len(count_B), -(-int(count_B.max()) // 64)), dtype=np.uint64)
    spare_BW = np.clip(64 * np.arange(1, word_BW.shape[1] + 1) - count_B[:, None], 0, 64)
    word_BW = np.where(spare_BW < 64, word_BW >> np.minimum(spare_BW, 63).astype(np.uint64), 0)
    return np.bitwise_count(word_BW).sum(axis=1, dtype=np.int64)


def _unicyclic(rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> Graphs:
    """Sample uniform trees with one extra edge between two non-adjacent nodes."""
    parent_BN, open_B = parents("uniform_tree", rng, nodes_B, width), np.arange(len(nodes_B))
    one_BE, other_BE = (np.concatenate([part, np.zeros((len(part), 1), np.uint32)], axis=1) for part in _edges(parent_BN))
    while len(open_B):
        one_R, other_R = below(words(rng, 2, len(open_B)), nodes_B[open_B])
        one_BE[open_B, nodes_B[open_B] - 1], other_BE[open_B, nodes_B[open_B] - 1] = one_R, other_R
        low_R, high_R = np.minimum(one_R, other_R), np.maximum(one_R, other_R)
        open_B = open_B[(low_R == high_R) | (parent_BN[open_B, high_R] == low_R)]
    return Graphs(one_BE, other_BE, nodes_B)


def _forests(rng: np.random.Generator, nodes_B: np.ndarray, width: int) -> Graphs:
    """Sample uniform trees with one edge removed, not a leaf's: an isolated node would not appear in the prompt."""
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
    """Sample recursive trees where `tree_B`; else an edge from every node but one to a uniform node, plus one that avoids a barred node.

    Self-loops and duplicate edges are dropped. The barred node reproduces a bug of the public code, which mistakes a node's index for its name.
    """
    node_N = np.arange(width)
    any_BN = below(words(rng, len(nodes_B), width), np.where(tree_B[:, None], np.maximum(node_N, 1), nodes_B[:, None]))
    bare_B = np.where(tree_B, 0, 1 + below(words(rng, len(nodes_B)), nodes_B - 1))
    there_BN = (node_N < nodes_B[:, None]) & (node_N != bare_B[:, None]) & (any_BN != node_N)
    back_BN = np.take_along_axis(any_BN, any_BN, axis=1) == node_N
    there_BN &= ~(back_BN & (any_BN > node_N) & np.take_along_axis(there_BN, any_BN, axis=1))  # an edge in both directions is one edge
    barred_B, open_B = below(words(rng, len(nodes_B)), nodes_B), np.flatnonzero(~tree_B)
    one_BN, other_BN = np.broadcast_to(node_N, any_BN.shape).copy(), any_BN
    for _ in range(TRIES):
        pair_R2 = below(words(rng, len(open_B), 2), nodes_B[open_B, None])
        low_R1, high_R1 = pair_R2.min(axis=1, keepdims=True), pair_R2.max(axis=1, keepdims=True)
        low_RN, high_RN = np.minimum(one_BN[open_B], other_BN[open_B]), np.maximum(one_BN[open_B], other_BN[open_B])
        wrong_R = (there_BN[open_B] & (low_RN == low_R1) & (high_RN == high_R1)).any(axis=1)
        wrong_R |= (low_R1 == high_R1)[:, 0] | (pair_R2 == barred_B[open_B, None]).any(axis=1)
        place = open_B[~wrong_R], bare_B[open_B[~wrong_R]]  # the entry of the skipped node is free for this edge
        one_BN[place], other_BN[place], there_BN[place] = *pair_R2[~wrong_R].T, True
        open_B = open_B[wrong_R]
    order_BN = np.argsort(~there_BN, axis=1, kind="stable")
    one_BE, other_BE = (np.take_along_axis(part, order_BN, axis=1).astype(np.uint32) for part in (one_BN, other_BN))
    return Graphs(one_BE, other_BE, np.count_nonzero(there_BN, axis=1))
