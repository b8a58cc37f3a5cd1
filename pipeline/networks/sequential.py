"""Several mixers in sequence, as one mixer.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pipeline.mixers.base import Mixer
from pipeline.ops.state import State


class SequentialMixer(Mixer):
    """Applies mixers in sequence. State: a tuple of their states."""

    def __init__(self, *mixers: Mixer) -> None:
        super().__init__(mixers[0].width)
        self.links = nn.ModuleList(mixers)

    def initial_state(self, batch: int) -> State:
        """Return the initial state of each mixer."""
        return tuple(mixer.initial_state(batch) for mixer in self._mixers())

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all positions at once; see `Mixer.forward`."""
        after = []
        for mixer, before in zip(self._mixers(), state or [None] * len(self.links), strict=True):
            x_BTD, carried = mixer(x_BTD, before, reset_BT, length_B)
            after.append(carried)
        return x_BTD, tuple(after)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        after = []
        for mixer, before in zip(self._mixers(), state, strict=True):
            x_BD, carried = mixer.step(x_BD, before, active_B)
            after.append(carried)
        return x_BD, tuple(after)

    def state_bytes(self, context: int) -> int:
        """Return the sum over mixers."""
        return sum(mixer.state_bytes(context) for mixer in self._mixers())

    def positions_held(self, state: State) -> int:
        """Return the maximum over mixers."""
        return max(mixer.positions_held(part) for mixer, part in zip(self._mixers(), state, strict=True))

    def _mixers(self) -> list[Mixer]:
        return cast("list[Mixer]", list(self.links))
