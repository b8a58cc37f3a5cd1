"""The walk through a graph that IsTree's traces write down: depth first from the root, until it is done or comes upon a node once more.

At every visit of a node the walk looks at its edges in the order they are given in, from the one after that it has just come back by, and
passes over the edge to the node's father. It goes on to the first node found, back to the father where there is none, and ends before a
node that has been visited. So the walk through a tree of n nodes makes 2n - 1 visits, and no other graph of n nodes has so long a walk.

Here node i has the code i + 1. Code 0 is no node; code N + 1 is the place before the root, where all walks end.

Shapes: B graphs, N nodes of the largest, E edges of the largest, T visits of the longest walk, S visits of all walks end to end, G edges'
ends and one stop per node, sorted by node, C columns of a visit's tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks.retrieval import PIECES, QUERIES
from pipeline.tasks.base import INJECTED, TARGET
from pipeline.tasks.graphs import Graphs
from pipeline.tasks.vocabulary import EDGE, END, NODES, REC, SEARCH

CODE = np.uint32(11)
"""Bits of a code, or of an edge's place in the order."""
PLACE = np.uint32(12)
"""Bits of a place among the edges' ends."""
PLACES, SEEN = np.uint32((1 << 12) - 1), np.uint32(1 << 12)

FIRST, SKIPPED, FOUND, NEW = 1, 2, 4, 8
"""What may be true of a visit: the node's first; the edge to the father is passed over; a node is found; it is new."""
KINDS = 16

BLOCK = 1 << 14
"""Visits whose tokens are made at once, so that they stay in the processor's cache."""


class Walks(NamedTuple):
    """What every visit of some walks writes down, walk after walk: the node's name, and what its searches are about.

    father; before: the node visited before; next: the other end of the first edge looked at; found: the same, or that of the edge after it
    where this one leads to the father; mark: the father of the node found, if it has been visited.
    """

    token_S: dict[str, np.ndarray]
    kind_S: np.ndarray
    """FIRST + SKIPPED + FOUND + NEW."""
    visits_B: np.ndarray


def walk(graphs: Graphs, root_B: np.ndarray, token_BN: np.ndarray, searches: bool) -> Walks:
    """Walk through graphs from their roots; `token_BN` says what to write for each code. Without `searches`, only for the nodes visited."""
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
    node_S, father_S, next_S, found_S, mark_S = code_S
    new_S = mark_S == 0
    kind_S = SKIPPED * (next_S == father_S).view(np.uint8) + FOUND * (found_S > 0).view(np.uint8) + NEW * new_S.view(np.uint8)
    kind_S[1:] += new_S[:-1]
    first_B = np.cumsum(visits_B) - visits_B
    kind_S[first_B] = kind_S[first_B] & ~np.uint8(FIRST) | FIRST
    names = ("node", "father", "next", "found", "mark")
    tokens = {name: token.take(at_S + codes_S, mode="clip") for name, codes_S in zip(names, code_S, strict=True)}
    tokens["before"] = np.concatenate([tokens["node"][:1], tokens["node"][:-1]])
    return Walks(tokens, kind_S, visits_B)


def _visits(graphs: Graphs, root_B: np.ndarray, codes: int, parts: int) -> np.ndarray:
    """All visits of all walks, side by side: codes of node, father (above a place), next, found, and what the found one's father was.

    `state` holds for each code of each graph the father's code, 0 before the first visit, above the place of the edge to be looked at next.
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
        father_B = state_B >> PLACE
        skipped_B = next_B == father_B
        place_B += skipped_B
        found_B = far.take(place_B, mode="clip")
        state[at_B] = state_B + skipped_B + (here_B != end)
        at_B = base_B + found_B
        mark_B = state.take(at_B, mode="clip")
        new_B = mark_B < SEEN
        state[at_B] = mark_B + (here_B << PLACE) * new_B
        for part_BT, values_B in zip(seen_PBT, (here_B, state_B, next_B, found_B, mark_B), strict=False):
            part_BT[:, step] = values_B
        here_B = np.where(new_B, found_B, np.where(found_B == 0, father_B, end_B))
    return seen_PBT


def _adjacency(graphs: Graphs, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes of all nodes' neighbours, node after node, edges in their order, 0 behind each node's last; and the state before a walk."""
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
    key_BG[:, -1] = 0  # where no node and the end have their edges: there are none
    stops_BN = np.flatnonzero(key_BG == 0).reshape(rows, nodes + 1)
    stops_BN -= (np.arange(rows) * key_BG.shape[1])[:, None]
    state_BN = np.empty((rows, codes), np.uint32)
    state_BN[:, 0] = state_BN[:, -1] = (end << PLACE) + np.uint32(key_BG.shape[1] - 1)
    state_BN[:, 1] = 0
    state_BN[:, 2:-1] = stops_BN[:, : nodes - 1] + 1
    return key_BG, state_BN


class Template:
    """The tokens of a visit in one layout of searches, as columns of which every kind of visit has its own selection."""

    def __init__(self, layout: str, names: int) -> None:
        self.pieces = {"~": REC, "-": EDGE} | {piece: NODES + names + place for place, piece in enumerate(PIECES)}
        parent, first, following = QUERIES[layout]
        everything = set(range(KINDS))
        having = {flag: {kind for kind in everything if kind & flag} for flag in (FIRST, SKIPPED, FOUND, NEW)}
        self.columns: list[tuple[int | str, int, set[int]]] = [("node", TARGET, everything)]
        self._search(parent, everything, "father", v="node")
        self._search(first, having[FIRST], "next", v="node")
        self._search(following, everything - having[FIRST], "next", v="node", w="before")
        self._search(following, having[SKIPPED], "found", v="node", w="next")
        self._search(parent, having[FOUND], "mark", v="found")
        self.columns += [(value, TARGET, having[NEW]) for value in ("found", REC, "node")]
        self.role_C = np.array([role for _, role, _ in self.columns], np.uint8)
        self.has_KC = np.array([[kind in kinds for _, _, kinds in self.columns] for kind in range(KINDS)])
        self.tokens_K = self.has_KC.sum(axis=1)

    def _search(self, query: str, kinds: set[int], result: str, **nodes: str) -> None:
        values = [nodes.get(word) or self.pieces[word] for word in query.split()]
        self.columns += [(value, TARGET, kinds) for value in (SEARCH, *values, END)]
        self.columns.append((result, INJECTED, kinds))

    def write(self, walks: Walks) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and roles of all walks, end to end."""
        blocks = [slice(at, at + BLOCK) for at in range(0, len(walks.kind_S), BLOCK)]
        parts = [self._write(walks, block) for block in blocks]
        return np.concatenate([tokens for tokens, _ in parts]), np.concatenate([roles for _, roles in parts])

    def _write(self, walks: Walks, block: slice) -> tuple[np.ndarray, np.ndarray]:
        kind_S = walks.kind_S[block]
        token_SC = np.empty((len(kind_S), len(self.columns)), np.uint16)
        token_SC[:] = [0 if isinstance(value, str) else value for value, _, _ in self.columns]
        for place, (value, _, _) in enumerate(self.columns):
            if isinstance(value, str):
                token_SC[:, place] = walks.token_S[value][block]
        chosen = self.has_KC[kind_S].reshape(-1)
        roles = np.broadcast_to(self.role_C, token_SC.shape).reshape(-1)
        return np.compress(chosen, token_SC.reshape(-1)), np.compress(chosen, roles)
