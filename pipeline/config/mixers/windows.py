"""Attention, windows over the last inputs, and the memoryless control. Code: `pipeline/mixers/`, one file each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Headed, Mixer


class Attention(Headed):
    """Causal multi-head softmax attention with rotary position embedding (RoPE); its state is the KV cache."""

    constant_state: ClassVar[bool] = False
    implementation: ClassVar[str] = "pipeline.mixers.attention:Attention"
    display_name: ClassVar[str] = "Attention"
    source: ClassVar[str] = "Vaswani et al. 2017; rotary positions: Su et al. 2021"

    name: Literal["attention"] = "attention"
    rope_theta: float = Field(
        default=10_000.0, gt=1, le=1e12, description="base of the rotary frequencies; raise it for contexts of many thousand positions"
    )


class Gtrxl(Headed):
    """GTrXL attention, with relative positions, over the last `mem_len` positions; its gates are an option of networks, residual: gru."""

    carries_gradient: ClassVar[bool] = False
    implementation: ClassVar[str] = "pipeline.mixers.gtrxl:GTrXL"
    display_name: ClassVar[str] = "GTrXL"
    source: ClassVar[str] = "Parisotto et al. 2020; relative positions: Dai et al. 2019"

    name: Literal["gtrxl"] = "gtrxl"
    head_dim: int | None = Field(default=None, ge=1, le=65_536, description="channels per head; null: width / heads")
    mem_len: int = Field(
        default=128,
        ge=1,
        le=2**24,
        description="earlier positions that each layer attends to; layers add up. Raise it for longer dependencies",
    )
    cache: bool = Field(
        default=True, description="carry keys and values; false: carry inputs and compute keys and values again at every step, as published"
    )


class ShortConvolution(Mixer):
    """Depthwise convolution over the last few inputs: a baseline that remembers nothing else."""

    implementation: ClassVar[str] = "pipeline.mixers.short_convolution:ShortConvolution"
    display_name: ClassVar[str] = "Short convolution"
    source: ClassVar[str] = "Fu et al. 2023; Arora et al. 2024"

    name: Literal["short_convolution"] = "short_convolution"
    kernel_size: int = Field(default=4, ge=2, le=1_024, description="positions seen, including the current one")


class NoMixer(Mixer):
    """The memoryless control: output zero, no state, no parameters. Its scores need no memory."""

    implementation: ClassVar[str] = "pipeline.mixers.none:NoMixer"
    display_name: ClassVar[str] = "no memory"

    name: Literal["none"] = "none"
