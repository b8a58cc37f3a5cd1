"""A changed line re-runs exactly what depends on it; afterwards nothing is left to do, whatever the config's formatting."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.workflow.conftest import Finished
from tests.workflow.suite import Suite, tiny

pytestmark = pytest.mark.workflow

Config = dict[str, Any]
Make = Callable[..., Suite]


def first(config: Config) -> Config:
    """The one experiment of the tiny config."""
    return config["experiments"]["first"]


def base(config: Config) -> Config:
    """Its base point."""
    return first(config)["base"]


def comment(text: str) -> str:
    return "# a comment\n" + text.replace("\n", "  # why\n", 3)


def blank_lines(text: str) -> str:
    return text.replace("\n", "\n\n", 5)


def quotes(text: str) -> str:
    return re.sub(r"name: copy\b", 'name: "copy"', text)


def numbers(text: str) -> str:
    return text.replace("0.01", "1.0e-2").replace("steps: 30", "steps: 3_0")


def sweep_order(text: str) -> str:
    return text.replace("[gru, none]", "[none, gru]")


def delays_order(text: str) -> str:
    return text.replace("delays: [4, 8]", "delays: [8, 4]")


def spelled_default(text: str) -> str:
    return text.replace("width: 8", "width: 8, depth: 1")


def key_order(text: str) -> str:
    """The question moves to the top of its experiment."""
    return re.sub(r"^(  \w+:\n)((?:    .*\n)*?)(    question: .*\n)", r"\1\3\2", text, count=1, flags=re.MULTILINE)


def runtime(text: str) -> str:
    return text + "\nruntime: {checkpoint_seconds: 7, device: cpu}\ntracking: {tags: [paper]}\n"


COSMETIC = itertools.cycle([comment, blank_lines, quotes, numbers, sweep_order, delays_order, spelled_default, key_order, runtime])


def settled(suite: Suite) -> None:
    """Nothing is left to do, also when the same config is spelled differently."""
    path = suite.folder / "config.yaml"
    text = path.read_text()
    spelling = next(COSMETIC)
    path.write_text(spelling(text))
    assert suite.planned() == Counter(), f"after {spelling.__name__}"
    path.write_text(text)


def redone(suite: Suite, config: Config, expected: dict[str, int]) -> None:
    """The edit runs exactly the expected jobs: a job that an earlier edit left undone would be one too many here."""
    suite.write(config)
    assert suite.run() == Counter(expected)


def one_run(runs: int = 1, **more: int) -> dict[str, int]:
    """Jobs of so many runs trained again, up to the one figure."""
    return {"describe_run": runs, "describe_experiment": 1, "train": runs, "evaluate": runs, "collect": 1, "plot": 1, **more}


SHOWN_AGAIN = {"describe_experiment": 1, "collect": 1, "plot": 1}


def test_the_first_run_runs_everything(first_run: Finished) -> None:
    assert first_run[1] == Counter(
        describe_dataset=4, describe_network=2, describe_run=2, describe_experiment=1, generate=4, seal=4,
        train=2, evaluate=2, profile=2, collect=1, plot=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    "spelling", [comment, blank_lines, quotes, numbers, sweep_order, delays_order, spelled_default, key_order, runtime]
)
def test_cosmetic_edits_re_run_nothing(workspace: Make, spelling: Callable[[str], str]) -> None:
    suite = workspace()
    path = suite.folder / "config.yaml"
    text = path.read_text()
    assert spelling(text) != text
    path.write_text(spelling(text))
    assert suite.planned() == Counter()


def test_lost_snakemake_records_and_touched_specs_re_run_nothing(workspace: Make) -> None:
    suite = workspace()
    for spec in suite.results.glob("runs/*/run.yaml"):
        spec.touch()
    shutil.rmtree(suite.folder / ".snakemake")
    assert suite.planned() == Counter()


def test_edits_of_runs(workspace: Make) -> None:
    config = tiny()
    suite = workspace()
    first(config)["variants"] = {"slow": {"learner.learning_rate": 0.001}}
    redone(suite, config, one_run())
    first(config)["variants"]["slow"]["learner.learning_rate"] = 0.002
    redone(suite, config, one_run())
    before = suite.digests()
    base(config)["learner"]["learning_rate"] = 0.02
    redone(suite, config, one_run(2))
    base(config)["learner"]["learning_rate"] = 0.01
    redone(suite, config, SHOWN_AGAIN)
    after = suite.digests()
    assert {name: after[name] for name in before} == before
    first(config)["sweep"]["network.mixer"][0] = {"name": "gru", "init": "chrono"}
    redone(suite, config, one_run(1, describe_network=1, profile=1))
    base(config)["network"]["width"] = 12
    del first(config)["variants"]
    redone(suite, config, one_run(2, describe_network=2, profile=2))
    settled(suite)


def test_edits_of_seeds_and_names(workspace: Make) -> None:
    config = tiny()
    suite = workspace()
    first(config)["sweep"]["seed"] = [0, 1]
    redone(suite, config, one_run(2))
    first(config)["sweep"]["seed"] = [1]
    redone(suite, config, SHOWN_AGAIN)
    config["experiments"]["renamed"] = config["experiments"].pop("first")
    redone(suite, config, SHOWN_AGAIN)
    config["experiments"]["twin"] = {**config["experiments"]["renamed"], "figures": ["learning_curves", "cost_quality"]}
    redone(suite, config, {"describe_experiment": 1, "collect": 1, "plot": 2})
    del config["experiments"]["renamed"]
    redone(suite, config, {})
    settled(suite)


def test_edits_of_what_is_measured_and_shown(workspace: Make) -> None:
    config = tiny()
    suite = workspace()
    base(config)["evaluate"]["delays"] = [4]
    redone(suite, config, {"describe_experiment": 1, "evaluate": 2, "collect": 1, "plot": 1})
    base(config)["evaluate"]["rows"] = 48
    redone(
        suite, config, {"describe_dataset": 1, "generate": 1, "seal": 1, "describe_experiment": 1, "evaluate": 2, "collect": 1, "plot": 1}
    )
    first(config)["figures"] = [{"name": "accuracy_by", "column": "delay", "metric": "sequence_accuracy"}]
    redone(suite, config, {"plot": 1})
    first(config)["question"] = "Does it really run?"
    redone(suite, config, {"plot": 1})
    first(config)["figures"].append("learning_curves")
    redone(suite, config, {"plot": 1})
    first(config)["figures"].pop(0)
    redone(suite, config, {})
    settled(suite)


def test_edits_of_data(workspace: Make) -> None:
    config = tiny()
    suite = workspace()
    base(config)["learner"]["validation_rows"] = 40
    redone(suite, config, one_run(2, describe_dataset=1, generate=1, seal=1))
    base(config)["learner"]["data"] = "stream"
    redone(suite, config, one_run(2))
    base(config)["task"]["recall"] = "reverse"
    redone(suite, config, one_run(2, describe_dataset=3, generate=3, seal=3))
    settled(suite)


def test_lost_files_are_regenerated(workspace: Make) -> None:
    suite = workspace()
    before = suite.digests()
    run = sorted(suite.results.glob("runs/copy-gru-*"))[0]
    (run / "model" / "model.safetensors").unlink()
    chain = {"train": 1, "evaluate": 1, "collect": 1, "plot": 1}
    redone(suite, tiny(), chain)
    (run / "history.parquet").unlink()
    redone(suite, tiny(), chain)
    sorted(suite.results.glob("datasets/copy-train-*/*.parquet"))[0].unlink()
    redone(suite, tiny(), {"generate": 1, "seal": 1})
    next(suite.results.glob("experiments/first/*.csv")).unlink()
    redone(suite, tiny(), {"plot": 1})
    assert suite.digests() == before
    settled(suite)


def test_parents_and_pairs_of_edits(workspace: Make) -> None:
    config = tiny()
    suite = workspace()
    first(config)["sweep"] = {}
    child = {"base": {**base(config), "learner": {**base(config)["learner"], "steps": 10, "parent": "first"}}}
    config["experiments"]["child"] = child
    redone(
        suite, config, {**SHOWN_AGAIN, "describe_experiment": 2, "collect": 2, "describe_run": 1, "train": 1, "evaluate": 1} | _child_data()
    )
    base(config)["learner"]["learning_rate"] = 0.03
    expected = {"describe_run": 2, "describe_experiment": 2, "train": 2, "evaluate": 2, "collect": 2, "plot": 1}
    redone(suite, config, expected)
    tests = suite.results.glob("datasets/copy-test-*/dataset.yaml")
    spec = next(path for path in tests if "delay: 4" in path.read_text())
    (spec.parent / "00000.parquet").unlink()
    base(config)["evaluate"]["delays"] = child["base"]["evaluate"]["delays"] = [4]
    redone(suite, config, {"generate": 1, "seal": 1, "describe_experiment": 2, "evaluate": 2, "collect": 2, "plot": 1})
    base(config)["learner"]["learning_rate"] = 0.04
    base(config)["evaluate"]["delays"] = [8]
    first(config)["question"] = "A pair of edits?"
    redone(suite, config, {"describe_run": 2, "describe_experiment": 2, "train": 2, "evaluate": 2, "collect": 2, "plot": 1})
    model = next(path for path in suite.results.glob("runs/copy-gru-*/model/model.safetensors") if _is_parent(suite, path.parents[1].name))
    model.unlink()
    redone(suite, config, {"train": 2, "evaluate": 2, "collect": 2, "plot": 1})
    settled(suite)


def _child_data() -> dict[str, int]:
    """The child trains for fewer steps, so on fewer rows: one dataset of its own."""
    return {"describe_dataset": 1, "generate": 1, "seal": 1}


def _is_parent(suite: Suite, run: str) -> bool:
    plan = json.loads((suite.results / ".pipeline" / "plan.json").read_text())
    return any(other["parent"] == run for other in plan["runs"].values())


def test_a_failure_after_an_edit_is_planned_again(workspace: Make) -> None:
    config = tiny()
    suite = workspace()
    before = suite.digests()
    base(config)["learner"]["learning_rate"] = 0.05
    suite.write(config)
    blocked = suite.results / "checkpoints" / _planned_run(suite, "gru")
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file where training wants a folder")
    code, output = suite.call()
    assert code == 1, output
    left = {"train": 1, "evaluate": 1, "collect": 1, "plot": 1}
    assert suite.planned() == Counter(left)
    blocked.unlink()
    assert suite.run() == Counter(left)
    settled(suite)
    suite.write(tiny())
    assert suite.run() == Counter(SHOWN_AGAIN)
    after = suite.digests()
    assert {name: after[name] for name in before} == before


def _planned_run(suite: Suite, mixer: str) -> str:
    lines = suite.pipeline("plan").stdout.splitlines()
    return next(line.split()[0] for line in lines if line.startswith(f"copy-{mixer}-"))
