"""The delta rule, chunked and compiled, against a plain loop: values, gradients, strong decays, and what it is for, storing under a key.

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.ops.delta_rule import delta_rule, delta_step, unit
from pipeline.storage.errors import UserError
from tests.mixers.making import close, make, resets, sequence

B, H, K, V = 3, 2, 4, 3
Result = tuple[Tensor, Tensor]

both = pytest.mark.parametrize("gated", [False, True])
every_backend = pytest.mark.parametrize("backend", ["torch", "c"])


def inputs(gated: bool, steps: int, strength: float = 1.0, dtype: torch.dtype = torch.float64, columns: int = V) -> list[Tensor]:
    """q, k of length one, v, b in 0..2, the state before and, where gated, log a, half of it `strength` times as strong."""
    torch.manual_seed(3)
    q, k, v = (torch.randn(B, steps, H, size, dtype=dtype) for size in (K, K, columns))
    found = [q, unit(k), v, 2 * torch.rand(B, steps, H, dtype=dtype), torch.randn(B, H, K, columns, dtype=dtype)]
    if gated:
        decay = -torch.rand(B, steps, H, dtype=dtype)
        found.append(torch.where(torch.rand_like(decay) < 0.5, decay, decay * strength))
    return found


def naive(reset_BT: Tensor | None, length_B: Tensor | None, given: list[Tensor]) -> Result:
    """One row, position and head after the other, with the matrix a (I - b k k^T) written out."""
    q, k, v, strength, state, *decay = given
    outputs, states, identity_KK = [], [], torch.eye(K, dtype=q.dtype)
    for row in range(B):
        heads, y = list(state[row]), []
        for t in range(q.shape[1]):
            if length_B is not None and t >= int(length_B[row]):
                y.append(torch.zeros_like(v[row, t]))
                continue
            for head in range(H):
                before_KV = torch.zeros_like(heads[head]) if reset_BT is not None and bool(reset_BT[row, t]) else heads[head]
                key_K, b = k[row, t, head], strength[row, t, head]
                a = decay[0][row, t, head].exp() if decay else 1.0
                heads[head] = a * (identity_KK - b * torch.outer(key_K, key_K)) @ before_KV + b * torch.outer(key_K, v[row, t, head])
            y.append(torch.stack([heads[head].t() @ q[row, t, head] for head in range(H)]))
        outputs.append(torch.stack(y))
        states.append(torch.stack(heads))
    return torch.stack(outputs), torch.stack(states)


def computed(reset_BT: Tensor | None, length_B: Tensor | None, size: int, given: list[Tensor], backend: str) -> Result:
    """`delta_rule`, its outputs beyond the end set to zero."""
    q, k, v, strength, state, *decay = given
    y, after = delta_rule(q, k, v, strength, decay[0] if decay else None, state, reset_BT, length_B, size, backend)
    if length_B is not None:
        y = y * (torch.arange(q.shape[1]) < length_B.unsqueeze(1))[:, :, None, None]
    return y, after


def same_values_and_gradients(reset_BT: Tensor | None, length_B: Tensor | None, size: int, given: list[Tensor], backend: str) -> None:
    for tensor in given:
        tensor.requires_grad_()
    results = [naive(reset_BT, length_B, given), computed(reset_BT, length_B, size, given, backend)]
    weights = [torch.randn_like(part) for part in results[0]]
    losses = [(result[0] * weights[0]).sum() + (result[1] * weights[1]).sum() for result in results]
    gradients = [torch.autograd.grad(loss, given) for loss in losses]
    for found, expected in zip([*results[1], *gradients[1]], [*results[0], *gradients[0]], strict=True):
        close(found, expected)


@both
@every_backend
@pytest.mark.parametrize(("steps", "size"), [(1, 64), (5, 8), (16, 8), (23, 8), (70, 64), (9, 1)])
def test_equals_the_plain_recurrence(gated: bool, steps: int, size: int, backend: str) -> None:
    same_values_and_gradients(None, None, size, inputs(gated, steps), backend)


@both
@every_backend
def test_equals_it_with_resets_and_padding(gated: bool, backend: str) -> None:
    same_values_and_gradients(resets(B, 23), torch.tensor([23, 0, 13]), 8, inputs(gated, 23), backend)


@both
@pytest.mark.parametrize("backend", ["c"])
@pytest.mark.parametrize("columns", [1, 16, 17, 32, 33, 64, 65, 100, 130])
def test_the_compiled_kernel_takes_any_number_of_columns(gated: bool, columns: int, backend: str) -> None:
    """It works on 64, 32 or 16 columns of the state at a time, the last ones filled up."""
    given = inputs(gated, 19, columns=columns)
    same_values_and_gradients(resets(B, 19), None, 8, given, backend)
    single = [tensor.detach().float() for tensor in given]
    for found, exact in zip(computed(None, None, 8, single, backend), naive(None, None, given), strict=True):
        assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("backend", ["c"])
def test_the_compiled_kernel_without_gradients_computes_the_same_bits(backend: str) -> None:
    """It keeps fewer states then."""
    given = inputs(True, 40, dtype=torch.float32)
    expected = computed(resets(B, 40), None, 8, [tensor.requires_grad_() for tensor in given], backend)
    with torch.no_grad():
        assert all(map(torch.equal, computed(resets(B, 40), None, 8, given, backend), expected))


def test_the_compiled_kernel_says_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="delta_rule: backend c is not available: it computes in float32 or float64 and got torch.bfloat16"):
        computed(None, None, 8, inputs(True, 3, dtype=torch.bfloat16), "c")


@every_backend
@pytest.mark.parametrize("strength", [50.0, 1e4])
def test_strong_decays_are_exact(strength: float, backend: str) -> None:
    """Half of the decays forget nearly everything: their sums over a chunk are far beyond the range of exp."""
    same_values_and_gradients(None, None, 64, inputs(True, 70, strength), backend)
    given = inputs(True, 70, strength, torch.float32)
    expected = naive(None, None, [tensor.double() for tensor in given])
    for found, exact in zip(computed(None, None, 64, given, backend), expected, strict=True):
        assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()


@both
def test_the_step_is_the_recurrence(gated: bool) -> None:
    q, k, v, strength, state, *decay = given = inputs(gated, 1)
    y, after = delta_step(q[:, 0], k[:, 0], v[:, 0], strength[:, 0], decay[0][:, 0] if decay else None, state)
    expected_y, expected_after = naive(None, None, given)
    close(y, expected_y[:, 0])
    close(after, expected_after)


def test_whole_writes_under_orthonormal_keys_are_stored_exactly() -> None:
    """As many values as channels of a key; each key is written twice, and its second value is what is read."""
    keys_KK = torch.linalg.qr(torch.randn(K, K, dtype=torch.float64)).Q
    k = keys_KK.repeat(2, 1).view(1, 2 * K, 1, K)
    v, strength = torch.randn(1, 2 * K, 1, V, dtype=torch.float64), torch.ones(1, 2 * K, 1, dtype=torch.float64)
    y, after = delta_rule(k, k, v, strength, None, torch.randn(1, 1, K, V, dtype=torch.float64))
    close(y, v)
    close(keys_KK @ after[0, 0], v[0, K:, 0])


def test_twice_the_strength_mirrors_the_state() -> None:
    """With b = 2 and nothing written the state changes sign along the key: two writes and it is as before."""
    k, state = torch.eye(K, dtype=torch.float64)[0].expand(1, 2, 1, K), torch.randn(1, 1, K, V, dtype=torch.float64)
    y, after = delta_rule(k, k, torch.zeros(1, 2, 1, V).double(), torch.full((1, 2, 1), 2.0).double(), None, state)
    close(y[0, :, 0], torch.stack([-state[0, 0, 0], state[0, 0, 0]]))
    close(after, state)


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
@pytest.mark.parametrize("negative", [False, True])
def test_the_state_stays_bounded(name: str, negative: bool) -> None:
    """Whatever the input, a write moves the state by no more than what it stores: no eigenvalue is larger than one."""
    mixer, x_BTD = make(name, torch.float32, allow_neg_eigval=negative), 30 * sequence(2, 2000, torch.float32)
    with torch.no_grad():
        y_BTD, after = mixer(x_BTD)
    assert bool(y_BTD.isfinite().all()) and float(after.abs().max()) < 2000


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_negative_eigenvalues_double_the_strength(name: str) -> None:
    x_BTD = sequence(2, 5)
    single, double = (make(name, allow_neg_eigval=negative)._projected(x_BTD)[3] for negative in (False, True))
    close(double, 2 * single)
    assert bool((single < 1).all())


@torch.no_grad()
def test_gated_delta_net_starts_with_time_constants_from_short_to_long() -> None:
    mixer = make("gated_delta_net", width=2000, heads=1000)
    constant_H = 1 / (mixer.log_rate_H.exp() * torch.nn.functional.softplus(mixer.bias_H))
    assert 0.6 < float(constant_H.min()) < 2 and 200 < float(constant_H.max()) < 1000
