"""Deep supervision: the loss, who stays and who leaves the batch, the optimizers' rules, and that its state is complete."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.config.checks import _check_attempts
from pipeline.config.document import ConfigError, read_text
from pipeline.config.learners import DeepSupervision as Config
from pipeline.config.networks import RecursiveNetwork as NetworkConfig
from pipeline.config.tasks import Task
from pipeline.learners.cell_loss import cell_loss, log_stablemax
from pipeline.learners.deep_supervision import DeepSupervision
from pipeline.learners.optimization import AdamATan2
from pipeline.networks.recursive import CONTINUE, HALT, Carry
from tests.learners.grids import Opposite
from tests.learners.small import small_learner

NEVER, ALWAYS = -50.0, 50.0
"""Biases of the halting logit."""


class ManyIdentifiers(Opposite):
    """Rows have the identifiers 0 and 1 of fifty."""

    identifiers = 50


def deep(mixer: str = "full_attention", task: Task | None = None, network: dict[str, Any] | None = None, **fields: Any) -> DeepSupervision:
    """A learner of grids of nine cells."""
    made = small_learner(mixer, task or Opposite(side=3), "deep_supervision", network, **fields)
    assert isinstance(made, DeepSupervision)
    return made


def halting(learner: DeepSupervision, bias: float, scale: float = 0.0) -> DeepSupervision:
    """Set the halting logit to a bias, plus a different number for every row and step."""
    head = learner.network.q_head
    with torch.no_grad():
        head.bias[HALT] = bias
        head.weight[HALT] = scale
        head.weight[HALT, ::2] *= -1
    return learner


def assert_same(one: Any, other: Any, place: str = "state") -> None:
    """Nested states are equal to the last bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}[{number}]")
    else:
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other, place


logits = st.lists(st.floats(-60, 60), min_size=2, max_size=12)


@given(logits)
def test_stablemax_is_that_of_its_definition(values: list[float]) -> None:
    a = torch.tensor(values, dtype=torch.float32)
    exact = a.double()
    s = torch.where(exact >= 0, exact + 1, 1 / (1 - exact))
    found = log_stablemax(a)
    torch.testing.assert_close(found.double(), (s / s.sum()).log(), rtol=1e-6, atol=1e-6)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)
    order = a.double().argsort()
    assert bool((found.double()[order].diff() >= -1e-6).all()), "larger logits, larger probabilities"


@pytest.mark.parametrize(("at", "slope"), [(0.0, 1.0), (1e-4, 1.0), (-1e-4, 1.0), (1.0, 0.5), (-1.0, 0.5), (9.0, 0.1), (-9.0, 0.1)])
def test_the_slope_of_stablemax(at: float, slope: float) -> None:
    """That of log s, by the difference of two classes' logarithms, of which one is constant."""
    a = torch.tensor([at, 3.0], dtype=torch.float64, requires_grad=True)
    log_p = log_stablemax(a)
    (log_p[0] - log_p[1]).backward()
    assert a.grad is not None and float(a.grad[0]) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_softmax_is_the_cross_entropy_of_torch(smoothing: float) -> None:
    logits_BTC, labels_BT = torch.randn(4, 9, 5), torch.randint(-1, 5, (4, 9))
    labels_BT[labels_BT < 0] = -100
    expected = nn.functional.cross_entropy(logits_BTC.mT, labels_BT, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(cell_loss(logits_BTC, labels_BT, "softmax", smoothing), expected)
    stable = cell_loss(logits_BTC, labels_BT, "stablemax", smoothing)
    assert not stable[labels_BT < 0].any() and bool((stable[labels_BT >= 0] > 0).all())


def test_the_update_is_gradient_descent_on_the_loss() -> None:
    """Cells of a row are averaged, rows divided by the batch; a row that is right in every cell is to halt."""
    learner = deep(network={"registers": 1}, q_coef=0.25, max_grad_norm=None)
    rows = learner.collect()
    rows.labels_BT[1, 4:] = -100
    twin = copy.deepcopy(learner.network)
    logits_BTC, carry = twin(rows.tokens_BT, **rows.inputs)
    each = nn.functional.cross_entropy(logits_BTC.mT, rows.labels_BT, reduction="none").sum(1) / torch.tensor([9, 4, 9, 9])
    right_B = ((logits_BTC.argmax(-1) == rows.labels_BT) | (rows.labels_BT < 0)).all(1)
    q = nn.functional.binary_cross_entropy_with_logits(carry.q_B2[:, HALT], right_B.float(), reduction="sum") / 4
    (each.sum() / 4 + 0.25 * q).backward()
    figures = learner.learn_from(rows)
    expected = [float(part.detach()) for part in (each.sum() / 4, q)]
    assert [float(figures[name]) for name in ("train_loss", "train_q_loss")] == pytest.approx(expected, rel=1e-6)
    right = ((logits_BTC.argmax(-1) == rows.labels_BT) & (rows.labels_BT >= 0)).sum() / 31
    assert float(figures["train_cell_accuracy"]) == pytest.approx(right.item())
    for (name, mine), theirs in zip(learner.network.named_parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None, name
        torch.testing.assert_close(mine.grad.to_dense(), theirs.grad.to_dense(), rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_rows_without_labels_teach_nothing(loss: Any) -> None:
    learner = deep(loss=loss, halting="continue")
    rows = learner.collect()
    rows.labels_BT.fill_(-100)
    figures = learner.learn_from(rows)
    assert float(figures["train_loss"]) == float(figures["train_q_loss"]) == 0
    assert all(not parameter.grad.to_dense().any() for parameter in learner.network.parameters() if parameter.grad is not None)
    assert math.isfinite(learner.validate()["loss"])


def test_the_new_latents_carry_no_gradient() -> None:
    learner = deep(network={"start": "fixed"})
    start = learner.network.get_buffer("start_KLD").clone()
    for _ in range(3):
        learner.update()
        assert learner.carry is not None
        assert not any(part.requires_grad for part in (*learner.carry.latents, learner.carry.q_B2))
    assert learner.network.get_buffer("start_KLD").equal(start)


@pytest.mark.parametrize("data", ["shards", "stream"])
@pytest.mark.parametrize(("rule", "exploration"), [("halt", 0.0), ("halt", 0.5), ("continue", 0.5), ("off", 0.5)])
def test_who_leaves_the_batch(data: Any, rule: Any, exploration: float) -> None:
    """More updates than the queue's patience; several epochs of shards. Logits differ between rows and steps."""
    learner = halting(deep(data=data, halting=rule, exploration=exploration, supervision=5, steps=200, learning_rate=1e-5), 0.0, 0.5)
    all_rows = deep(data=data).sampler.take(900)
    before, seen, steps, ways = None, 0, torch.zeros(4, dtype=torch.int64), set()
    for _ in range(150):
        leaving = learner.halted_B.clone()
        rows = learner.collect()
        for place in range(4):
            if leaving[place]:
                assert rows.tokens_BT[place].equal(all_rows.tokens_BT[seen]) and rows.labels_BT[place].equal(all_rows.labels_BT[seen])
                assert rows.inputs["identifier_B"][place] == all_rows.row_inputs["identifier"][seen]
                seen += 1
            else:
                assert before is not None and all(part[place].equal(old[place]) for part, old in zip(rows[:2], before[:2], strict=True))
        assert learner.examples_seen == seen
        carried = learner._carried(rows)
        assert not any(bool(latent[leaving].any()) for latent in carried.latents)
        if learner.carry is not None:
            assert all(new[~leaving].equal(old[~leaving]) for new, old in zip(carried.latents, learner.carry.latents, strict=True))
        learner.learn_from(rows)
        before, steps = rows, torch.where(leaving, 0, steps) + 1
        assert learner.carry is not None and learner.steps_B.equal(steps) and int(steps.max()) <= 5
        q_B2 = learner.carry.q_B2
        wants = q_B2[:, HALT] > (q_B2[:, CONTINUE] if rule == "continue" else 0)
        least = learner._least_steps()
        assert set(least.tolist()) <= {0, 2, 3, 4, 5}
        expected = (steps >= 5) | (wants & (steps >= least) if rule != "off" else torch.zeros(4, dtype=torch.bool))
        assert learner.halted_B.equal(expected)
        ways |= {(int(step), bool(left)) for step, left in zip(steps, learner.halted_B, strict=True)}
    assert seen > 110
    assert ways == {(step, False) for step in range(1, 5)} | {(5, True)} if rule == "off" else len(ways) > 6


def test_nobody_may_halt_before_the_drawn_step() -> None:
    """All want to leave at once; with exploration 1 the first draw that is passed lets them."""
    learner = halting(deep(halting="halt", exploration=1.0, supervision=6, steps=100, learning_rate=1e-6), ALWAYS)
    left = []
    for _ in range(60):
        learner.update()
        left += learner.steps_B[learner.halted_B].tolist()
    assert min(left) == 2 and set(left) <= {2, 3, 4, 5, 6} and len(set(left)) > 2


def test_at_first_nobody_halts_early() -> None:
    learner = deep(halting="halt", exploration=0.0, learning_rate=1e-4, steps=40, network={"registers": 1})
    for step in range(1, 17):
        learner.update()
        assert bool(learner.halted_B.any()) == (step == 16)


def test_a_single_step_of_supervision() -> None:
    learner = deep(supervision=1, halting="continue", exploration=1.0)
    for _ in range(3):
        learner.update()
    assert learner.examples_seen == 12 and bool(learner.halted_B.all())


def test_the_logit_to_continue_learns_the_next_step() -> None:
    learner = halting(deep(halting="continue", supervision=3, network={"registers": 1}), 0.3, 0.5)
    for _ in range(9):
        rows = learner.collect()
        carry = learner._carried(rows)
        with torch.no_grad():
            _, first = learner.network(rows.tokens_BT, carry, **rows.inputs)
            _, then = learner.network(rows.tokens_BT, first, **rows.inputs)
        last = torch.where(learner.halted_B, 0, learner.steps_B) + 1 >= 3
        expected = torch.where(last, then.q_B2[:, HALT], then.q_B2.max(1).values).sigmoid()
        torch.testing.assert_close(found := watched_target(learner, rows), expected)
        assert not found.requires_grad


def watched_target(learner: DeepSupervision, rows: Any) -> Tensor:
    """The target of an update."""
    found, target = [], learner._continue_target

    def watched(*given: Any) -> Tensor:
        found.append(target(*given))
        return found[-1]

    vars(learner)["_continue_target"] = watched
    learner.learn_from(rows)
    del vars(learner)["_continue_target"]
    return found[0]


@pytest.mark.parametrize("attempts", [1, 2])
def test_the_identifiers_follow_the_sign_of_their_gradients(attempts: int) -> None:
    """Rows of the table that the batch does not use keep every bit; those of several rows add up before the sign; each decays once."""
    fields: Any = {"identifier_learning_rate": 0.125, "identifier_weight_decay": 0.5, "attempts": attempts, "optimizer": "adam_atan2"}
    learner = deep(task=ManyIdentifiers(side=3), network={"registers": 1, "start": "random"}, **fields)
    table = learner.network.get_parameter("identifiers.weight")
    with torch.no_grad():
        table.normal_()
    before = table.detach().clone()
    learner.update()
    assert learner.rows is not None
    used = learner.rows.inputs["identifier_B"].unique().long()
    assert len(used) == 2 < len(learner.rows.tokens_BT) and table.grad is not None and table.grad.is_sparse
    unused = torch.ones(50, dtype=torch.bool).index_fill(0, used, False)
    assert table[unused].equal(before[unused])
    gradient = table.grad.coalesce().to_dense()[used]
    torch.testing.assert_close(table.detach()[used], before[used] * (1 - 0.125 * 0.5) - 0.125 * gradient.sign())


floats = st.floats(-1e3, 1e3).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(gradients=st.lists(floats, min_size=1, max_size=12), start=floats, decay=st.floats(0, 1), scale=st.sampled_from([1.0, 1e-3, 512.0]))
def test_adam_by_an_arctangent(gradients: list[float], start: float, decay: float, scale: float) -> None:
    """Its equations in numpy; gradients of another scale change nothing, and a step is bounded."""
    rate, first, second = 0.1, 0.9, 0.95
    weights = [torch.tensor([start], dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimizers = [AdamATan2([weight], lr=rate, betas=(first, second), weight_decay=decay) for weight in weights]
    p, m, v = np.float64(start), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        before = weights[0].item()
        for weight, optimizer, factor in zip(weights, optimizers, (1.0, scale), strict=True):
            weight.grad = torch.tensor([factor * gradient], dtype=torch.float64)
            optimizer.step()
        m, v = first * m + (1 - first) * gradient, second * v + (1 - second) * gradient**2
        p = (1 - rate * decay) * p - rate / (1 - first**t) * np.arctan2(m, np.sqrt(v / (1 - second**t)))
        assert weights[0].item() == pytest.approx(float(p), rel=1e-9, abs=1e-9)
        assert weights[1].item() == pytest.approx(float(p), rel=1e-9, abs=1e-9), "another scale"
        assert abs(weights[0].item() - (1 - rate * decay) * before) <= rate * math.pi / 2 / (1 - first**t) + 1e-9


def test_muon_is_for_the_matrices_of_the_blocks() -> None:
    learner = deep(optimizer="muon", weight_decay=0.1, network={"gate_convolution": 3, "registers": 1, "separate": True})
    name_of = {id(parameter): name for name, parameter in learner.network.named_parameters()}
    names = {rule: {name_of[id(one)] for one in found.parameters} for rule, found in learner.optimizers.rules.items()}
    matrices = {name for name, one in learner.network.named_parameters() if name.startswith("blocks.") and one.ndim == 2}
    assert names["main"] == matrices and len(matrices) == 2 * 2 * 4
    assert names["identifiers"] == {"identifiers.weight"}
    assert names["outer"] == set(name_of.values()) - matrices - names["identifiers"]
    assert {"embedding.weight", "head.weight", "q_head.weight", "blocks.0.0.feedforward.convolution.weight"} < names["outer"]
    before = {name: one.detach().clone() for name, one in learner.network.named_parameters()}
    learner.update()
    learner.update()
    assert all(not one.equal(before[name]) for name, one in learner.network.named_parameters())


def test_muon_without_matrices() -> None:
    learner = deep("none", optimizer="muon", weight_decay=0.1, network={"feedforward": 0.0})
    assert learner.update().keys() > {"gradient_norm", "outer_gradient_norm"}


def test_the_average_shares_the_identifiers() -> None:
    learner = deep(ema_decay=0.9, network={"registers": 1})
    expected = {name: one.detach().clone() for name, one in learner.network.named_parameters()}
    for _ in range(4):
        learner.update()
        expected = {name: 0.9 * expected[name] + 0.1 * one.detach() for name, one in learner.network.named_parameters()}
    averaged = learner.models()["model"]
    for name, one in averaged.named_parameters():
        if name == "identifiers.weight":
            assert one is learner.network.get_parameter("identifiers.weight") and one.requires_grad
        else:
            torch.testing.assert_close(one.detach(), expected[name], rtol=1e-5, atol=1e-6)
    saved = learner.state_dict()
    assert "identifiers.weight" in saved["networks"]["model"] and "identifiers.weight" not in saved["average"]
    assert "identifiers.weight" in averaged.state_dict(), "what is exported is whole"
    raw = copy.deepcopy(learner.network.state_dict())
    learner.validate()
    assert_same(dict(learner.network.state_dict()), dict(raw))


def test_random_steps_before_an_update() -> None:
    """Fewer than `supervision`, a function of seed and update; every update has new rows and latents."""
    learner, twin = (deep(warm_up="random", supervision=4, steps=60) for _ in range(2))
    calls: list[bool] = []
    learner.network.register_forward_hook(lambda module, given, out: calls.append(out[0].requires_grad))
    counts = []
    for step in range(40):
        announced = twin._steps_without_gradient(step)
        learner.update()
        assert calls == [False] * announced + [True]
        counts.append(announced)
        calls.clear()
        assert learner.examples_seen == 4 * (step + 1)
    assert set(counts) == {0, 1, 2, 3}
    assert learner.state_dict()["rows"] is None and learner.rank_state() == {}


@pytest.mark.parametrize("gradient", [0, 1, 2, "all", 9])
def test_the_cycles_with_gradients(gradient: Any) -> None:
    learner, found = deep(gradient=gradient, network={"outer": 3, "inner": 2}), []
    learner.network.blocks[0].register_forward_hook(lambda module, given, out: found.append(out.requires_grad))
    learner.update()
    assert sum(found) == {0: 2, 1: 3, 2: 6, "all": 9, 9: 9}[gradient] and len(found) == 9


def test_only_the_best_attempt_is_corrected() -> None:
    learner = deep(attempts=3, network={"start": "random", "registers": 1})
    mine = learner.collect().repeated(3)
    logits_RTC, carry = learner._step(mine, learner._carried(mine), 2)
    logits_RTC = logits_RTC.detach().requires_grad_()
    q_B2 = carry.q_B2.detach().requires_grad_()
    each = nn.functional.cross_entropy(logits_RTC.mT, mine.labels_BT, reduction="none").mean(1).view(4, 3)
    loss, figures = learner._loss(mine, logits_RTC, Carry(carry.latents, q_B2), torch.zeros(12, dtype=torch.int64), 2)
    loss.backward()
    assert float(figures["train_loss"]) == pytest.approx(each.min(1).values.mean().item())
    assert logits_RTC.grad is not None and q_B2.grad is not None
    assert logits_RTC.grad.flatten(1).any(1).view(4, 3).equal(each == each.min(1, keepdim=True).values)
    assert bool(q_B2.grad[:, HALT].all()), "q learns from all"


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("fields", [{"halting": "continue"}, {"warm_up": "random"}, {"attempts": 2}], ids=str)
def test_parts_of_a_batch_add_up(size: int, fields: dict[str, Any]) -> None:
    network = {"registers": 1, "start": "fixed", "starts": 2}
    whole, parts = (deep(network=network, supervision=3, **fields, micro_batch_size=rows) for rows in (None, size))
    for _ in range(7):
        expected, found = whole.update(), parts.update()
        assert found.keys() == expected.keys()
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-4
        )
        assert parts.halted_B.equal(whole.halted_B)
    for (name, weight), other in zip(whole.network.named_parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-5, msg=name)


def test_equal_attempts_are_one() -> None:
    one, three = deep(halting="halt"), deep(halting="halt", attempts=3)
    for _ in range(3):
        mine, theirs = one.update(), three.update()
        assert {name: float(value) for name, value in theirs.items()} == pytest.approx({name: float(value) for name, value in mine.items()})
    for (name, weight), other in zip(one.network.named_parameters(), three.network.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-3, atol=1e-5, msg=name)


def test_a_row_leaves_with_its_first_attempt() -> None:
    learner = deep(attempts=2, halting="continue", exploration=0.0)
    learner.collect()
    q_R2 = torch.tensor([[1.0, 2], [3, 9], [1, 0], [0, 5], [-3, -2], [-2, -3], [0, 0], [0, 0]])
    learner._count_step(q_R2)
    assert learner.halted_B.tolist() == [False, True, True, False]


@pytest.mark.parametrize("budget", [{"steps": 12}, {"steps": None, "flops": "20M"}])
def test_cycles_grow(budget: dict[str, Any]) -> None:
    learner, parts, found, step = deep(grow_until=0.5, network={"outer": 3, "inner": 1}, **budget), [], [], DeepSupervision._step

    def watched(rows: Any, carry: Carry, outer: int) -> Any:
        found.append(outer)
        return step(learner, rows, carry, outer)

    vars(learner)["_step"] = watched
    while learner.progress(0.0) < 1:
        parts.append(learner.progress(0.0))
        learner.update()
    assert found == sorted(found) and set(found) == {1, 2, 3}
    assert found == [1 if part < 1 / 6 else 2 if part < 1 / 3 else 3 for part in parts]


def test_growth_needs_a_known_budget() -> None:
    with pytest.raises(ValueError, match=r"grow_until: 0.5 with a budget in seconds; expected one in rows, steps or flops"):
        Config(seconds=3, grow_until=0.5)


def test_random_starts_differ_and_validation_is_the_same_each_time() -> None:
    learner = deep(network={"start": "random", "registers": 1}, noise=0.1)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = learner.validate()
    assert first == learner.validate() and torch.get_rng_state().equal(state)
    learner.update()
    assert not torch.get_rng_state().equal(state)
    assert learner.carry is not None and not learner.carry.latents[0][0].equal(learner.carry.latents[0][1])


def test_noise_changes_what_is_learned() -> None:
    losses = set()
    for noise in (0.0, 1e-3, 1.0):
        torch.manual_seed(0)
        losses.add(float(deep(noise=noise).update()["train_loss"]))
    assert len(losses) == 3


def test_validation_takes_all_steps() -> None:
    learner = deep(supervision=3, loss="stablemax", network={"registers": 1})
    for _ in range(3):
        learner.update()
    rows = learner.validation.gather(np.arange(10))
    tokens, labels = torch.from_numpy(rows.tokens.astype(np.int64)), torch.from_numpy(np.array(rows.target).reshape(10, 9).astype(np.int64))
    identifiers = torch.from_numpy(rows.columns["identifier"])
    carry = None
    with torch.no_grad():
        for _ in range(3):
            logits_BTC, carry = learner.network(tokens, carry, identifier_B=identifiers)
    right = logits_BTC.argmax(-1) == labels
    assert carry is not None
    expected = {
        "loss": float(cell_loss(logits_BTC, labels, "stablemax").mean()),
        "accuracy": float(right.all(1).double().mean()),
        "cell_accuracy": float(right.double().mean()),
        "q_accuracy": float(((carry.q_B2[:, HALT] > 0) == right.all(1)).double().mean()),
    }
    assert learner.validate() == pytest.approx(expected)


def test_supervised_learning_of_grids_counts_whole_puzzles() -> None:
    learner: Any = small_learner("full_attention", Opposite(side=3))

    class Half(nn.Module):
        """Right about every cell, except for the first one of rows that begin with token 0."""

        def forward(self, tokens_BT: Tensor, at_N: Tensor, **_: Any) -> tuple[Tensor, None]:
            answer = tokens_BT.flip(1)
            answer[:, 0] = torch.where(tokens_BT[:, 0] == 0, (answer[:, 0] + 1) % 3, answer[:, 0])
            return nn.functional.one_hot(answer.flatten()[at_N], 3) * 9.0, None

    learner.networks["model"] = Half()
    wrong = (learner.validation.gather(np.arange(10)).tokens[:, 0] == 0).mean()
    found = learner.validate()
    assert 0 < wrong < 1 and found["accuracy"] == pytest.approx(1 - wrong) and found["cell_accuracy"] == pytest.approx(1 - wrong / 9)


EVERYTHING: dict[str, dict[str, Any]] = {
    "rows stay": {
        "ema_decay": 0.9, "halting": "continue", "exploration": 0.5, "noise": 0.1, "supervision": 4, "attempts": 2, "optimizer": "adam_atan2",
        "network": {"start": "random", "registers": 2, "gate_norm": True}, "lr_schedule": "cosine", "warmup_steps": 2, "grow_until": 0.5,
    },
    "fresh rows": {"warm_up": "random", "noise": 0.1, "supervision": 4, "ema_decay": 0.9, "optimizer": "muon", "network": {"start": "fixed"}},
    "stream": {"data": "stream", "halting": "halt", "exploration": 0.2, "supervision": 3, "network": {"registers": 1}},
}  # fmt: skip


@pytest.mark.parametrize("case", EVERYTHING)
def test_the_state_is_complete(case: str) -> None:
    """A learner that goes on from any step's state takes the same step; past a refill of the queue and several epochs."""
    fields = {"steps": 80, **EVERYTHING[case]}
    one = halting(deep(task=ManyIdentifiers(side=3), **fields), 0.0, 0.5)
    torch.manual_seed(5)
    for step in range(80):
        if step < 9 or step > 61:
            other, random = deep(task=ManyIdentifiers(side=3), **fields), torch.get_rng_state()
            other.load_state_dict(copy.deepcopy(one.state_dict()))
            assert_same(other.state_dict(), one.state_dict())
            theirs = other.update()
            torch.set_rng_state(random)
            mine = one.update()
            assert {name: float(value) for name, value in mine.items()} == {name: float(value) for name, value in theirs.items()}
            assert_same(other.state_dict(), one.state_dict())
            assert other.metrics() == one.metrics() and other.examples_seen == one.examples_seen
        else:
            one.update()
    assert other.validate() == one.validate()


def test_attempts_that_would_start_alike_are_refused() -> None:
    written = read_text("network: {name: recursive}\nlearner: {name: deep_supervision, attempts: 4}\n", "c.yaml")

    def check(network: dict[str, Any], **learner: Any) -> None:
        _check_attempts(Config(steps=9, **learner), NetworkConfig(**network), written)

    check({}, attempts=1)
    check({"start": "random"}, attempts=4)
    check({"start": "fixed", "starts": 4}, attempts=4)
    check({}, attempts=4, noise=0.1)
    for network in ({}, {"start": "fixed", "starts": 3}):
        with pytest.raises(
            ConfigError, match=r"4 attempts start alike with network.starts = \d; expected as many starts, or start: random"
        ):
            check(network, attempts=4)
