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


class MultiplicativeLstm(Mixer):
    """LSTM whose gates see m = (W_m x) * (U_m h) in place of h: every input has a transition of its own."""

    implementation: ClassVar[str] = "pipeline.mixers.multiplicative_lstm:MultiplicativeLSTM"
    source: ClassVar[str] = "Krause et al. 2016; chrono: Tallec & Ollivier 2018"

    name: Literal["multiplicative_lstm"] = "multiplicative_lstm"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the gates' time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial forget-gate bias, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial W_m, U_m and recurrent matrices: one random rotation each, or torch's uniform start"
    )


class MultiplicativeGru(Mixer):
    """GRU whose gates and candidate see m = (W_m x) * (U_m h) in place of h; the state carried on is h."""

    implementation: ClassVar[str] = "pipeline.mixers.multiplicative_gru:MultiplicativeGRU"
    source: ClassVar[str] = "the factored product of Krause et al. 2016 in the cell of Cho et al. 2014"

    name: Literal["multiplicative_gru"] = "multiplicative_gru"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the update gate's time constants over 2..horizon steps"
    )
    forget_bias: float = Field(
        default=1.0, description="minus the initial bias of the update gate z, which lets the new in, used by init: forget_bias"
    )
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial W_m, U_m and recurrent matrices: one random rotation each, or torch's uniform start"
    )


class InputMultiplicativeLstm(Mixer):
    """LSTM that reads m * x with m = W_m x + U_m h + b_m: a study's own variant, for reproduction."""

    implementation: ClassVar[str] = "pipeline.mixers.input_multiplicative_lstm:InputMultiplicativeLSTM"
    source: ClassVar[str] = "a study of multiplicative variants; starts as there"

    name: Literal["input_multiplicative_lstm"] = "input_multiplicative_lstm"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the gates' time constants over 2..horizon steps"
    )
    forget_bias: float = Field(default=1.0, description="initial forget-gate bias, used by init: forget_bias")
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="uniform", description="initial matrices on h: one random rotation each, or the study's uniform start"
    )


class InputMultiplicativeGru(Mixer):
    """GRU that reads m * x with m = W_m x + U_m h + b_m: a study's own variant, for reproduction."""

    implementation: ClassVar[str] = "pipeline.mixers.input_multiplicative_gru:InputMultiplicativeGRU"
    source: ClassVar[str] = "a study of multiplicative variants; starts as there"

    name: Literal["input_multiplicative_gru"] = "input_multiplicative_gru"
    init: Literal["default", "forget_bias", "chrono"] = Field(
        default="default", description="bias initialisation; chrono spreads the update gate's time constants over 2..horizon steps"
    )
    forget_bias: float = Field(
        default=1.0, description="minus the initial bias of the update gate z, which lets the new in, used by init: forget_bias"
    )
    horizon: int = Field(default=40, ge=3, description="longest time constant in steps, used by init: chrono")
    recurrent: Literal["uniform", "orthogonal"] = Field(
        default="uniform", description="initial matrices on h: one random rotation each, or the study's uniform start"
    )


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


class LinearAttention(Mixer):
    """Attention without softmax: outer products of keys and values summed in a matrix, read with positive features."""

    implementation: ClassVar[str] = "pipeline.mixers.linear_attention:LinearAttention"
    source: ClassVar[str] = "Katharopoulos et al. 2020"

    name: Literal["linear_attention"] = "linear_attention"
    heads: int = Field(default=4, ge=1, description="heads, each with its own matrix state; must divide the width into even parts")


class GatedLinearAttention(Mixer):
    """Linear attention whose matrix state decays, each channel of the key at a rate read from the input."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_linear_attention:GatedLinearAttention"
    source: ClassVar[str] = "Yang et al. 2024"

    name: Literal["gated_linear_attention"] = "gated_linear_attention"
    heads: int = Field(default=4, ge=1, description="heads, each with its own matrix state; must divide the width into even parts")
    gate_rank: int = Field(default=16, ge=1, description="channels that the decays of all heads are computed through")


class DeltaNet(Mixer):
    """A matrix state that writes by the delta rule: what it held under a key is replaced by the new value."""

    implementation: ClassVar[str] = "pipeline.mixers.delta_net:DeltaNet"
    source: ClassVar[str] = "Yang et al. 2024; negative eigenvalues: Grazzi et al. 2025"

    name: Literal["delta_net"] = "delta_net"
    heads: int = Field(default=4, ge=1, description="heads, each with its own matrix state; must divide the width into even parts")
    negative_eigenvalues: bool = Field(
        default=False, description="strengths of a write from 0 to 2 instead of 1: above 1 the state's part along the key changes sign"
    )


class GatedDeltaNet(Mixer):
    """The delta rule with a decay of each head, read from the input: overwrites single keys, and clears everything."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_delta_net:GatedDeltaNet"
    source: ClassVar[str] = "Yang et al. 2025; negative eigenvalues: Grazzi et al. 2025"

    name: Literal["gated_delta_net"] = "gated_delta_net"
    heads: int = Field(default=4, ge=1, description="heads, each with its own matrix state; must divide the width into even parts")
    negative_eigenvalues: bool = Field(
        default=False, description="strengths of a write from 0 to 2 instead of 1: above 1 the state's part along the key changes sign"
    )


class MatrixLstm(Mixer):
    """The matrix LSTM of xLSTM: a matrix state with exponential input gates and forget gates of each head, and a normaliser."""

    implementation: ClassVar[str] = "pipeline.mixers.matrix_lstm:MatrixLSTM"
    source: ClassVar[str] = "Beck et al. 2024"

    name: Literal["matrix_lstm"] = "matrix_lstm"
    heads: int = Field(default=4, ge=1, description="heads, each with its own matrix state; must divide the width into even parts")


class Rwkv7(Mixer):
    """Time mixing of RWKV-7: a matrix state with decays of each channel, whose delta rule removes and writes under keys of their own."""

    implementation: ClassVar[str] = "pipeline.mixers.rwkv7:RWKV7"
    source: ClassVar[str] = "Peng et al. 2025"

    name: Literal["rwkv7"] = "rwkv7"
    heads: int = Field(default=4, ge=1, description="heads, each with its own matrix state; must divide the width into even parts")
    rank: int = Field(default=32, ge=1, description="channels that the decays are computed through, and as many for the learning rates")
    gate_rank: int = Field(default=64, ge=1, description="channels that the output gate is computed through")


class Mamba(Mixer):
    """Selective state space: each inner channel is a diagonal linear recurrence whose step size, writing and reading follow the input."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba:Mamba"
    source: ClassVar[str] = "Gu & Dao 2023"

    name: Literal["mamba"] = "mamba"
    states: int = Field(default=16, ge=1, description="states of each inner channel")
    expand: int = Field(default=2, ge=1, description="inner channels, in multiples of the width")
    kernel: int = Field(default=4, ge=2, description="positions seen by the convolution before the recurrence, the present one with them")
    rank: int | None = Field(
        default=None, ge=1, description="channels that the step sizes are computed through; default: a 16th of the width, rounded up"
    )


class Mamba2(Mixer):
    """Mamba whose step size and decay are one number per head: its state is a matrix, and a chunk of positions is matrix products."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba2:Mamba2"
    source: ClassVar[str] = "Dao & Gu 2024"

    name: Literal["mamba2"] = "mamba2"
    heads: int = Field(
        default=4, ge=1, description="heads, each with its own decay and matrix state; must divide the width into even parts"
    )
    states: int = Field(default=64, ge=1, description="states of each inner channel")
    expand: int = Field(default=2, ge=1, description="inner channels, in multiples of the width")
    kernel: int = Field(default=4, ge=2, description="positions seen by the convolution before the recurrence, the present one with them")


class ShortConvolution(Mixer):
    """Each channel weighs its own last few inputs: the lower reference, which remembers nothing else."""

    implementation: ClassVar[str] = "pipeline.mixers.short_convolution:ShortConvolution"
    source: ClassVar[str] = "Fu et al. 2023; Arora et al. 2024"

    name: Literal["short_convolution"] = "short_convolution"
    kernel: int = Field(default=4, ge=2, description="positions that are seen, the present one with them")


class NoMixer(Mixer):
    """The memoryless control: output zero, no state, no parameters. What it scores needs no memory."""

    implementation: ClassVar[str] = "pipeline.mixers.none:NoMixer"

    name: Literal["none"] = "none"


MIXERS = collect(globals(), Mixer, "recurlab.mixers")
if TYPE_CHECKING:
    AnyMixer = Mixer
else:
    AnyMixer = union_of(MIXERS)
