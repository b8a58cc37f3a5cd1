"""Linear recurrences whose state is a matrix of each head, written with keys and values and read with queries.

Code: `pipeline/mixers/`, one file each.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Headed, Mixer


class LinearAttention(Mixer):
    """Attention without softmax: outer products of keys and values summed in a matrix, read with positive features."""

    implementation: ClassVar[str] = "pipeline.mixers.linear_attention:LinearAttention"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "Linear attention"
    source: ClassVar[str] = "Katharopoulos et al. 2020"

    name: Literal["linear_attention"] = "linear_attention"
    heads: int = Field(
        default=4, ge=1, le=1_024, description="heads, each with its own matrix state; must divide the width into even parts"
    )


class GatedLinearAttention(Headed):
    """Linear attention whose matrix state decays, each channel of the key at a rate read from the input."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_linear_attention:GatedLinearAttention"
    display_name: ClassVar[str] = "GLA"
    source: ClassVar[str] = "Yang et al. 2024"

    name: Literal["gated_linear_attention"] = "gated_linear_attention"
    gate_rank: int = Field(default=16, ge=1, le=65_536, description="channels that the decays of all heads are computed through")


class DeltaNet(Headed):
    """A matrix state that writes by the delta rule: what it held under a key is replaced by the new value."""

    implementation: ClassVar[str] = "pipeline.mixers.delta_net:DeltaNet"
    display_name: ClassVar[str] = "DeltaNet"
    source: ClassVar[str] = "Yang et al. 2024; negative eigenvalues: Grazzi et al. 2025"

    name: Literal["delta_net"] = "delta_net"
    negative_eigenvalues: bool = Field(
        default=False, description="strengths of a write from 0 to 2 instead of 1: above 1 the state's part along the key changes sign"
    )


class GatedDeltaNet(Headed):
    """The delta rule with a decay of each head, read from the input: overwrites single keys, and clears everything."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_delta_net:GatedDeltaNet"
    display_name: ClassVar[str] = "Gated DeltaNet"
    source: ClassVar[str] = "Yang et al. 2025; negative eigenvalues: Grazzi et al. 2025"

    name: Literal["gated_delta_net"] = "gated_delta_net"
    negative_eigenvalues: bool = Field(
        default=False, description="strengths of a write from 0 to 2 instead of 1: above 1 the state's part along the key changes sign"
    )


class MatrixLstm(Mixer):
    """The matrix LSTM of xLSTM: a matrix state with exponential input gates and forget gates of each head, and a normaliser."""

    implementation: ClassVar[str] = "pipeline.mixers.matrix_lstm:MatrixLSTM"
    display_name: ClassVar[str] = "xLSTM (mLSTM)"
    source: ClassVar[str] = "Beck et al. 2024"

    name: Literal["matrix_lstm"] = "matrix_lstm"
    heads: int = Field(
        default=4, ge=1, le=1_024, description="heads, each with its own matrix state; must divide the width into even parts"
    )


class Rwkv7(Headed):
    """Time mixing of RWKV-7: a matrix state with decays of each channel, whose delta rule removes and writes under keys of their own."""

    implementation: ClassVar[str] = "pipeline.mixers.rwkv7:RWKV7"
    display_name: ClassVar[str] = "RWKV-7"
    source: ClassVar[str] = "Peng et al. 2025"

    name: Literal["rwkv7"] = "rwkv7"
    rank: int = Field(
        default=32, ge=1, le=65_536, description="channels that the decays are computed through, and as many for the learning rates"
    )
    gate_rank: int = Field(default=64, ge=1, le=65_536, description="channels that the output gate is computed through")


class Mamba2(Headed):
    """Mamba whose step size and decay are one number per head: its state is a matrix, and a chunk of positions is matrix products."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba2:Mamba2"
    display_name: ClassVar[str] = "Mamba-2"
    source: ClassVar[str] = "Dao & Gu 2024"

    name: Literal["mamba2"] = "mamba2"
    states: int = Field(default=64, ge=1, le=65_536, description="states of each inner channel")
    expand: int = Field(default=2, ge=1, le=1_024, description="inner channels, in multiples of the width")
    kernel: int = Field(
        default=4, ge=2, le=1_024, description="positions seen by the convolution before the recurrence, the present one with them"
    )


class Relit(Headed):
    """ReLiT, later named GaLiTe: linear attention with a gate for every entry of its matrix state, the outer product of two vectors."""

    implementation: ClassVar[str] = "pipeline.mixers.relit:ReLiT"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "ReLiT"
    source: ClassVar[str] = "Pramanik et al. 2023; slow gates: Tallec & Ollivier 2018"

    name: Literal["relit"] = "relit"
    channels: int | None = Field(default=None, ge=1, le=65_536, description="channels of a head; default: the width divided by the heads")
    eta: int = Field(
        default=2, ge=1, le=1_024, description="features of a key for each of its channels; dpfp has twice as many, relu and elu one"
    )
    feature_map: Literal["projected_relu", "projected_elu", "relu", "elu", "dpfp"] = Field(
        default="projected_relu", description="how keys and queries become positive features; projected: outer product of two maps"
    )
    update: Literal["outer", "dense", "scalar", "constant", "sum", "delta"] = Field(
        default="outer",
        description="what a write replaces: by gates that are outer products, gates of each key feature, one gate, learned constants; "
        "nothing; or what stood under the key",
    )
    init: Literal["zero", "slow"] = Field(
        default="slow", description="gate biases: zero as published, or time constants spread over 2..horizon steps"
    )
    horizon: int = Field(default=40, ge=3, le=10_000_000, description="longest time constant in steps, used by init: slow")
    epsilon: float = Field(
        default=0.1,
        ge=1e-30,
        le=1e9,
        description="added to the normaliser, so that a query that meets little reads little; published: 1e-10",
    )


class Arelit(Headed):
    """AReLiT, later named AGaLiTe: ReLiT's matrix state approximated by a few sums of keys and of values, told apart by oscillators."""

    implementation: ClassVar[str] = "pipeline.mixers.arelit:AReLiT"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "AReLiT"
    source: ClassVar[str] = "Pramanik et al. 2023; slow gates: Tallec & Ollivier 2018"

    name: Literal["arelit"] = "arelit"
    channels: int | None = Field(default=None, ge=1, le=65_536, description="channels of a head; default: the width divided by the heads")
    eta: int = Field(default=4, ge=1, le=1_024, description="features of a key for each of its channels")
    r: int = Field(default=2, ge=1, le=1_024, description="oscillators, and so sums of keys and of values")
    oscillators: Literal["rotation", "upstream"] = Field(
        default="rotation",
        description="rotation: positions whose distance is no multiple of r are told apart exactly; upstream: the published cosines",
    )
    init: Literal["zero", "slow"] = Field(
        default="slow", description="gate biases: zero as published, or time constants spread over 2..horizon steps"
    )
    horizon: int = Field(default=40, ge=3, le=10_000_000, description="longest time constant in steps, used by init: slow")
    orthogonal: Literal["separate", "joint"] = Field(
        default="separate",
        description="what starts orthogonal: every head's map of keys, queries, values and gates, or as published all of them as one matrix",
    )
    epsilon: float | None = Field(
        default=None, ge=1e-30, le=1e9, description="added to the normaliser; default: 0.1 with rotation, 1e-5 as published with upstream"
    )
