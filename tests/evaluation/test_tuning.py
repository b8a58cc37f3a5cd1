"""Choosing among candidates: by validation over the seeds tried, ties, diverged trainings, edges; and the expected best of k trials."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config.choices import read_choices
from pipeline.config.spec_files import read_spec, write_spec
from pipeline.evaluation.candidates import candidates_of, ranked, tuned_sentence, value_text
from pipeline.evaluation.schemas import read_tuning
from pipeline.evaluation.tuning import choose, expected_best
from pipeline.evaluation.tuning_table import tuning_section
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.tables import read_table, write_table

RATE, DROPOUT = "learner.learning_rate", "network.dropout"
DIVERGED = "diverged"
Losses = Mapping[tuple[Any, ...], Sequence[Any]]
"""Values of a candidate -> its validation loss on every seed tried, or DIVERGED."""


def tried(results: Path, losses: Losses, keys: Sequence[str] = (RATE,), label: str = "lstm") -> Path:
    """Write the trainings of one label, choose, and return the experiment's folder."""
    entries = []
    for place, (values, found) in enumerate(losses.items()):
        for seed, loss in enumerate(found):
            run = f"{label}-{place}-s{seed}"
            _write_run(results / "runs" / run, loss)
            entries.append({**_entry(run, label, seed), "tuned": dict(zip(keys, values, strict=True))})
    tune = {"keys": sorted(keys), "seeds": list(range(len(next(iter(losses.values()))))), "objective": ["validation_loss", "lower"]}
    folder = results / "experiments" / "copy"
    write_spec(folder / "experiment.yaml", {"name": "copy", "columns": ["network.mixer"], "runs": entries, "tune": tune})
    choose(folder / "experiment.yaml", results, folder)
    return folder


def _entry(run: str, label: str, seed: int) -> dict[str, Any]:
    entry = {"run": run, "label": label, "parts": {"network.mixer": [label, ""]}, "variant": None, "seed": seed, "evaluation": "test"}
    entry |= {"coordinates": {"network.mixer": label}, "network": f"net-{label}", "task": "copy", "batch": 32}
    return {**entry, "chance": 0.1, "baseline": 2.3}


def _write_run(folder: Path, loss: Any) -> None:
    last = 0.01 if loss == DIVERGED else loss
    columns = {"step": [100, 200, 300], "rows": [10, 20, 30], "validation_loss": [2.0, last, 1.5], "validation_accuracy": [0.1, 0.5, 0.3]}
    write_table(folder / "history.parquet", pa.table(columns).replace_schema_metadata({"diverged_at": "300"} if loss == DIVERGED else {}))
    write_spec(folder / "run.yaml", {"id": folder.name, "learner": {"name": "supervised", "select": "best"}})


def chosen(folder: Path) -> dict[str, Any]:
    (choice,) = json.loads((folder / "choices.json").read_text()).values()
    return choice


@pytest.mark.parametrize(
    ("losses", "value", "edge"),
    [
        ({(0.1,): [1.0, 1.0], (0.2,): [0.2, 0.9], (0.3,): [0.6, 0.6]}, 0.2, {}),
        ({(0.1,): [0.5, 0.5], (0.2,): [0.9, 0.9]}, 0.1, {RATE: "smallest"}),
        ({(0.1,): [0.9, 0.9], (0.2,): [0.5, 0.5]}, 0.2, {RATE: "largest"}),
        ({(0.3,): [0.5, 0.5], (0.2,): [0.4, 0.6], (0.1,): [0.9, 0.9]}, 0.2, {}),
        ({(0.1,): [0.9, 0.9], (0.2,): [0.1, DIVERGED], (0.3,): [1.0, 1.0]}, 0.1, {RATE: "smallest"}),
        ({(0.2,): [DIVERGED, 0.1], (0.1,): [DIVERGED, DIVERGED]}, 0.1, {RATE: "smallest"}),
        ({(0.1,): [0.5, 0.5]}, 0.1, {}),
        ({("cosine",): [0.5, 0.5], ("constant",): [0.9, 0.9]}, "cosine", {}),
        ({("cosine",): [0.5, 0.5], ("constant",): [0.5, 0.5]}, "constant", {}),
        ({(True,): [0.5, 0.5], (False,): [0.9, 0.9]}, True, {}),
    ],
)
def test_the_best_mean_is_chosen_of_equal_ones_the_smaller_and_diverged_ones_last(
    losses: Losses, value: Any, edge: dict[str, str], tmp_path: Path
) -> None:
    folder = tried(tmp_path, losses)
    choice = chosen(folder)
    assert len(choice.pop("trials")) == sum(map(len, losses.values()))
    assert choice == {"values": {RATE: value}, "candidates": len(losses), "edge": edge}
    table, note = read_tuning(folder / "tuning.parquet")
    assert {row[RATE] for row in table.to_pylist() if row["chosen"]} == {value}
    candidates = candidates_of(table, note)
    assert ranked(candidates)[0].chosen, "figures rank as choose does"
    assert [candidate.values[RATE] for candidate in candidates] == sorted(candidate.values[RATE] for candidate in candidates)


def test_every_trial_is_in_the_table(tmp_path: Path) -> None:
    losses = {(0.1, 0): [0.5, 0.7], (0.1, 0.2): [0.4, DIVERGED], (0.3, 0): [0.9, 1.1], (0.3, 0.2): [1.2, 1.4]}
    table, note = read_tuning(tried(tmp_path, losses, (RATE, DROPOUT)) / "tuning.parquet")
    rows = table.to_pylist()
    assert [(row[RATE], row[DROPOUT], row["seed"]) for row in rows] == [(*values, seed) for values in losses for seed in (0, 1)]
    assert [row["objective"] for row in rows] == [0.5, 0.7, 0.4, 0.01, 0.9, 1.1, 1.2, 1.4]
    assert {row["accuracy"] for row in rows} == {0.5} and {row["rows"] for row in rows} == {30}
    assert [row["diverged_at"] for row in rows] == [None, None, None, 300, None, None, None, None]
    assert (note.keys, note.seeds, note.objective, note.better) == ([RATE, DROPOUT], [0, 1], "validation_loss", "lower")
    assert [candidate.mean("objective") for candidate in candidates_of(table, note)] == pytest.approx([0.6, None, 1.0, 1.3])


def test_the_table_of_the_report_says_what_was_chosen_how_and_what_is_at_an_edge(tmp_path: Path) -> None:
    losses = {(0.1, 0): [0.5, 0.7], (0.1, 0.2): [0.4, DIVERGED], (0.3, 0): [0.9, 1.1], (0.3, 0.2): [1.2, 1.4]}
    table, note = read_tuning(tried(tmp_path, losses, (RATE, DROPOUT)) / "tuning.parquet")
    section = tuning_section(candidates_of(table, note), note)
    assert section.body == [["LSTM", "0.1", "0", "4", "2", "0.600", "1.00", "1/8"]]
    assert section.note == (
        f"{RATE} and {DROPOUT} were chosen among 4 candidates by validation loss on seeds 0, 1; test data was read for the chosen only."
    )
    said = "LSTM: {} is the smallest value tried; a smaller one may be better"
    assert section.warnings == [said.format(f"{RATE} = 0.1"), said.format(f"{DROPOUT} = 0")]
    assert tuned_sentence(note) == f"Tuned: {RATE}, {DROPOUT}, 4 candidates, by validation loss."


def test_one_candidate_has_no_second_best(tmp_path: Path) -> None:
    table, note = read_tuning(tried(tmp_path, {(0.1,): [DIVERGED]}) / "tuning.parquet")
    section = tuning_section(candidates_of(table, note), note)
    assert section.body == [["LSTM", "0.1", "1", "1", "diverged", "–", "1/1"]] and not section.warnings
    assert "was chosen among 1 value by validation loss on seed 0;" in section.note


def test_an_untuned_experiment_has_nothing_to_choose(tmp_path: Path) -> None:
    write_spec(tmp_path / "experiment.yaml", {"name": "copy", "columns": [], "runs": [_entry("a", "lstm", 0)]})
    with pytest.raises(UserError, match="no tune; expected an experiment with a section 'tune'"):
        choose(tmp_path / "experiment.yaml", tmp_path, tmp_path)


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("values", [[0.3], [0.1, 0.9], [0.5, 0.5, 0.2], [0.4, 0.1, 0.8, 0.8, 0.3]])
def test_the_expected_best_equals_the_mean_over_all_tuples(values: list[float], higher: bool) -> None:
    best = max if higher else min
    found = expected_best(values, higher)
    assert len(found) == len(values)
    for k, value in enumerate(found, 1):
        every = [best(drawn) for drawn in product(values, repeat=k)]
        assert value == pytest.approx(sum(every) / len(every), rel=1e-12)


def test_the_expected_best_does_not_depend_on_the_order() -> None:
    values = [random.Random(5).random() for _ in range(20)]
    assert expected_best(values, True) == expected_best(values[::-1], True)
    assert expected_best(values, True) == sorted(expected_best(values, True)), "more trials never make it worse"
    assert expected_best([], True) == []


def test_values_are_written_as_in_a_config() -> None:
    assert [value_text(value) for value in (0.0001, 3, 1e-05, True, None, "cosine")] == ["0.0001", "3", "1e-05", "true", "null", "cosine"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda table: table.replace_schema_metadata({}), "no note of its tuned keys; expected what 'pipeline choose' writes"),
        (lambda table: table.replace_schema_metadata({"recurlab": '{"objective": 3}'}), "no note of its tuned keys"),
        (lambda table: table.drop_columns(["chosen"]), "column chosen: missing"),
        (lambda table: table.drop_columns([RATE]), f"column {RATE}: missing"),
        (lambda table: pa.concat_tables([table, table]), "rows repeat a combination of run, label"),
        (lambda table: table.slice(0, 0), "column label: 'lstm' has trials or a choice only; expected both"),
        (
            lambda table: table.set_column(table.column_names.index("accuracy"), "accuracy", pa.array([2.0, 2.0])),
            "column accuracy: 2; expected numbers in 0..1",
        ),
    ],
)
def test_a_damaged_table_is_named_in_one_line(damage: Any, said: str, tmp_path: Path) -> None:
    path = tried(tmp_path, {(0.1,): [0.5], (0.2,): [0.9]}) / "tuning.parquet"
    table = read_table(path)
    write_table(path, damage(table))
    with pytest.raises(CorruptFileError) as caught:
        read_tuning(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message


def test_a_choice_among_other_trials_is_none(tmp_path: Path) -> None:
    """An experiment that was edited has not chosen, until it has chosen again."""
    folder = tried(tmp_path, {(1e-3,): [0.5], (1e-2,): [0.4]})
    spec = read_spec(folder / "experiment.yaml", "experiment")
    assert read_choices(spec, folder)["lstm"]["trials"] == sorted(entry["run"] for entry in spec["runs"])
    for runs in (
        spec["runs"][:1],
        [*spec["runs"], {**spec["runs"][0], "run": "lstm-9-s0"}],
        [{**entry, "label": "gru"} for entry in spec["runs"]],
    ):
        with pytest.raises(MissingFileError, match="a choice among other trials"):
            read_choices({**spec, "runs": runs}, folder)
