"""Base classes of the mixer catalogue."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.base import Component


class Mixer(Component):
    """Maps a sequence (batch, time, width) to one of the same shape; a causal one carries state from step to step."""

    display_name: ClassVar[str] = ""
    """Name in figures, as in the papers; empty: `name` with spaces."""
    causal: ClassVar[bool] = True
    """Outputs depend on the past only; false: on the whole row, which is read at once and without a state."""
    fixed_length: ClassVar[bool] = False
    """Weights are for rows of one length, that of the task's grids."""
    needs_grid: ClassVar[bool] = False
    """The positions of a row are the cells of a square grid."""
    constant_state: ClassVar[bool] = True
    """The size of the state does not depend on the context length."""
    carries_gradient: ClassVar[bool] = True
    """Gradients flow through a state into the call that returned it; false: states are detached."""

    @property
    def label(self) -> str:
        """The short name used in identifiers and labels."""
        return self.name


class Gated(Mixer):
    """Fields of mixers with input-dependent gates."""

    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default",
        description="initial gate biases; chrono: time constants uniform in 2..horizon steps, for dependencies "
        "longer than a few steps; default: as torch",
    )
    forget_bias: float = Field(
        default=1.0,
        ge=-100,
        le=100,
        description="initial bias of the forget gate, with init: forget_bias; larger: the state is kept for "
        "longer (sigmoid(1) = 0.73 per step)",
    )
    horizon: int = Field(
        default=40,
        ge=3,
        le=10_000_000,
        description="longest initial time constant in steps, with init: chrono; set it near the longest dependency of the task",
    )


class Headed(Mixer):
    """Fields of multi-head mixers."""

    heads: int = Field(
        default=4,
        ge=1,
        le=1_024,
        description="number of heads; the width must be divisible by twice as many. Fewer heads: a larger state per head",
    )
