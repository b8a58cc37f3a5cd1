"""Samplers: every eligible row once an epoch, in an order that is a function of seed and state; labels as the roles say."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.base import Distribution
from pipeline.config.learners import Supervised
from pipeline.config.tasks import Copy as Config
from pipeline.learners import parallel
from pipeline.learners import sampler as module
from pipeline.learners.order import Order
from pipeline.learners.sampler import Batch, Sampler, ShardSampler, StreamSampler, collate, sequential_batches
from pipeline.storage import shards
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, open_rows
from pipeline.storage.rows import RowBatch
from pipeline.tasks.copy import Copy
from tests.storage.datasets import PADDING, Sample, make_dataset


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 16 rows, two open at once, windows of 8 batches: so that small datasets have many of each."""
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 16)
    monkeypatch.setattr("pipeline.learners.order.OPEN_GROUPS", 2)
    monkeypatch.setattr("pipeline.storage.loader.OPEN_GROUPS", 2)
    monkeypatch.setattr(module, "WINDOW", 8)


@pytest.fixture(params=["memory", "row_groups"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


def stream() -> StreamSampler:
    task = Config(symbols=Distribution(uniform=(1, 4)), delay=Distribution(log_uniform=(1, 50)), alphabet=10)
    return StreamSampler(Copy(task), batch=5, seed=3, column="delay")


def drawn(sampler: Sampler, batches: int) -> list[int]:
    """The rows of the next batches."""
    return [row for _ in range(batches) for row in sampler.next().columns["row"].tolist()]


def same(one: Batch, two: Batch) -> bool:
    tensors = all(torch.equal(left, right) for left, right in zip(one[:3], two[:3], strict=True))
    return tensors and all(np.array_equal(one.columns[name], two.columns[name]) for name in one.columns)


# Epochs


@pytest.mark.parametrize("fixed", [True, False])
def test_each_epoch_is_a_permutation(tmp_path: Path, mode: Any, fixed: bool) -> None:
    make_dataset(tmp_path, [60, 36], fixed=fixed)
    sampler = ShardSampler(open_rows(tmp_path, mode), batch=4, seed=0)  # 96 rows: 3 windows of 32
    epochs = [drawn(sampler, 24) for _ in range(4)]
    assert all(sorted(epoch) == list(range(96)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


class Numbered(DatasetRows):
    """Rows of given lengths that hold nothing but their number."""

    def __init__(self, lengths: np.ndarray, resident: bool = True, level: np.ndarray | None = None) -> None:
        groups = np.array([0, len(lengths)]) if resident else np.append(np.arange(0, len(lengths), 16), len(lengths))
        super().__init__("copy-1", lengths, {} if level is None else {"level": level}, groups, 0)
        self.in_memory = resident

    def gather(self, indices: np.ndarray) -> RowBatch:
        lengths = self.lengths[indices]
        shape = (len(indices), int(lengths.max()))
        return RowBatch(np.zeros(shape, np.uint16), np.zeros(shape, np.uint8), None, lengths, self._metadata(indices))


def numbered(rows: int, resident: bool = True) -> Numbered:
    """Rows of random lengths and levels."""
    rng = np.random.default_rng(rows)
    return Numbered(rng.integers(1, 9, size=rows, dtype=np.int32), resident, rng.integers(1, 4, size=rows))


def as_even_as_can_be(rows: list[int], eligible: list[int]) -> bool:
    """Whether rows occur equally often, to within one: at most once each unless there are too few of them."""
    counts = Counter({row: 0 for row in eligible} | Counter(rows))
    return set(counts) == set(eligible) and max(counts.values()) - min(counts.values()) <= 1


@given(
    rows=st.integers(1, 150), batch=st.integers(1, 40), seed=st.integers(0, 3), resident=st.booleans(), level=st.sampled_from([None, 1, 2])
)
def test_an_epoch_holds_every_row_once_and_a_batch_none_twice(rows: int, batch: int, seed: int, resident: bool, level: int | None) -> None:
    source = numbered(rows, resident)
    eligible = [row for row, value in enumerate(source.column("level")) if level is None or value <= level]
    if not eligible:
        return
    sampler = ShardSampler(source, batch, seed, "level")
    sampler.level = level
    batches = [drawn(sampler, 1) for _ in range(-(-5 * len(eligible) // batch) + 3)]
    assert all(len(rows) == batch and as_even_as_can_be(rows, eligible) for rows in batches)
    series = sum(batches, [])
    epochs = [series[start : start + len(eligible)] for start in range(0, 5 * len(eligible), len(eligible))]
    assert all(sorted(epoch) == eligible for epoch in epochs)


@given(rows=st.integers(1, 150), batch=st.integers(1, 40), number=st.integers(0, 60), resident=st.booleans())
def test_any_batch_follows_from_the_seed_and_its_number(rows: int, batch: int, number: int, resident: bool) -> None:
    whole, resumed = (ShardSampler(numbered(rows, resident), batch, 0) for _ in range(2))
    drawn(whole, number)
    resumed.load_state_dict({"level": None, "batches": number, "taken": 0})
    assert drawn(resumed, 3) == drawn(whole, 3)


@pytest.mark.parametrize(("stored", "batch"), [(32, 32), (100 * 256, 256), (30 * 16, 16)])
def test_a_budget_of_one_epoch_sees_every_stored_row_once(stored: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 64)
    config = Supervised(rows=stored, batch_size=batch)
    assert config.stored_rows == stored and config.total_steps == stored // batch
    sampler = ShardSampler(numbered(stored), batch, seed=0)
    assert sorted(drawn(sampler, stored // batch)) == list(range(stored))


def test_a_dataset_of_one_batch_gives_all_of_it_in_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 64)
    sampler = ShardSampler(numbered(32), batch=32, seed=0)
    assert [len(set(drawn(sampler, 1))) for _ in range(100)] == [32] * 100


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_of_a_shared_training_see_every_row_once(ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    samplers = [ShardSampler(numbered(30), batch=8, seed=0) for _ in range(ranks)]
    seen = Counter()
    for _ in range(15):  # four epochs
        for rank, sampler in enumerate(samplers):
            monkeypatch.setenv("RANK", str(rank))
            batch = sampler.next()
            seen.update(batch.of(parallel.shard(len(batch.tokens_BT))).columns["row"].tolist())
    assert seen == dict.fromkeys(range(30), 4)


@given(rows=st.integers(8, 400), batch=st.integers(1, 8))
def test_windows_lie_within_an_epoch_and_are_of_one_size(rows: int, batch: int) -> None:
    sampler = ShardSampler(numbered(rows), batch, seed=0)
    sizes: dict[int, set[int]] = {}
    for number in range(3 * rows // batch):
        window = sampler._window_of(number)
        epoch, spans = number * batch // rows, (number + 1) * batch > (number * batch // rows + 1) * rows
        assert number in window and window == sampler._window_of(window.start) == sampler._window_of(window.stop - 1)
        assert spans or epoch * rows <= window.start * batch < window.stop * batch <= (epoch + 1) * rows
        sizes.setdefault(epoch, set()).update(() if spans else {len(window)})
    assert all(max(found) <= 8 and max(found) - min(found) <= 1 for found in sizes.values() if found)


def test_the_level_filters_and_starts_anew(tmp_path: Path, mode: Any) -> None:
    sample = make_dataset(tmp_path, [150, 90])
    sampler = ShardSampler(open_rows(tmp_path, mode), batch=4, seed=0, column="level")
    for level in (2, 5, None):
        sampler.level = level
        eligible = [row for row, value in enumerate(sample.level) if level is None or value <= level]
        seen = Counter(drawn(sampler, 8 * 9))
        assert set(seen) == set(eligible)
        assert max(seen.values()) - min(seen.values()) <= 1
    before = sampler.state_dict()
    sampler.level = None
    assert sampler.state_dict() == before


def test_a_level_below_every_row(tmp_path: Path) -> None:
    make_dataset(tmp_path / "copy-1", [20])
    sampler = ShardSampler(open_rows(tmp_path / "copy-1"), batch=4, seed=0, column="level")
    sampler.level = -1
    with pytest.raises(UserError, match="copy-1: no row has level <= -1, the smallest is 0; start the curriculum there"):
        sampler.next()


def test_no_rows_to_train_on(tmp_path: Path) -> None:
    make_dataset(tmp_path / "copy-1", [0])
    with pytest.raises(UserError, match="copy-1: no rows; expected at least one"):
        ShardSampler(open_rows(tmp_path / "copy-1"), batch=4, seed=0).next()


def test_seeds_differ_and_the_same_seed_does_not(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [100])
    one, again, other = (drawn(ShardSampler(open_rows(tmp_path, mode), 4, seed), 25) for seed in (0, 0, 1))
    assert one == again != other


def test_every_row_comes_at_every_place(tmp_path: Path) -> None:
    """The shuffle is even: over many seeds a row's place in the epoch is uniform."""
    make_dataset(tmp_path, [8], fixed=True)
    rows = open_rows(tmp_path)
    counts = np.zeros((8, 8))
    for seed in range(1500):
        counts[np.arange(8), Order(rows, None, ("epoch", seed)).take(0, 8)] += 1
    assert counts / 1500 == pytest.approx(np.full((8, 8), 1 / 8), abs=0.05)


def test_by_row_groups_only_neighbours_in_a_pool_mix_and_pools_change(tmp_path: Path) -> None:
    make_dataset(tmp_path, [160], fixed=True)
    rows = open_rows(tmp_path, "row_groups")
    pools = [
        {frozenset((Order(rows, None, ("epoch", epoch)).take(start, start + 32) // 16).tolist()) for start in range(0, 160, 32)}
        for epoch in range(3)
    ]
    assert all(len(pool) == 2 for epoch in pools for pool in epoch)
    assert pools[0] != pools[1] != pools[2]


def test_an_order_is_the_same_however_it_is_cut(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [90])
    rows = open_rows(tmp_path, mode)
    eligible = rows.column("level") <= 4
    order = Order(rows, eligible, ("x",))
    whole = order.take(0, len(order))
    assert sorted(whole) == np.flatnonzero(eligible).tolist()
    for cut in (0, 1, 7, 31, 33, len(order)):
        again = Order(rows, eligible, ("x",))
        assert np.concatenate([again.take(0, cut), again.take(cut, len(again))]).tolist() == whole.tolist()


# Resuming


def samplers(folder: Path, mode: Any) -> list[Any]:
    """How to make each kind of sampler."""
    return [lambda: ShardSampler(open_rows(folder, mode), 4, 0, "level"), stream]


def test_a_sampler_goes_on_exactly_wherever_it_was_stopped(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [50, 40])
    for make in samplers(tmp_path, mode):
        whole, states, batches = make(), [], []
        for step in range(40):  # over the ends of windows and of epochs
            if step == 13:
                whole.level = 3
            states.append(whole.state_dict())
            batches.append(whole.next())
        resumed = make()
        for step in reversed(range(40)):
            resumed.load_state_dict(states[step])
            assert resumed.level == (3 if step >= 13 else None)
            assert same(resumed.next(), batches[step])
        resumed.load_state_dict(states[5])
        assert all(same(resumed.next(), batch) for batch in batches[5:13])


@pytest.mark.parametrize("sizes", [[1], [3], [7, 1, 4], [13, 2]])
def test_rows_are_the_same_however_many_are_taken(tmp_path: Path, mode: Any, sizes: list[int]) -> None:
    """Across batches, windows and epochs; a state in the middle of a batch resumes there."""
    sample = make_dataset(tmp_path, [50, 40])
    for make in samplers(tmp_path, mode):
        one, other = make(), make()
        tokens = [row[:length].tolist() for _ in range(60) for row, length in rows_of(one.next())]
        found: list[list[int]] = []
        for size in sizes * (240 // sum(sizes)):
            again = make()
            again.load_state_dict(other.state_dict())
            batch = other.take(size)
            assert len(batch.tokens_BT) == size and same(again.take(size), batch)
            if isinstance(other, ShardSampler):
                check_batch(batch, sample)
            found += [row[:length].tolist() for row, length in rows_of(batch)]
        assert found == tokens[: len(found)]


def rows_of(batch: Batch) -> list[tuple[torch.Tensor, int]]:
    return list(zip(batch.tokens_BT, batch.length_B.tolist(), strict=True))


def test_row_inputs_are_delivered_with_the_rows(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [50])
    batch = ShardSampler(open_rows(tmp_path, mode), 4, 0, inputs=("level",)).take(6)
    assert batch.row_inputs["level"].dtype == torch.int32
    assert batch.row_inputs["level"].tolist() == batch.columns["level"].tolist()
    for part in batch.parts(4):
        assert part.inputs(torch.device("cpu"))["level_B"].tolist() == part.columns["level"].tolist()
    assert set(ShardSampler(open_rows(tmp_path, mode), 4, 0).next().inputs(torch.device("cpu"))) == {"tokens_BT"}


def test_the_state_is_three_numbers(tmp_path: Path) -> None:
    make_dataset(tmp_path, [50])
    for make in samplers(tmp_path, "memory"):
        sampler = make()
        for _ in range(10):
            sampler.next()
        sampler.level = 4
        sampler.next()
        assert sampler.state_dict() == {"level": 4, "batches": 1, "taken": 0}


# Batches


def test_batches_hold_rows_of_nearly_one_length(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [320], longest=9)
    sampler = ShardSampler(open_rows(tmp_path, mode), batch=4, seed=0)
    lengths = [sampler.next().length_B for _ in range(80)]
    assert np.mean([int(length.max() - length.min()) for length in lengths]) < 1
    assert all(len(length) == 4 for length in lengths)
    means = [float(length.double().mean()) for length in lengths[:8]]
    assert means != sorted(means)


def check_batch(batch: Batch, sample: Sample) -> None:
    """Compare a batch with the plain lists it was made of."""
    for line, row in enumerate(batch.columns["row"]):
        tokens, roles = sample.tokens[row], sample.roles[row]
        width = batch.tokens_BT.shape[1]
        scored = [place for place, role in enumerate(roles) if role in (1, 3)]
        labels = [math.nan if sample.values[row][0] else -100] * width
        for place, label in zip(scored, sample.target[row] if sample.target else [tokens[place] for place in scored], strict=True):
            labels[place if sample.target else place - 1] = label
        assert batch.tokens_BT[line].tolist() == tokens + [PADDING] * (width - len(tokens))
        assert np.array_equal(batch.labels_BT[line], labels, equal_nan=True)
        assert batch.scored_BT[line].tolist() == [label in (*sample.target[row],) if sample.target else label != -100 for label in labels]
        if batch.values_BTF is not None:
            assert batch.values_BTF[line, : len(tokens)].tolist() == sample.values[row] and not batch.values_BTF[line, len(tokens) :].any()
        assert int(batch.length_B[line]) == len(tokens)
        assert batch.columns["level"][line] == sample.level[row]
    real = sample.values[0][0] != []
    assert (batch.tokens_BT.dtype, batch.length_B.dtype) == (torch.int64, torch.int64)
    assert batch.labels_BT.dtype == (torch.float32 if real else torch.int64)
    read = batch.inputs(torch.device("cpu"))
    assert list(read) == (["tokens_BT", "values_BTF"] if real else ["tokens_BT"])


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(("labelled", "features"), [(True, 0), (False, 0), (True, 2)])
def test_tokens_and_labels_are_those_of_the_rows(tmp_path: Path, mode: Any, fixed: bool, labelled: bool, features: int) -> None:
    sample = make_dataset(tmp_path, [40, 30], fixed=fixed, labelled=labelled, features=features)
    rows = open_rows(tmp_path, mode)
    sampler = ShardSampler(rows, batch=5, seed=0)
    for _ in range(30):
        check_batch(sampler.next(), sample)
    for batch in sequential_batches(rows, 5):
        check_batch(batch, sample)


def test_collate_of_the_smallest_block() -> None:
    block = RowBatch(np.array([[7]], np.uint16), np.array([[0]], np.uint8), None, np.array([1], np.int32), {})
    assert collate(block).labels_BT.tolist() == [[-100]]


def test_measuring_reads_every_row_once_in_both_modes_alike(tmp_path: Path) -> None:
    make_dataset(tmp_path, [70, 23])
    orders = []
    for mode in ("memory", "row_groups"):
        batches = list(sequential_batches(open_rows(tmp_path, mode), 4))
        orders.append([batch.columns["row"].tolist() for batch in batches])
        assert sorted(sum(orders[-1], [])) == list(range(93))
        assert [len(order) for order in orders[-1]] == [4] * 23 + [1]
        assert all(bool((batch.length_B.diff() >= 0).all()) for batch in batches)
    assert orders[0] == orders[1]


# Streams


def test_a_stream_draws_fresh_training_rows_under_its_level() -> None:
    sampler = stream()
    sampler.level = 7
    seen, delays = Counter(), []
    for _ in range(40):
        batch = sampler.next()
        assert len(batch.tokens_BT) == 5 and int(batch.length_B.max() - batch.length_B.min()) <= 8
        delays.extend(batch.columns["delay"].tolist())
        seen.update((int(delay), tuple(row[row >= 0].tolist())) for delay, row in zip(batch.columns["delay"], batch.labels_BT, strict=True))
    assert max(delays) == 7 and min(delays) == 1
    long = [(delay, symbols) for delay, symbols in seen if len(symbols) == 4]
    assert len(long) > 30
    held_out = Copy(sampler.task.config).generate(3000, (1,), split="test").to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    assert not {(row["delay"], tuple(row["target"])) for row in held_out} & set(long)


def test_windows_and_levels_of_a_stream_differ() -> None:
    sampler, seen = stream(), set()
    for level in (None, 49, 48):
        sampler.level = level
        for _ in range(3 * 8):
            seen.add(tuple(sampler.next().tokens_BT.flatten().tolist()))
    assert len(seen) == 3 * 3 * 8
