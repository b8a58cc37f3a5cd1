"""Causal multi-head softmax attention (Vaswani et al. 2017) with rotary positions (Su et al. 2021).

Notation: B = batch size, T = sequence length (new positions), D = width, H = heads, E = D / H = channels per head, C = slots of the cache;
q, k, v = query, key and value, p = position in the episode.

Recurrent form: the state is every key and value of the episode so far,

    append R(p) k_t and v_t            R(p) rotates pairs of channels by angles proportional to p
    y_t = W sum_s softmax_s(R(p) q_t . k_s / sqrt(E)) v_s            over slots s up to that of t

Parallel form: all new positions in one product, with later positions and other episodes masked.

The cache is allocated with spare slots, so that a step writes into it without a copy. A state passed in is never modified as seen by its
owner: only slots beyond its length are written, and continuing a state a second time copies it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.rotary import angles, rotate
from pipeline.ops.state import State

ROOM = 64
"""Number of slots by which a cache grows."""


class KVCache(NamedTuple):
    """Rotated keys, and values; the number of slots that each row uses, and the number written by any state that shares them."""

    keys_BHCE: Tensor
    values_BHCE: Tensor
    length_B: Tensor
    written_B: Tensor
    """Shared by all states that share the slots, unlike length_B: if they differ, another state has been continued."""


class Attention(Mixer):
    """Multi-head softmax attention over the current episode. State: a KVCache."""

    def __init__(self, config: config.Attention, width: int) -> None:
        super().__init__(width)
        self.heads, self.channels, self.base = config.heads, width // config.heads, config.rope_theta
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        q, k, v = self.project(x_TD).view(-1, 3, self.heads, self.channels).unbind(1)
        angle = angles(torch.arange(len(x_TD), device=x_TD.device), self.channels, self.base, x_TD.dtype).unsqueeze(1)
        q, k, outputs = rotate(q, angle), rotate(k, angle), []
        for t in range(len(x_TD)):
            weight = torch.softmax((k[: t + 1] * q[t]).sum(-1) / math.sqrt(self.channels), 0)
            outputs.append(self.out((weight.unsqueeze(-1) * v[: t + 1]).sum(0).flatten()))
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return an empty cache."""
        slots = self.out.weight.new_zeros(batch, self.heads, 0, self.channels)
        none = torch.zeros(batch, dtype=torch.int64, device=slots.device)
        return KVCache(slots, slots, none, none)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all new positions at once; see `Mixer.forward`."""
        batch, steps, _ = x_BTD.shape
        cache: KVCache = self.initial_state(batch) if state is None else state
        added_B = torch.full_like(cache.length_B, steps) if length_B is None else length_B.to(cache.length_B)
        if reset_BT is not None and not bool(reset_BT.any()):
            reset_BT = None
        fresh = cache.keys_BHCE.shape[2] == 0
        start_BT = None if fresh and reset_BT is None else _episode_starts(cache.length_B, steps, reset_BT)
        place_BT = torch.arange(steps, device=x_BTD.device) + cache.length_B.unsqueeze(1)
        q, k, v = self._projected(x_BTD, place_BT if start_BT is None else place_BT - start_BT)
        cache = _appended(cache, k, v, place_BT, added_B)
        if start_BT is None:
            mixed = _attend(q, k.transpose(1, 2), v.transpose(1, 2), causal=True)
        else:
            slot_C = torch.arange(cache.keys_BHCE.shape[2], device=x_BTD.device)
            mask_BTC = (slot_C <= place_BT.unsqueeze(-1)) & (slot_C >= start_BT.unsqueeze(-1))
            mixed = _attend(q, cache.keys_BHCE, cache.values_BHCE, mask_BTC)
        if reset_BT is not None and start_BT is not None:
            cache = _last_episode(cache, start_BT, added_B)
        return self.out(mixed.flatten(2)), cache

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position, at the cost of reading the cache; see `Mixer.step`."""
        place_B1 = state.length_B.unsqueeze(1)
        q, k, v = self._projected(x_BD.unsqueeze(1), place_B1)
        added_B = torch.ones_like(state.length_B) if active_B is None else active_B.to(state.length_B)
        cache = _appended(state, k, v, place_B1, added_B)
        shortest, longest = (int(end) + 1 for end in torch.aminmax(state.length_B))
        keys, values = cache.keys_BHCE[:, :, :longest], cache.values_BHCE[:, :, :longest]
        later_BC = None if shortest == longest else torch.arange(longest, device=x_BD.device) > place_B1
        return self.out(_read(q.squeeze(1), keys, values, later_BC).flatten(1)), cache

    def positions_held(self, state: State) -> int:
        """Return the length of the longest row's cache."""
        return int(state.length_B.max()) if state.length_B.numel() else 0

    def _projected(self, x_BTD: Tensor, position_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries and keys, and values, each of shape (B, T, H, E)."""
        q, k, v = self.project(x_BTD).unflatten(-1, (3, self.heads, self.channels)).unbind(2)
        angle = angles(position_BT, self.channels, self.base, x_BTD.dtype).unsqueeze(2)
        return rotate(q, angle), rotate(k, angle), v

    def state_bytes(self, context: int) -> int:
        """Keys and values of the slots allocated for `context` positions, and two counters."""
        return 2 * capacity(context) * self.width * self.out.weight.element_size() + 16


def capacity(length: int) -> int:
    """Return the number of slots of a cache for `length` positions."""
    return math.ceil(length / ROOM) * ROOM


def _attend(q_BTHE: Tensor, k_BHCE: Tensor, v_BHCE: Tensor, mask_BTC: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attend with every query; returns shape (B, T, H, E)."""
    mask = None if mask_BTC is None else mask_BTC.unsqueeze(1)
    return functional.scaled_dot_product_attention(q_BTHE.transpose(1, 2), k_BHCE, v_BHCE, attn_mask=mask, is_causal=causal).transpose(1, 2)


def _read(q_BHE: Tensor, k_BHCE: Tensor, v_BHCE: Tensor, later_BC: Tensor | None) -> Tensor:
    """Attend with one query per row; returns (B, H, E). Two products: torch's fused kernels process blocks of queries, wasteful for one."""
    score_BH1C = (q_BHE / math.sqrt(q_BHE.shape[2])).unsqueeze(2) @ k_BHCE.mT
    if later_BC is not None:
        score_BH1C = score_BH1C.masked_fill(later_BC[:, None, None], -math.inf)
    return (score_BH1C.softmax(-1) @ v_BHCE).squeeze(2)


def _episode_starts(length_B: Tensor, steps: int, reset_BT: Tensor | None) -> Tensor:
    """Return the slot at which each new position's episode starts."""
    if reset_BT is None:
        return torch.zeros_like(length_B).unsqueeze(1).expand(-1, steps)
    place_BT = torch.arange(steps, device=length_B.device) + length_B.unsqueeze(1)
    return torch.where(reset_BT, place_BT, 0).cummax(1).values


def _appended(cache: KVCache, k_BTHE: Tensor, v_BTHE: Tensor, place_BT: Tensor, added_B: Tensor) -> KVCache:
    """Append new keys and values to the cache: in place if no other state uses its slots, else in a copy."""
    length_B = cache.length_B + added_B
    needed = capacity(int(cache.length_B.max()) + k_BTHE.shape[1])
    room = needed - cache.keys_BHCE.shape[2]
    if room > 0 or _shared(cache, k_BTHE):
        keys, values = (_with_room(old, new, max(room, 0), place_BT) for old, new in zip(cache[:2], (k_BTHE, v_BTHE), strict=True))
        return KVCache(keys, values, length_B, length_B.clone())
    row_B1 = torch.arange(len(length_B), device=length_B.device).unsqueeze(1)
    cache.keys_BHCE.transpose(1, 2)[row_B1, place_BT] = k_BTHE
    cache.values_BHCE.transpose(1, 2)[row_B1, place_BT] = v_BTHE
    cache.written_B.add_(added_B)
    return cache._replace(length_B=length_B)


def _shared(cache: KVCache, new: Tensor) -> bool:
    """Whether the slots must not be written in place: another state has been continued, or a gradient will need them.

    Inference tensors cannot be written outside of inference mode either.
    """
    keys = cache.keys_BHCE
    differentiable = keys.requires_grad or (torch.is_grad_enabled() and new.requires_grad)
    frozen = keys.is_inference() and not torch.is_inference_mode_enabled()
    return differentiable or frozen or not torch.equal(cache.length_B, cache.written_B)


def _with_room(old_BHCE: Tensor, new_BTHE: Tensor, room: int, place_BT: Tensor) -> Tensor:
    new_BHTE = new_BTHE.transpose(1, 2)
    if old_BHCE.shape[2] == 0:
        return functional.pad(new_BHTE, (0, 0, 0, room - new_BHTE.shape[2]))
    larger = functional.pad(old_BHCE, (0, 0, 0, room))
    return larger.scatter(2, place_BT[:, None, :, None].expand_as(new_BHTE), new_BHTE)


def _last_episode(cache: KVCache, start_BT: Tensor, added_B: Tensor) -> KVCache:
    """Move each row's last episode to the first slots; earlier episodes are dropped."""
    last_B = (added_B - 1).clamp(min=0)
    begin_B = start_BT.gather(1, last_B.unsqueeze(1)).squeeze(1).masked_fill(added_B == 0, 0)
    length_B = cache.length_B - begin_B
    slots = torch.arange(capacity(int(length_B.max())), device=length_B.device)
    index = (slots + begin_B.unsqueeze(1)).clamp(max=cache.keys_BHCE.shape[2] - 1)[:, None, :, None]
    keys, values = (old.gather(2, index.expand(-1, old.shape[1], -1, old.shape[3])) for old in cache[:2])
    return KVCache(keys, values, length_B, length_B.clone())
