"""Linear recurrences with a vector state, elementwise. Code: `pipeline/mixers/`, one file each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import FieldConflict
from pipeline.config.mixers.base import Gated, Mixer


class Minimal(Gated):
    """Fields of minGRU and minLSTM."""

    candidate: Literal["linear", "positive"] = Field(
        default="linear",
        description="candidate state: a linear map of the input, or a positive function of it, as in the paper's log-space form",
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
    """Linear recurrent unit: a diagonal complex linear recurrence with linear readout and skip connection."""

    implementation: ClassVar[str] = "pipeline.mixers.lru:LRU"
    display_name: ClassVar[str] = "LRU"
    source: ClassVar[str] = "Orvieto et al. 2023"

    name: Literal["lru"] = "lru"
    d_state: int | None = Field(default=None, ge=1, le=65_536, description="number of complex states; null: the width of the network")
    r_min: float = Field(default=0.9, ge=0, lt=1, description="smallest initial modulus of an eigenvalue; nearer 1: longer memory")
    r_max: float = Field(
        default=0.999, ge=0, le=1, description="largest initial modulus of an eigenvalue: a time constant of 1 / (1 - r_max) steps"
    )
    max_phase: float = Field(
        default=6.283185307179586,
        ge=1e-6,
        le=6.283185307179586,
        description="largest initial phase of an eigenvalue, in radians per step; smaller for long sequences",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Lru:
        if self.r_min > self.r_max:
            raise FieldConflict(f"got r_min: {self.r_min} and r_max: {self.r_max}; expected r_min <= r_max", "r_min", "r_max")
        return self


class Mamba(Mixer):
    """Selective SSM (S6): a diagonal linear recurrence per channel, with input-dependent Δ, B and C."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba:Mamba"
    display_name: ClassVar[str] = "Mamba"
    source: ClassVar[str] = "Gu & Dao 2023"

    name: Literal["mamba"] = "mamba"
    d_state: int = Field(default=16, ge=1, le=65_536, description="SSM state dimension N per channel; larger: more memory, at linear cost")
    expand: int = Field(default=2, ge=1, le=1_024, description="inner width as a multiple of the width; larger: more state and parameters")
    d_conv: int = Field(default=4, ge=2, le=1_024, description="kernel size of the convolution before the recurrence, in positions")
    dt_rank: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="rank of the projection to Δ; null: ceil(width / 16), as mamba-ssm's auto",
    )
