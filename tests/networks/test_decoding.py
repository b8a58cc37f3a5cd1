"""Free runs: whatever the batch, they are what one row alone gives when all of it is read again for every token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import networks
from pipeline.networks.build import build
from pipeline.networks.decoding import AfterToken, Continuation, Prefix, TemperatureSampler, after_first, decode, extend, read
from pipeline.ops.state import concatenate, fork, select
from pipeline.storage.rng import derive_key
from pipeline.tasks.vocabulary import BOS, EOS, FALSE, NODES, SEP, TRUE
from tests.evaluation.scripted import NAMES, Chains, Links, Policy, Scripted, decode_slowly, play, trace_of
from tests.mixers.making import CAUSAL

CPU = torch.device("cpu")
VOCABULARY = NODES + NAMES
BUDGET = 16
TRACE = AfterToken(EOS, further=1)


def prompts(count: int, seed: int = 0) -> list[np.ndarray]:
    """Prompts of several lengths, all alike in form."""
    rng = np.random.default_rng(seed)
    return [np.array([BOS, *rng.integers(NODES, VOCABULARY, rng.integers(1, 9)), SEP]) for _ in range(count)]


class Meddler:
    """Injects a token, or several in a row, now and then, and perhaps the end of the row: a function of what it was fed."""

    def __init__(self, ends: bool) -> None:
        self.ends, self.fed = ends, list[int]()

    def feed(self, token: int) -> int | None:
        self.fed.append(token)
        if self.ends and len(self.fed) == 10:
            return EOS
        return NODES + sum(self.fed) % NAMES if (token + len(self.fed)) % 3 == 0 else None


def random_network(mixer: str, **fields: Any) -> Any:
    """A network in float64 whose choices change from token to token."""
    config: Any = networks.SequenceNetwork
    sizes = {"vocabulary": VOCABULARY, "classes": VOCABULARY}
    made: Any = build(config(mixer=mixer, width=16, norm="rms", residual=True, **fields), sizes, 3).double().eval()
    with torch.no_grad():
        made.head.weight *= 8
        made.head.bias[EOS] -= 2
    return made


@pytest.mark.parametrize("mixer", CAUSAL)
@torch.no_grad()
def test_batches_and_carried_state_change_nothing(mixer: str) -> None:
    network, given = random_network(mixer, convolution=2), prompts(5)
    budgets = [BUDGET - 3 * row for row in range(5)]
    expected = [decode_slowly(network, prompt, Meddler(row < 3), True, budgets[row]) for row, prompt in enumerate(given)]
    assert any(row.stopped for row in expected) and any(row.injected for row in expected)

    def found(rows: list[int], batch: int) -> list[Continuation]:
        meddlers = [Meddler(row < 3) for row in rows]
        return decode(network, [given[row] for row in rows], [budgets[row] for row in rows], TRACE, CPU, batch, meddlers)

    for batch in (1, 3, 5):
        assert found([0, 1, 2, 3, 4], batch) == expected
    assert found([3, 1, 4, 0, 2], 4) == [expected[row] for row in (3, 1, 4, 0, 2)]


@pytest.mark.parametrize("mixer", CAUSAL)
@torch.no_grad()
def test_an_injected_token_is_as_if_given(mixer: str) -> None:
    """All tokens read at once, injected ones included, name the same choices: so a free run that equals the true row and a true row in which
    every choice is right, each token given, are the same thing."""
    network, given = random_network(mixer), prompts(3, seed=1)
    meddlers = [Meddler(ends) for ends in (True, False, False)]
    for prompt, found in zip(given, decode(network, given, [40] * 3, TRACE, CPU, 3, meddlers), strict=True):
        logits_BTC, _ = network(torch.tensor([[*prompt.tolist(), *found.tokens[:-1]]]))
        chosen = logits_BTC[0, len(prompt) - 1 :].argmax(-1).tolist()
        own = [place for place in range(len(found.tokens)) if place not in found.injected]
        assert found.injected and [chosen[place] for place in own] == [found.tokens[place] for place in own]
        assert any(chosen[place] != found.tokens[place] for place in found.injected)


def rows_of_chains(rows: int) -> tuple[list[np.ndarray], list[list[int]]]:
    """Prompts of the small task and what truly follows."""
    tokens = Chains().generate(rows, derive_key("decoding", rows)).column("tokens").to_pylist()
    starts = [row.index(SEP) + 1 for row in tokens]
    return [np.array(row[:start]) for row, start in zip(tokens, starts, strict=True)], [
        row[start:] for row, start in zip(tokens, starts, strict=True)
    ]


def run(policy: Policy, given: list[np.ndarray], searching: bool = True, budget: int = 60) -> list[Continuation]:
    retrievers = [Links(prompt.tolist()) if searching else None for prompt in given]
    return decode(Scripted(policy, VOCABULARY), given, [budget] * len(given), TRACE, CPU, 16, retrievers)


def test_the_rule_with_its_searches_writes_every_true_trace() -> None:
    given, gold = rows_of_chains(100)
    assert [found.tokens for found in run(play, given)] == gold
    assert {len(row) for row in gold} != {len(gold[0])}


def test_the_rule_without_its_searches_fails() -> None:
    given, gold = rows_of_chains(100)
    found = run(play, given, searching=False)
    assert not any(row.injected for row in found)
    assert all(row.tokens != true for row, true in zip(found, gold, strict=True))
    assert 0.3 < np.mean([row.stopped and row.tokens[-1] == true[-1] for row, true in zip(found, gold, strict=True)]) < 0.7


def test_searches_are_answered_where_the_row_asks() -> None:
    given, gold = rows_of_chains(20)
    for row, true in zip(run(play, given), gold, strict=True):
        assert row.injected == [place for place in range(len(true)) if place % 5 == 4 and place < len(true) - 2]


@pytest.mark.parametrize("budget", [1, 5, 6, 30])
def test_a_budget_is_the_most_that_is_written(budget: int) -> None:
    given, gold = rows_of_chains(20)
    for row, true in zip(run(play, given, budget=budget), gold, strict=True):
        assert row.tokens == true[:budget]
        assert row.stopped == (len(true) <= budget)


def test_every_row_has_its_own_budget() -> None:
    given, gold = rows_of_chains(10)
    budgets = list(range(3, 13))
    found = decode(Scripted(play, VOCABULARY), given, budgets, TRACE, CPU, 4, [Links(prompt.tolist()) for prompt in given])
    assert [row.tokens for row in found] == [true[:budget] for true, budget in zip(gold, budgets, strict=True)]


def test_without_a_trace_the_first_token_is_the_answer() -> None:
    given, _ = rows_of_chains(10)
    found = decode(Scripted(lambda tokens: TRUE, VOCABULARY), given, [5] * 10, after_first, CPU, 4)
    assert found == [Continuation([TRUE], [], True)] * 10


def test_rows_that_have_ended_are_not_stepped() -> None:
    given, gold = rows_of_chains(12)
    sizes: list[int] = []

    class Counted(Scripted):
        def step(self, tokens_B: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            sizes.append(len(tokens_B))
            return super().step(tokens_B, state)

    decode(Counted(play, VOCABULARY), given, [60] * 12, TRACE, CPU, 12, [Links(prompt.tolist()) for prompt in given])
    assert sum(sizes) == sum(len(true) - 1 for true in gold)


def test_no_rows() -> None:
    assert decode(Scripted(play, VOCABULARY), [], [], TRACE, CPU, 4) == []


def test_an_injected_end_of_trace_still_ends_it() -> None:
    class Impatient:
        def feed(self, token: int) -> int | None:
            return None if token == EOS else EOS

    given, _ = rows_of_chains(3)
    found = decode(Scripted(lambda tokens: FALSE, VOCABULARY), given, [9] * 3, TRACE, CPU, 3, [Impatient() for _ in given])
    assert found == [Continuation([FALSE, EOS, FALSE], [1], True)] * 3


def test_the_small_task_is_what_it_says() -> None:
    assert trace_of([BOS, 21, 18, 18, 23, 25, 20, SEP])[0][-2:] == [EOS, FALSE]
    assert [token for token in trace_of([BOS, 21, 18, SEP])[0] if token >= NODES] == [21, 21, 18, 18, 18]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_are_the_softmax(temperature: float) -> None:
    """Pearson's chi-square over the classes, at the 99.9 % point of its distribution."""
    draws, classes = 8_000, 6
    logits_C = torch.linspace(-1, 1.5, classes)
    choose = TemperatureSampler(derive_key("frequencies"), temperature)
    tokens_B = choose(logits_C.expand(draws, classes), range(draws), 0)
    observed = torch.bincount(tokens_B, minlength=classes).double()
    expected = draws * (logits_C.double() / temperature).softmax(-1)
    assert float(((observed - expected) ** 2 / expected).sum()) < 20.52


@torch.no_grad()
def test_samples_follow_from_the_key_and_the_row_alone() -> None:
    network, given = random_network("gru"), prompts(6, seed=2)
    few = [BUDGET] * 6

    def sampled(batch: int, key: str = "one") -> list[list[int]]:
        return [row.tokens for row in decode(network, given, few, TRACE, CPU, batch, choose=TemperatureSampler(derive_key(key)))]

    whole = sampled(6)
    state = torch.get_rng_state()
    assert sampled(1) == sampled(4) == whole
    assert torch.get_rng_state().equal(state), "torch's generator is not touched"
    assert sampled(6, "other") != whole
    cold = decode(network, given, few, TRACE, CPU, 6, choose=TemperatureSampler(derive_key("one"), temperature=1e-6))
    assert cold == decode(network, given, few, TRACE, CPU, 6)


@torch.no_grad()
def test_greedy_takes_the_most_likely_token() -> None:
    network, given = random_network("lru"), prompts(4, seed=3)
    prefix = read(network, given, CPU)
    first = [row.tokens[0] for row in decode(network, given, [1] * 4, TRACE, CPU, 4)]
    assert first == prefix.logits_BC.argmax(-1).tolist()


@pytest.mark.parametrize("mixer", ["lstm", "attention", "gated_delta_net"])
@torch.no_grad()
def test_a_fork_of_a_prefix_continues_like_a_fresh_run(mixer: str) -> None:
    network, given = random_network(mixer, convolution=2), prompts(3, seed=4)
    copies, budgets = 4, [BUDGET] * 12
    twelve = [prompt for prompt in given for _ in range(copies)]
    fresh = decode(network, twelve, budgets, TRACE, CPU, 12, choose=TemperatureSampler(derive_key("fork")))
    forked: Prefix = fork(read(network, given, CPU), copies)
    found = extend(network, forked, budgets, TRACE, choose=TemperatureSampler(derive_key("fork")))
    assert found == fresh and len({tuple(row.tokens) for row in found}) > 3
    parts = [select(forked, torch.tensor(rows)) for rows in ([11, 0], [5, 6, 7])]
    joined = extend(
        network, concatenate(parts), [BUDGET] * 5, TRACE, choose=TemperatureSampler(derive_key("fork")), numbers=[11, 0, 5, 6, 7]
    )
    assert joined == [fresh[row] for row in (11, 0, 5, 6, 7)]
    apart = concatenate([read(network, [prompt], CPU) for prompt in given])
    assert extend(network, apart, budgets[:3], TRACE) == decode(network, given, budgets[:3], TRACE, CPU, 3)


def test_stop_rules() -> None:
    assert after_first([3]) and not AfterToken(4)([3]) and AfterToken(4)([3, 4])
    assert [AfterToken(4, further=1)(tokens) for tokens in ([4], [3, 4], [4, 3], [4, 4])] == [False, False, True, True]
