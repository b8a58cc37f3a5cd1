"""The walk through a graph in IsTree's traces: depth-first search from the root, until it is complete or finds a visited node again.

At every visit of a node the walk scans the node's edges in the given order, starting after the edge by which it has just returned, and skips
the edge to the node's parent. It moves to the first node found, back to the parent if there is none, and stops before a node that has been
visited. The walk through a tree of n nodes has 2n - 1 visits, and the walk through any other graph of n nodes is shorter.

Node i has the code i + 1. Code 0 is no node; code N + 1 is the position before the root, where all walks end.

Notation: B = graphs, N = nodes of the largest, E = edges of the largest, T = visits of the longest walk, S = visits of all walks,
concatenated, G = edge ends and one stop per node, sorted by node, C = columns of a visit's tokens, K = combinations of flags.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks.retrieval import PIECES, QUERIES
from pipeline.tasks.base import INJECTED, TARGET
from pipeline.tasks.graphs import Graphs
from pipeline.tasks.vocabulary import EDGE, END, NODES, REC, SEARCH

CODE = np.uint32(11)
"""Bits of a code, or of an edge's index."""
PLACE = np.uint32(12)
"""Bits of an index of the edge ends."""
PLACES, SEEN = np.uint32((1 << 12) - 1), np.uint32(1 << 12)

FIRST, SKIPPED, FOUND, NEW = 1, 2, 4, 8
"""Flags of a visit: first visit of the node; the edge to the parent is skipped; a node is found; that node is new."""
COMBINATIONS = 16

BLOCK = 1 << 14
"""Visits whose tokens are written at once, so that they stay in cache."""


class Walks(NamedTuple):
    """Tokens of every visit, walks concatenated: the node's name, and the arguments and results of its searches.

    parent: the node's parent; before: the node visited before; next: the other end of the first edge scanned; found: the same, or that of the
    following edge if the first one leads to the parent; mark: the parent of the node found, if it has been visited.
    """

    token_S: dict[str, np.ndarray]
    flags_S: np.ndarray
    """FIRST + SKIPPED + FOUND + NEW."""
    visits_B: np.ndarray


def walk(graphs: Graphs, root_B: np.ndarray, token_BN: np.ndarray, searches: bool) -> Walks:
    """Walk through graphs from their roots; `token_BN` is the token of each code. Without `searches`, returns only the nodes visited."""
    rows, codes = token_BN.shape
    seen = _visits(graphs, root_B.astype(np.uint32) + np.uint32(1), codes, 5 if searches else 1)
    alive_S = (seen[0] != codes - 1).reshape(-1)
    visits_B = np.count_nonzero(alive_S.reshape(rows, -1), axis=1)
    code_S = [part.reshape(-1)[alive_S] for part in seen]
    at_S, token = np.repeat(np.arange(rows, dtype=np.uint32) * np.uint32(codes), visits_B), token_BN.reshape(-1)
    if not searches:
        return Walks({"node": token.take(at_S + code_S[0], mode="clip")}, np.zeros(0, np.uint8), visits_B)
    for packed in (1, 4):
        code_S[packed] >>= PLACE
    node_S, parent_S, next_S, found_S, mark_S = code_S
    new_S = mark_S == 0
    flags_S = SKIPPED * (next_S == parent_S).view(np.uint8) + FOUND * (found_S > 0).view(np.uint8) + NEW * new_S.view(np.uint8)
    flags_S[1:] += new_S[:-1]
    first_B = np.cumsum(visits_B) - visits_B
    flags_S[first_B] = flags_S[first_B] & ~np.uint8(FIRST) | FIRST
    names = ("node", "parent", "next", "found", "mark")
    tokens = {name: token.take(at_S + codes_S, mode="clip") for name, codes_S in zip(names, code_S, strict=True)}
    tokens["before"] = np.concatenate([tokens["node"][:1], tokens["node"][:-1]])
    return Walks(tokens, flags_S, visits_B)


def _visits(graphs: Graphs, root_B: np.ndarray, codes: int, parts: int) -> np.ndarray:
    """Compute all visits of all walks in parallel: codes of node, parent (above an edge index), next, found, and the found node's parent.

    `state` holds, for each code of each graph, the parent's code (0 before the first visit) in the bits above the index of the next edge.
    """
    rows, end = len(root_B), np.uint32(codes - 1)
    far_BG, state_BN = _adjacency(graphs, codes)
    far, state = far_BG.reshape(-1), state_BN.reshape(-1)
    end_B, base_B = np.full(rows, end), np.arange(rows, dtype=np.uint32) * np.uint32(codes)
    edges_B = np.arange(rows, dtype=np.uint32) * np.uint32(far_BG.shape[1])
    state[base_B + root_B] += end << PLACE
    seen_PBT = np.empty((parts, rows, 2 * codes - 5), np.uint32)
    here_B = root_B
    for step in range(seen_PBT.shape[2]):
        at_B = base_B + here_B
        state_B = state.take(at_B, mode="clip")
        place_B = edges_B + (state_B & PLACES)
        next_B = far.take(place_B, mode="clip")
        parent_B = state_B >> PLACE
        skipped_B = next_B == parent_B
        place_B += skipped_B
        found_B = far.take(place_B, mode="clip")
        state[at_B] = state_B + skipped_B + (here_B != end)
        at_B = base_B + found_B
        mark_B = state.take(at_B, mode="clip")
        new_B = mark_B < SEEN
        state[at_B] = mark_B + (here_B << PLACE) * new_B
        for part_BT, values_B in zip(seen_PBT, (here_B, state_B, next_B, found_B, mark_B), strict=False):
            part_BT[:, step] = values_B
        here_B = np.where(new_B, found_B, np.where(found_B == 0, parent_B, end_B))
    return seen_PBT


def _adjacency(graphs: Graphs, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return adjacency lists: the codes of each node's neighbours in edge order, terminated by 0; and the state before a walk."""
    one_BE, other_BE, beyond_BE = graphs.one_BE, graphs.other_BE, graphs.beyond_BE
    (rows, edges), nodes, end = one_BE.shape, codes - 2, np.uint32(codes - 1)
    order_E = (np.arange(edges, dtype=np.uint32) << CODE) + np.uint32(1)
    key_BG = np.empty((rows, 2 * edges + nodes + 1), np.uint32)
    for part_BE, near_BE, far_BE in ((key_BG[:, :edges], one_BE, other_BE), (key_BG[:, edges : 2 * edges], other_BE, one_BE)):
        np.left_shift(near_BE, CODE + CODE, out=part_BE)
        part_BE += order_E
        part_BE += far_BE
        if beyond_BE is not None:
            part_BE[beyond_BE] = np.iinfo(np.uint32).max
    key_BG[:, 2 * edges : -1] = (np.arange(nodes, dtype=np.uint32) << CODE + CODE) + np.uint32(edges << int(CODE))
    key_BG[:, :-1].sort(axis=1)
    key_BG &= np.uint32((1 << int(CODE)) - 1)
    key_BG[:, -1] = 0  # empty edge lists of code 0 and the end
    stops_BN = np.flatnonzero(key_BG == 0).reshape(rows, nodes + 1)
    stops_BN -= (np.arange(rows) * key_BG.shape[1])[:, None]
    state_BN = np.empty((rows, codes), np.uint32)
    state_BN[:, 0] = state_BN[:, -1] = (end << PLACE) + np.uint32(key_BG.shape[1] - 1)
    state_BN[:, 1] = 0
    state_BN[:, 2:-1] = stops_BN[:, : nodes - 1] + 1
    return key_BG, state_BN


class Template:
    """The tokens of a visit in one search layout, as columns; the flags of a visit select which of them are written."""

    def __init__(self, layout: str, names: int) -> None:
        self.pieces = {"~": REC, "-": EDGE} | {piece: NODES + names + place for place, piece in enumerate(PIECES)}
        parent, first, following = QUERIES[layout]
        everything = set(range(COMBINATIONS))
        having = {flag: {flags for flags in everything if flags & flag} for flag in (FIRST, SKIPPED, FOUND, NEW)}
        self.columns: list[tuple[int | str, int, set[int]]] = [("node", TARGET, everything)]
        self._search(parent, everything, "parent", v="node")
        self._search(first, having[FIRST], "next", v="node")
        self._search(following, everything - having[FIRST], "next", v="node", w="before")
        self._search(following, having[SKIPPED], "found", v="node", w="next")
        self._search(parent, having[FOUND], "mark", v="found")
        self.columns += [(value, TARGET, having[NEW]) for value in ("found", REC, "node")]
        self.role_C = np.array([role for _, role, _ in self.columns], np.uint8)
        self.has_KC = np.array([[flags in allowed for _, _, allowed in self.columns] for flags in range(COMBINATIONS)])
        self.tokens_K = self.has_KC.sum(axis=1)

    def _search(self, query: str, allowed: set[int], result: str, **nodes: str) -> None:
        values = [nodes.get(word) or self.pieces[word] for word in query.split()]
        self.columns += [(value, TARGET, allowed) for value in (SEARCH, *values, END)]
        self.columns.append((result, INJECTED, allowed))

    def write(self, walks: Walks) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens and roles of all walks, concatenated."""
        blocks = [slice(at, at + BLOCK) for at in range(0, len(walks.flags_S), BLOCK)]
        parts = [self._write(walks, block) for block in blocks]
        return np.concatenate([tokens for tokens, _ in parts]), np.concatenate([roles for _, roles in parts])

    def _write(self, walks: Walks, block: slice) -> tuple[np.ndarray, np.ndarray]:
        flags_S = walks.flags_S[block]
        token_SC = np.empty((len(flags_S), len(self.columns)), np.uint16)
        token_SC[:] = [0 if isinstance(value, str) else value for value, _, _ in self.columns]
        for place, (value, _, _) in enumerate(self.columns):
            if isinstance(value, str):
                token_SC[:, place] = walks.token_S[value][block]
        chosen = self.has_KC[flags_S].reshape(-1)
        roles = np.broadcast_to(self.role_C, token_SC.shape).reshape(-1)
        return np.compress(chosen, token_SC.reshape(-1)), np.compress(chosen, roles)
