"""IsTree's rows: layouts, traces replayed, splits, the public code's form; its searches, answered three ways; the script that only searches."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.base import FieldConflict
from pipeline.config.tasks import IsTree as Config
from pipeline.config.tasks.retrieval import FAMILIES, PIECES, Family, IsTreeEvaluation
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.graph_searches import GraphSearches, SpelledPattern
from pipeline.tasks.is_tree import IsTree
from pipeline.tasks.retriever import RegexSearches
from pipeline.tasks.vocabulary import BOS, EDGE, END, EOS, FAIL, FALSE, IDLE, NODES, REC, ROOT, SEARCH, SEP, TRUE
from tests.config.rich import SMALL, complaint
from tests.tasks.graph_figures import BALANCED, RIGHT, disagreements, parts, rows_of, scripted
from tests.tasks.graph_oracle import NetworkxSearches, edges_of, graph_of, pattern, told, tour

SPLITS: list[Any] = ["train", "validation", "test"]
LAYOUTS: list[Any] = ["direct", "cot", "icr", "icr_regex"]
A, B, C, D = range(NODES, NODES + 4)


@settings(max_examples=60)
@given(
    family=st.sampled_from(FAMILIES),
    layout=st.sampled_from(LAYOUTS),
    low=st.integers(8, 10),
    more=st.integers(0, 6),
    names=st.sampled_from([16, 40, 3000]),
    upstream=st.booleans(),
    rows=st.integers(0, 9),
    key=st.integers(0, 1000),
)
def test_every_row_has_its_form(family: Family, layout: Any, low: int, more: int, names: int, upstream: bool, rows: int, key: int) -> None:
    upstream = upstream and layout != "icr_regex"
    config = Config(nodes={"uniform": (low, low + more)}, names=names, family=family, layout=layout, upstream=upstream)  # type: ignore[arg-type]
    task = IsTree(config)
    made = task.generate(rows, derive_key(key), split=SPLITS[key % 3]).to_pylist()
    assert len(made) == rows
    for row in made:
        prompt, rest = parts(task, row)
        role = list(row["role"])
        assert len(role) == len(row["tokens"]) <= config.longest and max(row["tokens"]) < config.vocabulary
        assert role[: len(prompt)] == [0] * len(prompt) and role[-1] == 3 and rest[-1] in (TRUE, FALSE)
        injected = [place for place, token in enumerate(rest) if token == END]
        assert [place for place, code in enumerate(role) if code == 2] == [len(prompt) + place + 1 for place in injected]
        assert (rest[-2] == EOS and role[-2] == 1) if layout != "direct" else len(rest) == 1
        assert low <= row["nodes"] <= low + more and row["family"] == FAMILIES.index(family)
        if upstream:
            assert all(one > other for one, other in edges_of(prompt)) and max(prompt) < NODES + row["nodes"]
    answers = Counter(parts(task, row)[1][-1] for row in made)
    if family in BALANCED:
        assert answers[TRUE] == (rows + 1) // 2


def test_the_rows_of_the_docstring() -> None:
    task, (one, other) = rows_of(2, nodes=6, family="path", layout="direct", pause_tokens=2)
    for row in (one, other):
        assert [row["tokens"][place] for place in (0, 2, 16, 17, 18)] == [BOS, EDGE, SEP, IDLE, IDLE]
        assert list(row["role"]) == [0] * 19 + [3] and row["tokens"][19] in (TRUE, FALSE)
    assert str(task.generate(3, derive_key(0)).schema.field("tokens").type).startswith("fixed_size_list")
    searches = GraphSearches(np.array([BOS, A, EDGE, B, C, EDGE, A, C, EDGE, D, SEP]))
    assert told(searches, [A, REC, ROOT, SEARCH, A, REC, END, ROOT, SEARCH, A, EDGE, END, B, SEARCH, A, EDGE, B, END, C]) == [ROOT, B, C]


@pytest.mark.parametrize("family", RIGHT)
def test_walks_are_those_of_a_recursion(family: Family) -> None:
    for upstream in (False, True):
        task, made = rows_of(60, family=family, nodes=11, names=11, layout="cot", upstream=upstream)
        for row in made:
            prompt, rest = parts(task, row)
            walk, tree = rest[:-2], nx.is_tree(graph_of(prompt, 11))
            assert walk == tour(prompt, NODES if upstream else prompt[1])
            assert (len(walk) == 21) == tree
            steps = Counter(pairwise(walk))
            assert set(steps.values()) <= {1} and all({step, step[::-1]} & {*edges_of(prompt)} for step in steps)
            if tree:
                assert walk[0] == walk[-1] and len(steps) == 20


def test_lengths_are_those_of_the_formulas_and_of_the_public_code() -> None:
    for nodes in (6, 16, 33):
        expected = {"direct": (3 * nodes, 3 * nodes), "cot": (5 * nodes, 5 * nodes), "icr": (40 * nodes - 22, 40 * nodes - 25)}
        for layout, lengths in expected.items():
            for upstream, length in zip((False, True), lengths, strict=True):
                task, made = rows_of(20, nodes=nodes, names=nodes, layout=layout, upstream=upstream)
                assert {len(row["tokens"]) for row in made if parts(task, row)[1][-1] == TRUE} == {length} == {task.config.longest}
    assert Config(nodes=6, layout="icr_regex").longest == max(len(row["tokens"]) for row in rows_of(20, nodes=6, layout="icr_regex")[1])


def test_a_cycle_that_closes_at_the_root_is_seen_with_the_root_record_only() -> None:
    """In the public code's form its mark is FAIL, as that of a new node."""
    marks = {}
    for upstream in (False, True):
        task, made = rows_of(200, nodes=8, names=8, layout="icr", family="path", upstream=upstream)
        ends = [parts(task, row)[1][-5:-2] for row in made]
        marks[upstream] = {mark for middle, _, mark in ends if middle == REC}  # the walk ended with a search for a father
    assert ROOT in marks[False] and FAIL not in marks[False]
    assert FAIL in marks[True] and ROOT not in marks[True]


def test_names_are_uniform_and_a_curriculum_bounds_nodes() -> None:
    task, made = rows_of(1500, nodes={"uniform": (6, 12)}, names=20)
    assert set(task.generate(300, derive_key(0), level=7).column("nodes").to_pylist()) == {6, 7}
    assert task.generate(3, derive_key(0), level=4, column="family").num_rows == 3
    with pytest.raises(UserError, match="is_tree: no row has nodes <= 5, the smallest is 6; start the curriculum there"):
        task.generate(3, derive_key(0), level=5)
    counts = Counter(node for row in made for node in {node for edge in edges_of(parts(task, row)[0]) for node in edge})
    share = counts.total() / 20
    assert len(counts) == 20 and all(abs(count - share) < 4 * share**0.5 for count in counts.values())


def test_rows_depend_on_the_key_and_the_split_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"nodes": {"uniform": (6, 9)}, "layout": "icr"}
    assert rows_of(30, **fields)[1] == rows_of(30, **fields)[1]
    seen = {tuple(row["tokens"]) for key in (0, 1) for split in SPLITS for row in rows_of(30, key=key, split=split, **fields)[1]}
    assert len(seen) == 180
    monkeypatch.setattr("pipeline.tasks.is_tree.CELLS", 64)  # seven rows at a time
    assert scripted(30, fields["nodes"], "icr") == (30, 30, 0)
    monkeypatch.setattr("pipeline.tasks.walks.BLOCK", 10)
    assert scripted(30, fields["nodes"], "icr") == (30, 30, 0)


# Splits


def named(row: dict[str, Any]) -> frozenset[frozenset[int]]:
    """The graph of a row as a set of edges."""
    return frozenset(map(frozenset, edges_of(row["tokens"][: row["tokens"].index(SEP) + 1])))


@pytest.mark.parametrize("family", ["path", "balanced_binary", "double_star"])
def test_no_graph_is_in_two_splits(family: Family) -> None:
    found = {split: {named(row) for row in rows_of(2000, split=split, family=family, nodes=8, names=8)[1]} for split in SPLITS}
    assert not any(found[one] & found[two] for one, two in combinations(SPLITS, 2))
    assert IsTree(Config(nodes=8, names=8)).overlap() == "No graph is in two splits: a hash of its set of edges, as named, decides."


@pytest.mark.parametrize("family", RIGHT)
def test_eight_nodes_are_enough_to_share_out(family: Family) -> None:
    task, made = rows_of(6000, family=family, nodes=8, names=8)
    kinds = {answer: len({named(row) for row in made if row["tokens"][-1] == answer}) for answer in (TRUE, FALSE)}
    assert all(count > 1000 for answer, count in kinds.items() if family in BALANCED or answer == FALSE), kinds


def test_graphs_too_few_to_be_kept_apart_work_and_say_so() -> None:
    task = IsTree(Config(nodes=6, names=6))
    assert "except those of fewer than 8 nodes" in task.overlap()
    assert len(task.generate(300, derive_key(1), split="validation")) == 300
    assert "except" not in IsTree(Config(nodes=6, names=20)).overlap()


# Searches


def test_index_expression_and_networkx_agree_on_every_search_of_a_trace() -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"upstream": True, "names": 9},
        {"family": "uniform_tree"},
        {"family": "unicyclic"},
        {"family": "forest"},
    ]
    found = [disagreements(12, 9, **fields) for fields in cases]
    assert sum(queries for queries, _ in found) > 1500 and {different for _, different in found} == {0}


def prompts() -> st.SearchStrategy[list[int]]:
    """Prompts of simple graphs of few nodes."""
    pairs = st.lists(st.sampled_from(list(combinations((A, B, C, D), 2))), min_size=1, unique=True)
    return pairs.map(lambda edges: [BOS, *(token for one, other in edges for token in (one, EDGE, other)), SEP])


@settings(max_examples=300)
@given(
    prompt=prompts(),
    tokens=st.lists(st.sampled_from([A, B, C, D, D + 1, EDGE, REC, ROOT, FAIL, SEARCH, SEARCH, END, END, EOS, SEP, BOS]), max_size=40),
)
def test_they_agree_on_whatever_a_network_may_write(prompt: list[int], tokens: list[int]) -> None:
    """Records cut by searches, searches in searches, results that are taken for queries, edges in the trace: none is found."""
    answers = [
        told(made, tokens) for made in (GraphSearches(np.array(prompt)), RegexSearches(np.array(prompt), pattern), NetworkxSearches(prompt))
    ]
    assert answers[0] == answers[1] == answers[2]


def test_what_stands_in_searches_is_not_found() -> None:
    searches = GraphSearches(np.array([BOS, A, EDGE, B, SEP]))
    assert told(searches, [SEARCH, B, REC, A, END, FAIL, SEARCH, B, REC, END]) == [FAIL, FAIL]  # a record inside a query
    assert told(searches, [FAIL, B, REC, SEARCH, A, EDGE, END, B, A, SEARCH, B, REC, END]) == [B, FAIL]  # a record cut in two
    assert told(searches, [FAIL, SEARCH, A, EDGE, END, B, REC, A, SEARCH, B, REC, END]) == [B, FAIL]  # a result is no child
    assert told(searches, [FAIL, B, REC, A, B, REC, C, SEARCH, B, REC, END]) == [A]  # the first record counts


def test_spelt_searches_are_general_and_bounded() -> None:
    names = 10
    piece = {name: NODES + names + place for place, name in enumerate(PIECES)}
    searches = RegexSearches(np.array([BOS, A, EDGE, B, C, EDGE, A, SEP]), SpelledPattern(names))
    backward = [piece["any"], EDGE, A]
    assert told(searches, [SEARCH, *backward, END]) == [C]
    assert told(searches, [C, SEARCH, piece["("], A, END, FAIL, SEARCH, END, FAIL, SEARCH, piece["|"], END]) == [FAIL, FAIL, FAIL]
    assert told(searches, [FAIL, SEARCH, *[piece["skip"], A] * 20, piece["any"], END]) == [FAIL]


@pytest.mark.parametrize(
    ("layout", "fields"),
    [
        ("icr", {}),
        ("icr", {"upstream": True, "names": 10}),
        ("icr_regex", {}),
        ("icr", {"family": "uniform_tree"}),
        ("icr", {"family": "forest"}),
    ],
)
def test_a_script_that_only_searches_writes_every_trace_and_none_without_a_retriever(layout: str, fields: dict[str, Any]) -> None:
    assert scripted(24, 10, layout, **fields) == (24, 24, 0)


def test_what_a_decoder_needs() -> None:
    prompt = np.array([BOS, A, EDGE, B, SEP])
    tasks = {layout: IsTree(Config(layout=layout)) for layout in LAYOUTS}
    assert {layout: task.traced for layout, task in tasks.items()} == {"direct": False, "cot": True, "icr": True, "icr_regex": True}
    assert {layout for layout, task in tasks.items() if task.retriever(prompt) is not None} == {"icr", "icr_regex"}
    assert [(task.eos, task.search) for task in (IsTree(Config(upstream=True)), tasks["cot"])] == [(5, 12), (EOS, SEARCH)]


# Entry


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 5}, "got double_star of 5 nodes; expected 6 to 1024"),
        ({"nodes": {"uniform": (6, 1025)}, "names": 2000}, "got double_star of 1025 nodes; expected 6 to 1024"),
        ({"nodes": 7, "family": "balanced_binary"}, "got balanced_binary of 7 nodes; expected 8 to 1024"),
        ({"nodes": 65}, "got 65 nodes and 64 names; expected a name for each"),
        ({"pause_tokens": 3, "layout": "cot"}, "got pause tokens in layout cot; expected them in layout direct only"),
        ({"upstream": True, "layout": "icr_regex"}, "got upstream in layout icr_regex; the public code has direct, cot and icr"),
    ],
)
def test_what_does_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config(**fields)
    assert str(caught.value.errors()[0]["ctx"]["error"]) == message  # pyright: ignore[reportTypedDictNotRequiredAccess]


def test_the_evaluation_is_a_grid_of_sizes_and_families() -> None:
    task = Config.model_validate({"nodes": {"uniform": (6, 16)}})
    assert [(point.nodes, point.family) for point in IsTreeEvaluation().points(task)] == [(16, "double_star")]
    grid = IsTreeEvaluation.model_validate({"nodes": [16, 8], "longer": [4, 1.5], "families": ["path", "double_star"]})
    assert [(point.nodes, point.family) for point in grid.points(task)] == [
        (n, f) for n in (8, 16, 24, 64) for f in ("double_star", "path")
    ]
    with pytest.raises(FieldConflict, match="got 128 nodes and 64 names"):
        IsTreeEvaluation(longer=[8]).points(task)
    for wrong in ({"longer": [1]}, {"longer": [2, 2.0]}, {"families": ["path", "path"]}, {"families": ["comb"]}):
        with pytest.raises(ValidationError):
            IsTreeEvaluation.model_validate(wrong)


def test_impossible_configs_are_one_line(tmp_path: Any) -> None:
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "{name: is_tree, nodes: 80}")
    assert complaint(text, tmp_path) == (4, "experiments.a.base.task.nodes", "got 80 nodes and 64 names; expected a name for each")
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "is_tree\n      evaluate: {longer: [8]}")
    line, path, message = complaint(text, tmp_path)
    assert (line, path, message) == (
        5,
        "experiments.a.base.evaluate",
        "got 128 nodes and 64 names; expected a name for each, in a point of the evaluation",
    )


def counted(config: Config, rows: int) -> float:
    """Nats per scored position of the best predictor from the token before alone, on rows that are trees, names being as good as uniform."""
    pairs: list[tuple[int, int]] = []
    for row in IsTree(config).generate(rows, derive_key("floor")).to_pylist():
        if row["tokens"][-1] == TRUE:
            kinds = [NODES if NODES <= token < NODES + config.names else token for token in row["tokens"]]
            pairs += [(one, other) for one, other, role in zip(kinds, kinds[1:], row["role"][1:], strict=False) if role in (1, 3)]
    follows, before = Counter(pairs), Counter(one for one, _ in pairs)
    nats = sum(count * (np.log(before[one] / count) + (other == NODES) * np.log(config.names)) for (one, other), count in follows.items())
    return float((nats + before[EOS] * np.log(2)) / len(pairs))  # no answer is FALSE here, half of all are


@pytest.mark.parametrize("layout", ["cot", "icr", "icr_regex"])
def test_the_baseline_is_that_of_the_token_before(layout: Any) -> None:
    config = Config(nodes=12, layout=layout, family="uniform_tree")
    assert config.baseline == pytest.approx(counted(config, 120), rel=0.03)
    assert Config().baseline == pytest.approx(np.log(2)) and config.chance == 1 / 2
