"""IsTree once more, slowly: graphs read off prompts, searches answered three ways, and a writer of traces that only searches."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import networkx as nx
import numpy as np

from pipeline.tasks.is_tree import IsTree
from pipeline.tasks.retriever import Query, Retriever, Searches
from pipeline.tasks.vocabulary import BOS, EDGE, END, EOS, FAIL, FALSE, NODES, REC, ROOT, SEARCH, SEP, TRUE, word

PIECES = ("any", "|", "(", ")", "skip")


def ours(task: IsTree, tokens: Iterable[int]) -> list[int]:
    """Tokens in our numbers; the public code's 5 is SEP the first time, EOS after it."""
    if task.number_V is None:
        return list(tokens)
    back = {number: token for token, number in enumerate(task.number_V.tolist())} | {5: EOS}
    found = [back[token] for token in tokens]
    if EOS in found:
        found[found.index(EOS)] = SEP
    return found


def edges_of(prompt: list[int]) -> list[tuple[int, int]]:
    """The edges between BOS and SEP, as tokens of nodes."""
    assert prompt[0] == BOS and prompt[-1] == SEP and len(prompt) % 3 == 2
    triples = [prompt[at : at + 3] for at in range(1, len(prompt) - 1, 3)]
    assert all(middle == EDGE and min(one, other) >= NODES for one, middle, other in triples)
    return [(one, other) for one, _, other in triples]


def graph_of(prompt: list[int], nodes: int) -> nx.Graph:
    """The graph of a prompt; nodes without an edge, which it does not name, are negative numbers."""
    edges = edges_of(prompt)
    graph = nx.Graph(edges)
    assert graph.number_of_edges() == len(edges), "no edge twice"
    assert not list(nx.selfloop_edges(graph))
    graph.add_nodes_from(range(-1, -1 - nodes + graph.number_of_nodes(), -1))
    return graph


def pattern(query: Query) -> str | None:
    """A search as a regular expression over the context as RegexSearches writes it."""
    node, last = (word(query[place]) if query and query[place] >= NODES else None for place in (0, -1))
    edges = rf"(?:{node} - (\d+)|(\d+) - {node}) "
    if len(query) == 2 and node and query[1] == REC:
        return rf"\n(?:.*? )??{node} ~ (\d+|root) "
    if len(query) == 2 and node and query[1] == EDGE:
        return rf"\A(?:.*? )??{edges}"
    if len(query) == 3 and node and last and query[1] == EDGE:
        return rf"\A(?:.*? )??(?:{node} - {last}|{last} - {node}) (?:.*? )??{edges}"
    return None


class NetworkxSearches(Searches):
    """Answers searches by going over all edges of a networkx graph, in the order they were put in, and over all that was written."""

    def __init__(self, prompt: list[int]) -> None:
        super().__init__()
        self.graph = nx.Graph()
        for place, (one, other) in enumerate(edges_of(prompt)):
            self.graph.add_edge(one, other, place=place)
        self.lines: list[list[int]] = [[]]

    def look_up(self, query: Query) -> int | None:
        """The result of a query in the present context."""
        if len(query) == 2 and query[1] == REC and query[0] >= NODES:
            records = [(line[at], line[at + 2]) for line in self.lines for at in range(len(line) - 2) if line[at + 1] == REC]
            fathers = [father for child, father in records if child == query[0] and (father >= NODES or father == ROOT)]
            return fathers[0] if fathers else None
        if len(query) in (2, 3) and query[1] == EDGE and query[0] in self.graph:
            ordered = sorted(self.graph.edges(query[0], data="place"), key=lambda edge: edge[2])
            others = [other for _, other, _ in ordered]
            if len(query) == 3:
                others = others[others.index(query[2]) + 1 :] if query[2] in others else []
            return others[0] if others else None
        return None

    def write(self, token: int) -> None:
        """One more word of the present line."""
        self.lines[-1].append(token)

    def interrupt(self) -> None:
        """A new line."""
        self.lines.append([])


def told(retriever: Retriever, tokens: list[int]) -> list[int]:
    """What a retriever answers on the way through tokens."""
    return [answer for token in tokens if (answer := retriever.feed(token)) is not None]


Script = Generator[int, int | None, None]


def script(prompt: list[int], layout: str, upstream: bool = False, names: int = 0) -> Script:
    """Write the trace and the answer of a row from the number of edges and the root alone, asking for everything else.

    Yields tokens; what is sent back after END is taken for the result. What is remembered is a few nodes and a count.
    """
    piece = {name: NODES + names + place for place, name in enumerate(PIECES)}

    def search(kind: str, node: int, last: int = 0) -> Generator[int, int | None, int]:
        spelt = layout == "icr_regex"
        either = [node, EDGE, piece["any"], piece["|"], piece["any"], EDGE, node]
        after = [piece["("], node, EDGE, last, piece["|"], last, EDGE, node, piece[")"], piece["skip"], piece["("], *either, piece[")"]]
        queries: dict[str, list[int]] = {
            "father": [node, REC, piece["any"]] if spelt else [node, REC],
            "first": either if spelt else [node, EDGE],
            "next": after if spelt else [node, EDGE, last],
        }
        yield from (SEARCH, *queries[kind])
        result = yield END
        assert result is not None
        return result

    root = NODES if upstream else prompt[1]
    if not upstream:
        yield from (root, REC, ROOT)
    here, before, seen, tree = root, None, 1, True
    while True:
        yield here
        father = yield from search("father", here)
        top = father == (FAIL if upstream else ROOT)
        new = before is None or before == father
        found = yield from (search("first", here) if new else search("next", here, before or 0))
        if found == father and not top:
            found = yield from search("next", here, found)
        if found == FAIL:
            if top:
                break
            here, before = father, here
            continue
        mark = yield from search("father", found)
        if mark != FAIL or (upstream and found == root):
            tree = False
            break
        yield from (found, REC, here)
        here, before, seen = found, here, seen + 1
    yield EOS
    yield TRUE if tree and seen == len(edges_of(prompt)) + 1 else FALSE


def play(writer: Script, retriever: Retriever | None, budget: int) -> list[int]:
    """Let a writer go on as a network would: what the retriever answers is forced; without one the writer's own FAIL stands there."""
    written: list[int] = []
    token = next(writer)
    while len(written) < budget:
        written.append(token)
        forced = retriever.feed(token) if retriever else None
        if token == END:
            result = FAIL if forced is None else forced
            written.append(result)
            if retriever:
                assert retriever.feed(result) is None
        else:
            result = None
            assert forced is None
        try:
            token = writer.send(result)
        except StopIteration:
            break
    return written


def tour(prompt: list[int], root: int) -> list[int]:
    """The walk of layout cot, by recursion."""
    neighbours: dict[int, list[int]] = {}
    for one, other in edges_of(prompt):
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    visited: list[int] = []

    def visit(node: int, father: int | None) -> bool:
        visited.append(node)
        for other in neighbours.get(node, []):
            if other == father:
                continue
            if other in visited or not visit(other, node):
                return False
            visited.append(node)
        return True

    visit(root, None)
    return visited


def degrees(graph: nx.Graph) -> tuple[int, ...]:
    """How many neighbours nodes have, in order of size."""
    return tuple(sorted(degree for _, degree in graph.degree()))


def best_guess(features: list[Any], labels: np.ndarray) -> float:
    """Accuracy, on the second half of rows, of answering as most of the first half's rows with the same feature do."""
    half, votes = len(labels) // 2, {}
    for feature, label in zip(features[:half], labels[:half], strict=True):
        votes[feature] = votes.get(feature, 0) + (1 if label else -1)
    return float(np.mean([(votes.get(feature, 0) > 0) == label for feature, label in zip(features[half:], labels[half:], strict=True)]))
