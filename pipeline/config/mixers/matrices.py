"""Linear recurrences with a matrix state per head, written with keys and values and read with queries.

Code: `pipeline/mixers/`, one file each.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Headed


class LinearAttention(Headed):
    """Attention without softmax: outer products of keys and values summed in a matrix, read with positive features."""

    implementation: ClassVar[str] = "pipeline.mixers.linear_attention:LinearAttention"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "Linear attention"
    source: ClassVar[str] = "Katharopoulos et al. 2020"

    name: Literal["linear_attention"] = "linear_attention"


class GatedLinearAttention(Headed):
    """Linear attention whose matrix state decays, each channel of the key at a rate read from the input."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_linear_attention:GatedLinearAttention"
    display_name: ClassVar[str] = "GLA"
    source: ClassVar[str] = "Yang et al. 2024"

    name: Literal["gated_linear_attention"] = "gated_linear_attention"
    gate_low_rank_dim: int = Field(
        default=16, ge=1, le=65_536, description="rank of the map from the input to the decays; larger: more freedom, more parameters"
    )


class DeltaNet(Headed):
    """A matrix state that writes by the delta rule: what it held under a key is replaced by the new value."""

    implementation: ClassVar[str] = "pipeline.mixers.delta_net:DeltaNet"
    display_name: ClassVar[str] = "DeltaNet"
    source: ClassVar[str] = "Yang et al. 2024; negative eigenvalues: Grazzi et al. 2025"

    name: Literal["delta_net"] = "delta_net"
    allow_neg_eigval: bool = Field(
        default=False,
        description="write strengths in 0..2 instead of 0..1, so that the transition can have negative "
        "eigenvalues; for state tracking, as parity",
    )


class GatedDeltaNet(Headed):
    """The delta rule with a decay of each head, read from the input: overwrites single keys, and clears everything."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_delta_net:GatedDeltaNet"
    display_name: ClassVar[str] = "Gated DeltaNet"
    source: ClassVar[str] = "Yang et al. 2025; negative eigenvalues: Grazzi et al. 2025"

    name: Literal["gated_delta_net"] = "gated_delta_net"
    allow_neg_eigval: bool = Field(
        default=False,
        description="write strengths in 0..2 instead of 0..1, so that the transition can have negative "
        "eigenvalues; for state tracking, as parity",
    )


class MatrixLstm(Headed):
    """The matrix LSTM of xLSTM: a matrix state with exponential input gates and forget gates of each head, and a normaliser."""

    implementation: ClassVar[str] = "pipeline.mixers.matrix_lstm:MatrixLSTM"
    display_name: ClassVar[str] = "xLSTM (mLSTM)"
    source: ClassVar[str] = "Beck et al. 2024"

    name: Literal["matrix_lstm"] = "matrix_lstm"


class Rwkv7(Headed):
    """Time mixing of RWKV-7: a matrix state with decays of each channel, whose delta rule removes and writes under keys of their own."""

    implementation: ClassVar[str] = "pipeline.mixers.rwkv7:RWKV7"
    display_name: ClassVar[str] = "RWKV-7"
    source: ClassVar[str] = "Peng et al. 2025"

    name: Literal["rwkv7"] = "rwkv7"
    low_rank_dim: int = Field(
        default=32, ge=1, le=65_536, description="rank of the maps to the decays and to the in-context learning rates; grows with the width"
    )
    gate_low_rank_dim: int = Field(default=64, ge=1, le=65_536, description="rank of the map to the output gate; grows with the width")


class Mamba2(Headed):
    """Mamba whose step size and decay are one number per head: its state is a matrix, and a chunk of positions is matrix products."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba2:Mamba2"
    display_name: ClassVar[str] = "Mamba-2"
    source: ClassVar[str] = "Dao & Gu 2024"

    name: Literal["mamba2"] = "mamba2"
    d_state: int = Field(default=64, ge=1, le=65_536, description="states per inner channel; larger: more memory, and proportional cost")
    expand: int = Field(default=2, ge=1, le=1_024, description="inner width as a multiple of the width; larger: more state and parameters")
    d_conv: int = Field(default=4, ge=2, le=1_024, description="kernel size of the convolution before the recurrence, in positions")


class Relit(Headed):
    """ReLiT, later named GaLiTe: linear attention with a gate for every entry of its matrix state, the outer product of two vectors."""

    implementation: ClassVar[str] = "pipeline.mixers.relit:ReLiT"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "ReLiT"
    source: ClassVar[str] = "Pramanik et al. 2023; slow gates: Tallec & Ollivier 2018"

    name: Literal["relit"] = "relit"
    head_dim: int | None = Field(default=None, ge=1, le=65_536, description="channels per head; null: width / heads")
    eta: int = Field(
        default=2,
        ge=1,
        le=1_024,
        description="features per channel of a key (dpfp: twice as many; relu and elu: one); larger: more capacity, and proportional state",
    )
    feature_map: Literal["projected_relu", "projected_elu", "relu", "elu", "dpfp"] = Field(
        default="projected_relu",
        description="feature map that makes keys and queries positive; projected: outer product of two linear maps, as published",
    )
    update: Literal["outer", "dense", "scalar", "constant", "sum", "delta"] = Field(
        default="outer",
        description="forgetting: outer product of two gates (as published), a gate per key feature (dense), "
        "one gate (scalar), learned constants, "
        "none (sum), or the delta rule; for ablations",
    )
    init: Literal["zero", "slow"] = Field(
        default="slow", description="initial gate biases: zero as published, or time constants uniform in 2..horizon steps (slow)"
    )
    horizon: int = Field(
        default=40,
        ge=3,
        le=10_000_000,
        description="longest initial time constant in steps, with init: slow; set it near the longest dependency of the task",
    )
    epsilon: float = Field(
        default=0.1,
        ge=1e-30,
        le=1e9,
        description="added to the normaliser; published: 1e-10, with which gradients can grow without bound",
    )


class Arelit(Headed):
    """AReLiT, later named AGaLiTe: ReLiT's matrix state approximated by a few sums of keys and of values, told apart by oscillators."""

    implementation: ClassVar[str] = "pipeline.mixers.arelit:AReLiT"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "AReLiT"
    source: ClassVar[str] = "Pramanik et al. 2023; slow gates: Tallec & Ollivier 2018"

    name: Literal["arelit"] = "arelit"
    head_dim: int | None = Field(default=None, ge=1, le=65_536, description="channels per head; null: width / heads")
    eta: int = Field(default=4, ge=1, le=1_024, description="features per channel of a key; larger: more capacity, and proportional state")
    r: int = Field(
        default=2,
        ge=1,
        le=1_024,
        description="rank of the approximation: number of oscillators; larger: more exact, and proportional state",
    )
    oscillators: Literal["rotation", "upstream"] = Field(
        default="rotation",
        description="rotation: exact unless the distance of two positions is a multiple of r; upstream: the published cosines",
    )
    init: Literal["zero", "slow"] = Field(
        default="slow", description="initial gate biases: zero as published, or time constants uniform in 2..horizon steps (slow)"
    )
    horizon: int = Field(
        default=40,
        ge=3,
        le=10_000_000,
        description="longest initial time constant in steps, with init: slow; set it near the longest dependency of the task",
    )
    orthogonal: Literal["separate", "joint"] = Field(
        default="separate",
        description="orthogonal initialisation of each head's maps separately, or of all as one matrix, as published (joint)",
    )
    epsilon: float | None = Field(
        default=None, ge=1e-30, le=1e9, description="added to the normaliser; null: 0.1 with rotation, 1e-5 as published with upstream"
    )
