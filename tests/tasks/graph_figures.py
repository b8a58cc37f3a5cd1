"""The figures that IsTree must reach, at any size: `python -m tests.tasks.graph_figures` measures them at the full one, some CPU minutes."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np

from pipeline.config.tasks import IsTree as Config
from pipeline.config.tasks.retrieval import FAMILIES, Family
from pipeline.storage.rng import derive_key
from pipeline.tasks.is_tree import IsTree
from pipeline.tasks.retriever import RegexSearches, Retriever
from pipeline.tasks.vocabulary import END, TRUE
from tests.tasks.graph_oracle import NetworkxSearches, best_guess, degrees, edges_of, graph_of, ours, pattern, play, script, told

RIGHT: tuple[Family, ...] = tuple(family for family in FAMILIES if family != "upstream_random")
BALANCED: tuple[Family, ...] = tuple(family for family in RIGHT if family not in ("unicyclic", "forest"))


def rows_of(rows: int, *, key: int = 0, split: Any = "train", **fields: Any) -> tuple[IsTree, list[dict[str, Any]]]:
    """Rows of a task with these fields, and the task."""
    task = IsTree(Config(**fields))
    return task, task.generate(rows, derive_key("test", key), split=split).to_pylist()


def parts(task: IsTree, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """A row's prompt and what follows it, in our numbers."""
    tokens, prompt = ours(task, row["tokens"]), list(row["role"]).count(0) - task.config.pause_tokens
    return tokens[:prompt], tokens[prompt:]


def label_errors(family: Family, rows: int, nodes: Any, **fields: Any) -> tuple[int, int]:
    """Rows whose answer is not networkx's, and rows that are trees."""
    task, made = rows_of(rows, family=family, nodes=nodes, **fields)
    errors = trees = 0
    for row in made:
        prompt, rest = parts(task, row)
        tree = nx.is_tree(graph_of(prompt, row["nodes"]))
        errors, trees = errors + (tree != (rest[-1] == TRUE)), trees + tree
    return errors, trees


def shortcuts(family: Family, rows: int, nodes: Any, **fields: Any) -> dict[str, float]:
    """Accuracy of the best guess from each of some features that do not tell whether a graph is a tree."""
    task, made = rows_of(rows, family=family, nodes=nodes, **fields)
    prompts = [parts(task, row)[0] for row in made]
    graphs = [graph_of(prompt, row["nodes"]) for prompt, row in zip(prompts, made, strict=True)]
    ends = [(edges_of(prompt)[0], edges_of(prompt)[-1]) for prompt in prompts]
    features: dict[str, list[Any]] = {
        "length": [len(prompt) for prompt in prompts],
        "edges": [graph.number_of_edges() for graph in graphs],
        "degrees": [degrees(graph) for graph in graphs],
        "first edge": [first for first, _ in ends],
        "last edge": [last for _, last in ends],
        "degrees at the first edge": [tuple(graph.degree[node] for node in first) for graph, (first, _) in zip(graphs, ends, strict=True)],
        "degrees at the last edge": [tuple(graph.degree[node] for node in last) for graph, (_, last) in zip(graphs, ends, strict=True)],
        "nodes of both": [len({*first, *last}) for first, last in ends],
    }
    labels = np.array([row["tokens"][-1] == made[0]["tokens"][-1] for row in made])
    return {name: max(best_guess(found, labels), best_guess(found, ~labels)) for name, found in features.items()}


def disagreements(rows: int, nodes: Any, **fields: Any) -> tuple[int, int]:
    """Queries in gold traces, and those to which index, expression, networkx and the trace itself do not all give one result."""
    task, made = rows_of(rows, nodes=nodes, layout="icr", **fields)
    queries = different = 0
    for row in made:
        prompt, rest = parts(task, row)
        fast = task.retriever(np.array(row["tokens"][: len(prompt)]))
        assert fast is not None
        stored = [rest[place + 1] for place, token in enumerate(rest) if token == END]
        answers = [
            ours(task, told(fast, row["tokens"][len(prompt) : -1])),
            told(RegexSearches(np.array(prompt), pattern), rest[:-1]),
            told(NetworkxSearches(prompt), rest[:-1]),
            stored,
        ]
        assert len({len(answer) for answer in answers}) == 1
        queries, different = queries + len(stored), different + sum(len(set(results)) > 1 for results in zip(*answers, strict=True))
    return queries, different


def scripted(rows: int, nodes: Any, layout: str, **fields: Any) -> tuple[int, int, int]:
    """Rows that the script reproduces token for token, those it answers rightly, and those it reproduces without a retriever."""
    task, made = rows_of(rows, nodes=nodes, layout=layout, **fields)
    whole = right = alone = 0
    for row in made:
        prompt, rest = parts(task, row)
        inner = task.retriever(np.array(row["tokens"][: len(prompt)]))
        assert inner is not None
        writers = (script(prompt, layout, task.config.upstream, task.config.names) for _ in range(2))
        searched, blind = (
            play(writer, retriever, task.config.longest) for writer, retriever in zip(writers, (Ours(task, inner), None), strict=True)
        )
        whole, right, alone = whole + (searched == rest), right + (searched[-1] == rest[-1]), alone + (blind == rest)
    return whole, right, alone


class Ours:
    """A task's retriever in our numbers."""

    def __init__(self, task: IsTree, inner: Retriever) -> None:
        self.inner, self.number_V = inner, task.number_V
        self.task = task

    def feed(self, token: int) -> int | None:
        """As the inner one."""
        if self.number_V is None:
            return self.inner.feed(token)
        found = self.inner.feed(int(self.number_V[token]))
        return None if found is None else ours(self.task, [found])[0]


def main() -> None:
    """Measure everything at the full size."""
    for family in FAMILIES:
        for nodes in (8, 16, {"uniform": (8, 32)}):
            errors, trees = label_errors(family, 10_000, nodes)
            print(f"labels {family} {nodes}: {errors} errors in 10000 rows, {trees} trees", flush=True)
    for family in BALANCED:
        for far in (False, True) if family != "double_star" else (False,):
            found = shortcuts(family, 40_000, 16, far=far)
            print(f"shortcuts {family} far={far}: " + ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in found.items()), flush=True)
    for fields in (
        {"names": 64},
        {"names": 16, "upstream": True},
        {"family": "uniform_tree"},
        {"family": "unicyclic"},
        {"family": "forest"},
    ):
        queries, different = disagreements(400, 16, **fields)
        print(f"retriever {fields}: {different} disagreements in {queries} queries", flush=True)
    for layout, fields in (("icr", {}), ("icr", {"upstream": True, "names": 16}), ("icr_regex", {}), ("icr", {"family": "uniform_tree"})):
        whole, right, alone = scripted(1000, 16, layout, **fields)
        print(
            f"script {layout} {fields}: {whole} of 1000 traces reproduced, {right} answers right; without a retriever {alone}", flush=True
        )


if __name__ == "__main__":
    main()
