"""Titles, names and points that a config gives to figures; and looks that hold over a whole suite."""

from __future__ import annotations

import pytest

from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.plan import Plan, make_plan
from pipeline.storage.errors import UserError

SUITE = """\
experiments:
  one:
    question: Why?
    base:
      task: {name: copy, symbols: 3, delay: {uniform: [1, 20]}}
      network: {name: sequence, mixer: lstm, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32}
      evaluate: {rows: 50, delays: [10, 40]}
    sweep: {network.mixer: [%s], seed: [0, 1]}
    figures: [%s]
  two:
    base:
      task: {name: is_tree, nodes: 8, names: 8}
      network: {name: sequence, mixer: gru, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32}
    sweep: {network.width: [8, 16], network.mixer: [gru, lstm]}
    variants: {attention: {network.mixer: attention}, zebra: {network.width: 32}}
    figures: [learning_curves]
"""


def planned(mixers: str = "lstm, gru, none", figures: str = "cost_quality") -> Plan:
    return make_plan(expand(read_text(SUITE % (mixers, figures), "c.yaml")))


def test_a_label_has_one_look_in_every_experiment() -> None:
    one, two = (planned().experiments[name].looks for name in ("one", "two"))
    assert {label: one[label] for label in ("gru", "lstm")} == {label: two[label] for label in ("gru", "lstm")}
    assert one["none"] < 0
    both = {**one, **two}
    assert len(set(both.values())) == len(both), "no two labels of the suite look alike"
    assert {"gru, width 8", "gru", "attention", "zebra"} <= set(two), "labels with and without the swept size"


def test_a_further_network_moves_no_colour() -> None:
    before, after = planned().experiments["two"].looks, planned("attention, lru, gru, lstm, none").experiments["two"].looks
    assert {label: after[label] for label in ("gru", "lstm", "attention")} == {
        label: before[label] for label in ("gru", "lstm", "attention")
    }


def test_options_reach_the_frozen_figure() -> None:
    made = planned(figures="{name: cost_quality, title: '', labels: {lstm: Ours}, at: {delay: 10}, width: text}")
    spec = made.experiments["one"].figures["cost_quality_delay_10"].spec
    assert [spec[key] for key in ("title", "labels", "at", "width")] == ["", {"lstm": "Ours"}, {"delay": 10}, "text"]


def test_a_figure_may_be_asked_for_with_several_options_and_each_has_files_of_its_own() -> None:
    asked = [
        "accuracy_by, column: delay",
        "accuracy_by, column: symbols, metric: sequence_accuracy",
        "accuracy_by, column: delay, title: A",
    ]
    made = planned(figures=", ".join(f"{{name: {options}}}" for options in asked[:2])).experiments["one"].figures
    assert list(made) == ["accuracy_by_delay", "accuracy_by_symbols_sequence_accuracy"]
    assert "against delay" in made["accuracy_by_delay"].caption
    with pytest.raises(UserError, match="accuracy_by_delay is listed twice; expected each figure once"):
        planned(figures=", ".join(f"{{name: {options}}}" for options in asked))


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("{name: cost_quality, labels: {lsmt: X}}", "labels: cost_quality has no label 'lsmt'; did you mean 'lstm'?"),
        ("{name: cost_quality, labels: {lstm: X, gru: X}}", "labels: 'X' names two labels; expected different names"),
        ("{name: cost_quality, labels: {lstm: ''}}", None),
        ("{name: cost_quality, at: {delya: 10}}", "at: cost_quality cannot choose 'delya'; did you mean 'delay'?"),
        ("{name: cost_quality, at: {delay: 20}}", "at.delay: got 20; expected a measured value: 10, 40"),
        ("{name: cost_quality, at: {delay: ten}}", "at.delay: got 'ten'; expected a measured value: 10, 40"),
        ("{name: accuracy_by, column: delay, at: {delay: 10}}", "at: accuracy_by cannot choose 'delay'; expected symbols"),
        ("accuracy_by", None),
        ("{name: accuracy_by, column: dealy}", "accuracy_by draws the column 'dealy', which copy does not have; did you mean 'delay'?"),
        ("{name: accuracy_by, column: delay, metric: sequence}", "metric: tokens has no score 'sequence'; did you mean 'sequence_chance'?"),
        (
            "mean_return",
            "copy is measured by tokens; expected episodes, which mean_return draws",
        ),
        ("{name: learning_curves, at: {delay: 10}}", None),
        ("{name: cost_quality, width: wide}", None),
    ],
)
def test_a_wrong_option_is_one_line(figure: str, said: str | None) -> None:
    with pytest.raises(UserError) as caught:
        planned(figures=f"accuracy_at_longest, {figure}")
    text = str(caught.value)
    assert text.startswith("c.yaml:10: experiments.one.figures[1]") and "\n" not in text
    assert said is None or text == f"c.yaml:10: experiments.one.figures[1]: {said}"


def test_captions_know_what_the_tasks_say_of_overlap() -> None:
    made = planned().experiments
    assert "except rows of fewer than 4 symbols" in made["one"].overlap
    assert made["two"].overlap == ""


PUZZLES = """\
experiments:
  one:
    base:
      task: {name: maze, side: 5}
      network: {name: %s, mixer: stencil, width: 8}
      learner: {name: %s, steps: 10}
      evaluate: {rows: 10, supervision: [1, 4]}
    sweep: {seed: [0, 1]}
    %s
    figures: [%s]
"""
VARIANTS = "variants: {wide: {network.width: 16}}"


def puzzles(figure: str, network: str = "recursive", learner: str = "deep_supervision", further: str = VARIANTS) -> Plan:
    return make_plan(expand(read_text(PUZZLES % (network, learner, further, figure), "c.yaml")))


@pytest.mark.parametrize(
    "figure", ["solved_by_supervision", "halting", "residuals", "solution_strips", "ablations", "{name: ablations, against: wide}"]
)
def test_figures_of_puzzles_are_planned(figure: str) -> None:
    assert len(puzzles(figure).experiments["one"].figures) == 1


@pytest.mark.parametrize(
    ("figure", "network", "learner", "said"),
    [
        ("halting", "recursive", "supervised", "no run is trained by deep_supervision; expected one, as halting shows how networks halt"),
        ("residuals", "sequence", "supervised", "no network is recursive; expected one, as residuals shows how latents change"),
        ("{name: ablations, against: wied}", "sequence", "supervised", "against: ablations has no label 'wied'; did you mean 'wide'?"),
        ("{name: halting, at: {side: 7}}", "recursive", "deep_supervision", "at.side: got 7; expected a measured value: 5"),
        ("{name: solution_strips, puzzles: 4}", "recursive", "deep_supervision", None),
        ("mean_return", "recursive", "deep_supervision", "maze is measured by puzzles; expected episodes, which mean_return draws"),
    ],
)
def test_a_wrong_figure_of_puzzles_is_one_line(figure: str, network: str, learner: str, said: str | None) -> None:
    with pytest.raises(UserError) as caught:
        puzzles(figure, network, learner)
    text = str(caught.value)
    assert text.startswith("c.yaml:10: experiments.one.figures[0]") and "\n" not in text
    assert said is None or text == f"c.yaml:10: experiments.one.figures[0]: {said}"


def test_ablations_need_one_label_to_compare_with() -> None:
    with pytest.raises(UserError, match="against: got none, and 3 labels that are no variant; expected one of gru, lstm, none"):
        planned(figures="ablations")
    assert "ablations_gru" in planned(figures="{name: ablations, against: gru}").experiments["one"].figures
