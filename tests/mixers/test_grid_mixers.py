"""Full attention, token mixing and the stencil against independent implementations.

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.mixers.stencil import neighbours
from pipeline.storage.errors import UserError
from tests.mixers.making import WIDTH, close, make, sequence


def rotated(x_TE: Tensor) -> Tensor:
    """Rotary positions with complex numbers: channels j and j + E/2 are the parts of one."""
    steps, channels = x_TE.shape
    pair = torch.complex(*x_TE.chunk(2, 1))
    rate = 10_000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    turned = pair * torch.polar(torch.ones(steps, channels // 2, dtype=torch.float64), torch.arange(steps).unsqueeze(1) * rate)
    return torch.cat([turned.real, turned.imag], 1)


@torch.no_grad()
def test_full_attention_is_a_softmax_over_all_positions() -> None:
    mixer, x_BTD = make("full_attention"), sequence(2, 7)
    q_DD, k_DD, v_DD = mixer.project.weight.chunk(3)
    for row, x_TD in enumerate(x_BTD):
        heads = []
        for head in range(4):
            of_head = slice(head * 4, head * 4 + 4)
            q_TE, k_TE, v_TE = rotated(x_TD @ q_DD[of_head].T), rotated(x_TD @ k_DD[of_head].T), x_TD @ v_DD[of_head].T
            weight_TT = (q_TE @ k_TE.T / math.sqrt(4)).exp()
            heads.append(weight_TT / weight_TT.sum(1, keepdim=True) @ v_TE)
        close(mixer(x_BTD)[0][row], torch.cat(heads, 1) @ mixer.out.weight.T)


@torch.no_grad()
def test_full_attention_without_rotation_is_that_of_torch() -> None:
    """With an infinite base only the first pair of channels rotates; it is zero here in queries and keys."""
    mixer, x_BTD, lengths = make("full_attention", heads=1), sequence(3, 6), torch.tensor([6, 2, 5])
    mixer.base = math.inf
    torchs = nn.MultiheadAttention(WIDTH, 1, bias=False, batch_first=True).double()
    for part in mixer.project.weight.chunk(3)[:2]:
        part[[0, WIDTH // 2]] = 0
    torchs.in_proj_weight.copy_(mixer.project.weight)
    torchs.out_proj.weight.copy_(mixer.out.weight)
    expected_BTD, _ = torchs(x_BTD, x_BTD, x_BTD, key_padding_mask=torch.arange(6) >= lengths.unsqueeze(1))
    y_BTD, _ = mixer(x_BTD, None, None, lengths)
    for row, length in enumerate(lengths.tolist()):
        close(y_BTD[row, :length], expected_BTD[row, :length])


def test_an_empty_row_is_finite() -> None:
    mixer, x_BTD = make("full_attention"), sequence(2, 6)
    y_BTD, _ = mixer(x_BTD, None, None, torch.tensor([0, 6]))
    y_BTD.square().sum().backward()
    assert bool(y_BTD.isfinite().all()) and all(bool(parameter.grad.isfinite().all()) for parameter in mixer.parameters())


@torch.no_grad()
def test_token_mixing_by_loops() -> None:
    mixer, x_BTD = make("token_mixing", cells=4, width=3), sequence(2, 4, width=3)
    gate_IT, up_IT = mixer.into.weight.chunk(2)
    y_BTD = torch.zeros_like(x_BTD)
    for b in range(2):
        for d in range(3):
            for i in range(len(gate_IT)):
                gate, up = (sum(float(weight_IT[i, t] * x_BTD[b, t, d]) for t in range(4)) for weight_IT in (gate_IT, up_IT))
                for t in range(4):
                    y_BTD[b, t, d] += mixer.out.weight[t, i] * gate / (1 + math.exp(-gate)) * up
    close(mixer(x_BTD)[0], y_BTD)


@pytest.mark.parametrize(
    ("cells", "fields", "inner"),
    [(9, {}, 24), (81, {}, 216), (81, {"multiple_of": 256}, 256), (900, {"multiple_of": 256}, 2560), (1, {"expansion": 0.1}, 1)],
)
def test_inner_width_of_token_mixing(cells: int, fields: dict[str, Any], inner: int) -> None:
    mixer = make("token_mixing", cells=cells, **fields)
    assert mixer.into.weight.shape == (2 * inner, cells) and mixer.out.weight.shape == (cells, inner)


def test_token_mixing_is_for_rows_of_one_length() -> None:
    mixer = make("token_mixing", cells=9)
    for given in ((sequence(2, 4),), (sequence(2, 9), None, None, torch.tensor([9, 4]))):
        with pytest.raises(AssertionError, match="rows of 9 positions"):
            mixer(*given)


@torch.no_grad()
@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_stencil_is_a_convolution_with_a_plus(side: int) -> None:
    mixer, x_BTD = make("stencil"), sequence(2, side * side)
    center, up, down, left, right = mixer.map.weight.chunk(5, 1)
    kernel = x_BTD.new_zeros(WIDTH, WIDTH, 3, 3)
    for (row, column), weight in zip(((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)), (center, up, down, left, right), strict=True):
        kernel[:, :, row, column] = weight
    expected = functional.conv2d(x_BTD.mT.unflatten(2, (side, side)), kernel, padding=1).flatten(2).mT
    close(mixer(x_BTD)[0], expected)


@torch.no_grad()
def test_a_stencil_by_loops() -> None:
    mixer, x_BTD = make("stencil"), sequence(1, 9)
    parts = mixer.map.weight.chunk(5, 1)
    for row in range(3):
        for column in range(3):
            expected = torch.zeros(WIDTH, dtype=torch.float64)
            for part, (down, right) in zip(parts, ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)), strict=True):
                if 0 <= row + down < 3 and 0 <= column + right < 3:
                    expected += part @ x_BTD[0, (row + down) * 3 + column + right]
            close(mixer(x_BTD)[0][0, row * 3 + column], expected)


def test_neighbours_first_found_without_gradients_serve_training() -> None:
    neighbours.cache_clear()
    mixer = make("stencil")
    with torch.inference_mode():
        mixer(sequence(1, 16))
    mixer(sequence(1, 16).requires_grad_())[0].sum().backward()


@pytest.mark.parametrize(("cells", "near"), [(2, "1 or 4"), (80, "64 or 81")])
def test_a_row_that_is_no_square_grid_is_one_line(cells: int, near: str) -> None:
    with pytest.raises(UserError, match=f"got a row of {cells} cells; expected a square grid, such as {near}"):
        make("stencil")(sequence(1, cells))
