"""The short convolution against its formula, and a chain of mixers against the mixers one by one.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import pytest
import torch

from pipeline.networks.sequential import SequentialMixer
from tests.mixers.making import WIDTH, close, make, resets, same_future, sequence, steps_of


@torch.no_grad()
@pytest.mark.parametrize("kernel", [2, 3, 4, 12])
def test_equals_the_formula_within_each_episode(kernel: int) -> None:
    mixer, x_BTD, reset_BT = make("short_convolution", kernel_size=kernel), sequence(3, 9), resets(3, 9)
    y_BTD, _ = mixer(x_BTD, None, reset_BT)
    for b in range(3):
        first = 0
        for t in range(9):
            first = t if reset_BT[b, t] else first
            expected = mixer.bias.clone()
            for r in range(min(kernel, t - first + 1)):
                expected += mixer.weight[:, 0, kernel - 1 - r] * x_BTD[b, t - r]
            close(y_BTD[b, t], expected)


@torch.no_grad()
def test_weights_are_a_depthwise_convolution_of_torch() -> None:
    mixer, torchs = make("short_convolution"), torch.nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3).double()
    torchs.load_state_dict(mixer.state_dict())
    x_BTD = sequence(2, 7)
    close(mixer(x_BTD)[0], torchs(x_BTD.mT)[..., :7].mT)


@torch.no_grad()
def test_the_state_after_a_row_that_ends_within_a_young_episode_forgets_the_older_one() -> None:
    mixer, x_BTD = make("short_convolution"), sequence(2, 6)
    reset_BT = torch.zeros(2, 6, dtype=torch.bool)
    reset_BT[:, 2] = True
    _, state = mixer(x_BTD, torch.randn(2, 3, WIDTH).double(), reset_BT, torch.tensor([3, 5]))
    close(state[0], torch.cat([torch.zeros(2, WIDTH).double(), x_BTD[0, 2:3]]))
    close(state[1], x_BTD[1, 2:5])


@torch.no_grad()
def test_a_chain_is_its_mixers_one_after_the_other() -> None:
    first, second = make("short_convolution"), make("gru")
    chain, x_BTD = SequentialMixer(first, second), sequence(3, 8)
    y_BTD, state = chain(x_BTD)
    close(y_BTD, second(first(x_BTD)[0])[0])
    stepped_BTD, after = steps_of(chain, x_BTD)
    close(stepped_BTD, y_BTD)
    same_future(chain, state, after, 3)
    assert chain.state_bytes(5) == first.state_bytes(5) + second.state_bytes(5)
