"""What every entry of the mixers' pages is made of."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Component


class Mixer(Component):
    """Maps a sequence (batch, time, width) to one of the same shape, carrying state from step to step."""

    display_name: ClassVar[str] = ""
    """What papers call it, in figures; without one, `name` with spaces."""
    causal: ClassVar[bool] = True
    constant_state: ClassVar[bool] = True
    """The state's size does not grow with the context."""
    carries_gradient: ClassVar[bool] = True
    """Gradients go through a state into the call that gave it; otherwise states come detached."""


class Gated(Mixer):
    """What mixers start from that keep their state through gates read from the input."""

    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the gates' time constants over 2..horizon steps"
    )
    forget_bias: float = Field(
        default=1.0,
        ge=-100,
        le=100,
        description="initial bias of the gate that keeps the state, or minus that of the one that writes it, used by init: forget_bias",
    )
    horizon: int = Field(default=40, ge=3, le=10_000_000, description="longest time constant in steps, used by init: chrono")


class Headed(Mixer):
    """What mixers of several heads have in common."""

    heads: int = Field(default=4, ge=1, le=1_024, description="heads, each with a state of its own; must divide the width into even parts")
