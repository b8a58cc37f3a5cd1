"""Index, associative recall, c-grams and counting: every answer, trace and search against a reading of the prompt as text."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.catalogue import implementation
from pipeline.config.tasks import TASKS, CGram, Counting, LengthEvaluation
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.base import ANSWER, INJECTED, PROMPT, TARGET
from pipeline.tasks.retriever import Searches
from pipeline.tasks.vocabulary import END, EOS, FAIL, NODES, SEARCH, token_of, word
from tests.config.rich import SMALL, complaint
from tests.tasks.symbols import Reference, policy, solution, words_of

NAMES = ("index", "associative_recall", "c_gram", "counting")
LAYOUTS = ("direct", "cot", "icr")
SPLITS = ("train", "validation", "test")


def made(name: str, **fields: Any) -> Any:
    """A task of the catalogue."""
    return implementation(TASKS[name])(TASKS[name].model_validate(fields))


@st.composite
def tasks(draw: Any, layouts: tuple[str, ...] = LAYOUTS) -> Any:
    """Possible tasks, some with hardly room, hardly letters or hardly names."""
    name = draw(st.sampled_from(NAMES))
    fields: dict[str, Any] = {"layout": draw(st.sampled_from(layouts)), "alphabet": draw(st.integers(3 if name == "c_gram" else 2, 9))}
    if name == "c_gram":
        fields["gram"] = draw(st.integers(2, 5))
    if name == "counting":
        fields["margin"] = draw(st.sampled_from(["one", "any"]))
    low, high = sorted(draw(st.tuples(*[st.integers(fields.get("gram", 1), 12)] * 2)))
    fields["length"] = draw(st.just(high) | st.just({draw(st.sampled_from(["uniform", "log_uniform"])): (low, high)}))
    fields["names"] = fields["alphabet"] + high + 1 + draw(st.integers(0, 20))
    return made(name, **fields)


def played(task: Any, prompt: list[int], retriever: Any) -> tuple[list[int], list[int], int]:
    """What the scripted policy writes behind a prompt up to EOS, the results that the retriever put in, and its answer."""
    author = policy(task.config, words_of(prompt))
    written, forced, result = [], [], None
    while True:
        try:
            written.append(token_of(author.send(result)))  # pyright: ignore[reportArgumentType]
        except StopIteration as stop:
            return written, forced, token_of(stop.value)
        found = retriever.feed(written[-1]) if retriever else None
        result = None
        if found is not None:
            assert retriever.feed(found) is None
            written.append(found)
            forced.append(found)
            result = word(found)


def prompt_of(row: dict[str, Any]) -> list[int]:
    return row["tokens"][: bytes(row["role"]).rindex(PROMPT) + 1]


@settings(max_examples=120)
@given(task=tasks(), split=st.sampled_from(SPLITS), rows=st.integers(0, 12), key=st.integers(0, 1000))
def test_answers_and_traces_follow_from_the_prompt(task: Any, split: Any, rows: int, key: int) -> None:
    config = task.config
    batch = task.generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        tokens, roles, prompt = row["tokens"], list(row["role"]), prompt_of(row)
        assert roles == sorted(roles, key=lambda role: role == ANSWER) and roles.count(ANSWER) == 1
        assert set(roles[: len(prompt)]) == {PROMPT} and PROMPT not in roles[len(prompt) :]
        assert len(tokens) == len(roles) <= config.longest and max(tokens) < config.vocabulary == config.classes
        written, forced, answer = played(task, prompt, task.retriever(np.array(prompt, np.uint16)))
        assert tokens == [*prompt, *written, *([EOS] if task.traced else []), answer]
        assert [token for token, role in zip(tokens, roles, strict=True) if role == INJECTED] == forced
        assert word(answer) == solution(config, words_of(prompt))
        before = [tokens[place - 1] for place, role in enumerate(roles) if role == INJECTED]
        assert before == [END] * len(forced) == [token for token in tokens if token == END]
        assert len(prompt) - (4, 4, 2 + config.gram, 6)[NAMES.index(config.name)] if config.name == "c_gram" else True


@settings(max_examples=60)
@given(task=tasks(("icr",)), key=st.integers(0, 1000), data=st.data())
def test_searches_find_what_regular_expressions_find(task: Any, key: int, data: Any) -> None:
    row = task.generate(1, derive_key(key)).to_pylist()[0]
    prompt = prompt_of(row)
    fast, slow = task.retriever(np.array(prompt)), Reference(task.config, prompt)
    likely = st.sampled_from(prompt[1:]) | st.integers(NODES, task.config.vocabulary - 1)
    query = st.lists(likely | st.integers(0, task.config.vocabulary - 1), max_size=4) | st.lists(likely, min_size=1, max_size=4)
    for tokens in data.draw(st.lists(query, min_size=20, max_size=20)):
        for token in [SEARCH, *tokens, END]:
            found = fast.feed(token)
            assert found == slow.feed(token)
            if found is not None:
                assert fast.feed(found) is slow.feed(found) is None


def test_every_possible_query_of_some_rows() -> None:
    found: Counter[bool] = Counter()
    for name, fields in (("index", {}), ("associative_recall", {}), ("c_gram", {"gram": 3}), ("counting", {"margin": "any"})):
        task = made(name, length={"uniform": (3, 12)}, alphabet=4, names=17, layout="icr", **fields)
        names = range(NODES - 1, task.config.vocabulary)
        queries = [(), *((one,) for one in names), *((one, other) for one in names for other in names)]
        for row in task.generate(12, derive_key(name)).to_pylist():
            prompt = prompt_of(row)
            fast, slow = task.retriever(np.array(prompt)), Reference(task.config, prompt)
            for query in queries:
                assert fast.look_up(query) == slow.look_up(query), (name, query, words_of(prompt))
                found[fast.look_up(query) is not None] += 1
    assert found[True] > 400 and found.total() > 16_000


class Nothing(Searches):
    """Finds nothing."""

    def look_up(self, query: tuple[int, ...]) -> None:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_without_what_searches_find_the_policy_fails(name: str) -> None:
    task = made(name, layout="icr")
    rows = task.generate(100, derive_key(5)).to_pylist()
    answers = [played(task, prompt_of(row), Nothing())[2] for row in rows]
    right = sum(answer == row["tokens"][-1] for answer, row in zip(answers, rows, strict=True))
    assert right == (sum(word(row["tokens"][-1]) == "false" for row in rows) if name == "counting" else 0)
    assert FAIL not in {row["tokens"][-1] for row in rows}


def test_only_rows_with_searches_have_a_retriever() -> None:
    for name in NAMES:
        for layout in LAYOUTS:
            task = made(name, layout=layout)
            prompt = prompt_of(task.generate(1, derive_key(0)).to_pylist()[0])
            assert task.traced is (layout != "direct") and (task.retriever(np.array(prompt)) is not None) is (layout == "icr")


@pytest.mark.parametrize("name", NAMES)
def test_rows_depend_on_the_key_and_the_split_only_and_layouts_share_their_prompts(name: str) -> None:
    fields: dict[str, Any] = {"length": {"uniform": (20, 30)}}
    task = made(name, **fields)
    assert task.generate(50, derive_key(1)).equals(task.generate(50, derive_key(1)))
    rows = [task.generate(50, derive_key(key), split=split).column("tokens").to_pylist() for key in (0, 1) for split in SPLITS]
    assert len({tuple(row) for part in rows for row in part}) == 300
    prompts = [
        [prompt_of(row) for row in made(name, layout=layout, **fields).generate(50, derive_key(1)).to_pylist()] for layout in LAYOUTS
    ]
    assert prompts[0] == prompts[1] == prompts[2]


def test_blocks_of_rows_are_written_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tasks.symbols.CELLS", 1000)
    for name in NAMES:
        task = made(name, layout="cot", length=10, alphabet=4)
        rows = task.generate(60, derive_key(2)).to_pylist()
        assert len({tuple(row["tokens"]) for row in rows}) == 60
        assert all(word(row["tokens"][-1]) == solution(task.config, words_of(prompt_of(row))) for row in rows)


def test_arrays_of_a_shard_have_one_type_whatever_its_rows() -> None:
    for name in NAMES:
        for layout in LAYOUTS:
            task = made(name, layout=layout, length=9)
            lengths = {len(row) for row in task.generate(200, derive_key(3)).column("tokens").to_pylist()}
            fixed = pa.types.is_fixed_size_list(task.generate(1, derive_key(3)).schema.field("tokens").type)
            assert fixed is (len(lengths) == 1)


def test_the_longest_row_is_as_long_as_is_said() -> None:
    for name in NAMES:
        for layout in LAYOUTS:
            task = made(name, layout=layout, length={"uniform": (3, 5)}, alphabet=3)
            lengths = [len(row) for row in task.generate(3000, derive_key(3)).column("tokens").to_pylist()]
            assert max(lengths) == task.config.longest


# Statistics


@pytest.mark.parametrize(
    ("name", "fields"), [("index", {}), ("associative_recall", {}), ("c_gram", {"gram": 2}), ("c_gram", {}), ("c_gram", {"gram": 4})]
)
def test_places_and_answers_are_uniform_and_independent(name: str, fields: dict[str, Any]) -> None:
    task = made(name, length=9, alphabet=4, layout="icr", **fields)
    table, context = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for row in task.generate(24_000, derive_key(1)).to_pylist():
        body, answer, asked = row["tokens"][1:], row["tokens"][-1], row["tokens"][row["tokens"].index(END) - 1]
        if name == "index":
            place = asked - NODES - 4
        elif name == "associative_recall":
            place = body.index(asked) // 2
        else:
            query = row["tokens"][row["tokens"].index(SEARCH) + 1 : row["tokens"].index(END)]
            place = next(place for place in range(9) if body[place : place + len(query)] == query)
        table[place, answer] += 1
        context[asked, answer] += 1
    places = 9 if name != "c_gram" else 10 - task.config.gram
    assert [table[place, NODES + letter] / 24_000 for place in range(places) for letter in range(4)] == pytest.approx(
        [1 / places / 4] * (4 * places), abs=0.006
    )
    if name == "c_gram":
        pairs = {(NODES + one, NODES + two) for one in range(4) for two in range(4) if task.config.gram > 2 or one != two}
        assert set(context) == pairs
        assert [context[pair] / 24_000 for pair in pairs] == pytest.approx([1 / len(pairs)] * len(pairs), abs=0.008)


def bigram_loss(batch: pa.RecordBatch) -> float:
    """Nats per scored position of the best guess from the token before: that of a table of all pairs."""
    pairs: Counter[tuple[int, int]] = Counter()
    for row in batch.to_pylist():
        steps = zip(row["tokens"], row["tokens"][1:], row["role"][1:], strict=False)
        pairs.update((one, other) for one, other, role in steps if role in (TARGET, ANSWER))
    before: Counter[int] = Counter()
    for (one, _), count in pairs.items():
        before[one] += count
    return sum(count * math.log(before[one] / count) for (one, _), count in pairs.items()) / sum(pairs.values())


FIELDS: dict[str, list[dict[str, Any]]] = {"c_gram": [{"gram": 2}, {}], "counting": [{}, {"margin": "any"}]}


@pytest.mark.parametrize(("name", "fields"), [(name, fields) for name in NAMES for fields in FIELDS.get(name, [{}])])
def test_the_baseline_is_what_the_token_before_tells(name: str, fields: dict[str, Any]) -> None:
    for layout, length in (("direct", 10), ("cot", 10), ("icr", {"log_uniform": (5, 12)}), ("cot", {"uniform": (5, 12)})):
        task = made(name, layout=layout, length=length, alphabet=4, names=20, **fields)
        assert bigram_loss(task.generate(4000, derive_key(1))) == pytest.approx(task.config.baseline, rel=0.006)


def test_chance_is_that_of_the_answer_and_memory_that_of_the_longest_row() -> None:
    configs: Any = {name: TASKS[name].model_validate({"length": {"uniform": (4, 32)}, "alphabet": 8}) for name in NAMES}
    assert [configs[name].chance for name in NAMES] == [1 / 8, 1 / 8, 1 / 8, 1 / 2]
    assert [configs[name].memory_bits for name in NAMES] == [96, 96, 96, 8]
    assert CGram(gram=2, length=32, alphabet=8).memory_bits == 24
    every: Any = Counting(margin="any", length=3, alphabet=2)
    assert every.memory_bits == 2  # 0, 1, 2 or 3 of the first letter
    assert every.variant(length=2).memory_bits == pytest.approx(math.log2(3))


# Splits, curriculum, evaluation


@pytest.mark.parametrize(("name", "apart"), [("index", 5), ("associative_recall", 2), ("c_gram", 7), ("counting", 5)])
def test_no_row_is_in_two_splits_but_short_ones_and_that_is_said(name: str, apart: int) -> None:
    for length, kept in ((apart, True), (apart - 1, False)):
        if length < made(name).config.__dict__.get("gram", 1):
            continue
        task = made(name, length=length, alphabet=4, names=30 if name == "associative_recall" else 64)
        found = [set(map(tuple, task.generate(12_000, derive_key(split), split=split).column("tokens").to_pylist())) for split in SPLITS]
        assert any(one & two for one, two in combinations(found, 2)) is not kept
        unit = "pairs" if name == "associative_recall" else "letters"
        assert (task.overlap() == "No row is in two splits.") is kept or f"except rows of fewer than {apart} {unit}" in task.overlap()


def test_pairs_in_another_order_are_in_the_same_split() -> None:
    task = made("associative_recall", length=2, alphabet=4, names=30)
    found = []
    for split in SPLITS:
        rows = [words_of(row) for row in task.generate(12_000, derive_key(split), split=split).column("tokens").to_pylist()]
        found.append({(frozenset([tuple(row[1:3]), tuple(row[3:5])]), row[6]) for row in rows})
    assert not any(one & two for one, two in combinations(found, 2))


@pytest.mark.parametrize("name", NAMES)
def test_the_curriculum_bounds_the_length(name: str) -> None:
    task = made(name, length={"log_uniform": (4, 30)})
    assert set(task.generate(300, derive_key(0), level=6).column("length").to_pylist()) == {4, 5, 6}
    with pytest.raises(UserError, match=f"{name}: no row has length <= 3, the smallest is 4"):
        task.generate(5, derive_key(0), level=3)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("index, names: 40", "names", "got 40 names; expected at least 48: 16 letters and 32 positions"),
        ("associative_recall, length: 60", "length", "got 64 names; expected at least 76: 16 letters and 60 keys"),
        ("counting, names: 48", "names", "got 48 names; expected at least 49: 16 letters and 33 counts"),
        ("c_gram, alphabet: 70", "alphabet", "got 64 names; expected at least 70: 70 letters"),
        ("c_gram, length: 2", "length", "got a length of 2; expected at least 3 tokens: a gram"),
    ],
)
def test_what_does_not_go_together_is_one_line(text: str, field: str, message: str, tmp_path: Any) -> None:
    config = SMALL.replace("{name: copy, symbols: 3, delay: 9}", f"{{name: {text}}}")
    assert complaint(config, tmp_path) == (4, f"experiments.a.base.task.{field}", message)


@pytest.mark.parametrize("name", NAMES)
def test_lengths_are_measured_beyond_training(name: str) -> None:
    points = LengthEvaluation(lengths=[64, 24]).points(TASKS[name].model_validate({"names": 100}))
    assert [point.length for point in points] == [24, 64]
    rows = implementation(points[1])(points[1]).generate(20, derive_key(0), split="test")
    assert set(rows.column("length").to_pylist()) == {64}
