"""Linear recurrences whose state is a vector, each of its channels by itself.

Code: `pipeline/mixers/`, one file each.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.config.mixers.base import Gated, Mixer


class Minimal(Gated):
    """What the minimal cells have in common."""

    candidate: Literal["linear", "positive"] = Field(
        default="linear",
        description="what is written: a linear map of the input, or a positive function of it as in the paper's log-space form",
    )


class MinGru(Minimal):
    """Minimal gated recurrent unit: gate and candidate depend on the input only, so the state is a linear recurrence."""

    implementation: ClassVar[str] = "pipeline.mixers.min_gru:MinGRU"
    display_name: ClassVar[str] = "minGRU"
    source: ClassVar[str] = "Feng et al. 2024; chrono: Tallec & Ollivier 2018"

    name: Literal["min_gru"] = "min_gru"


class MinLstm(Minimal):
    """Minimal long short-term memory: forget and input gate depend on the input only and sum to one."""

    implementation: ClassVar[str] = "pipeline.mixers.min_lstm:MinLSTM"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "minLSTM"
    source: ClassVar[str] = "Feng et al. 2024; chrono: Tallec & Ollivier 2018"

    name: Literal["min_lstm"] = "min_lstm"


class Lru(Mixer):
    """Linear recurrent unit: a diagonal complex linear recurrence, read out linearly with a skip."""

    implementation: ClassVar[str] = "pipeline.mixers.lru:LRU"
    display_name: ClassVar[str] = "LRU"
    source: ClassVar[str] = "Orvieto et al. 2023"

    name: Literal["lru"] = "lru"
    states: int | None = Field(default=None, ge=1, le=65_536, description="complex states; default: the network's width")
    radius: tuple[float, float] = Field(default=(0.9, 0.999), description="ring from which the eigenvalues' moduli are drawn")
    phase: float = Field(
        default=6.283185307179586, ge=1e-6, le=6.283185307179586, description="largest initial phase of an eigenvalue, radians per step"
    )

    @field_validator("radius")
    @classmethod
    def _inside_the_unit_circle(cls, radius: tuple[float, float]) -> tuple[float, float]:
        smallest, largest = radius
        if not (0 <= smallest <= largest <= 1 and smallest < 1):
            raise ValueError(f"got {list(radius)}; expected 0 <= smallest <= largest <= 1")
        return radius


class Mamba(Mixer):
    """Selective state space: each inner channel is a diagonal linear recurrence whose step size, writing and reading follow the input."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba:Mamba"
    display_name: ClassVar[str] = "Mamba"
    source: ClassVar[str] = "Gu & Dao 2023"

    name: Literal["mamba"] = "mamba"
    states: int = Field(default=16, ge=1, le=65_536, description="states of each inner channel")
    expand: int = Field(default=2, ge=1, le=1_024, description="inner channels, in multiples of the width")
    kernel: int = Field(
        default=4, ge=2, le=1_024, description="positions seen by the convolution before the recurrence, the present one with them"
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="channels that the step sizes are computed through; default: a 16th of the width, rounded up",
    )
