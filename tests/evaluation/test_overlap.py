"""Which test rows are in training: counted from the rows themselves, by an oracle that compares them as tuples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.spec_files import write_spec
from pipeline.config.tasks import Adding, Arc, Copy, Gymnasium, Index, Maze, Mqar, MysteryPath, Parity, Sudoku, TMaze
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.overlap import Overlaps, overlap_sentence
from pipeline.evaluation.schemas import Note
from pipeline.plan import dataset_of
from pipeline.storage.errors import MissingFileError
from pipeline.storage.tables import read_table
from pipeline.tasks.generate import generate_shard, seal_dataset


def make(results: Path, task: Any, split: str, rows: int) -> str:
    """A sealed dataset; its name."""
    dataset = dataset_of(task, split, rows)
    folder = results / "datasets" / dataset.id
    write_spec(folder / "dataset.yaml", dataset.spec)
    for index in range(len(dataset.shards)):
        generate_shard(folder, index)
    seal_dataset(folder)
    return dataset.id


def contents(results: Path, dataset: str) -> list[tuple[Any, ...]]:
    """What a network reads of every row."""
    table = pa.concat_tables([read_table(path) for path in sorted((results / "datasets" / dataset).glob("*.parquet"))])
    names = [name for name in ("tokens", "values", "identifier") if name in table.column_names]
    return [tuple(tuple(value) if isinstance(value, list) else value for value in row.values()) for row in table.select(names).to_pylist()]


def evaluation(results: Path, dataset: str, columns: tuple[str, ...]) -> pa.Table:
    """The columns of an evaluation that say which row is where."""
    table = pa.concat_tables([read_table(path) for path in sorted((results / "datasets" / dataset).glob("*.parquet"))])
    metadata = {name: table.column(name) for name in columns}
    return pa.table({"dataset": [dataset] * len(table), "row": list(range(len(table))), **metadata})


TOKENS = measurement_named("tokens")
TASKS = [
    (Copy(symbols=3, delay=4), 3000, 1.0),
    (Copy.model_validate({"symbols": {"uniform": (3, 6)}, "delay": 4}), 3000, None),
    (Copy(symbols=10, delay=4), 300, 0.0),
    (Parity(length=4), 300, 1.0),
    (Index(length=2, alphabet=4), 2000, 1.0),
    (Mqar(length=8, pairs=1, vocab_size=8), 4000, None),
    (Adding(length=10), 200, 0.0),
    (Sudoku(side=4), 2000, 0.0),
    (Maze(side=5), 300, 0.0),
    (Arc(training_sets=["arc1_training"], test_set="concept_minimal", side=6, augmentations=5, votes=6), 500, 0.0),
]


@pytest.mark.parametrize(("task", "rows", "all_of_it"), TASKS, ids=lambda item: getattr(item, "name", None))
def test_shares_are_those_of_the_rows_themselves(task: Any, rows: int, all_of_it: float | None, tmp_path: Path) -> None:
    train, test = make(tmp_path, task, "train", rows), make(tmp_path, task, "test", 60)
    found = Overlaps(tmp_path).shares({"data": {"train": train}}, evaluation(tmp_path, test, task.columns), TOKENS)
    known, places = set(contents(tmp_path, train)), evaluation(tmp_path, test, task.columns).select(list(task.columns)).to_pylist()
    expected: dict[tuple[Any, ...], list[bool]] = {}
    for place, row in zip(places, contents(tmp_path, test), strict=True):
        expected.setdefault(tuple(place.values()), []).append(row in known)
    assert found == pytest.approx({place: np.mean(hits) for place, hits in expected.items()})
    if all_of_it is not None:
        assert set(found.values()) == {all_of_it}
    else:
        assert len(set(found.values())) > 1 or next(iter(found.values())) != 0


@pytest.mark.parametrize(
    ("task", "share", "said"),
    [
        (Copy(symbols=10, delay=4), 0.0, None),
        (Copy(symbols=3, delay=4), None, "except rows of fewer than 4 symbols"),
        (TMaze(), None, "only the seeds of the distractors are kept apart"),
        (TMaze(distractors=0), None, "every episode is in training"),
        (Gymnasium(), None, "different seeds may give the same episode"),
        (MysteryPath(), 0.0, None),
    ],
    ids=str,
)
def test_of_streams_it_is_known_only_where_splits_are_apart(task: Any, share: float | None, said: str | None, tmp_path: Path) -> None:
    dataset = dataset_of(task, "test", 3)
    write_spec(tmp_path / "datasets" / dataset.id / "dataset.yaml", dataset.spec)
    overlaps = Overlaps(tmp_path)
    table = pa.table({"dataset": [dataset.id] * 3, "row": [0, 1, 2], "place": [1, 1, 2]})
    assert overlaps.shares({"data": {"train": None}}, table, TOKENS) == {(1,): share, (2,): share}
    assert [str(said) in sentence for sentence in overlaps.sentences] == ([] if said is None else [True])
    if said:
        note = Note(TOKENS, [], ["place"], {}, {}, overlaps.sentences)
        assert said in overlap_sentence(note, [{"place": 1, "in_training": None}])


def test_training_rows_that_are_gone_are_named(tmp_path: Path) -> None:
    test = make(tmp_path, Parity(length=4), "test", 5)
    with pytest.raises(MissingFileError, match="parity-train-1"):
        Overlaps(tmp_path).shares({"data": {"train": "parity-train-1"}}, evaluation(tmp_path, test, ("length",)), TOKENS)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({3: 0.0, 9: 0.0}, "No test row occurs in training."),
        ({3: 1.0, 9: 1.0}, "All test rows also occur in training."),
        ({3: 1.0, 9: 0.0}, "Share of test rows that also occur in training: delay 3: 100 %; elsewhere none."),
        ({3: 1.0, 9: 0.125}, "Share of test rows that also occur in training: delay 3: 100 %; delay 9: 12.5 %."),
        ({place: place / 10 for place in range(10)}, "Between 0 and 90 % of the test rows of a point also occur in training."),
    ],
)
def test_sentences(shares: dict[int, float], expected: str) -> None:
    rows = [{"delay": place, "in_training": share} for place, share in shares.items()]
    assert overlap_sentence(Note(TOKENS, [], ["delay"], {}, {}, []), rows) == expected
    assert overlap_sentence(Note(TOKENS, [], ["delay"], {}, {}, None), rows) == ""
