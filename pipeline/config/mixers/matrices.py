"""Linear recurrences with a matrix state per head, written with keys and values and read with queries.

Code: `pipeline/mixers/`, one file each.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Headed


class LinearAttention(Headed):
    """Linear attention: positive features (elu + 1) in place of the softmax, so the state is a sum of outer products of keys and values."""

    implementation: ClassVar[str] = "pipeline.mixers.linear_attention:LinearAttention"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "Linear attention"
    source: ClassVar[str] = "Katharopoulos et al. 2020"

    name: Literal["linear_attention"] = "linear_attention"


class GatedLinearAttention(Headed):
    """Gated linear attention (GLA): the matrix state decays by an input-dependent factor per key channel."""

    implementation: ClassVar[str] = "pipeline.mixers.gated_linear_attention:GatedLinearAttention"
    display_name: ClassVar[str] = "GLA"
    source: ClassVar[str] = "Yang et al. 2024"

    name: Literal["gated_linear_attention"] = "gated_linear_attention"
    gate_low_rank_dim: int = Field(
        default=16, ge=1, le=65_536, description="rank of the projection to the decays; larger: more expressive, more parameters"
    )


class DeltaNet(Headed):
    """DeltaNet: linear attention with the delta rule, which replaces the value stored under a key."""

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
    """Gated DeltaNet: the delta rule with an input-dependent decay per head, which can also clear the whole state."""

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
    """mLSTM of xLSTM: a matrix memory per head, with exponential input gate, sigmoid forget gate and normaliser."""

    implementation: ClassVar[str] = "pipeline.mixers.matrix_lstm:MatrixLSTM"
    display_name: ClassVar[str] = "xLSTM (mLSTM)"
    source: ClassVar[str] = "Beck et al. 2024"

    name: Literal["matrix_lstm"] = "matrix_lstm"


class Rwkv7(Headed):
    """RWKV-7 time mixing: a matrix state with per-channel decay and a delta rule with separate keys for removal and writing."""

    implementation: ClassVar[str] = "pipeline.mixers.rwkv7:RWKV7"
    display_name: ClassVar[str] = "RWKV-7"
    source: ClassVar[str] = "Peng et al. 2025"

    name: Literal["rwkv7"] = "rwkv7"
    low_rank_dim: int = Field(
        default=32, ge=1, le=65_536, description="rank of the projections to decays and in-context learning rates; raise it with the width"
    )
    gate_low_rank_dim: int = Field(
        default=64, ge=1, le=65_536, description="rank of the projection to the output gate; raise it with the width"
    )


class Mamba2(Headed):
    """Mamba-2 (SSD): one scalar decay per head; computed in chunks by matrix multiplication."""

    implementation: ClassVar[str] = "pipeline.mixers.mamba2:Mamba2"
    display_name: ClassVar[str] = "Mamba-2"
    source: ClassVar[str] = "Dao & Gu 2024"

    name: Literal["mamba2"] = "mamba2"
    d_state: int = Field(default=64, ge=1, le=65_536, description="SSM state dimension N per channel; larger: more memory, at linear cost")
    expand: int = Field(default=2, ge=1, le=1_024, description="inner width as a multiple of the width; larger: more state and parameters")
    d_conv: int = Field(default=4, ge=2, le=1_024, description="kernel size of the convolution before the recurrence, in positions")


class Relit(Headed):
    """ReLiT (later GaLiTe): linear attention with a gate per entry of its matrix state, an outer product of two vectors."""

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
        description="features per channel of a key (dpfp: twice as many; relu and elu: one); larger: more capacity, and a state that grows linearly",
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
    """AReLiT (later AGaLiTe): ReLiT with a rank-r approximation of its matrix state, by oscillating sums of keys and of values."""

    implementation: ClassVar[str] = "pipeline.mixers.arelit:AReLiT"
    version: ClassVar[int] = 2
    display_name: ClassVar[str] = "AReLiT"
    source: ClassVar[str] = "Pramanik et al. 2023; slow gates: Tallec & Ollivier 2018"

    name: Literal["arelit"] = "arelit"
    head_dim: int | None = Field(default=None, ge=1, le=65_536, description="channels per head; null: width / heads")
    eta: int = Field(
        default=4, ge=1, le=1_024, description="features per channel of a key; larger: more capacity, and a state that grows linearly"
    )
    r: int = Field(
        default=2,
        ge=1,
        le=1_024,
        description="rank of the approximation: number of oscillators; larger: more exact, and a state that grows linearly",
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
