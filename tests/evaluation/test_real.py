"""A task with real numbers through every room: rows, training, weights, evaluation, cost, tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.cli.try_ import document_of_point
from pipeline.config.expand import expand
from pipeline.config.spec_files import read_spec
from pipeline.evaluation.runs import load_run
from pipeline.in_process import run_plan
from pipeline.networks.sequence import SequenceNetwork
from pipeline.plan import Plan, make_plan
from pipeline.storage.tables import read_table

SIZES = (
    "task.length={uniform: [5, 9]}",
    "network.width=8",
    "network.context=64",
    "learner.steps=30",
    "learner.batch_size=8",
    "learner.curriculum={column: length, start: 6}",
    "learner.validation_rows=20",
    "evaluate={rows: 40, lengths: [5, 12]}",
)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, str]:
    results = tmp_path_factory.mktemp("real") / "results"
    plan = make_plan(expand(document_of_point("adding", Path("config.yaml"), SIZES, ignore_config=True)))
    code, table = run_plan(plan, results)
    assert code == 0
    return plan, results, table


@torch.no_grad()
def test_an_evaluation_equals_a_plain_recomputation(chain: tuple[Plan, Path, str]) -> None:
    plan, results, _ = chain
    ((run, item),) = ((load_run(evaluation.run, results), evaluation) for evaluation in plan.evaluations.values())
    rows = [row for name in item.datasets for row in read_table(results / "datasets" / name / "00000.parquet").to_pylist()]
    found, network = run.evaluations[item.id].to_dict("records"), run.network()
    assert isinstance(network, SequenceNetwork) and network.values is not None
    assert len(rows) == len(found) == 80
    for row, scores in zip(rows, found, strict=True):
        carried = network.initial_state(1)
        answer = torch.zeros(1)
        for token, value in zip(row["tokens"], row["values"], strict=True):
            answer, carried = network.step(torch.tensor([token]), carried, values_BF=torch.tensor([[value]]))
        error = abs(float(answer) - row["target"][0])
        assert (scores["length"], scores["tokens"], scores["scored"]) == (row["length"], row["length"], 1)
        assert scores["loss"] == pytest.approx(error**2, abs=1e-5)
        assert scores["correct"] == scores["hits"][0] == (error <= 0.04) or abs(error - 0.04) < 1e-5


def test_what_is_frozen_says_what_is_real(chain: tuple[Plan, Path, str]) -> None:
    plan, results, table = chain
    (network,), (run,) = plan.networks.values(), plan.runs
    assert network["sizes"] == {"vocabulary": 3, "classes": 1, "features": 1}
    config = json.loads((results / "runs" / run / "model" / "config.json").read_text())
    assert config["networks"]["model"]["sizes"] == {"vocabulary": 3, "classes": 1, "features": 1}
    (entry,) = read_spec(results / "experiments" / "try" / "experiment.yaml")["runs"]
    assert (entry["unit"], entry["baseline"], entry["chance"]) == ("squared error", 1 / 6, pytest.approx(0.0784))
    assert "loss (squared error)" in table
    assert "| values | real numbers, 1 per token" in (results / "datasets" / plan.runs[run].data[0] / "card.md").read_text()
    history = load_run(run, results).history
    assert history["level"].tolist()[0] == 6 and len(history) == 2


def test_cost_is_measured_with_numbers(chain: tuple[Plan, Path, str]) -> None:
    plan, results, _ = chain
    (name,) = plan.networks
    profile = read_table(results / "profiles" / f"{name}.parquet").to_pylist()
    assert [row["context"] for row in profile] == [64]
    assert profile[0]["parameters"] == 3 * 8 + 8 + (8 * 64 + 64) + 16 + 9  # embedding, V, LSTM, norm, head
    assert profile[0]["step_seconds"] > 0


def test_tasks_of_words_are_frozen_as_before() -> None:
    plan = make_plan(expand(document_of_point("copy", Path("config.yaml"), (), ignore_config=True)))
    (network,) = plan.networks.values()
    (entry,) = plan.experiments["try"].spec["runs"]
    assert set(network) == {"id", "network", "sizes"}
    assert "unit" not in entry
