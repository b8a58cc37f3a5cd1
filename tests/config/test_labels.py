"""What figures call labels, and that a look belongs to a label wherever it stands."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest

from pipeline.config.labels import Part, Parts, as_parts, assign_slots, component_name, display_name, display_names, label_of
from pipeline.config.mixers import MIXERS
from pipeline.figures import style

PAPERS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "lru": "LRU",
    "gated_delta_net": "Gated DeltaNet",
    "delta_net": "DeltaNet",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "relit": "ReLiT",
    "gtrxl": "GTrXL",
    "rwkv7": "RWKV-7",
    "matrix_lstm": "xLSTM (mLSTM)",
    "attention": "Attention",
    "none": "no memory",
}
SIMULATED = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What a viewer without one kind of cone sees, linear RGB to linear RGB: Machado, Oliveira & Fernandes 2009, severity 1."""


def of_mixer(name: str, **more: str) -> Parts:
    """The parts of a label of a swept mixer, and of further swept keys of the network."""
    return {"network.mixer": Part(name), **{f"network.{key}": Part(value) for key, value in more.items()}}


@pytest.mark.parametrize(("name", "expected"), PAPERS.items())
def test_mixers_have_the_names_of_their_papers(name: str, expected: str) -> None:
    assert display_name(of_mixer(name)) == expected


@pytest.mark.parametrize(
    ("parts", "label", "expected"),
    [
        (of_mixer("gated_delta_net", width="64"), "gated_delta_net, width 64", "Gated DeltaNet, width 64"),
        ({"network.mixer": Part("lstm", "horizon=40, init=chrono")}, "lstm (horizon=40, init=chrono)", "LSTM (horizon=40, init=chrono)"),
        ({"network.mixer": Part("lstm"), "learner.learning_rate": Part("0.01")}, "lstm, learning_rate 0.01", "LSTM, learning rate 0.01"),
        ({"network": Part("mamba"), "variant": Part("icr")}, "mamba_icr", "Mamba, icr"),
        ({"network": Part("transformer"), "variant": Part("icr")}, "transformer_icr", "Transformer, icr"),
        ({"network": Part("mamba_attention")}, "mamba_attention", "Mamba + attention"),
        ({"variant": Part("my_own_network")}, "my_own_network", "my own network"),
        ({"network.norm": Part("none")}, "norm none", "norm none"),
        ({}, "base", "base"),
    ],
)
def test_a_label_and_its_name_are_made_of_its_parts(parts: Parts, label: str, expected: str) -> None:
    assert (label_of(parts), display_name(parts)) == (label, expected)
    assert as_parts(json.loads(json.dumps(parts))) == parts


def test_own_names_win_for_a_label_and_for_its_network() -> None:
    own = {"lstm": "ours", "gru, width 8": "small"}
    labels = [of_mixer("lstm", width="8"), of_mixer("gru", width="8"), of_mixer("gru")]
    assert [display_name(parts, own) for parts in labels] == ["ours, width 8", "small", "GRU"]


def test_two_labels_never_share_a_name() -> None:
    parts = {name: of_mixer(name) for name in ("none", "no_memory", "lstm")}
    assert display_names(parts) == {"none": "none", "no_memory": "no_memory", "lstm": "LSTM"}


def test_every_mixer_has_a_name_of_its_own() -> None:
    names = display_names({name: of_mixer(name) for name in MIXERS})
    assert len(set(names.values())) == len(MIXERS) and not [name for name in names.values() if "_" in name]


def test_a_mixer_run_both_ways_is_named_after_it() -> None:
    assert component_name("lstm_both_ways") == "LSTM, both ways"
    assert component_name("gated_delta_net_both_ways") == "Gated DeltaNet, both ways"
    assert component_name("stencil_both_ways") is None


def test_slots_do_not_follow_the_alphabet() -> None:
    few, more = assign_slots(["gru", "lstm"]), assign_slots(["attention", "gru", "lstm", "lru", "aaa", "none"], ["none"])
    assert {label: more[label] for label in few} == few
    assert more["none"] < 0 and len(set(more.values())) == 6
    assert len({slot % 8 for label, slot in more.items() if label != "none"}) == 5, "a colour each while there are enough"


def test_looks_are_all_different() -> None:
    labels = [*MIXERS, *(f"network {index}" for index in range(60)), "none, width 8"]
    line_styles = style.line_styles(labels, ["none", "none, width 8"])
    assert len(set(line_styles.values())) == len(labels)
    assert {line_styles["none"].colour, line_styles["none, width 8"].colour} == {style.GREY}


def test_a_suite_decides_the_looks_drawn_inside_it() -> None:
    slots = assign_slots(["lstm", "other", "more"])
    with style.suite(slots):
        assert style.line_styles(["other"]) == {"other": style.line_style_of(slots["other"])}


def lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = colours @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("kind", ["none", *SIMULATED])
def test_colours_tell_apart_under_colour_blindness(kind: str) -> None:
    """ΔE (1976) between any two, the least over the palette; ten is seen at a glance."""
    srgb = np.array([[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in style.COLOURS])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.array(SIMULATED.get(kind, np.eye(3))).T, 0, 1))
    assert min(math.dist(one, other) for one, other in combinations(seen, 2)) > 10
