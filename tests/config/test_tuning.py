"""The section `tune`: its candidates, and what is wrong with it in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.document import ConfigError, read_text
from pipeline.config.expand import expand
from pipeline.config.tuning import candidates
from pipeline.plan import make_plan

HEAD = """\
experiments:
  a:
    base:
      task: {name: copy, symbols: 3, delay: 5}
      network: {name: sequence, mixer: lstm, width: 8}
      learner: {name: supervised, steps: 5}
    sweep: {network.mixer: [lstm, gru], seed: [0, 1, 2]}
"""


def expanded(text: str, learner: str = "") -> list:
    head = HEAD.replace("steps: 5", f"steps: 5, {learner}") if learner else HEAD
    (experiment,) = expand(read_text(head + text, "c.yaml")).experiments
    return experiment.members


def tried(text: str) -> list[dict]:
    return [dict(candidate) for candidate in candidates(read_text(text, "c.yaml"))]


def fails(text: str, learner: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        expanded(text, learner)
    return str(caught.value)


def test_every_point_is_trained_at_every_candidate() -> None:
    members = expanded("    tune: {learner.learning_rate: [1e-3, 3e-3], learner.weight_decay: [0, 0.1, 0.2]}\n")
    assert len(members) == 2 * 3 * 6
    rates = {(member.point.learner.learning_rate, member.point.learner.weight_decay) for member in members}
    assert rates == {(rate, decay) for rate in (1e-3, 3e-3) for decay in (0, 0.1, 0.2)}


def test_candidates_share_the_label_of_their_point() -> None:
    document = read_text(HEAD + "    tune: {learner.learning_rate: [1e-3, 3e-3]}\n    tune_seeds: 2\n", "c.yaml")
    spec = make_plan(expand(document)).experiments["a"].spec
    assert {run["label"] for run in spec["runs"]} == {"lstm", "gru"}
    assert spec["tune"] == {"keys": ["learner.learning_rate"], "seeds": [0, 1], "objective": ["validation_loss", "lower"]}
    assert {run["tuned"]["learner.learning_rate"] for run in spec["runs"]} == {1e-3, 3e-3}


def test_the_order_of_values_and_keys_changes_nothing() -> None:
    plans = [
        make_plan(expand(read_text(HEAD + text, "c.yaml"))).experiments["a"].spec
        for text in (
            "    tune: {learner.learning_rate: [1e-3, 3e-3], learner.weight_decay: [0, 0.1]}\n",
            "    tune: {learner.weight_decay: [0.1, 0], learner.learning_rate: [3e-3, 1e-3]}\n",
        )
    ]
    assert plans[0] == plans[1]


RANGES = "learner.learning_rate: {log_uniform: [1e-4, 1e-2]}, network.width: {uniform: [8, 64]}, learner.optimizer: [adam, rmsprop]"


@given(st.integers(1, 60))
def test_more_draws_keep_the_earlier_ones(count: int) -> None:
    drawn = tried(f"{{random: {count}, {RANGES}}}")
    assert drawn == tried(f"{{random: 61, {RANGES}}}")[:count]
    assert all(1e-4 <= values["learner.learning_rate"] <= 1e-2 for values in drawn)
    assert all(isinstance(values["network.width"], int) and 8 <= values["network.width"] <= 64 for values in drawn)
    assert all(values["learner.optimizer"] in ("adam", "rmsprop") for values in drawn)


def test_draws_of_a_key_do_not_depend_on_the_others() -> None:
    alone = tried("{random: 30, learner.learning_rate: {log_uniform: [1e-4, 1e-2]}}")
    together = tried(f"{{random: 30, {RANGES}}}")
    assert [values["learner.learning_rate"] for values in alone] == [values["learner.learning_rate"] for values in together]


def test_log_uniform_draws_are_even_on_a_log_scale() -> None:
    logs = [math.log10(values["x"]) for values in tried("{random: 300, x: {log_uniform: [1e-4, 1e-2]}}")]
    shares = [sum(low <= value < low + 0.5 for value in logs) / len(logs) for low in (-4, -3.5, -3, -2.5)]
    assert shares == pytest.approx([0.25] * 4, abs=0.08)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "    tune: {learner.learning_rat: [1]}\n",
            ":8: experiments.a.tune.learner.learning_rat[0]: unknown key; did you mean 'learning_rate'?",
        ),
        ("    tune: {learner.learning_rate: []}\n", "got an empty list; expected a list of values to try"),
        ("    tune: {learner.learning_rate: 1e-3}\n", "got 0.001; expected a list of values to try"),
        ("    tune: {learner.learning_rate: [1e-3, 1e-3]}\n", "0.001 is listed twice; expected different values"),
        ("    tune: {learner.learning_rate: {uniform: [0, 1]}}\n", "expected random: N beside a range"),
        ("    tune: {random: 3}\n", "got 3 draws; expected a key to draw values for"),
        ("    tune: {random: 0, learner.learning_rate: [1]}\n", "got 0 draws; expected at least 1"),
        ("    tune: {random: x, learner.learning_rate: [1]}\n", "got 'x'; expected a whole number"),
        ("    tune: {random: 3, learner.learning_rate: {uniform: [1, 0]}}\n", "expected low < high"),
        ("    tune: {random: 3, learner.learning_rate: {log_uniform: [0, 1]}}\n", "expected low < high, above zero"),
        ("    tune: {random: 3, learner.learning_rate: {normal: [0, 1]}}\n", "expected a list, {uniform: [low, high]}"),
        ("    tune: {network.mixer: [lru]}\n", "a component cannot be tuned; expected a setting such as learner.learning_rate"),
        (
            "    tune: {learner: [{name: supervised, steps: 5}]}\n",
            "a component cannot be tuned; expected a setting such as learner.learning_rate",
        ),
        ("    tune: {}\n", "got an empty mapping; expected at least one key to tune"),
        (
            "    tune: {network.width: [8]}\n    variants: {v: {network.width: 9}}\n",
            "is in tune and in variants.v; expected one of the two",
        ),
        ("    tune: {seed: [1]}\n", "a seed cannot be tuned; expected tune_seeds"),
        ("    tune: {task.symbols: [1, 2]}\n", "candidates are compared on the same validation rows"),
        ("    tune: {evaluate.rows: [100, 200]}\n", "candidates are compared on the same validation rows"),
        ("    tune: {learner.validation_rows: [100, 200]}\n", "candidates are compared on the same validation rows"),
        ("    tune: {random: 20, learner.learning_rate: [1e-3, 3e-3]}\n", "got 20 draws, of which 2 differ; expected a grid"),
        ("    tune: {random: 1, network.dropout: {uniform: [0.0, 1.5]}}\n", "tune.network.dropout: got 1.5; expected less than 1"),
        ("    tune: {random: 1, learner.learning_rate: {log_uniform: [1, 110]}}\n", "learning_rate: got 110; expected at most 100"),
        ("    tune: {random: 1, learner.learning_rate: {uniform: [-1e-3, 1e-2]}}\n", "learning_rate: got -0.001; expected more than 0"),
        ("    tune_seeds: 2\n", "expected a section 'tune' beside it"),
        ("    tune: {learner.learning_rate: [1]}\n    tune_seeds: 4\n", "got 4; expected 1 to 3, the seeds of the experiment"),
        ("    tune: {learner.learning_rate: [1]}\n    tune_seeds: x\n", "got 'x'; expected a whole number"),
        ("    tune: [1]\n", "expected a mapping"),
        ("    tune: {random: 99999, learner.learning_rate: {uniform: [0.1, 1]}}\n", "expected at most runtime.max_runs = 10,000"),
    ],
)
def test_a_mistake_is_one_line(text: str, said: str) -> None:
    message = fails(text)
    assert said in message and message.startswith("c.yaml:") and "\n" not in message


@pytest.mark.parametrize(
    ("written", "said"), [("learning_rate: fast", "got 'fast'; expected a number"), ("batch_size: 0", "got 0; expected at least 1")]
)
def test_a_value_of_base_that_tune_replaces_is_checked(written: str, said: str) -> None:
    key, value = written.split(": ")
    text = f"    tune: {{learner.{key}: [1]}}\n"
    assert fails(text, f"{key}: {value}") == f"c.yaml:6: experiments.a.base.learner.{key}: {said}"
