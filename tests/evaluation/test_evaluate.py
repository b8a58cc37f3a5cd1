from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.base import filled
from pipeline.config.code import code_of
from pipeline.config.networks import SequenceNetwork
from pipeline.config.spec_files import write_spec
from pipeline.config.tasks import Copy
from pipeline.evaluation.evaluate import evaluate, measured
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.runs import load_run
from pipeline.learners.sampler import sequential_batches
from pipeline.networks.build import build
from pipeline.storage.atomic import write_json
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.loader import open_rows
from pipeline.storage.manifest import seal
from pipeline.storage.tables import read_table, write_table
from pipeline.tasks.generate import generate_shard, seal_dataset
from pipeline.training.run_files import table as table_of
from pipeline.training.serialization import write_tensors
from tests.evaluation.conftest import points_of

ALPHABET = 6
NETWORK = SequenceNetwork.model_validate({"name": "sequence", "mixer": "lstm", "width": 8})
CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Answers from the labels themselves, `shift` positions off in the answer; with `sure` = 0 every answer is equally likely."""

    def __init__(self, rows: Any, sure: float, shift: int = 0) -> None:
        super().__init__()
        self.answers = {}
        for batch in sequential_batches(rows, 7):
            for tokens, labels in zip(batch.tokens_BT, batch.labels_BT, strict=True):
                known = labels >= 0
                labels[known] = labels[known].roll(shift)
                self.answers[tuple(tokens.tolist())] = labels.clamp(min=0)
        self.sure = sure

    def forward(self, tokens_BT: Tensor, length_B: Tensor, at_N: Tensor) -> tuple[Tensor, None]:
        answers = torch.stack([self.answers[tuple(row)] for row in tokens_BT.tolist()]).flatten()[at_N]
        return self.sure * nn.functional.one_hot(answers, ALPHABET).float(), None

    def state_bytes(self, context: int) -> int:
        return 4 * context


def make_dataset(folder: Path, delay: int = 5, rows: int = 50, **fields: Any) -> Path:
    task = Copy.model_validate({"symbols": 3, "delay": delay, "alphabet": ALPHABET, **fields})
    path = folder / f"copy-test-{delay}"
    write_spec(path / "dataset.yaml", {"id": path.name, "task": filled(task), "split": "test", "rows": rows, "shards": 2})
    for index in range(2):
        generate_shard(path, index)
    seal_dataset(path)
    return path


def make_run(results: Path, network: SequenceNetwork = NETWORK) -> Path:
    """A run that was never trained: the folder of one, with seeded weights; `other` is a second kept checkpoint."""
    task, run = Copy(symbols=3, delay=5, alphabet=ALPHABET), results / "runs" / "copy-lstm-s0"
    spec = {
        "id": run.name,
        "task": filled(task),
        "network": filled(network),
        "learner": {"name": "supervised", "version": 1},
        "seed": 0,
        "data": {"train": None, "validation": "none"},
    }
    write_spec(run / "run.yaml", spec)
    for seed, name in enumerate(("model", "other")):
        write_tensors(
            run / "model" / f"{name}.safetensors",
            build(network, task.sizes, seed).state_dict(),
        )
    kept = {
        label: {"files": {"model": f"{stem}.safetensors"}, "step": step}
        for label, stem, step in (("last", "model", 2), ("other", "other", 1))
    }
    facts = {"format": 1, "run": run.name, "networks": {"model": {"network": filled(network), "sizes": task.sizes}}}
    write_json(run / "model" / "config.json", {**facts, "checkpoints": kept})
    history = [{"step": 0, "rows": 0, "validation_accuracy": 0.2}, {"step": 2, "rows": 64, "train_loss": 1.0, "validation_accuracy": 0.25}]
    write_table(run / "history.parquet", table_of(history))
    seal(
        run,
        ["model/config.json", "model/model.safetensors", "model/other.safetensors", "history.parquet"],
        {"code": code_of(network, task)},
    )
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "results")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "datasets")


def score(network: nn.Module, folder: Path) -> Any:
    from pipeline.tasks.copy import Copy as CopyTask

    task = CopyTask(Copy(symbols=3, delay=5, alphabet=ALPHABET))
    return measured(network, task, open_rows(folder), "d", measurement_named("tokens"), CPU)


def test_the_perfect_network_scores_one(data: Path) -> None:
    (point,) = points_of(score(Oracle(open_rows(data), sure=100.0), data), baseline=math.log(ALPHABET))
    assert (point["accuracy"], point["sequence_accuracy"], point["rows"], point["scored"]) == (1.0, 1.0, 50, 150)
    assert point["bits"] == pytest.approx(3 * math.log2(ALPHABET), abs=1e-6)
    assert point["state_bytes"] == 4 * 11


def test_the_uniform_network_pays_the_logarithm_of_the_alphabet(data: Path) -> None:
    (point,) = points_of(score(Oracle(open_rows(data), sure=0.0), data), baseline=math.log(ALPHABET))
    assert point["loss"] == pytest.approx(math.log(ALPHABET), rel=1e-6)
    assert point["loss_over_baseline"] == pytest.approx(1.0, rel=1e-6)


def test_one_position_off_is_chance(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, rows=600)
    table = score(Oracle(open_rows(data), sure=100.0, shift=1), data)
    assert points_of(table)[0]["accuracy"] == pytest.approx(1 / ALPHABET, abs=0.04)
    details = measurement_named("tokens").details(table)
    assert details is not None and len(details) == 3


def test_rows_equal_a_plain_recomputation(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.parquet"
    evaluate(run / "run.yaml", [data], out, device="cpu")
    found = read_table(out)
    task = Copy(symbols=3, delay=5, alphabet=ALPHABET)
    network, rows = build(NETWORK, {"vocabulary": task.vocabulary, "classes": task.classes}), open_rows(data)
    for index, row in enumerate(found.to_pylist()):
        block = rows.gather(np.array([index]))
        logits = network(torch.from_numpy(block.tokens.astype(np.int64)))[0][0, -3:].detach().numpy().astype(np.float64)
        labels = block.tokens[0, :3]
        nats = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), labels]
        hits = (logits.argmax(1) == labels).astype(int).tolist()
        assert (row["dataset"], row["row"], row["delay"], row["symbols"], row["tokens"]) == (data.name, index, 5, 3, 11)
        assert (row["scored"], row["correct"], row["hits"]) == (3, sum(hits), hits)
        assert row["loss"] == pytest.approx(nats.sum(), abs=1e-5)
        assert row["state_bytes"] == network.state_bytes(11)  # pyright: ignore[reportCallIssue]


def test_bytes_repeat_and_batches_do_not_matter(run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, small = (tmp_path / f"{name}.parquet" for name in ("first", "again", "small"))
    evaluate(run / "run.yaml", [data], first, device="cpu")
    evaluate(run / "run.yaml", [data], again, device="cpu")
    assert first.read_bytes() == again.read_bytes()
    monkeypatch.setattr("pipeline.evaluation.measurements.tokens.BATCH_TOKENS", 40)
    evaluate(run / "run.yaml", [data], small, device="cpu")
    one, other = read_table(first), read_table(small)
    assert one.drop(["loss"]).equals(other.drop(["loss"]))
    assert np.allclose(one.column("loss").to_numpy(), other.column("loss").to_numpy(), atol=1e-5)


def test_several_datasets_of_several_lengths_in_their_order(run: Path, tmp_path: Path) -> None:
    ragged = make_dataset(tmp_path / "a", delay=9, symbols={"uniform": [1, 3]})
    fixed = make_dataset(tmp_path / "b", delay=4)
    evaluate(run / "run.yaml", [ragged, fixed], tmp_path / "out.parquet", device="cpu")
    table = read_table(tmp_path / "out.parquet")
    assert table.column("dataset").to_pylist() == [ragged.name] * 50 + [fixed.name] * 50
    assert table.column("row").to_pylist() == list(range(50)) * 2
    assert table.column("symbols").to_pylist()[:50] == open_rows(ragged).column("symbols").tolist()
    assert table.column("scored").to_pylist() == table.column("symbols").to_pylist()


def test_another_checkpoint(run: Path, data: Path, tmp_path: Path) -> None:
    evaluate(run / "run.yaml", [data], tmp_path / "model.parquet", device="cpu")
    evaluate(run / "run.yaml", [data], tmp_path / "other.parquet", checkpoint="other", device="cpu")
    evaluate(run / "run.yaml", [data], tmp_path / "last.parquet", checkpoint="last", device="cpu")
    assert (tmp_path / "model.parquet").read_bytes() == (tmp_path / "last.parquet").read_bytes()
    assert (tmp_path / "model.parquet").read_bytes() != (tmp_path / "other.parquet").read_bytes()
    with pytest.raises(UserError, match="checkpoint best: not kept; expected model or one of last, other"):
        evaluate(run / "run.yaml", [data], tmp_path / "best.parquet", checkpoint="best", device="cpu")


def test_damaged_weights_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    file = run / "model" / "model.safetensors"
    weights = bytearray(file.read_bytes())
    weights[-1] ^= 1
    file.write_bytes(weights)
    with pytest.raises(CorruptFileError, match=re.escape(str(file))):
        evaluate(run / "run.yaml", [data], tmp_path / "out.parquet", device="cpu")
    assert not (tmp_path / "out.parquet").exists()


def test_an_unfinished_run_and_a_damaged_dataset_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    shard = data / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match=re.escape(str(shard))):
        evaluate(run / "run.yaml", [data], tmp_path / "out.parquet", device="cpu")
    (run / "manifest.json").unlink()
    with pytest.raises(MissingFileError, match="not finished"):
        evaluate(run / "run.yaml", [data], tmp_path / "out.parquet", device="cpu")


@pytest.mark.parametrize(
    ("fields", "context", "message"),
    [({"alphabet": 9}, 100, "vocabulary of 12, but the network of copy-lstm-s0 was made for 9"), ({}, 8, "a row of 11 tokens")],
)
def test_a_dataset_that_does_not_fit(tmp_path: Path, fields: dict[str, int], context: int, message: str) -> None:
    run = make_run(tmp_path / "results", NETWORK.model_copy(update={"context": context}))
    data = make_dataset(tmp_path / "datasets", **fields)
    with pytest.raises(UserError, match=message):
        evaluate(run / "run.yaml", [data], tmp_path / "out.parquet", device="cpu")


def test_load_run(run: Path, data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    evaluate(run / "run.yaml", [data], results / "evaluations" / run.name / "test-1.parquet", device="cpu")
    found = load_run(run.name, results)
    assert found.spec["seed"] == 0
    assert found.history["step"].tolist() == [0, 2]
    assert found.evaluations["test-1"]["scored"].tolist() == [3] * 50
    assert repr(found) == "Run copy-lstm-s0: copy by lstm, seed 0; 2 steps, validation accuracy 0.250; evaluations: test-1"
    tokens = torch.tensor([[0, 1, 2, 6, 7]])
    expected = build(NETWORK, {"vocabulary": ALPHABET + 3, "classes": ALPHABET})(tokens)[0]
    assert torch.equal(found.network()(tokens)[0], expected)
    assert not torch.equal(found.network("other")(tokens)[0], expected)
    assert load_run(run).id == run.name


def test_load_run_suggests_a_name(run: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no such run; did you mean copy-lstm-s0\?"):
        load_run("copy-lstm-s1", run.parents[1])


def test_importing_the_package_is_light() -> None:
    import subprocess
    import sys

    script = "import sys, pipeline; pipeline.load_run; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
