"""What a training publishes, and how it ends: budgets, early stop, selection, parents, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from safetensors.torch import load_file

from pipeline.storage.errors import CorruptFileError, ForeignSpecError, MissingFileError, UserError
from pipeline.storage.manifest import verify
from pipeline.storage.seals import write_sealed
from pipeline.storage.tables import read_table
from tests.training.tiny import digests, tiny_run, train_tiny


def finished(results: Path, **fields: Any) -> tuple[Path, dict[str, Any], pa.Table]:
    """A trained run's folder, its model's description and its history."""
    run = tiny_run(results, **fields)
    assert train_tiny(results, run) == 0
    folder = results / "runs" / run
    verify(folder)
    return folder, json.loads((folder / "model" / "config.json").read_text()), read_table(folder / "history.parquet")


def test_history_and_timing(tmp_path: Path) -> None:
    folder, _, history = finished(tmp_path)
    assert history.column_names == [
        "step", "rows", "level", "learning_rate", "train_loss", "train_accuracy", "gradient_norm",
        "validation_loss", "validation_accuracy", "validation_sequence_accuracy",
    ]  # fmt: skip
    assert history.column("step").to_pylist() == [0, 5, 10, 15, 20, 24]
    assert history.column("rows").to_pylist() == [0, 20, 40, 60, 80, 96]
    assert history.column("train_loss").null_count == history.column("gradient_norm").null_count == 1
    assert history.column("level").to_pylist()[0] == 2 and history.column("level").to_pylist()[-1] == 8
    assert read_table(folder / "timing.parquet").column("step").to_pylist() == [0, 5, 10, 15, 20, 24]


def test_published_files(tmp_path: Path) -> None:
    folder, config, _ = finished(tmp_path)
    assert config["checkpoints"] == {
        "last": {"files": {"model": "model.safetensors"}, "step": 24},
        "best": {"files": {"model": "best/model.safetensors"}, "step": config["checkpoints"]["best"]["step"]},
        **{f"step-{step}": {"files": {"model": f"step-{step}/model.safetensors"}, "step": step} for step in (7, 14, 21)},
    }
    (described,) = config["networks"].values()
    assert described["network"]["width"] == 8 and described["sizes"] == {"vocabulary": 7, "classes": 4}
    weights = [load_file(folder / "model" / item["files"]["model"]) for item in config["checkpoints"].values()]
    assert all(found.keys() == weights[0].keys() for found in weights)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["reproducible"] and environment["budget"] == "steps" and environment["threads"] == 1
    assert set(verify(folder)["files"]).isdisjoint({"timing.parquet", "environment.json"})


def test_two_trainings_of_one_specification_are_the_same_bytes(tmp_path: Path) -> None:
    results = [tmp_path / "one", tmp_path / "other"]
    runs = [tiny_run(folder) for folder in results]
    for folder, run in zip(results, runs, strict=True):
        train_tiny(folder, run)
    assert digests(results[0], runs[0]) == digests(results[1], runs[1])


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    weights = [finished(tmp_path / str(seed), seed=seed)[0] / "model" / "model.safetensors" for seed in (0, 1)]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_best_is_the_validation_with_the_lowest_loss(tmp_path: Path) -> None:
    folder, config, history = finished(
        tmp_path, keep=["last", "best"], select="best", lr_schedule="constant", learning_rate=0.3, warmup_steps=0
    )
    losses = history.column("validation_loss").to_pylist()
    best = config["checkpoints"]["best"]
    assert best == {"files": {"model": "model.safetensors"}, "step": history.column("step").to_pylist()[losses.index(min(losses))]}
    assert best["step"] != 24, "this training is meant to overshoot"
    assert config["checkpoints"]["last"] == {"files": {"model": "last/model.safetensors"}, "step": 24}
    assert (folder / "model" / "model.safetensors").read_bytes() != (folder / "model" / "last" / "model.safetensors").read_bytes()


def test_averaged_weights_are_what_is_validated_and_exported(tmp_path: Path) -> None:
    plain, _, plain_history = finished(tmp_path / "plain", ema_decay=0.0)
    folder, _, history = finished(tmp_path / "averaged")
    assert history.column("train_loss").equals(plain_history.column("train_loss")), "the average must not touch the training"
    assert not history.column("validation_loss").equals(plain_history.column("validation_loss"))
    assert (folder / "model" / "model.safetensors").read_bytes() != (plain / "model" / "model.safetensors").read_bytes()


def test_budget_in_rows_is_whole_batches(tmp_path: Path) -> None:
    _, _, history = finished(tmp_path, steps=None, rows=43)
    assert history.column("rows").to_pylist()[-1] == 40


def test_budget_in_seconds(tmp_path: Path) -> None:
    folder, _, history = finished(tmp_path, steps=None, seconds=0.3, lr_schedule="constant", keep=["last"], distinct_rows=30)
    timing = read_table(folder / "timing.parquet")
    assert timing.column("step").to_pylist() == history.column("step").to_pylist()
    assert 0.3 <= timing.column("wall_seconds").to_pylist()[-1] < 60
    assert not json.loads((folder / "environment.json").read_text())["reproducible"]


def test_stops_when_good_enough(tmp_path: Path) -> None:
    _, _, history = finished(tmp_path, stop_at=0.01)
    assert history.column("step").to_pylist() == [0]


def test_a_diverging_training_stops_in_one_line(tmp_path: Path) -> None:
    run = tiny_run(
        tmp_path,
        learning_rate=100.0,
        max_grad_norm=None,
        ema_decay=0.0,
        warmup_steps=0,
        network={"norm": "none", "depth": 6, "feedforward": 1},
    )
    with pytest.raises(
        UserError, match=rf"^{run}: step \d+: .+ is (nan|inf).*: training has diverged; lower learner.learning_rate, or set"
    ):
        train_tiny(tmp_path, run)
    assert not (tmp_path / "checkpoints" / run / "finished").exists()


def parented(results: Path, **child: Any) -> tuple[str, str]:
    """A trained run, and the description of one that starts from it."""
    parent = tiny_run(results)
    assert train_tiny(results, parent) == 0
    run = tiny_run(results, seed=5, **child)
    spec = results / "runs" / run / "run.yaml"
    write_sealed(spec, spec.read_text().replace("parent: null", f"parent: {parent}").replace("parent:\n", f"parent: {parent}\n"))
    return parent, run


def test_a_child_starts_from_its_parents_weights(tmp_path: Path) -> None:
    parent, child = parented(tmp_path, steps=1, learning_rate=1e-9)
    assert train_tiny(tmp_path, child) == 0
    before, after = (load_file(tmp_path / "runs" / run / "model" / "model.safetensors") for run in (parent, child))
    assert all((before[name] - after[name]).abs().max() < 1e-6 for name in before)


def test_a_parent_of_another_shape_is_refused(tmp_path: Path) -> None:
    parent, child = parented(tmp_path, network={"width": 6})
    with pytest.raises(UserError, match=rf"{parent}/model/model.safetensors: \S+: got \(.*8.*\), expected \(.*6.*\)"):
        train_tiny(tmp_path, child)


def test_assets_are_published_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.config.learners.Supervised.assets", ("vocabulary.json",))
    monkeypatch.setattr("pipeline.learners.supervised.Supervised.assets", lambda learner: {"vocabulary.json": b'["a", "b"]'})
    folder, _, _ = finished(tmp_path)
    assert (folder / "model" / "vocabulary.json").read_bytes() == b'["a", "b"]'
    assert "model/vocabulary.json" in verify(folder)["files"]
    (folder / "model" / "vocabulary.json").write_bytes(b"[]")
    with pytest.raises(CorruptFileError, match="model/vocabulary.json"):
        verify(folder)


def test_a_learner_that_takes_a_part_accepts_a_parent_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def embedding(learner: Any, parent: Any) -> None:
        learner.network.embedding.weight.data.copy_(parent["model"]["embedding.weight"])

    parent, child = parented(tmp_path, steps=1, learning_rate=1e-9, network={"depth": 2}, ema_decay=None)
    with pytest.raises(UserError, match="no such tensor"):
        train_tiny(tmp_path, child)
    monkeypatch.setattr("pipeline.learners.supervised.Supervised.adopt", embedding)
    assert train_tiny(tmp_path, child) == 0
    before, after = (load_file(tmp_path / "runs" / run / "model" / "model.safetensors")["embedding.weight"] for run in (parent, child))
    assert (before - after).abs().max() < 1e-6


def test_a_damaged_parent_is_refused(tmp_path: Path) -> None:
    parent, child = parented(tmp_path)
    (tmp_path / "runs" / parent / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFileError, match=f"{parent}/model/model.safetensors: 0 bytes"):
        train_tiny(tmp_path, child)


def test_missing_and_damaged_inputs_are_named(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    shard = next((tmp_path / "datasets").glob("*train*/00000.parquet"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    with pytest.raises(CorruptFileError, match="train-.*/00000.parquet"):
        train_tiny(tmp_path, run)
    shard.write_bytes(content)
    spec = tmp_path / "runs" / run / "run.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("learning_rate: 0.01", "learning_rate: 0.02"))
    with pytest.raises(CorruptFileError, match="run.yaml: SHA-256"):
        train_tiny(tmp_path, run)
    write_sealed(spec, text.replace("seed:", "sead:"))
    with pytest.raises(UserError, match="run.yaml: missing key 'seed'"):
        train_tiny(tmp_path, run)
    write_sealed(spec, text.replace("version: 1", "version: 9"))
    with pytest.raises(ForeignSpecError, match="run.yaml: .* version 9"):
        train_tiny(tmp_path, run)
    spec.unlink()
    with pytest.raises(MissingFileError, match="run.yaml: no such file"):
        train_tiny(tmp_path, run)


def test_width_is_solved_for_a_budget_of_parameters(tmp_path: Path) -> None:
    _, config, _ = finished(tmp_path, network={"width": "auto", "parameters": 2000})
    network = config["networks"]["model"]["network"]
    assert isinstance(network["width"], int) and network["parameters"] is None


def test_training_does_not_import_the_compiler(tmp_path: Path) -> None:
    """Torch's compiler takes seconds to import, and Triton a third of one, in every job; nothing here needs them."""
    run = tiny_run(tmp_path, steps=2)
    code = "import sys; from tests.training import tiny; tiny.main(*sys.argv[1:]); print({'torch._dynamo', 'triton'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), run, "30"], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
