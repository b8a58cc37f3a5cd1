"""Rows in memory: gathering equals indexing plain lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.rows import RaggedArray, RowBatch

RAGGED = st.lists(st.lists(st.integers(0, 65_535), max_size=6), min_size=1, max_size=8)
EVEN = st.integers(1, 5).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 65_535), min_size=size, max_size=size), min_size=1, max_size=8)
)


def sequences(lists: list[list[int]]) -> RaggedArray:
    flat = np.array([value for items in lists for value in items], np.uint16)
    return RaggedArray.of(flat, np.array([len(items) for items in lists], np.int32))


@given(RAGGED | EVEN, st.data())
def test_gather_pads_and_concatenated_does_not(lists: list[list[int]], data: st.DataObject) -> None:
    held = sequences(lists)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=12)), np.int64)
    longest = max((len(lists[place]) for place in chosen), default=0)
    padded = held.gather(chosen, 9)
    if len(chosen):
        assert padded.tolist() == [lists[place] + [9] * (longest - len(lists[place])) for place in chosen]
    assert held.concatenated(chosen).tolist() == [value for place in chosen for value in lists[place]]
    assert held.lengths.tolist() == [len(items) for items in lists]
    assert padded.dtype == np.uint16


@given(EVEN)
def test_rows_of_equal_length_are_recognised(lists: list[list[int]]) -> None:
    assert sequences(lists).width == len(lists[0])


def test_gathering_does_not_modify_the_rows() -> None:
    held = sequences([[1, 2, 3], [4]])
    held.gather(np.array([0, 1]), 9)[:] = 0
    assert held.concatenated(np.array([0, 1])).tolist() == [1, 2, 3, 4]


def test_split_cuts_rows_labels_and_padding() -> None:
    block = RowBatch(
        tokens=np.array([[1, 2, 0], [3, 4, 5], [6, 0, 0]], np.uint16),
        roles=np.array([[0, 1, 0], [0, 1, 3], [3, 0, 0]], np.uint8),
        target=np.array([10, 20, 21, 30]),
        lengths=np.array([2, 3, 1], np.int32),
        columns={"row": np.array([7, 8, 9])},
        values=np.arange(18, dtype=np.float32).reshape(3, 3, 2),
    )
    first, last = block.split(2)
    assert first.tokens.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert last.tokens.tolist() == [[6]] and last.roles.tolist() == [[3]]
    assert first.target is not None and first.target.tolist() == [10, 20, 21]
    assert last.target is not None and last.target.tolist() == [30]
    assert last.columns["row"].tolist() == [9]
    assert last.values is not None and last.values.tolist() == [[[12, 13]]]
