"""The attention of GTrXL (Parisotto et al. 2020, "Stabilizing transformers for reinforcement learning", arXiv 1910.06764).

Notation: B = batch size, T = sequence length (new positions), D = width, H = heads, E = channels per head, M = positions in memory,
S = M + T = memory and new positions, C = positions per block, N = blocks, W = C + M = positions visible to a block, P = M + 1 = number of
distances; q, k, v = query, key and value, d = distance.

For every head, with the relative positions of Transformer-XL (Dai et al. 2019, arXiv 1901.02860, section 3.3):

    p_d = sinusoidal embedding of d                           sin(d / 10000^(2 j / D)) for all j, then cos
    score(t, s) = ((q_t + u) . k_s + (q_t + w) . R p_(t - s)) / sqrt(E)
    y_t = W sum_s softmax_s(score(t, s)) v_s + bias           s = t - M .. t, in the same episode

Queries, keys and values are maps of the same normalised input, as in the paper; the published code of the control study computes queries
from the input before normalisation.

Recurrent form: the state is the last M positions, detached: no gradient flows into an earlier call. With `cache` it holds their keys and
values, and a step computes those of one position; without, it holds their inputs, and a step recomputes all M + 1, as the published code
does. Parallel form: blocks of C queries attend to the W keys visible to any of them. A query sees M earlier positions both in training and
when acting. The GRU gates of the paper belong to the network (`residual: gru`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where

SIZE = 64
"""Positions per block."""


class Memory(NamedTuple):
    """Keys and values by heads, or inputs as a single head; each (B, H, M, E), newest last. filled_B: how many of the M slots are used."""

    kept: tuple[Tensor, ...]
    filled_B: Tensor


class GTrXL(Mixer):
    """State: Memory."""

    def __init__(self, config: config.Gtrxl, width: int) -> None:
        super().__init__(width)
        self.heads, self.channels = config.heads, config.head_dim or width // config.heads
        self.memory, self.cache = config.mem_len, config.cache
        inner = self.heads * self.channels
        self.query, self.keys_values = nn.Linear(width, inner), nn.Linear(width, 2 * inner)
        self.positions, self.out = nn.Linear(width, inner, bias=False), nn.Linear(inner, width)
        self.content_HE = nn.Parameter(torch.zeros(self.heads, self.channels))
        self.distance_HE = nn.Parameter(torch.zeros(self.heads, self.channels))
        self.register_buffer("waves_PD", _waves(self.memory, width), persistent=False)
        self._held: tuple[Tensor, Tensor] | None = None
        for layer in (self.query, self.keys_values, self.positions, self.out):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        q, (k, v) = (
            self.query(x_TD).view(-1, self.heads, self.channels),
            self.keys_values(x_TD).view(-1, 2, self.heads, self.channels).unbind(1),
        )
        R_p, u, w, outputs = (
            self.positions(self.waves_PD).view(-1, self.heads, self.channels).flip(0),
            self.content_HE,
            self.distance_HE,
            [],
        )
        for t in range(len(x_TD)):
            seen = torch.arange(max(0, t - self.memory), t + 1, device=x_TD.device)
            score = ((q[t] + u) * k[seen] + (q[t] + w) * R_p[t - seen]).sum(-1) / math.sqrt(self.channels)
            outputs.append(self.out((torch.softmax(score, 0).unsqueeze(-1) * v[seen]).sum(0).flatten()))
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return an empty memory."""
        heads, channels = (self.heads, self.channels) if self.cache else (1, self.width)
        slots = self.out.weight.new_zeros(batch, heads, self.memory, channels)
        return Memory((slots, slots) if self.cache else (slots,), torch.zeros(batch, dtype=torch.int64, device=slots.device))

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all new positions, in blocks; see `Mixer.forward`."""
        batch, steps, _ = x_BTD.shape
        before: Memory = self.initial_state(batch) if state is None else state
        kept = self._extended(before, x_BTD)
        first_BT = _firsts(before.filled_B, self.memory, steps, reset_BT)
        k_BHSE, v_BHSE = self._keys_values(kept)
        y_BTHE = self._attend(*self._queries(x_BTD), k_BHSE, v_BHSE, first_BT)
        end_B = torch.full_like(before.filled_B, steps) if length_B is None else length_B.to(before.filled_B)
        return self.out(y_BTHE.flatten(2)), self._last(kept, first_BT, end_B, before.filled_B)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position, at the cost of reading the memory; see `Mixer.step`."""
        x_B1D = x_BD.unsqueeze(1)
        kept = self._extended(state, x_B1D)
        k_BHPE, v_BHPE = self._keys_values(kept)
        content_BH1E, distance_BH1E = self._queries(x_B1D)
        score_BH1P = content_BH1E @ k_BHPE.mT + _by_distance(distance_BH1E, self._rows())
        unfilled_B1 = self.memory - state.filled_B.unsqueeze(1)
        if bool(unfilled_B1.any()):
            empty_BP = torch.arange(self.memory + 1, device=x_BD.device) < unfilled_B1
            score_BH1P = score_BH1P.masked_fill(empty_BP[:, None, None], -math.inf)
        y_BHE = (score_BH1P.softmax(-1) @ v_BHPE).squeeze(2)
        newest = tuple(slots[:, :, 1:].detach() for slots in kept)
        after = Memory(newest, (state.filled_B + 1).clamp(max=self.memory))
        return self.out(y_BHE.flatten(1)), after if active_B is None else where(active_B, after, state)

    def _queries(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return (q + u) / sqrt(E) and (q + w) / sqrt(E), each of shape (B, H, T, E)."""
        q_BTHE = self.query(x_BTD).unflatten(-1, (self.heads, self.channels))
        content, distance = ((q_BTHE + bias).transpose(1, 2) / math.sqrt(self.channels) for bias in (self.content_HE, self.distance_HE))
        return content, distance

    def _extended(self, memory: Memory, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Append the new inputs' entries to the memory: each (B, H, S, E)."""
        new = self._by_heads(x_BTD) if self.cache else (x_BTD.unsqueeze(1),)
        return tuple(torch.cat(pair, 2) for pair in zip(memory.kept, new, strict=True))

    def _keys_values(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the keys and values of all positions, each of shape (B, H, S, E)."""
        return kept if self.cache else self._by_heads(kept[0].squeeze(1))

    def _by_heads(self, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Project inputs to keys and values, each of shape (B, H, T, E)."""
        return self.keys_values(x_BTD).unflatten(-1, (2, self.heads, self.channels)).permute(2, 0, 3, 1, 4).unbind()

    def _rows(self) -> Tensor:
        """Return R p_d by heads, farthest first, shape (H, P, E); cached without gradients if `cache`, until R changes.

        Compares the values of R: torch's version counter of a tensor misses updates by fused optimizers.
        """
        weight = self.positions.weight
        if torch.is_grad_enabled() or not self.cache:
            return self._made_rows()
        if self._held is None or not _same(self._held[0], weight):
            self._held = weight.detach().clone(), self._made_rows()
        return self._held[1]

    def _made_rows(self) -> Tensor:
        return self.positions(self.waves_PD).unflatten(-1, (self.heads, self.channels)).transpose(0, 1)

    def _attend(self, content_BHTE: Tensor, distance_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, first_BT: Tensor) -> Tensor:
        """Attend with every query; returns shape (B, T, H, E)."""
        steps = content_BHTE.shape[2]
        size = min(SIZE, steps)
        padding = -steps % size
        queries = (functional.pad(part, (0, 0, 0, padding)).unflatten(2, (-1, size)) for part in (content_BHTE, distance_BHTE))
        content_BHNCE, distance_BHNCE = queries
        k_BHNEW, v_BHNEW = (functional.pad(part, (0, 0, 0, padding)).unfold(2, size + self.memory, size) for part in (k_BHSE, v_BHSE))
        score_BHNCW = content_BHNCE @ k_BHNEW + _shifted(_by_distance(distance_BHNCE, self._rows()))
        first_BNC = functional.pad(first_BT, (0, padding)).unflatten(1, (-1, size))
        hidden_BNCW = _hidden(first_BNC, self.memory)
        weight_BHNCW = score_BHNCW.masked_fill(hidden_BNCW.unsqueeze(1), -math.inf).softmax(-1)
        return (weight_BHNCW @ v_BHNEW.mT).flatten(2, 3)[:, :, :steps].transpose(1, 2)

    def _last(self, kept: tuple[Tensor, ...], first_BT: Tensor, end_B: Tensor, filled_B: Tensor) -> Memory:
        """Return the last M positions of each row's last episode before its true end, padded with zeros."""
        begin_B = at_end(first_BT.unsqueeze(-1), end_B, (self.memory - filled_B).unsqueeze(-1)).squeeze(-1)
        filled_B = (self.memory + end_B - begin_B).clamp(max=self.memory)
        place_M = torch.arange(self.memory, device=end_B.device)
        index_B1M1 = (end_B.unsqueeze(1) + place_M)[:, None, :, None]
        empty_B1M1 = (place_M < self.memory - filled_B.unsqueeze(1))[:, None, :, None]
        last = (slots.detach().gather(2, index_B1M1.expand(-1, slots.shape[1], -1, slots.shape[3])) for slots in kept)
        return Memory(tuple(slots.masked_fill(empty_B1M1, 0.0) for slots in last), filled_B)

    def state_bytes(self, context: int) -> int:
        """M keys and values, or M inputs, and a counter."""
        numbers = 2 * self.heads * self.channels if self.cache else self.width
        return self.memory * numbers * self.out.weight.element_size() + 8


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have equal values, dtype and device."""
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def _waves(memory: int, width: int) -> Tensor:
    """Return p_d, farthest first, shape (P, D)."""
    speed = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(memory, -1, -1, dtype=torch.float64).unsqueeze(1) * speed
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width].to(torch.get_default_dtype())


def _firsts(filled_B: Tensor, memory: int, steps: int, reset_BT: Tensor | None) -> Tensor:
    """Return, per new position, the first of the S positions in its episode: the first filled memory slot if the episode began earlier."""
    begin_B1 = (memory - filled_B).unsqueeze(1)
    if reset_BT is None:
        return begin_B1.expand(-1, steps)
    place_T = memory + torch.arange(steps, device=filled_B.device)
    return torch.maximum(torch.where(reset_BT, place_T, 0).cummax(1).values, begin_B1)


def _hidden(first_BNC: Tensor, memory: int) -> Tensor:
    """Return the mask of the W keys that are not visible to each query of a block, shape (B, N, C, W)."""
    blocks, size = first_BNC.shape[1:]
    place_W, own_C1 = (torch.arange(count, device=first_BNC.device) for count in (size + memory, size))
    own_C1 = own_C1.unsqueeze(1)
    outside_CW = (place_W < own_C1) | (place_W > own_C1 + memory)
    begin_N11 = size * torch.arange(blocks, device=first_BNC.device)[:, None, None]
    return outside_CW | (begin_N11 + place_W < first_BNC.unsqueeze(-1))


def _by_distance(query: Tensor, rows_HPE: Tensor) -> Tensor:
    """Multiply queries (B, H, ..., E) by the row of every distance: (B, H, ..., P)."""
    return torch.einsum("bh...e,hpe->bh...p", query, rows_HPE)


def _shifted(score: Tensor) -> Tensor:
    """Shift scores (..., C, P) by distance to (..., C, W) by key: row i moves right by i. Entries outside are masked by the caller."""
    size, distances = score.shape[-2:]
    width = size + distances - 1
    return functional.pad(score, (0, size)).flatten(-2)[..., : size * width].unflatten(-1, (size, width))
