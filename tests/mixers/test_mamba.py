"""Mamba and Mamba-2 against their equations written out from mamba-ssm's parameters, and against mamba-ssm where it is installed.

Notation: B = batch size, T = sequence length, D = width, E = inner channels, N = states, H = heads, P = channels per head.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.mixers.making import close, make, sequence

WIDTH = 48
FIELDS: dict[str, dict[str, Any]] = {"mamba": {}, "mamba2": {"heads": 4, "d_state": 8}}
every_one = pytest.mark.parametrize("name", sorted(FIELDS))


def weights(mixer: Any) -> dict[str, Tensor]:
    """Parameters by name, moved off their start so that each one matters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return dict(mixer.state_dict())


def convolved(u_BTE: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's own depthwise convolution over zeros and the sequence, then silu."""
    padded = functional.pad(u_BTE.mT, (weight.shape[-1] - 1, 0))
    return functional.silu(functional.conv1d(padded, weight, bias, groups=len(weight))).mT


def mamba(w: dict[str, Tensor], x_BTD: Tensor) -> Tensor:
    """Mamba by its equations, one position after the other."""
    u, z = functional.linear(x_BTD, w["in_proj.weight"]).chunk(2, -1)
    v = convolved(u, w["conv1d.weight"], w["conv1d.bias"])
    states, rank = w["A_log"].shape[1], w["dt_proj.weight"].shape[1]
    r, b, c = functional.linear(v, w["x_proj.weight"]).split([rank, states, states], -1)
    size = torch.log1p(torch.exp(functional.linear(r, w["dt_proj.weight"], w["dt_proj.bias"])))
    h, outputs = v.new_zeros(len(v), *w["A_log"].shape), []
    for t in range(v.shape[1]):
        decay = torch.exp(torch.einsum("be,en->ben", size[:, t], -torch.exp(w["A_log"])))
        h = decay * h + torch.einsum("be,be,bn->ben", size[:, t], v[:, t], b[:, t])
        outputs.append(torch.einsum("ben,bn->be", h, c[:, t]) + w["D"] * v[:, t])
    return functional.linear(torch.stack(outputs, 1) * z * torch.sigmoid(z), w["out_proj.weight"])


def mamba2(w: dict[str, Tensor], x_BTD: Tensor) -> Tensor:
    """Mamba-2 by its quadratic form: every position reads every earlier one through the product of the decays between."""
    heads, inner = len(w["D"]), len(w["norm.weight"])
    states = (len(w["conv1d.bias"]) - inner) // 2
    z, u, r = functional.linear(x_BTD, w["in_proj.weight"]).split([inner, inner + 2 * states, heads], -1)
    v, b, c = convolved(u, w["conv1d.weight"], w["conv1d.bias"]).split([inner, states, states], -1)
    v = v.unflatten(-1, (heads, -1))
    size = torch.log1p(torch.exp(r + w["dt_bias"]))
    total = (size * -torch.exp(w["A_log"])).cumsum(1)
    decay = torch.exp(total[:, :, None] - total[:, None]) * torch.ones(2 * x_BTD.shape[1:2]).tril()[None, :, :, None]
    y = torch.einsum("btn,bsn,btsh,bsh,bshp->bthp", c, b, decay, size, v) + w["D"][:, None] * v
    gated = y.flatten(2) * z * torch.sigmoid(z)
    normed = gated / torch.sqrt(gated.square().mean(-1, keepdim=True) + 1e-5) * w["norm.weight"]
    return functional.linear(normed, w["out_proj.weight"])


ORACLES = {"mamba": mamba, "mamba2": mamba2}


@every_one
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@torch.no_grad()
def test_outputs_are_those_of_the_equations(name: str, dtype: torch.dtype, tolerance: float) -> None:
    mixer = make(name, dtype, WIDTH, **FIELDS[name])
    w, x_BTD = weights(mixer), sequence(2, 75, dtype, WIDTH)
    close(mixer(x_BTD)[0], ORACLES[name](w, x_BTD), tolerance)


@every_one
def test_gradients_are_those_of_the_equations(name: str) -> None:
    mixer, x_BTD = make(name, width=WIDTH, **FIELDS[name]), sequence(2, 20, width=WIDTH).requires_grad_()
    weights(mixer)
    w = dict(mixer.named_parameters())
    losses = [(y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in (mixer(x_BTD)[0], ORACLES[name](w, x_BTD))]
    gradients = [torch.autograd.grad(loss, [x_BTD, *w.values()]) for loss in losses]
    for one, other in zip(*gradients, strict=True):
        close(one, other)


def test_names_and_shapes_are_those_of_mamba_ssm() -> None:
    inner, rank = 2 * WIDTH, 3
    assert {key: tuple(value.shape) for key, value in make("mamba", width=WIDTH).state_dict().items()} == {
        "A_log": (inner, 16),
        "D": (inner,),
        "in_proj.weight": (2 * inner, WIDTH),
        "conv1d.weight": (inner, 1, 4),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 32, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "out_proj.weight": (WIDTH, inner),
    }
    assert {key: tuple(value.shape) for key, value in make("mamba2", width=WIDTH, **FIELDS["mamba2"]).state_dict().items()} == {
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (4,),
        "in_proj.weight": (2 * inner + 2 * 8 + 4, WIDTH),
        "conv1d.weight": (inner + 2 * 8, 1, 4),
        "conv1d.bias": (inner + 2 * 8,),
        "norm.weight": (inner,),
        "out_proj.weight": (WIDTH, inner),
    }


def test_the_start_is_that_of_mamba_ssm() -> None:
    mixer = make("mamba", torch.float32, width=512)
    torch.testing.assert_close(mixer.A_log.exp(), torch.arange(1.0, 17).expand(1024, 16))
    assert bool((mixer.D == 1).all()) and mixer.dt_proj.weight.abs().max() <= 32**-0.5
    check_sizes(functional.softplus(mixer.dt_proj.bias))
    mixer = make("mamba2", torch.float32, width=2048, heads=512)
    check_sizes(functional.softplus(mixer.dt_bias))
    assert bool((mixer.D == 1).all()) and bool((mixer.norm.weight == 1).all())
    rates = mixer.A_log.exp()
    assert 1 <= rates.min() < 1.5 and 15 < rates.max() <= 16 and abs(rates.mean() - 8.5) < 0.8


def check_sizes(sizes: Tensor) -> None:
    """Between a thousandth and a tenth, evenly in their logarithms."""
    logs = sizes.double().log10()
    assert -3.0001 <= logs.min() < -2.9 and -1.1 < logs.max() <= -0.9999 and abs(logs.mean() + 2) < 0.1


def test_state_is_what_the_papers_say() -> None:
    width, bits = 128, 4
    assert make("mamba", width=width).float().state_bytes(8192) == 2 * width * (16 + 3) * bits
    assert make("mamba2", width=width).float().state_bytes(8192) == (2 * width * 64 + 3 * (2 * width + 2 * 64)) * bits


def theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of mamba-ssm; its package wants a CUDA extension, which nothing here calls."""
    pytest.importorskip("einops")
    if not torch.cuda.is_available():
        monkeypatch.setitem(sys.modules, "selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    page, kind = {"mamba": ("mamba_simple", "Mamba"), "mamba2": ("mamba2", "Mamba2")}[name]
    try:
        return getattr(importlib.import_module(f"mamba_ssm.modules.{page}"), kind)
    except ImportError as error:
        pytest.skip(f"mamba-ssm: {error}")


@every_one
def test_weights_go_to_mamba_ssm_and_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = theirs(name, monkeypatch)
    there = kind(WIDTH, d_state=8, headdim=2 * WIDTH // 4) if name == "mamba2" else kind(WIDTH, use_fast_path=False)
    mixer = make(name, torch.float32, WIDTH, **FIELDS[name])
    weights(mixer)
    there.load_state_dict(mixer.state_dict())
    mixer.load_state_dict(there.state_dict())
    if name == "mamba":
        page, reference = sys.modules["mamba_ssm.modules.mamba_simple"], "mamba_ssm.ops.selective_scan_interface"
        monkeypatch.setattr(page, "selective_scan_fn", importlib.import_module(reference).selective_scan_ref)
        monkeypatch.setattr(page, "causal_conv1d_fn", None)
        x_BTD = sequence(2, 30, torch.float32, WIDTH)
        close(mixer(x_BTD)[0], there(x_BTD), 1e-5)
