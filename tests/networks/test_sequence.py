"""The sequence network as a whole, for every mixer of the catalogue.

Notation: B = batch size, T = sequence length, C = classes.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.config import networks
from pipeline.networks import stack
from pipeline.networks.build import build, count_parameters, resolve_width
from pipeline.networks.sequence import SequenceNetwork
from pipeline.storage.errors import UserError
from tests.mixers.making import CAUSAL, nbytes

Config: Any = networks.SequenceNetwork
VOCABULARY, CLASSES, WIDTH = 11, 8, 16
RICH = {"depth": 2, "feedforward": 2.0, "norm": "rms", "final_norm": "layer", "residual": True}

every_mixer = pytest.mark.parametrize("mixer", CAUSAL)


def network(seed: int = 0, **fields: Any) -> SequenceNetwork:
    """A small network in float64."""
    made = build(Config(**{"width": WIDTH, **fields}), {"vocabulary": VOCABULARY, "classes": CLASSES}, seed).double()
    assert isinstance(made, SequenceNetwork)
    return made


def tokens(batch: int, steps: int, seed: int = 0) -> torch.Tensor:
    """Random tokens_BT."""
    return torch.randint(VOCABULARY, (batch, steps), generator=torch.Generator().manual_seed(seed))


@every_mixer
@pytest.mark.parametrize("fields", [{}, RICH], ids=["plain", "rich"])
@torch.no_grad()
def test_a_sequence_equals_its_steps_and_its_parts(mixer: str, fields: dict[str, Any]) -> None:
    model, tokens_BT = network(mixer=mixer, **fields), tokens(3, 21)
    logits_BTC, _ = model(tokens_BT)
    assert logits_BTC.shape == (3, 21, CLASSES)
    carried, stepped = model.initial_state(3), []
    for token_B in tokens_BT.unbind(1):
        logits_BC, carried = model.step(token_B, carried)
        stepped.append(logits_BC)
    torch.testing.assert_close(torch.stack(stepped, 1), logits_BTC, rtol=1e-10, atol=1e-10)
    first, carried = model(tokens_BT[:, :8])
    second, _ = model(tokens_BT[:, 8:], carried)
    torch.testing.assert_close(torch.cat([first, second], 1), logits_BTC, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_logits_at_chosen_positions_are_those_of_the_whole() -> None:
    model, tokens_BT = network(**RICH), tokens(3, 7)
    chosen = torch.tensor([20, 0, 6, 7, 7])
    whole_BTC, _ = model(tokens_BT)
    chosen_NC, _ = model(tokens_BT, at_N=chosen)
    torch.testing.assert_close(chosen_NC, whole_BTC.flatten(0, 1)[chosen], rtol=0, atol=1e-12)


@torch.no_grad()
def test_real_numbers_are_added_to_the_embedding_of_their_token() -> None:
    model = build(Config(width=WIDTH, **RICH), {"vocabulary": VOCABULARY, "classes": 1, "features": 2}).double()
    plain = build(Config(width=WIDTH, **RICH), {"vocabulary": VOCABULARY, "classes": 1}).double()
    assert isinstance(model, SequenceNetwork) and model.values is not None
    tokens_BT, values_BTF = tokens(3, 7), torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected_BTD = model.embedding(tokens_BT) + values_BTF @ model.values.weight.T
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    output_BTC, _ = model(tokens_BT, values_BTF=values_BTF)
    torch.testing.assert_close(seen[0], expected_BTD)
    carried, stepped = model.initial_state(3), []
    for t in range(7):
        output_BC, carried = model.step(tokens_BT[:, t], carried, values_BF=values_BTF[:, t])
        stepped.append(output_BC)
    torch.testing.assert_close(torch.stack(stepped, 1), output_BTC, rtol=1e-10, atol=1e-10)
    assert count_parameters(model) - count_parameters(plain) == 2 * WIDTH
    with pytest.raises(AssertionError, match="have real numbers"):
        model(tokens_BT)


@every_mixer
@torch.no_grad()
def test_lengths_resets_and_inactive_rows_reach_every_block(mixer: str) -> None:
    model, tokens_BT = network(mixer=mixer, convolution=3, **RICH), tokens(2, 9)
    reset_BT = torch.zeros(2, 9, dtype=torch.bool)
    reset_BT[:, 4] = True
    logits_BTC, _ = model(tokens_BT, None, reset_BT)
    torch.testing.assert_close(logits_BTC[:, 4:], model(tokens_BT[:, 4:])[0], rtol=1e-10, atol=1e-10)
    _, carried = model(tokens_BT, None, None, torch.tensor([9, 3]))
    next_B = tokens(2, 1, seed=5)[:, 0]
    logits_BC, carried = model.step(next_B, carried, torch.tensor([False, True]))
    expected_BTC, _ = model(torch.cat([tokens_BT[1:, :3], next_B[1:, None]], 1))
    torch.testing.assert_close(logits_BC[1:], expected_BTC[:, -1], rtol=1e-10, atol=1e-10)
    logits_BC, _ = model.step(next_B, carried)
    expected_BTC, _ = model(torch.cat([tokens_BT[:1], next_B[:1, None]], 1))
    torch.testing.assert_close(logits_BC[:1], expected_BTC[:, -1], rtol=1e-10, atol=1e-10)


@every_mixer
@torch.no_grad()
def test_state_bytes_are_what_is_carried(mixer: str) -> None:
    model = build(Config(width=WIDTH, mixer=mixer, depth=3, convolution=2), {"vocabulary": VOCABULARY, "classes": CLASSES})
    assert isinstance(model, SequenceNetwork)
    for context in (1, 64, 100):
        assert model.state_bytes(context) * 2 == nbytes(model(tokens(2, context))[1])


def test_a_convolution_of_one_position_is_refused() -> None:
    with pytest.raises(ValidationError, match="sees nothing before it"):
        Config(convolution=1)


@every_mixer
@pytest.mark.parametrize(
    "fields", [{}, RICH, {"norm": "layer", "final_norm": "none", "feedforward": 0.01, "convolution": 3}], ids=["plain", "rich", "thin"]
)
def test_parameters_follow_the_formula(mixer: str, fields: dict[str, Any]) -> None:
    config = Config(width=WIDTH, mixer=mixer, **fields)
    d = WIDTH
    heads, rank = 4, 16
    per_mixer = {
        "lstm": 8 * d * d + 8 * d,
        "gru": 6 * d * d + 6 * d,
        "gru_v1": 6 * d * d + 3 * d,
        "rnn": 2 * d * d + 2 * d,
        "min_gru": 2 * d * d + 2 * d,
        "min_lstm": 3 * d * d + 3 * d,
        "multiplicative_lstm": 10 * d * d + 4 * d,
        "multiplicative_gru": 8 * d * d + 3 * d,
        "input_multiplicative_lstm": 10 * d * d + 5 * d,
        "input_multiplicative_gru": 8 * d * d + 4 * d,
        "lru": 4 * d * d + 4 * d,
        "linear_attention": 4 * d * d,
        "gated_linear_attention": 4 * d * d + rank * d + (rank + 1) * d // 2 + d // heads,
        "delta_net": 4 * d * d + heads * d + d // heads,
        "gated_delta_net": 5 * d * d + 2 * heads * d + 2 * heads + d // heads,
        "matrix_lstm": 5 * d * d + 2 * heads * (d + 1) + d // heads,
        "rwkv7": 4 * d * d + 4 * 32 * d + 2 * 64 * d + 13 * d,
        "mamba": 6 * d * d + 2 * d * 5 + 2 * d * (2 * math.ceil(d / 16) + 32) + 2 * d * (1 + 16 + 1),
        "mamba2": (2 * d) * d + (2 * d + 2 * 64) * (d + 5) + heads * d + 3 * heads + 2 * d + 2 * d * d,
        "relit": (5 * d + 2 * heads * 2) * (d + 1) + (d + heads * 2) * (d // heads + 1) + d * d + d,
        "arelit": (5 * d + 3 * heads * 4) * (d + 1) + d * d + d,
        "gtrxl": 5 * d * d + 6 * d,
        "attention": 4 * d * d,
        "short_convolution": 5 * d,
        "none": 0,
    }
    if mixer not in per_mixer:
        pytest.skip("a mixer from another package")
    norms = {"none": 0, "rms": d, "layer": 2 * d}
    inner = max(1, round(config.feedforward * d)) if config.feedforward else 0
    convolution = (config.convolution + 1) * d if config.convolution else 0
    block = per_mixer[mixer] + convolution + norms[config.norm] * (2 if inner else 1) + 3 * d * inner
    expected = VOCABULARY * d + config.depth * block + norms[config.final_norm] + d * CLASSES + CLASSES
    assert count_parameters(build(config, {"vocabulary": VOCABULARY, "classes": CLASSES})) == expected


def test_dropout_is_for_training_only() -> None:
    model, tokens_BT = network(mixer="gru", dropout=0.5, **RICH), tokens(2, 6)
    model.eval()
    assert torch.equal(model(tokens_BT)[0], model(tokens_BT)[0])
    model.train()
    assert not torch.equal(model(tokens_BT)[0], model(tokens_BT)[0])


def test_dropout_zero_trains_as_it_answers() -> None:
    model, tokens_BT = network(mixer="lstm", **RICH), tokens(2, 6)
    assert torch.equal(model.train()(tokens_BT)[0], model.eval()(tokens_BT)[0])


def test_without_a_mixer_only_the_token_itself_counts() -> None:
    model, tokens_BT = network(mixer="none", **RICH), tokens(2, 6)
    logits_BTC, _ = model(tokens_BT)
    torch.testing.assert_close(model(tokens_BT.flip(1))[0].flip(1), logits_BTC)
    plain, _ = network(mixer="none")(tokens_BT)
    torch.testing.assert_close(plain, plain[:1, :1].expand_as(plain))


def test_a_residual_adds_and_its_absence_replaces() -> None:
    tokens_BT = tokens(1, 4)
    with torch.no_grad():
        for residual in (False, True):
            model = network(mixer="attention", residual=residual, final_norm="none")
            x_BTD = model.embedding(tokens_BT)
            mixed_BTD, _ = model._blocks()[0].mixer(x_BTD)
            assert model.head is not None
            expected = model.head(x_BTD + mixed_BTD if residual else mixed_BTD)
            torch.testing.assert_close(model(tokens_BT)[0], expected)


def test_the_gated_layer_is_silu_times_linear() -> None:
    layer, x = stack.GatedFeedForward(4, 3), torch.randn(2, 4)
    gate, up = layer.into.weight.split(3)
    g = x @ gate.t()
    torch.testing.assert_close(layer(x), (g / (1 + torch.exp(-g)) * (x @ up.t())) @ layer.out.weight.t())


def test_more_tokens_than_the_context_is_an_error() -> None:
    model = network(context=5)
    model(tokens(1, 5))
    with pytest.raises(UserError, match="network: got a sequence of 6 tokens; expected at most its context of 5"):
        model(tokens(1, 6))


@torch.no_grad()
def test_attention_never_reads_beyond_the_context_whatever_is_carried() -> None:
    """By steps, by parts of a sequence, behind a convolution and in a hybrid; a state of constant size has no end."""
    for fields in ({"mixer": "attention"}, {"mixer": "attention", "convolution": 3}, {"mixer": "gru", "attention": {"at": [1]}}):
        model: Any = build(Config(width=8, context=5, **fields), {"vocabulary": VOCABULARY, "classes": CLASSES})
        _, four = model(tokens(2, 4))
        _, five = model.step(tokens(2, 1)[:, 0], four)
        model(tokens(2, 1), state=four)
        refusal = "network: got a sequence of 6 tokens; expected at most its context of 5"
        with pytest.raises(UserError, match=refusal):
            model.step(tokens(2, 1)[:, 0], five)
        with pytest.raises(UserError, match=refusal):
            model(tokens(2, 2), state=four)
    model = build(Config(width=8, context=5, mixer="gru"), {"vocabulary": VOCABULARY, "classes": CLASSES})
    _, state = model(tokens(2, 5))
    model.step(tokens(2, 1)[:, 0], state)


@torch.no_grad()
def test_a_tied_head_reads_with_the_vectors_of_the_tokens_that_are_classes() -> None:
    model = build(
        Config(width=WIDTH, tie_embeddings=True, **RICH), {"vocabulary": VOCABULARY, "classes": CLASSES, "first_class": 2}
    ).double()
    assert isinstance(model, SequenceNetwork)
    tokens_BT = tokens(2, 6)
    x_BTD = model.embedding(tokens_BT)
    for block in model.blocks:
        x_BTD, _ = block(x_BTD, None, None, None)
    expected_BTC = model.norm(x_BTD) @ model.embedding.weight[2 : 2 + CLASSES].T
    torch.testing.assert_close(model(tokens_BT)[0], expected_BTC)
    stepped_BC, _ = model.step(tokens_BT[:, 0], model.initial_state(2))
    torch.testing.assert_close(stepped_BC, expected_BTC[:, 0])
    untied = build(Config(width=WIDTH, **RICH), {"vocabulary": VOCABULARY, "classes": CLASSES})
    assert count_parameters(untied) - count_parameters(model) == WIDTH * CLASSES + CLASSES


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_embeddings_take_no_gradient_and_count_for_nothing(tied: bool) -> None:
    for kind in ("sinusoid", "orthogonal"):
        model = build(Config(width=WIDTH, embedding=kind, tie_embeddings=tied), {"vocabulary": VOCABULARY, "classes": CLASSES})
        learned = build(Config(width=WIDTH, tie_embeddings=tied), {"vocabulary": VOCABULARY, "classes": CLASSES})
        assert isinstance(model, SequenceNetwork)
        model(tokens(2, 5))[0].sum().backward()
        assert model.embedding.weight.grad is None
        assert count_parameters(learned) - count_parameters(model) == VOCABULARY * WIDTH
        assert "embedding.weight" in model.state_dict()


@torch.no_grad()
def test_frozen_waves_are_the_formula() -> None:
    model = build(Config(width=6, embedding="sinusoid", tie_embeddings=True), {"vocabulary": VOCABULARY, "classes": CLASSES})
    assert isinstance(model, SequenceNetwork)
    for i in range(VOCABULARY):
        for j in range(6):
            expected = math.sin(i / 10000 ** (j / 6)) if j % 2 == 0 else math.cos(i / 10000 ** ((j - 1) / 6))
            assert abs(float(model.embedding.weight[i, j]) - expected) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(("tied", "length"), [(True, 1.0), (False, WIDTH**0.5)])
def test_frozen_codes_are_orthogonal_and_of_one_length(tied: bool, length: float) -> None:
    model = build(Config(width=WIDTH, embedding="orthogonal", tie_embeddings=tied), {"vocabulary": VOCABULARY, "classes": CLASSES})
    assert isinstance(model, SequenceNetwork)
    products_VV = model.embedding.weight @ model.embedding.weight.T
    torch.testing.assert_close(products_VV, torch.eye(VOCABULARY) * length**2, rtol=1e-5, atol=1e-4)


HYBRIDS: list[dict[str, Any]] = [{}, {"at": [1, "last"], "heads": 2, "feedforward": 1.5}, {"at": [2], "feedforward": 0}]


@pytest.mark.parametrize("attention", HYBRIDS)
@torch.no_grad()
def test_a_hybrid_is_its_blocks_one_after_the_other(attention: dict[str, Any]) -> None:
    model, tokens_BT = network(mixer="mamba", attention=attention, **{**RICH, "depth": 3}), tokens(3, 21)
    kinds = [type(block.mixer).__name__ for block in model._blocks()]
    where = {3 if at == "last" else at for at in attention.get("at", ["last"])}
    assert kinds == ["Attention" if number in where else "Mamba" for number in (1, 2, 3)]
    logits_BTC, carried = model(tokens_BT)
    assert model.state_bytes(21) * 3 == nbytes(carried)
    stepped, carried = [], model.initial_state(3)
    for token_B in tokens_BT.unbind(1):
        logits_BC, carried = model.step(token_B, carried)
        stepped.append(logits_BC)
    torch.testing.assert_close(torch.stack(stepped, 1), logits_BTC, rtol=1e-10, atol=1e-10)
    other_BT = tokens_BT.clone()
    other_BT[:, 15:] = (other_BT[:, 15:] + 1) % VOCABULARY
    torch.testing.assert_close(model(other_BT)[0][:, :15], logits_BTC[:, :15], rtol=0, atol=1e-12)


def test_a_hybrids_weights_are_those_of_its_blocks() -> None:
    shared = {"width": WIDTH, "norm": "rms", "final_norm": "rms", "residual": True}
    count = {
        name: count_parameters(build(Config(**shared, **fields), {"vocabulary": VOCABULARY, "classes": CLASSES}))
        for name, fields in {
            "none": {"mixer": "none"},
            "mamba": {"mixer": "mamba"},
            "attention": {"mixer": "attention", "feedforward": 3},
            "hybrid": {"mixer": "mamba", "depth": 5, "attention": {"at": [2, "last"], "feedforward": 3}},
        }.items()
    }
    rest = count["none"] - WIDTH
    assert count["hybrid"] - rest == 3 * (count["mamba"] - rest) + 2 * (count["attention"] - rest)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": {"at": [3]}, "depth": 2}, "got attention at block 3; expected at most the depth of 2"),
        ({"attention": {"heads": 3}}, "got width 16; 3 heads expect one divisible by 6"),
        ({"attention": {"at": []}}, "at least 1 item"),
    ],
)
def test_attention_where_it_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(width=WIDTH, **fields)


def test_a_hybrids_solved_width_suits_the_heads_of_both() -> None:
    config = Config(mixer="mamba2", attention={"heads": 3}, depth=4, width="auto", parameters=358_796)
    assert config.label == "mamba2_attention" and config.stride == 24
    assert resolve_width(config, {"vocabulary": VOCABULARY, "classes": CLASSES}).width == 96
