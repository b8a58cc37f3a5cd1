from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.config.labels import as_parts, label_of, without
from pipeline.evaluation.collect import collect
from pipeline.evaluation.series import trained_sizes
from pipeline.plan import make_plan
from pipeline.storage.seals import write_sealed
from pipeline.storage.tables import read_table
from tests.evaluation.conftest import Tiny

CONFIG = """\
experiments:
  a:
    base:
      task: {{name: copy, symbols: 3, delay: 9}}
      network: {{name: sequence, mixer: lstm, width: 16}}
      learner: {{name: supervised, steps: 5}}
    sweep: {{{}}}
    variants: {{quick: {{learner.steps: 3}}}}
"""
OTHERS = {
    "a mixer": ["network.mixer: [gru, {name: lstm, init: chrono}]"],
    "twins of a mixer": ["network.mixer: [lstm, {name: lstm, init: chrono}]", "seed: [0, 1]"],
    "more": ["network.mixer: [gru, lstm]", "learner.learning_rate: [1e-2, 1e-3]", "task.selective: [false, true]"],
}
KEYS = {
    "task.symbols": "[3, 30]",
    "task.delay": "[9, {log_uniform: [1, 40]}, {uniform: [1, 40]}]",
    "network.width": "[16, 32]",
}


def labels(*sweep: str) -> list[dict]:
    """The runs of the experiment with these swept keys, as its spec lists them."""
    return make_plan(expand(read_text(CONFIG.format(", ".join(sweep)), "c.yaml"))).experiments["a"].spec["runs"]


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("key", KEYS)
def test_without_a_swept_key_a_label_is_that_of_the_experiment_that_does_not_sweep_it(key: str, others: str) -> None:
    runs = labels(*OTHERS[others], f"{key}: {KEYS[key]}")
    found = {label_of(without(as_parts(run["parts"]), key)) for run in runs}
    assert len({run["label"] for run in runs}) > len(found)
    assert found == {run["label"] for run in labels(*OTHERS[others])}


def test_what_is_left_of_nothing_is_base() -> None:
    runs = labels("task.symbols: [3, 30]")
    found = {label_of(without(as_parts(run["parts"]), "task.symbols")) for run in runs}
    assert found == {"base", "quick"}


def test_sizes_are_the_columns_trained_at_several_values(tiny: Tiny, tmp_path: Path) -> None:
    collect(tiny.experiment, tiny.results, tmp_path / "one")
    assert trained_sizes(read_table(tmp_path / "one" / "results.parquet"), ["delay", "symbols"]) == []
    spec = tiny.results / "runs" / "lstm-s0" / "run.yaml"
    write_sealed(spec, spec.read_text().replace("symbols: 3", "symbols: 4"))
    collect(tiny.experiment, tiny.results, tmp_path / "two")
    assert trained_sizes(read_table(tmp_path / "two" / "results.parquet"), ["delay", "symbols"]) == ["symbols"]
