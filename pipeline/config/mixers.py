"""Every mixer a network can be made of. Code: `pipeline/mixers/`, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.config.base import Component
from pipeline.config.catalogue import collect, union_of


class Mixer(Component):
    """Maps a sequence (batch, time, width) to one of the same shape, carrying state from step to step."""

    causal: ClassVar[bool] = True
    constant_state: ClassVar[bool] = True
    """The state's size does not grow with the context."""


class Rnn(Mixer):
    """Elman's recurrent network: tanh of one linear map of input and state, no gates."""

    implementation: ClassVar[str] = "pipeline.mixers.rnn:RNN"
    source: ClassVar[str] = "Elman 1990; orthogonal start: Saxe et al. 2014"

    name: Literal["rnn"] = "rnn"
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial recurrent matrix: a random rotation, or torch's uniform start"
    )


class Lstm(Mixer):
    """Long short-term memory: one hidden and one cell state of the network's width, with input, forget and output gates."""

    implementation: ClassVar[str] = "pipeline.mixers.lstm:LSTM"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997; Gers et al. 2000; chrono: Tallec & Ollivier 2018"

    name: Literal["lstm"] = "lstm"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the gates' time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial forget-gate bias, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial recurrent matrices: one random rotation per gate, or torch's uniform start"
    )


class Gru(Mixer):
    """Gated recurrent unit in the form of cuDNN: reset applied after the recurrent product, update gate z keeps the state."""

    implementation: ClassVar[str] = "pipeline.mixers.gru:GRU"
    source: ClassVar[str] = "Cho et al. 2014 (v3 form); chrono: Tallec & Ollivier 2018"

    name: Literal["gru"] = "gru"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the update gate's time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial bias of the keeping gate z, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial recurrent matrices: one random rotation per gate, or torch's uniform start"
    )


class GruV1(Mixer):
    """Gated recurrent unit as first published: reset applied before the recurrent product, update gate z writes the state."""

    implementation: ClassVar[str] = "pipeline.mixers.gru_v1:GRUv1"
    source: ClassVar[str] = "Cho et al. 2014 (v1 form); chrono: Tallec & Ollivier 2018"

    name: Literal["gru_v1"] = "gru_v1"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the update gate's time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial bias of the keeping gate, minus that of z, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial recurrent matrices: one random rotation per gate, or torch's uniform start"
    )


class MinGru(Mixer):
    """Minimal gated recurrent unit: gate and candidate depend on the input only, so the state is a linear recurrence."""

    implementation: ClassVar[str] = "pipeline.mixers.min_gru:MinGRU"
    source: ClassVar[str] = "Feng et al. 2024; chrono: Tallec & Ollivier 2018"

    name: Literal["min_gru"] = "min_gru"
    candidate: Literal["linear", "positive"] = Field(
        default="linear",
        description="what is written: a linear map of the input, or a positive function of it as in the paper's log-space form",
    )
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the gate's time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial bias of the keeping gate, minus that of z, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")


class MinLstm(Mixer):
    """Minimal long short-term memory: forget and input gate depend on the input only and sum to one."""

    implementation: ClassVar[str] = "pipeline.mixers.min_lstm:MinLSTM"
    source: ClassVar[str] = "Feng et al. 2024; chrono: Tallec & Ollivier 2018"

    name: Literal["min_lstm"] = "min_lstm"
    candidate: Literal["linear", "positive"] = Field(
        default="linear",
        description="what is written: a linear map of the input, or a positive function of it as in the paper's log-space form",
    )
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the gates' time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial forget-gate bias, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")


class Lru(Mixer):
    """Linear recurrent unit: a diagonal complex linear recurrence, read out linearly with a skip."""

    implementation: ClassVar[str] = "pipeline.mixers.lru:LRU"
    source: ClassVar[str] = "Orvieto et al. 2023"

    name: Literal["lru"] = "lru"
    states: int | None = Field(default=None, ge=1, description="complex states; default: the network's width")
    radius: tuple[float, float] = Field(default=(0.9, 0.999), description="ring from which the eigenvalues' moduli are drawn")
    phase: float = Field(default=6.283185307179586, gt=0, description="largest initial phase of an eigenvalue, radians per step")

    @field_validator("radius")
    @classmethod
    def _inside_the_unit_circle(cls, radius: tuple[float, float]) -> tuple[float, float]:
        smallest, largest = radius
        if not (0 < smallest <= largest <= 1 and smallest < 1):
            raise ValueError(f"got {list(radius)}; expected 0 < smallest <= largest <= 1")
        return radius


class Attention(Mixer):
    """Causal multi-head softmax attention with rotary positions; its state is the cache of keys and values."""

    constant_state: ClassVar[bool] = False
    implementation: ClassVar[str] = "pipeline.mixers.attention:Attention"
    source: ClassVar[str] = "Vaswani et al. 2017; rotary positions: Su et al. 2021"

    name: Literal["attention"] = "attention"
    heads: int = Field(default=4, ge=1, description="attention heads; must divide the width into even parts")
    rotary_base: float = Field(default=10_000.0, gt=1, description="base of the rotary frequencies")


class NoMixer(Mixer):
    """The memoryless control: output zero, no state, no parameters. What it scores needs no memory."""

    implementation: ClassVar[str] = "pipeline.mixers.none:NoMixer"

    name: Literal["none"] = "none"


MIXERS = collect(globals(), Mixer, "recurlab.mixers")
if TYPE_CHECKING:
    AnyMixer = Mixer
else:
    AnyMixer = union_of(MIXERS)
