"""ReLiT, later named GaLiTe (Pramanik et al. 2023, "Recurrent linear transformers", arXiv 2310.15719).

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head, K = N E = features of a key (N = `eta`),
V = E + 1 = channels of a value and the normaliser, S = state of a head (K x V); q, k, v = query, key and value, s = scales, (x) = outer
product flattened to a vector, * = elementwise product.

Recurrent form, for every head, with update: outer and feature_map: projected_relu:

    k_t = relu(P s_t) (x) relu(A x_t)                  s, q and every gate below: linear maps of x_t with a bias
    q_t = the same for W_q x_t, with separate maps
    b_t = sigmoid(.), E channels                       c_t = sigmoid(.) (x) sigmoid(.), K features
    C_t = (1 - c_t b_t^T) * C_{t-1} + (c_t * k_t) (b_t * v_t)^T
    z_t = (1 - c_t) * z_{t-1} + c_t * k_t
    y_t = W (C_t^T q_t / (z_t . q_t + epsilon)) + bias

With a last channel of ones in b and v, z is the last column of S. Parallel form: `outer_scan`.

With epsilon 0.1, outputs are small while little has been written. With the published 1e-10, gradients are unbounded where a query matches
almost nothing: even with 0.001, ten updates amplified rounding to the fourth digit of a loss.

    update      forgetting, and the factor of k when writing                                          source
    outer       c b^T, and c, as above
    dense       the same, with c from a linear map to K gates
    scalar      c, one gate per head, and c                                                           Peng et al. 2021, arXiv 2103.02143
    constant    a d, and a: learned, in 0..1, independent of the input                                Ma et al. 2023, arXiv 2209.10655
    sum         none, and 1: linear attention
    delta       the key's old value, by `delta_rule`: unit keys and queries, one gate, no z           Schlag et al. 2021, arXiv 2102.11174
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.delta_rule import delta_rule, delta_step, unit
from pipeline.ops.feature_maps import features, is_projected, multiples, outer, outer_gate, product_gate
from pipeline.ops.gate_init import OPEN, slow_biases
from pipeline.ops.outer_scan import OuterScanInputs, outer_scan, outer_step
from pipeline.ops.state import State, where

SLOW = {"outer": 1, "dense": 1, "scalar": 0, "constant": 0}
"""Per update, the gate whose time constants are spread over 2..horizon by `init: slow`; the others start open."""


class ReLiT(Mixer):
    """State: S_BHKV; with `update: delta` it has no column for z."""

    decayed = ("query_HFE",)

    def __init__(self, config: config.Relit, width: int) -> None:
        super().__init__(width)
        self.update, self.map, self.eta, self.epsilon = config.update, config.feature_map, config.eta, config.epsilon
        self.heads, self.channels = config.heads, config.head_dim or width // config.heads
        self.keys = multiples(config.feature_map, config.eta) * self.channels
        scales = config.eta if is_projected(config.feature_map) else 0
        gates = {
            "outer": [self.channels, self.channels, self.keys // self.channels],
            "dense": [self.channels, self.keys],
            "scalar": [1],
            "delta": [1],
        }
        self.sizes = [self.channels, scales, self.channels, self.channels, *gates.get(config.update, [])]
        self.query_sizes = [self.channels, scales]
        self.project = nn.Linear(width, self.heads * sum(self.sizes))
        self.query_HFE = nn.Parameter(torch.empty(self.heads, self.channels + scales, self.channels)) if scales else None
        self.query_bias_HF = nn.Parameter(torch.zeros(self.heads, self.channels + scales)) if scales else None
        self.constants_2HK = nn.Parameter(torch.zeros(2, self.heads, self.keys)) if config.update == "constant" else None
        self.out = nn.Linear(self.heads * self.channels, width)
        self._initialise(config)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        assert self.update == "outer", "only `update: outer` is implemented here; the table above lists the others"
        C, z, outputs = *x_TD.new_zeros(self.heads, self.keys, self.channels + 1).split([self.channels, 1], -1), []
        for x in x_TD:
            q, k, v, (b, c, scale) = self._projected(x)
            b, c = torch.sigmoid(b).unsqueeze(-1), outer(torch.sigmoid(scale), torch.sigmoid(c)).unsqueeze(-1)
            q, k, v = q.unsqueeze(-1), k.unsqueeze(-1), v.unsqueeze(-1)
            C = (1 - c @ b.mT) * C + (c * k) @ (b * v).mT
            z = (1 - c) * z + c * k
            outputs.append(self.out((C.mT @ q / (z.mT @ q + self.epsilon)).flatten()))
        return torch.stack(outputs)

    @torch.no_grad()
    def _initialise(self, config: config.Relit) -> None:
        """Initialise each head's maps orthogonally with gain sqrt(2), biases to zero, except those of slow gates."""
        maps = [(self.project.weight.view(self.heads, -1, self.width), self.sizes)]
        maps += [] if self.query_HFE is None else [(self.query_HFE, self.query_sizes)]
        for weight_HFE, sizes in maps:
            for part in (part for head in weight_HFE for part in head.split(sizes) if len(part)):
                nn.init.orthogonal_(part, math.sqrt(2))
        nn.init.orthogonal_(self.out.weight, math.sqrt(2))
        for layer in (self.project, self.out):
            nn.init.zeros_(layer.bias)
        if config.init == "slow" and config.update in SLOW:
            *_, gates = self._split(self.project.bias)
            gates = gates if self.constants_2HK is None else list(self.constants_2HK)
            for number, gate in enumerate(gates):
                gate.copy_(slow_biases(gate.shape, config.horizon) if number == SLOW[config.update] else torch.full(gate.shape, OPEN))

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return self.out.weight.new_zeros(batch, self.heads, self.keys, self._values())

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        start = self.initial_state(len(x_BTD)) if state is None else state
        q, k, v, gates = self._projected(x_BTD)
        if self.update == "delta":
            y, after = delta_rule(unit(q), unit(k), v, torch.sigmoid(gates[0][..., 0]), None, start, reset_BT, length_B)
        else:
            y, after = outer_scan(self._terms(q, k, v, gates), start, reset_BT, length_B)
        return self._read(y), after

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        q, k, v, gates = self._projected(x_BD)
        if self.update == "delta":
            y, after = delta_step(unit(q), unit(k), v, torch.sigmoid(gates[0][..., 0]), None, state)
        else:
            y, after = outer_step(self._terms(q, k, v, gates), state)
        return self._read(y), after if active_B is None else where(active_B, after, state)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Return q, k, v and the gates' inputs, by heads."""
        k, scale, v, q, gates = self._split(self.project(x))
        k = features(self.map, self.eta, k, scale)
        if self.query_HFE is not None and self.query_bias_HF is not None:
            mapped = torch.einsum("...he,hfe->...hf", q, self.query_HFE) + self.query_bias_HF
            q, scale = mapped.split(self.query_sizes, -1)
        return features(self.map, self.eta, q, scale), k, v, gates

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """Split the output of `project`, by heads: key, its scales, value, query, and the gates."""
        k, scale, v, q, *gates = projected.unflatten(-1, (self.heads, -1)).split(self.sizes, -1)
        return k, scale, v, q, gates

    def _terms(self, q: Tensor, k: Tensor, v: Tensor, gates: list[Tensor]) -> OuterScanInputs:
        """Return the inputs of the scan."""
        v = functional.pad(v, (0, 1), value=1.0)
        if self.update == "sum":
            return OuterScanInputs(q, k, v, torch.ones_like(k), torch.zeros_like(v))
        if self.constants_2HK is not None:
            _, kept = product_gate(*self.constants_2HK)
            return OuterScanInputs(q, torch.sigmoid(self.constants_2HK[0]) * k, v, kept.expand_as(k), torch.zeros_like(v))
        if self.update == "scalar":
            return OuterScanInputs(q, torch.sigmoid(gates[0]) * k, v, torch.sigmoid(-gates[0]).expand_as(k), torch.zeros_like(v))
        dense = self.update == "dense"
        c, kept = (torch.sigmoid(gates[1]), torch.sigmoid(-gates[1])) if dense else outer_gate(gates[2], gates[1])
        b = functional.pad(torch.sigmoid(gates[0]), (0, 1), value=1.0)
        return OuterScanInputs(q, c * k, b * v, kept, functional.pad(torch.sigmoid(-gates[0]), (0, 1)))

    def _read(self, y: Tensor) -> Tensor:
        mixed = y if self.update == "delta" else y[..., :-1] / (y[..., -1:] + self.epsilon)
        return self.out(mixed.flatten(-2))

    def _values(self) -> int:
        return self.channels + (self.update != "delta")

    def state_bytes(self, context: int) -> int:
        """H K V numbers, independent of the context."""
        return self.heads * self.keys * self._values() * self.out.weight.element_size()
