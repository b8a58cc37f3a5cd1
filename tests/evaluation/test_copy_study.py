"""The JSON of the copy-task study, read back as that study's scripts would read it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.spec_files import write_spec
from pipeline.evaluation.collect import collect
from pipeline.evaluation.copy_study import copy_study
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.schemas import with_kind
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.tables import write_table

KEYS = ["mean_test_acc", "std_test_acc", "mean_train_time", "mean_epochs", "trial_results"]
TRIAL = [
    "test_acc", "train_time", "epochs", "final_train_acc", "final_val_acc", "best_val_loss",
    "train_losses", "val_losses", "train_accs", "val_accs",
]  # fmt: skip
THEIRS = {"gru": "gru", "input_multiplicative_lstm": "MultiplicativeLSTM", "gru_v1": "GRU"}
SIZES = (1000, 100, 200)


class Made(NamedTuple):
    """What one run did, as plain Python."""

    right: int
    seconds: float
    losses: list[float]
    accuracies: list[float]


def made_up(place: int, seed: int, size: int) -> Made:
    """Four rows of `size` symbols, of which `right` are right; one validation before training and three or four after."""
    epochs = 3 + seed
    losses = [2.5 - 0.1 * place - 0.01 * seed - 0.125 * index * (index < 3) for index in range(epochs + 1)]
    return Made(
        size // 4 + 10 * seed + place, 3.5 * size + seed, losses, [0.1 + 0.01 * place + 0.05 * index for index in range(epochs + 1)]
    )


def write_run(results: Path, run: str, made: Made, size: int, measured: list[int]) -> None:
    parts = []
    for symbols in measured:
        hits = np.zeros((4, symbols), np.uint8)
        hits.flat[: made.right if symbols == size else 1] = 1
        columns = {name: [value] * 4 for name, value in {"delay": 10, "symbols": symbols, "tokens": 10 + 2 * symbols}.items()}
        columns |= {"state_bytes": [64] * 4, "scored": [symbols] * 4, "correct": hits.sum(1).tolist(), "loss": [1.0] * 4}
        parts.append(pa.table({"dataset": [f"copy-test-{symbols}"] * 4, "row": list(range(4)), **columns, "hits": hits.tolist()}))
    write_table(results / "evaluations" / run / "test-1.parquet", with_kind(pa.concat_tables(parts), measurement_named("tokens")))
    step = [2 * index for index in range(len(made.losses))]
    train = [None, *(loss + 0.5 for loss in made.losses[1:])]
    columns = {"step": step, "rows": [4096 * value for value in step], "train_loss": train, "validation_loss": made.losses}
    columns |= {"train_accuracy": [None, *(value - 0.02 for value in made.accuracies[1:])], "validation_accuracy": made.accuracies}
    write_table(results / "runs" / run / "history.parquet", pa.table(columns))
    wall = [made.seconds * value / step[-1] for value in step]
    write_table(
        results / "runs" / run / "timing.parquet", pa.table({"step": step, "cpu_seconds": [9 * x for x in wall], "wall_seconds": wall})
    )
    write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": {"name": "copy", "delay": 10, "symbols": size}})


def make(results: Path, sizes: tuple[int, ...] = SIZES, measured: tuple[int, ...] = (), key: str = "task.symbols") -> Path:
    """An experiment called `study`, collected; `measured` instead of each run's own size."""
    entries = []
    write_table(results / "profiles" / "net.parquet", pa.table({"context": [16], "parameters": [120]}))
    for place, label in enumerate(THEIRS):
        for size in sizes:
            for seed in (1, 0):
                run = f"run-{place}-{size}-{seed}"
                write_run(results, run, made_up(place, seed, size), size, list(measured) or [size])
                coordinates = {"network.mixer": label, key: size}
                entry = {"run": run, "label": f"{label}, {key.split('.')[1]} {size}", "variant": None, "seed": seed}
                entry["parts"] = {"network.mixer": [label, ""], key: [str(size), ""]}
                entry |= {"coordinates": coordinates, "evaluation": "test-1", "network": "net", "chance": 0.1, "baseline": 2.3}
                entries.append(entry)
    folder = results / "experiments" / "study"
    write_spec(folder / "experiment.yaml", {"name": "study", "columns": ["network.mixer", key], "runs": entries})
    collect(folder / "experiment.yaml", results, folder)
    return results


def read(text: str) -> dict[str, Any]:
    """The study as strict JSON; no key stands twice, nothing is NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def test_every_number_is_the_runs_own(tmp_path: Path) -> None:
    study = read(copy_study("study", make(tmp_path)))
    assert list(study) == ["100", "200", "1000"]
    for size, networks in study.items():
        assert set(networks) == set(THEIRS.values())
        for place, name in enumerate(THEIRS.values()):
            found, made = networks[name], [made_up(place, seed, int(size)) for seed in (0, 1)]
            assert list(found) == KEYS
            shares = [item.right / (4 * int(size)) for item in made]
            assert found["mean_test_acc"] == pytest.approx(statistics.fmean(shares))
            assert found["std_test_acc"] == pytest.approx(statistics.pstdev(shares)) != pytest.approx(statistics.stdev(shares))
            assert found["mean_train_time"] == pytest.approx(statistics.fmean(item.seconds for item in made))
            assert found["mean_epochs"] == 3.5
            for trial, item, share in zip(found["trial_results"], made, shares, strict=True):
                assert list(trial) == TRIAL
                assert (trial["test_acc"], trial["train_time"], trial["epochs"]) == (
                    pytest.approx(share),
                    item.seconds,
                    len(item.losses) - 1,
                )
                assert (trial["val_losses"], trial["val_accs"]) == (item.losses[1:], item.accuracies[1:])
                assert trial["train_losses"] == [loss + 0.5 for loss in item.losses[1:]]
                assert trial["train_accs"] == [value - 0.02 for value in item.accuracies[1:]]
                assert (trial["final_train_acc"], trial["final_val_acc"]) == (item.accuracies[-1] - 0.02, item.accuracies[-1])
                assert trial["best_val_loss"] == min(item.losses)


def test_a_run_is_taken_where_it_was_trained(tmp_path: Path) -> None:
    own, wide = make(tmp_path / "own"), make(tmp_path / "wide", measured=(50, *sorted(SIZES), 2000))
    assert copy_study("study", own) == copy_study("study", wide)


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^experiment study: not in .*experiments; run the workflow first$"):
        copy_study("study", tmp_path)
    with pytest.raises(UserError, match=r"^experiment stuyd: not in .*experiments; did you mean 'study'\?$"):
        copy_study("stuyd", make(tmp_path / "a"))
    with pytest.raises(
        UserError, match=r"^experiment study: its runs were trained at one size; expected a sweep over a size, such as task"
    ):
        copy_study("study", make(tmp_path / "b", sizes=(100,)))
    with pytest.raises(
        UserError, match=r"^experiment study: run-0-100-1 was measured at symbols 300; expected also 100, as it was trained$"
    ):
        copy_study("study", make(tmp_path / "c", sizes=(100, 200), measured=(300,)))
    (tmp_path / "a" / "experiments" / "study" / "timing.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptFileError, match=r"timing\.parquet: SHA-256 "):
        copy_study("study", tmp_path / "a")
    (tmp_path / "a" / "experiments" / "study" / "curves.parquet").unlink()
    with pytest.raises(
        MissingFileError, match=r"^experiment study: not collected yet, .*curves\.parquet is missing; run the workflow first$"
    ):
        copy_study("study", tmp_path / "a")
