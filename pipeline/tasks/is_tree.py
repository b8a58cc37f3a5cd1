"""IsTree: the edges of a graph in random order; the answer is whether the graph is a tree.

Nodes have random names out of `names`. The first node of the first edge is the root, where traces start. A graph of four nodes (sampled
graphs are larger) in layout direct, with `pause_tokens: 2`, and in layout cot, where the walk from node to node precedes EOS:

    BOS 3 - 7 5 - 3 5 - 9 SEP TRUE
    BOS 3 - 7 5 - 3 5 - 9 SEP IDLE IDLE TRUE
    BOS 3 - 7 5 - 3 5 - 9 SEP 3 7 3 5 9 5 3 EOS TRUE

In layout icr every step of the walk is found by search. S is SEARCH, E is END, F is FAIL; the token after E is injected, not predicted:

    BOS 3 - 7 5 - 3 5 - 9 SEP  3 ~ ROOT               the record of the root, so that it counts as visited
    3  S 3 ~ E ROOT  S 3 - E 7  S 7 ~ E F  7 ~ 3      at 3, parent: ROOT; first edge: to 7; 7 has no parent, so it is new: 7 from 3
    7  S 7 ~ E 3  S 7 - E 3  S 7 - 3 E F              at 7, parent: 3; first edge: to 3, the parent; next edge: none, so back
    3  S 3 ~ E ROOT  S 3 - 7 E 5  S 5 ~ E F  5 ~ 3    at 3 again; next edge after 7: to 5, ...
    ... EOS TRUE

Layout icr_regex spells `S 3 - E` as `S 3 - any | any - 3 E`. A walk that finds a visited node other than the parent ends there. The
trace of a tree of n nodes has 2n - 1 tokens in cot and 37n - 23 in icr.

With `upstream` tokens have the numbers of the public code, where SEP and EOS are the same; names are 0..n-1, the root is 0 and has no
record, and an edge's larger end comes first: rows of trees have 3n, 5n and 40n - 25 tokens. A cycle that closes at the root is then mistaken
for a new node by the search.

Source: Wen, Dang & Lyu 2024. Notation: B = rows, N = nodes of the largest graph, E = edges of the largest, T = tokens of the longest prompt,
S = tokens of all rows, concatenated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.base import largest
from pipeline.config.tasks import IsTree as Config
from pipeline.config.tasks.retrieval import FAMILIES
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, TARGET, Ragged, Split, TokenTask, hash_weights, in_split, rows_of, sample_integers
from pipeline.tasks.graph_searches import GraphSearches, RenumberedRetriever, SpelledPattern
from pipeline.tasks.graphs import Graphs, connected, sample_graphs, words
from pipeline.tasks.pairs import different
from pipeline.tasks.retriever import RegexSearches, Retriever
from pipeline.tasks.vocabulary import BOS, EDGE, EOS, FAIL, FALSE, IDLE, NODES, PAD, REC, ROOT, SEARCH, SEP, TRUE
from pipeline.tasks.walks import Template, walk

CELLS = 1 << 17
"""Total nodes of the graphs sampled at once."""

COPIES = 2
"""Candidates sampled at once to replace a graph of another split."""


UPSTREAM = (4, 11, 5, 5, 6, 7, 3, 15, 12, 13, 14, 1, 10, 0, 2, 8)
"""The public code's numbers of our special tokens; 1, 0, 2 and 8 (ROOT and the tokens after IDLE) never occur."""

ALL_ONES = np.iinfo(np.uint64).max
BITS = 11
"""Bits of a node's number."""


class GraphInstances(NamedTuple):
    """Graphs, node names, and answers."""

    one_BE: np.ndarray
    other_BE: np.ndarray
    edges_B: np.ndarray
    name_BN: np.ndarray
    answer_B: np.ndarray


class TreeRows(NamedTuple):
    """Finished rows, concatenated."""

    tokens_S: np.ndarray
    length_B: np.ndarray
    layouts: list[bytes]
    layout_B: np.ndarray


class IsTree(TokenTask):
    """The IsTree task and its retrievers."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.width = largest(config.nodes)
        self.number_V = np.array([*UPSTREAM, *range(NODES, NODES + config.names)], np.uint16) if config.upstream else None
        self.padding, self.eos, self.search = (UPSTREAM[token] if config.upstream else token for token in (PAD, EOS, SEARCH))
        self.weight_V = hash_weights(config.names)
        self.apart_N = np.array([config.apart(nodes) for nodes in range(self.width + 1)])
        self.template = Template(config.layout, config.names) if config.layout.startswith("icr") else None

    @property
    def traced(self) -> bool:
        """Whether the walk precedes the answer."""
        return self.config.layout != "direct"

    def retriever(self, prompt_T: np.ndarray) -> Retriever | None:
        """Return the retriever for a row with this prompt."""
        if self.config.layout == "icr_regex":
            return RegexSearches(prompt_T, SpelledPattern(self.config.names))
        if self.config.layout != "icr":
            return None
        searches = GraphSearches(prompt_T)
        return searches if self.number_V is None else RenumberedRetriever(searches, self.number_V)

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments. Half of them, rounded up, are trees.

        `level` is an upper bound on `column`: nodes (default) or family. Raises UserError if no row satisfies the bound.
        """
        rng, bounds = generator(key), {column or "nodes": level}
        nodes_B = sample_integers("is_tree", "nodes", self.config.nodes, rows, rng, bounds.get("nodes"))
        family_B = sample_integers("is_tree", "family", FAMILIES.index(self.config.family), rows, rng, bounds.get("family"))
        tree_B = rng.permutation(rows) % 2 == 0
        step = max(1, CELLS // self.width)
        blocks = [slice(at, at + step) for at in range(0, rows, step)]
        parts = [self._rows(rng, nodes_B[block], tree_B[block], split) for block in blocks]
        first_layout = np.cumsum([0, *(len(part.layouts) for part in parts)])
        fixed = self.config.layout == "direct" and isinstance(self.config.nodes, int) and self.config.family != "upstream_random"
        return rows_of(
            tokens=Ragged(np.concatenate([np.empty(0, np.uint16), *(part.tokens_S for part in parts)]), _joined("length_B", parts), fixed),
            layouts=[layout for part in parts for layout in part.layouts],
            layout_B=_joined(
                "layout_B", [part._replace(layout_B=part.layout_B + at) for part, at in zip(parts, first_layout, strict=False)]
            ),
            columns={"nodes": nodes_B, "family": family_B},
            padding=self.padding,
        )

    def overlap(self) -> str:
        """Describe which rows are too few for disjoint splits."""
        return self.config.overlap or "No graph is in two splits: a hash of its set of edges, as named, decides."

    def _sample_in_split(self, rng: np.random.Generator, nodes_B: np.ndarray, tree_B: np.ndarray, split: Split) -> GraphInstances:
        """Sample graphs that belong to `split`, by rejection."""
        instances, hash_B = self._sample(rng, nodes_B, tree_B)
        open_B = np.flatnonzero(self.apart_N[nodes_B] & ~in_split(hash_B, split))
        while len(open_B):
            again_S = np.tile(open_B, COPIES)
            fresh, hash_S = self._sample(rng, nodes_B[again_S], tree_B[again_S])
            right_S = np.flatnonzero(in_split(hash_S, split))
            done_B, first_B = np.unique(again_S[right_S], return_index=True)
            for part, values in zip(instances, fresh, strict=True):
                part[done_B] = values[right_S[first_B]]
            open_B = np.setdiff1d(open_B, done_B, assume_unique=True)
        return instances

    def _sample(self, rng: np.random.Generator, nodes_B: np.ndarray, tree_B: np.ndarray) -> tuple[GraphInstances, np.ndarray]:
        """Sample named graphs, and hash each set of edges: the sum over edges of the product of their ends' weights."""
        family = self.config.family
        graphs = sample_graphs(family, self.config.long_cycles, rng, nodes_B, tree_B, self.width)
        name_BN = self._names(rng, nodes_B)
        tree_B = tree_B & (family not in ("unicyclic", "forest"))
        answer_B = connected(graphs, nodes_B, self.width) if family == "upstream_random" else tree_B
        weight, at_B1, beyond_BE = self.weight_V.take(name_BN, mode="clip").reshape(-1), row_starts(name_BN), graphs.beyond_BE
        one_BE, other_BE = (weight.take(at_B1 + ends_BE, mode="clip") for ends_BE in graphs[:2])
        if beyond_BE is not None:
            one_BE[beyond_BE] = 0
        return GraphInstances(*graphs, name_BN, answer_B), np.einsum("be,be->b", one_BE, other_BE)

    def _names(self, rng: np.random.Generator, nodes_B: np.ndarray) -> np.ndarray:
        """Sample distinct node names per graph, uniformly."""
        rows, names = len(nodes_B), self.width if self.config.upstream else self.config.names
        if names > 8 * self.width:
            return different(rng, rows, self.width, 0, names)
        key_BV, low_BV, high_BV = keys(rows, names)
        low_BV[:], high_BV[:] = np.arange(names), words(rng, rows, names)
        if self.config.upstream:
            key_BV[np.arange(names) >= nodes_B[:, None]] |= ALL_ONES << np.uint64(32)
        key_BV.sort(axis=1)
        return low_BV[:, : self.width].astype(np.uint16)

    def _rows(self, rng: np.random.Generator, nodes_B: np.ndarray, tree_B: np.ndarray, split: Split) -> TreeRows:
        instances = self._sample_in_split(rng, nodes_B, tree_B, split)
        rows = len(nodes_B)
        graphs = _in_order(rng, Graphs(*instances[:3]))
        token_BN = np.empty((rows, self.width + 2), np.uint16)
        np.add(instances.name_BN, np.uint16(NODES), out=token_BN[:, 1:-1])
        token_BN[:, 0], token_BN[:, -1] = FAIL, FAIL if self.config.upstream else ROOT
        answer_B = np.where(instances.answer_B, TRUE, FALSE)
        if self.traced:
            return self._traced(graphs, instances, token_BN, answer_B)
        end_BT = np.full((rows, self.config.pause_tokens + 1), IDLE, np.uint16)
        end_BT[:, -1] = answer_B
        tokens_S, length_B = _prompts(graphs, token_BN, end_BT, self.config.upstream)
        lengths, layout_B = np.unique(length_B, return_inverse=True)
        layouts = [bytes([PROMPT]) * (length - 1) + bytes([ANSWER]) for length in lengths.tolist()]
        return TreeRows(self._numbered(tokens_S), length_B, layouts, layout_B)

    def _traced(self, graphs: Graphs, instances: GraphInstances, token_BN: np.ndarray, answer_B: np.ndarray) -> TreeRows:
        """Write rows with the walk between prompt and answer; a walk with searches starts with the record of the root."""
        rows = len(token_BN)
        root_B = (instances.name_BN == 0).argmax(axis=1) if self.config.upstream else graphs.one_BE[:, 0]
        walks = walk(graphs, root_B, token_BN, searches=self.template is not None)
        record_BT = np.empty((rows, 3 if self.template and not self.config.upstream else 0), np.uint16)
        if record_BT.size:
            record_BT[:] = np.stack([token_BN[np.arange(rows), root_B + 1], np.full(rows, REC), np.full(rows, ROOT)], axis=1)
        tokens, roles, trace_B = walks.token_S["node"], np.empty(0, np.uint8), walks.visits_B
        if self.template:
            tokens, roles = self.template.write(walks)
            trace_B = row_sums(self.template.tokens_K[walks.flags_S], walks.visits_B)
        prompt_S, prompt_B = _prompts(graphs, token_BN, record_BT, self.config.upstream)
        end_B2 = np.stack([np.full(rows, EOS), answer_B], axis=1).astype(np.uint16)
        length_B, two_B = prompt_B + trace_B + 2, np.full(rows, 2)
        tokens_S = spliced((prompt_S, prompt_B), (tokens, trace_B), (end_B2.reshape(-1), two_B))
        layouts, layout_B = self._layouts(roles, prompt_B, trace_B, record_BT.shape[1])
        return TreeRows(self._numbered(tokens_S), length_B, layouts, layout_B)

    def _layouts(self, roles_S: np.ndarray, prompt_B: np.ndarray, trace_B: np.ndarray, recorded: int) -> tuple[list[bytes], np.ndarray]:
        """Return distinct role columns, given the traces' roles, concatenated; the last `recorded` tokens of a prompt belong to the trace."""
        unscored, scored, end = (bytes([role]) for role in (PROMPT, TARGET, ANSWER))
        if not self.template:  # the whole trace is predicted
            most = int(trace_B.max()) + 1
            codes, layout_B = np.unique(prompt_B * most + trace_B, return_inverse=True)
            return [
                unscored * prompt + scored * (trace + 1) + end for prompt, trace in (divmod(code, most) for code in codes.tolist())
            ], layout_B
        text, stop_B, pairs = roles_S.tobytes(), np.cumsum(trace_B).tolist(), zip(prompt_B.tolist(), trace_B.tolist(), strict=True)
        heads = {prompt: unscored * (prompt - recorded) + scored * recorded for prompt in set(prompt_B.tolist())}
        layouts = [heads[prompt] + text[stop - trace : stop] + scored + end for stop, (prompt, trace) in zip(stop_B, pairs, strict=True)]
        return layouts, np.arange(len(layouts))

    def _numbered(self, tokens_S: np.ndarray) -> np.ndarray:
        return tokens_S if self.number_V is None else self.number_V.take(tokens_S, mode="clip")


def keys(*shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Allocate 64-bit sort keys, with views of their lower and higher halves."""
    key = np.empty(shape, np.uint64)
    halves = key.view(np.uint32).reshape(*shape, 2)
    return key, halves[..., 0], halves[..., 1]


def row_starts(matrix: np.ndarray) -> np.ndarray:
    """Return the flat index of each matrix row's start, as a column."""
    return np.arange(len(matrix), dtype=np.uint32)[:, None] * np.uint32(matrix.shape[1])


def spliced(*parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Concatenate parts within each row: its piece of the first part, then of the second, ...; a part is (concatenated pieces, lengths)."""
    lengths_BP = np.stack([lengths_B for _, lengths_B in parts], axis=1)
    owner_S = np.repeat(np.tile(np.arange(len(parts), dtype=np.uint8), len(lengths_BP)), lengths_BP.reshape(-1))
    made_S = np.empty(len(owner_S), parts[0][0].dtype)
    for number, (values, _) in enumerate(parts):
        made_S[owner_S == number] = values
    return made_S


def row_sums(values_S: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
    """Sum the values of each row; rows are concatenated and not empty."""
    return np.add.reduceat(values_S, np.cumsum(counts_B) - counts_B)


def _prompts(graphs: Graphs, token_BN: np.ndarray, after_BT: np.ndarray, larger_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Write BOS, the edges (larger end first if `larger_first`), SEP and `after_BT`; returns the concatenated rows and their lengths."""
    (rows, most), after = graphs.one_BE.shape, after_BT.shape[1]
    at_B1, token = row_starts(token_BN) + np.uint32(1), token_BN.reshape(-1)
    one_BE, other_BE = (token.take(at_B1 + ends_BE, mode="clip") for ends_BE in graphs[:2])
    if larger_first:
        one_BE, other_BE = np.maximum(one_BE, other_BE), np.minimum(one_BE, other_BE)
    token_BT = np.empty((rows, 3 * most + 2 + after), np.uint16)
    token_BT[:, 0] = BOS
    token_BT[:, 2 : 3 * most + 1 : 3] = EDGE
    token_BT[:, 1 : 3 * most + 1 : 3], token_BT[:, 3 : 3 * most + 1 : 3] = one_BE, other_BE
    length_B = 3 * graphs.edges_B + 2 + after
    if graphs.beyond_BE is None:
        token_BT[:, 3 * most + 1] = SEP
        token_BT[:, 3 * most + 2 :] = after_BT
        return token_BT.reshape(-1), length_B
    token_BT[np.arange(rows), length_B - after - 1] = SEP
    token_BT[np.arange(rows)[:, None], (length_B - after)[:, None] + np.arange(after)] = after_BT
    return token_BT[np.arange(token_BT.shape[1]) < length_B[:, None]], length_B


def _in_order(rng: np.random.Generator, graphs: Graphs) -> Graphs:
    """Shuffle the edges, each with a random end first, chosen by the lowest bit of its sort key."""
    (rows, most), beyond_BE = graphs.one_BE.shape, graphs.beyond_BE
    key_BE, low_BE, high_BE = keys(rows, most)
    np.left_shift(graphs.one_BE, np.uint32(BITS), out=low_BE)
    low_BE |= graphs.other_BE
    high_BE[:] = words(rng, rows, most)
    if beyond_BE is not None:
        key_BE[beyond_BE] = ALL_ONES
    key_BE.sort(axis=1)
    one_BE, other_BE = low_BE >> np.uint32(BITS), low_BE & np.uint32((1 << BITS) - 1)
    turn_BE = (one_BE ^ other_BE) * (high_BE & np.uint32(1))
    one_BE ^= turn_BE
    other_BE ^= turn_BE
    if beyond_BE is not None:
        one_BE[beyond_BE] = other_BE[beyond_BE] = 0
    return Graphs(one_BE, other_BE, graphs.edges_B)


def _joined(name: str, parts: list[TreeRows]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
