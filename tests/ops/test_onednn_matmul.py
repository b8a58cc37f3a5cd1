"""Products by oneDNN against float64, in a process of its own: once replaced, torch's kernels stay replaced."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipeline.ops import onednn_matmul
from pipeline.storage.errors import UserError

CHECKED = """
import torch
from pipeline.ops import onednn_matmul
library, called, linear = onednn_matmul._replace(), [], onednn_matmul._linear

def noted(x, weight, bias):
    assert weight.is_contiguous() or weight.t().is_contiguous(), "oneDNN takes a thousand times as long"
    called.append(1)
    return linear(x, weight, bias)

onednn_matmul._linear = noted
torch.manual_seed(0)
a, w, bias = torch.randn(300, 90), torch.randn(120, 90), torch.randn(120)

def near(found, expected, by_us):
    assert bool(called) == by_us, (len(called), by_us)
    called.clear()
    assert found.dtype == expected.dtype or found.dtype == torch.float32
    assert (found.double() - expected).abs().max() < 1e-4, (found.double() - expected).abs().max()

exact = a.double() @ w.double().t()
near(a @ w.t(), exact, True)
near(torch.nn.functional.linear(a, w, bias), exact + bias.double(), True)
near(torch.nn.functional.linear(a.view(3, 100, 90), w, bias), (exact + bias.double()).view(3, 100, 120), True)
near(a.t().contiguous().t() @ w.t().contiguous(), exact, True)
wide = torch.randn(300, 500)
near(wide[:, 40:130] @ w.t(), wide[:, 40:130].double() @ w.double().t(), True)
near(wide.t() @ a, wide.double().t() @ a.double(), True)
part, narrow, flat = wide[:, 40:130], torch.randn(90, 500)[:, :120], torch.randn(300, 300)[:, :200]
near(part @ narrow, part.double() @ narrow.double(), True)
near(part.t() @ flat, part.double().t() @ flat.double(), True)
near(flat.t() @ part, flat.double().t() @ part.double(), True)
near(flat.t() @ a, flat.double().t() @ a.double(), True)
near(a.t() @ torch.randn(300, 200).fill_(0.5), (a.double().sum(0) * 0.5)[:, None].expand(90, 200), True)
total = torch.randn(300, 120)
near(torch.addmm(total, a, w.t()), exact + total.double(), True)
near(torch.addmm(total, a, w.t(), beta=0.5, alpha=2), 2 * exact + 0.5 * total.double(), False)
near(torch.addmm(bias, a, w.t(), out=torch.empty(300, 120)), exact + bias.double(), True)
near(torch.mm(a, w.t(), out=torch.empty(300, 120)), exact, True)
held = torch.empty(300, 240)[:, :120]
torch.mm(a, w.t(), out=held)
near(held, exact, True)
near(total.clone().addmm_(a, w.t()), exact + total.double(), True)
near(a.double() @ w.double().t(), exact, False)
near(a[:2] @ w.t(), exact[:2], False)
assert (torch.empty(0, 90) @ w.t()).shape == (0, 120) and not called
near(a[:1].expand(300, 90) @ w.t(), exact[:1].expand(300, 120), False)
for wrong in (torch.randn(80, 300), torch.randn(80, 300).double()):
    try:
        a @ wrong
    except RuntimeError:
        continue
    raise AssertionError("sizes or number types that do not fit were multiplied")
for call in (lambda out: torch.mm(a, w.t(), out=out), lambda out: torch.addmm(bias, a, w.t(), out=out), lambda out: out.addmm_(a, w.t())):
    try:
        call(torch.empty(300, 120, dtype=torch.float64))
    except RuntimeError:
        continue
    raise AssertionError("a product of float32 was written to a tensor of float64")
called.clear()
a.requires_grad_(), w.requires_grad_(), bias.requires_grad_()
torch.nn.functional.linear(a, w, bias).square().sum().backward()
assert len(called) == 3
slope = 2 * (exact + bias.detach().double())
for found, expected in ((a.grad, slope @ w.double()), (w.grad, slope.t() @ a.double()), (bias.grad, slope.sum(0))):
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-3)
print("checked")
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_every_form_of_a_product_and_its_gradient() -> None:
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, check=False)
    assert done.stdout == "checked\n" and not done.stderr, done.stderr


def test_chosen_where_it_is_faster_only(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[bool] = []
    monkeypatch.setattr(onednn_matmul, "_replace", lambda: replaced.append(True))
    monkeypatch.setattr(onednn_matmul, "_is_amd", lambda: False)
    onednn_matmul.use_faster_products()
    assert not replaced
    monkeypatch.setenv("RECURLAB_BACKEND", "onednn")
    with pytest.raises(UserError, match="products: backend onednn is not available: it is faster on AMD processors with AVX-512 only"):
        onednn_matmul.use_faster_products()
    monkeypatch.setattr(onednn_matmul, "_is_amd", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    onednn_matmul.use_faster_products()
    assert replaced == [True] or not torch.backends.mkl.is_available()
    monkeypatch.setenv("RECURLAB_BACKEND", "torch")
    onednn_matmul.use_faster_products()
    assert len(replaced) <= 1
