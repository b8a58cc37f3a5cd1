"""The recurrences of matrix states against flash-linear-attention: its plain references, its kernels' signatures and, on a GPU, its kernels.

What needs the package is skipped without it. Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels
of a value, G = segments.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.ops import backends, fla
from pipeline.ops.delta_rule import delta_rule, unit
from pipeline.ops.dplr import LOWEST, dplr
from pipeline.ops.linear_scan import linear_scan
from pipeline.storage.errors import UserError
from tests.mixers.making import MIXERS, close, make, resets, sequence

B, T, H, K, V = 3, 64, 2, 16, 17
RULES: dict[str, Any] = {
    "none": linear_scan,
    "per_head": linear_scan,
    "shared_keys": linear_scan,
    "per_channel": linear_scan,
    "delta": delta_rule,
    "gated_delta": delta_rule,
    "dplr": dplr,
}
MATRICES = ("linear_attention", "gated_linear_attention", "delta_net", "gated_delta_net", "matrix_lstm", "rwkv7", "mamba2")
every_rule = pytest.mark.parametrize("rule", list(RULES))
Pair = tuple[Tensor, Tensor]


def inputs(rule: str, steps: int = T, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
    """The arguments of a rule up to the state before, in order."""
    torch.manual_seed(3)
    q, k, v = (torch.randn(B, steps, H, size, dtype=dtype) for size in (K, K, V))
    per_head, per_channel = -torch.rand(B, steps, H, dtype=dtype), math.log(LOWEST) * torch.rand(B, steps, H, K, dtype=dtype)
    strength, removed = 2 * torch.rand(B, steps, H, dtype=dtype), torch.rand(B, steps, H, K, dtype=dtype) * unit(k)
    middle: dict[str, list[Tensor | None]] = {
        "none": [q, k, v, None],
        "per_head": [q, k, v, per_head.unsqueeze(-1)],
        "shared_keys": [q[:, :, :1], k[:, :, :1], v, per_head.unsqueeze(-1)],
        "per_channel": [q, k, v, per_channel],
        "delta": [q, unit(k), v, strength, None],
        "gated_delta": [q, unit(k), v, strength, per_head],
        "dplr": [q, k, v, unit(k), removed, per_channel],
    }
    return [*middle[rule], torch.randn(B, H, K, V, dtype=dtype)]


def imported(package: str) -> Any:
    """A module of the package, which warns where there is no GPU; else the test is skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("fla")
        return importlib.import_module(f"fla.ops.{package}")


def reference(rule: str, given: list[Any]) -> Pair:
    """The package's loop over positions; it scales queries by itself, and some of its functions take heads before time."""
    q, k, v, *rest, state = given
    kept, swapped = {"initial_state": state, "output_final_state": True}, lambda *parts: [part.transpose(1, 2) for part in parts]
    if rule == "none":
        return imported("linear_attn.naive").naive_recurrent_linear_attn(q, k, v, scale=1.0, **kept)
    if rule in ("per_head", "shared_keys"):
        q, k = (part.expand(-1, -1, H, -1) for part in (q, k))
        return imported("simple_gla.naive").naive_recurrent_simple_gla(q, k, v, rest[0].squeeze(-1), scale=1.0, **kept)
    if rule == "gated_delta":
        return imported("gated_delta_rule.naive").naive_recurrent_gated_delta_rule(q, k, v, *rest, scale=1.0, **kept)
    q = q * math.sqrt(K)
    if rule == "per_channel":
        return imported("gla.naive").naive_recurrent_gla(q, k, v, *rest, **kept)
    if rule == "delta":
        y, after = imported("delta_rule.naive").delta_rule_recurrence(*swapped(q, k, v, rest[0]), **kept)
    else:
        a, b, log_decay = rest
        y, after = imported("generalized_delta_rule.dplr.naive").dplr_recurrence(*swapped(q, k, v, -a, b, log_decay), **kept)
    return y.transpose(1, 2), after


@every_rule
def test_the_chunked_form_equals_the_packages_reference(rule: str) -> None:
    given = inputs(rule)
    for found, expected in zip(RULES[rule](*given, backend="torch"), reference(rule, given), strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def on_segments(rule: str) -> Callable[..., Pair]:
    """What stands in for a kernel: the same rule by torch, one segment after the other where there are edges."""

    def run(*, q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None = None, **rest: Any) -> Pair:
        assert q.shape[2] == k.shape[2] == v.shape[2]
        assert rest.pop("scale") == 1 and rest.pop("output_final_state")
        others = {
            "none": lambda: [None],
            "per_head": lambda: [rest["g"].unsqueeze(-1)],
            "shared_keys": lambda: [rest["g"].unsqueeze(-1)],
            "per_channel": lambda: [rest["g"]],
            "delta": lambda: [rest["beta"], rest["g"]],
            "gated_delta": lambda: [rest["beta"], rest["g"]],
            "dplr": lambda: [-rest["a"], rest["b"], rest["gk"]],
        }[rule]()
        if cu_seqlens is None:
            return RULES[rule](q, k, v, *others, initial_state, backend="torch")
        assert len(q) == 1 and len(initial_state) == len(cu_seqlens) - 1 and cu_seqlens[0] == 0
        cuts = cu_seqlens.diff().tolist()
        parts = zip(*([None] * len(cuts) if part is None else part.split(cuts, 1) for part in (q, k, v, *others)), strict=True)
        found = [RULES[rule](*part, initial_state[[n]], backend="torch") for n, part in enumerate(parts)]
        return torch.cat([y for y, _ in found], 1), torch.cat([after for _, after in found])

    return run


def both(rule: str, given: list[Tensor | None], reset_BT: Tensor | None, length_B: Tensor | None) -> list[list[Tensor]]:
    """Outputs within lengths, states and gradients of backend `fla` and of `torch`."""
    results: list[list[Tensor]] = []
    for backend in ("fla", "torch"):
        leaves = [None if tensor is None else tensor.detach().requires_grad_() for tensor in given]
        y, after = RULES[rule](*leaves, reset_BT, length_B, backend=backend)
        if length_B is not None:
            y = y * (torch.arange(y.shape[1], device=y.device) < length_B.unsqueeze(1))[:, :, None, None]
        gradients = torch.autograd.grad(y.sin().sum() + after.sin().sum(), [leaf for leaf in leaves if leaf is not None])
        results.append([y, after, *gradients])
    return results


@every_rule
@pytest.mark.parametrize("with_resets", [False, True])
def test_segments_are_rows_without_resets(rule: str, with_resets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla, "unavailable_reason", lambda k: None)
    monkeypatch.setattr(fla, "kernel", lambda package, name: on_segments(rule))
    reset_BT = resets(B, 21) if with_resets else None
    for length_B in (None, torch.tensor([21, 0, 13])):
        for found, expected in zip(*both(rule, inputs(rule, 21, torch.float64), reset_BT, length_B), strict=True):
            close(found, expected)


@every_rule
@pytest.mark.parametrize("with_resets", [False, True])
def test_the_kernels_take_what_they_are_given(rule: str, with_resets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    imported("utils")
    real = fla.kernel

    def checked(package: str, name: str) -> Callable[..., Pair]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signature = inspect.signature(real(package, name))

        def run(**given: Any) -> Pair:
            bound = signature.bind(**given).arguments
            assert not any(parameter.kind is parameter.VAR_KEYWORD and name in bound for name, parameter in signature.parameters.items())
            return on_segments(rule)(**given)

        return run

    monkeypatch.setattr(fla, "unavailable_reason", lambda k: None)
    monkeypatch.setattr(fla, "kernel", checked)
    RULES[rule](*inputs(rule, 9), resets(B, 9) if with_resets else None, backend="fla")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_rule
@pytest.mark.parametrize("with_resets", [False, True])
def test_the_kernels_equal_torch_on_a_gpu(rule: str, with_resets: bool) -> None:
    imported("utils")
    given = [None if tensor is None else tensor.cuda() for tensor in inputs(rule, 150)]
    reset_BT = resets(B, 150).cuda() if with_resets else None
    for length_B in (None, torch.tensor([150, 0, 77]).cuda()):
        for found, expected in zip(*both(rule, given, reset_BT, length_B), strict=True):
            assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", MATRICES)
def test_mixers_choose_the_kernels_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imported("utils")
    monkeypatch.setattr(backends, "_used", {})
    x_BTD, results = sequence(B, 150, torch.float32, 128).cuda(), []
    for backend in ("auto", "torch"):
        monkeypatch.setenv(backends.VARIABLE, backend)
        mixer = make(name, torch.float32, 128).cuda()
        y_BTD, _ = mixer(x_BTD, None, resets(B, 150).cuda())
        y_BTD.square().sum().backward()
        results.append([y_BTD.detach(), *[parameter.grad for parameter in mixer.parameters()]])
    assert list(backends.used().values()) == [["fla", "torch"]]
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@every_rule
def test_elsewhere_it_is_an_error_to_ask_for_them(rule: str) -> None:
    with pytest.raises(UserError, match="backend fla is not available: needs tensors on a CUDA GPU"):
        RULES[rule](*inputs(rule), backend="fla")


@pytest.mark.parametrize(
    ("dtype", "channels", "reason"),
    [(torch.float64, 32, "it computes in float32"), (torch.float32, 8, "16 to 256"), (torch.float32, 512, "16 to 256")],
)
def test_they_refuse_what_they_cannot_do(dtype: torch.dtype, channels: int, reason: str) -> None:
    class OnCuda:
        device, shape = torch.device("cuda"), (1, 1, 1, channels)

    OnCuda.dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
    assert reason in str(fla.unavailable_reason(OnCuda()))  # pyright: ignore[reportArgumentType]


def test_every_matrix_state_has_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "fla")
    assert set(MATRICES) <= set(MIXERS)
    for name in MATRICES:
        with pytest.raises(UserError, match="backend fla is not available"):
            make(name, torch.float32)(sequence(1, 3, torch.float32))
