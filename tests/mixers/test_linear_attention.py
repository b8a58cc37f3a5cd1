"""Linear attention against its quadratic form, and what its missing decay means.

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head.
"""

from __future__ import annotations

import pytest
import torch

from tests.mixers.making import close, make, sequence


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_its_quadratic_form(heads: int) -> None:
    """Weights of a softmax with phi(q) . phi(k) instead of exp(q . k), over the positions so far."""
    mixer, x_BTD = make("linear_attention", heads=heads), sequence(2, 90)
    q, k, v = mixer.project(x_BTD).view(2, 90, 3, heads, -1).unbind(2)
    q, k = (torch.where(part > 0, part + 1, part.exp()) for part in (q, k))
    weights_BHTT = torch.einsum("bthe,bshe->bhts", q, k).tril()
    mixed = torch.einsum("bhts,bshe->bthe", weights_BHTT / weights_BHTT.sum(-1, keepdim=True), v)
    close(mixer(x_BTD)[0], mixer.out(mixed.flatten(2)), 1e-5)


@torch.no_grad()
def test_the_order_of_what_was_read_does_not_matter() -> None:
    mixer, x_BTD, order = make("linear_attention"), sequence(2, 90), torch.randperm(89)
    shuffled_BTD = torch.cat([x_BTD[:, order], x_BTD[:, 89:]], 1)
    close(mixer(shuffled_BTD)[0][:, -1], mixer(x_BTD)[0][:, -1])


def test_features_that_vanish_give_zero_and_not_an_error() -> None:
    mixer, x_BTD = make("linear_attention", torch.float32), torch.full((1, 3, 16), 1e4, requires_grad=True)
    with torch.no_grad():
        mixer.project.weight[:32] = -1.0
    y_BTD, _ = mixer(x_BTD)
    y_BTD.square().sum().backward()
    assert not y_BTD.any() and x_BTD.grad is not None and bool(x_BTD.grad.isfinite().all())
