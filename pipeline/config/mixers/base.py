"""What every entry of the mixers' pages is made of."""

from __future__ import annotations

from typing import ClassVar

from pipeline.config.base import Component


class Mixer(Component):
    """Maps a sequence (batch, time, width) to one of the same shape, carrying state from step to step."""

    causal: ClassVar[bool] = True
    constant_state: ClassVar[bool] = True
    """The state's size does not grow with the context."""
    carries_gradient: ClassVar[bool] = True
    """Gradients go through a state into the call that gave it; otherwise states come detached."""
