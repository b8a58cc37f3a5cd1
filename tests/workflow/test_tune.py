"""A tuned experiment runs exactly the jobs that an edit asks for: candidates, the choice, and what follows from it; test data comes last."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from typing import Any

import pytest

from pipeline.plan import plan_file
from pipeline.storage.tables import read_table
from tests.workflow.suite import Suite

pytestmark = pytest.mark.workflow

Config = dict[str, Any]
KEY = "learner.learning_rate"
LEARNER = {"name": "supervised", "steps": 30, "batch_size": 8, "evaluate_every": 10, "validation_rows": 32}
TUNED: Config = {
    "experiments": {
        "recall": {
            "base": {
                "task": {"name": "copy", "symbols": 2, "delay": 1, "alphabet": 4},
                "network": {"name": "sequence", "mixer": "gru", "width": 8, "context": 64},
                "learner": LEARNER,
                "evaluate": {"rows": 32, "delays": [1]},
            },
            "sweep": {"network.mixer": ["gru", "none"], "seed": [0, 1]},
            "tune": {KEY: [0.0001, 0.01]},
            "tune_seeds": 1,
        }
    }
}
CHOSEN = {"choose": 1, "collect": 1}
EDITED = {"describe_experiment": 1, **CHOSEN}


def executed(suite: Suite) -> Counter[str]:
    """The jobs of one invocation, those that a checkpoint adds among them."""
    code, output = suite.call()
    assert code == 0, output
    done = Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", output, re.MULTILINE))
    del done["all"]
    return done


def redone(suite: Suite, config: Config, **expected: int) -> None:
    """The edit runs exactly the expected jobs: a job that an earlier edit left undone would be one too many here."""
    suite.write(config)
    assert executed(suite) == Counter(expected)


def choices(suite: Suite) -> dict[str, float]:
    found = json.loads((suite.results / "experiments" / "recall" / "choices.json").read_text())
    return {label: choice["values"][KEY] for label, choice in found.items()}


def by_hand(suite: Suite, seeds: list[int]) -> dict[str, float]:
    """The choice from the histories and the plan alone: lowest mean of the last validation losses."""
    spec = plan_file(suite.folder / "config.yaml").experiments["recall"].spec
    losses: dict[tuple[str, float], list[float]] = {}
    for entry in spec["runs"]:
        if entry["seed"] in seeds:
            history = read_table(suite.results / "runs" / entry["run"] / "history.parquet")
            losses.setdefault((entry["label"], entry["tuned"][KEY]), []).append(history.column("validation_loss")[-1].as_py())
    means = {found: sum(values) / len(values) for found, values in losses.items()}
    return {name: min((mean, rate) for (label, rate), mean in means.items() if label == name)[1] for name in {label for label, _ in means}}


def test_edits_of_what_is_tuned(tmp_path: Any) -> None:
    suite, config = Suite(tmp_path, TUNED), copy.deepcopy(TUNED)
    recall = config["experiments"]["recall"]
    redone(
        suite, config, describe_dataset=3, describe_network=2, describe_run=6, describe_experiment=1, generate=3, seal=3, train=6,
        choose=1, evaluate=4, profile=2, collect=1,
    )  # fmt: skip
    assert choices(suite) == by_hand(suite, [0]) == {"gru": 0.01, "none": 0.01}
    recall["tune"][KEY] = [0.01, 0.0001]  # another order
    redone(suite, config)
    recall["tune"][KEY] = [0.0001, 0.01, 0.00001]  # a value that is not chosen
    redone(suite, config, describe_run=2, train=2, **EDITED)
    assert choices(suite) == by_hand(suite, [0]) == {"gru": 0.01, "none": 0.01}
    recall["tune"][KEY] = [0.0001, 0.01]  # taken away again
    redone(suite, config, **EDITED)
    recall["tune"][KEY] = [0.0001, 0.01, 0.03]  # one that is: its other seed is trained, and all is measured anew
    redone(suite, config, describe_run=4, train=4, evaluate=4, **EDITED)
    assert choices(suite) == by_hand(suite, [0]) == {"gru": 0.03, "none": 0.03}
    before = suite.digests()
    recall["tune"][KEY] = [0.0001, 0.01]  # the choice goes back to what there is
    redone(suite, config, **EDITED)
    assert choices(suite) == {"gru": 0.01, "none": 0.01}
    recall["tune"][KEY] = [0.0001, 0.01, 0.03]
    redone(suite, config, **EDITED)
    assert suite.digests() == before
    recall["tune"][KEY] = [0.0001, 0.01]
    redone(suite, config, **EDITED)
    del recall["tune_seeds"]  # every seed: the value that was not chosen is tried on the second one too
    redone(suite, config, describe_run=2, train=2, **EDITED)
    assert choices(suite) == by_hand(suite, [0, 1])
    assert suite.planned() == Counter()


def test_edits_around_what_is_tuned(tmp_path: Any) -> None:
    suite, config = Suite(tmp_path, TUNED), copy.deepcopy(TUNED)
    recall = config["experiments"]["recall"]
    recall["sweep"]["seed"] = [0]
    suite.write(config)
    assert executed(suite)["train"] == 4
    recall["sweep"]["seed"] = [0, 1]  # a seed more: the chosen values only
    redone(suite, config, describe_run=2, train=2, evaluate=2, **EDITED)
    recall["base"]["evaluate"]["rows"] = 16  # what is measured: no training, the same choice
    redone(suite, config, describe_dataset=1, generate=1, seal=1, evaluate=4, **EDITED)
    recall["figures"] = ["learning_curves"]
    redone(suite, config, plot=1)
    recall["figures"] = []
    recall["sweep"]["network.mixer"] = ["gru", "none", "lru"]  # a label more
    redone(suite, config, describe_network=1, describe_run=3, train=3, evaluate=2, profile=1, **EDITED)
    recall["sweep"]["network.mixer"] = ["gru", "none"]
    redone(suite, config, **EDITED)
    recall["tune"]["learner.steps"] = [30, 10]  # a grid: half of its candidates are there
    redone(suite, config, describe_dataset=1, generate=1, seal=1, describe_run=4, train=4, **EDITED)
    del recall["tune"]["learner.steps"]
    redone(suite, config, **EDITED)
    tables = [read_table(suite.results / "experiments" / "recall" / f"{name}.parquet") for name in ("tuning", "results")]
    tried, shown = [set(table.column("run").to_pylist()) for table in tables]
    (suite.results / "runs" / min(tried - shown) / "history.parquet").unlink()
    redone(suite, config, train=1, choose=1)  # a lost trial is restored; the choice has the same bytes, so nothing follows from it
    assert suite.planned() == Counter()


def test_a_choice_reads_no_test_data(tmp_path: Any) -> None:
    """By the DAG: a dry run up to the choice lists no test data and no evaluation."""
    suite = Suite(tmp_path, TUNED)
    code, output = suite.call("--dry-run", "results/experiments/recall/choices.json")
    assert code == 0, output
    planned = Counter(re.findall(r"^([a-z_]+) +\d+$", output, re.MULTILINE))
    assert planned["choose"] and planned["train"] and not planned["evaluate"]
    datasets = set(re.findall(r"Seal (\S+)", output))
    assert datasets and not any("-test-" in name for name in datasets)
