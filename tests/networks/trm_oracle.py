"""One supervision step of the published recursive models (TRM, HRM) from their equations: plain torch in float64, a loop for every sum over turns.

Nothing of `pipeline` is used. Letters as in the papers: y the answer, z the reasoning latents, x the input, f the network, R the norm.

    x = sqrt(D) [registers, E tokens]
    f(h):  h <- R(h + mix(h));  h <- R(h + V(silu(G h) * U h))
    outer times:  inner times  z_i <- f(y + x + sum of all z);  then  y <- f(y + sum of all z)
    logits = W y;  (q_halt, q_continue) = Q y_0 + b
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Model:
    """Weights by role. A block has `gate`, `up`, `down`; and `query`, `key`, `value`, `join`, or `row_gate`, `row_up`, `row_down`.

    `kernel` (I, K) and `shift` (I): of a depthwise convolution of the gated channels. answering: the blocks of f for y; reasoning: those for z,
    the same ones in TRM. kept: damping.
    """

    embedding: Tensor
    answering: list[Weights]
    reasoning: list[Weights]
    head: Tensor
    halting: Tensor
    halting_bias: Tensor
    registers: int
    heads: int = 0
    table: Tensor | None = None
    kept: float = 0.0
    gate_norm: bool = False
    eps: float = 1e-5
    theta: float = 10_000.0


def norm(v: Tensor, axis: int, eps: float) -> Tensor:
    """R: divide by the root mean square along an axis."""
    return v / ((v**2).mean(axis, keepdim=True) + eps) ** 0.5


def swiglu(v: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """V (silu(G v) * U v) of the last axis."""
    g, u = v @ gate.T, v @ up.T
    return (g / (1 + (-g).exp()) * u) @ down.T


def turned(v: Tensor, theta: float) -> Tensor:
    """Rotary position embedding by complex numbers: channels j and j + E/2 of position p turn by p theta^(-2j/E)."""
    half = v.shape[-1] // 2
    rate = theta ** (-2 * torch.arange(half, dtype=torch.float64) / v.shape[-1])
    angle = torch.arange(v.shape[-2], dtype=torch.float64)[:, None] * rate
    after = torch.complex(v[..., :half], v[..., half:]) * torch.exp(1j * angle)
    return torch.cat([after.real, after.imag], -1)


def attend(h: Tensor, block: Weights, heads: int, theta: float) -> Tensor:
    """Softmax attention over all positions, head by head."""
    size, mixed = h.shape[-1] // heads, []
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        q, k, v = (h @ block[name][mine].T for name in ("query", "key", "value"))
        scores = turned(q, theta) @ turned(k, theta).mT / math.sqrt(size)
        mixed.append(torch.softmax(scores, -1) @ v)
    return torch.cat(mixed, -1) @ block["join"].T


def feed(h: Tensor, block: Weights, model: Model) -> Tensor:
    """The feed-forward layer with its options."""
    if not model.gate_norm and "kernel" not in block:
        return swiglu(h, block["gate"], block["up"], block["down"])
    g = h @ block["gate"].T
    gated = g * torch.sigmoid(g) * (h @ block["up"].T)
    if model.gate_norm:
        gated = norm(gated, -1, model.eps)
    if "kernel" in block:
        size, around = block["kernel"].shape[1], []
        for position in range(h.shape[1]):
            total = block["shift"].expand(len(h), -1)
            for tap in range(size):
                at = position + tap - size // 2
                if 0 <= at < h.shape[1]:
                    total = total + block["kernel"][:, tap] * gated[:, at]
            around.append(total)
        wide = torch.stack(around, 1)
        gated = wide * torch.sigmoid(wide)
    return gated @ block["down"].T


def f(h: Tensor, blocks: list[Weights], model: Model) -> Tensor:
    """All blocks; token mixing normalises along the positions."""
    for block in blocks:
        if "row_gate" in block:
            h = norm(h + swiglu(h.mT, block["row_gate"], block["row_up"], block["row_down"]).mT, 1, model.eps)
        else:
            h = norm(h + attend(h, block, model.heads, model.theta), -1, model.eps)
        h = norm(h + feed(h, block, model), -1, model.eps)
    return h


def supervision_step(
    model: Model,
    tokens: Tensor,
    identifiers: Tensor | None,
    latents: list[Tensor],
    outer: int,
    inner: int,
    graded: int = 1,
    one_step: bool = False,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits, both q, and the new latents, y first. graded: last cycles whose results are no constants; one_step: HRM's last update of each."""
    x = model.embedding[tokens]
    if model.registers:
        before = torch.zeros(len(tokens), model.registers, x.shape[-1], dtype=x.dtype)
        if model.table is not None and identifiers is not None:
            before = torch.cat([model.table[identifiers][:, None], before[:, 1:]], 1)
        x = torch.cat([before, x], 1)
    elif model.table is not None and identifiers is not None:
        x = x + model.table[identifiers][:, None]
    x = math.sqrt(x.shape[-1]) * x
    y, *z = latents
    for cycle in range(outer):
        if cycle == outer - graded:
            y, z = y.detach(), [one.detach() for one in z]
        for turn in range(inner if z else 0):
            if one_step and cycle == outer - 1 and turn == inner - 1:
                y, z = y.detach(), [one.detach() for one in z]
            place = turn % len(z)
            z[place] = model.kept * z[place] + (1 - model.kept) * f(y + x + sum(z), model.reasoning, model)
        if z:
            y = model.kept * y + (1 - model.kept) * f(y + sum(z), model.answering, model)
        for _ in range(0 if z else inner + 1):
            y = model.kept * y + (1 - model.kept) * f(y + x, model.answering, model)
    first = y[:, 0] if model.registers else y.mean(1)
    return y[:, model.registers :] @ model.head.T, first @ model.halting.T + model.halting_bias, [y, *z]
