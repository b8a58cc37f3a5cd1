"""Mixers that read a whole row at once, in both directions: for grids of cells. Code: `pipeline/mixers/`, one file each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Headed, Mixer
from pipeline.config.mixers.causal import AnyCausalMixer
from pipeline.config.mixers.cells import Lstm


class FullAttention(Headed):
    """Multi-head softmax attention over all positions, before and after, with rotary position embedding (RoPE)."""

    causal: ClassVar[bool] = False
    implementation: ClassVar[str] = "pipeline.mixers.full_attention:FullAttention"
    display_name: ClassVar[str] = "Full attention"
    source: ClassVar[str] = "Vaswani et al. 2017; rotary positions: Su et al. 2021"

    name: Literal["full_attention"] = "full_attention"
    rope_theta: float = Field(
        default=10_000.0, gt=1, le=1e12, description="base of the rotary frequencies; raise it for rows of many thousand positions"
    )


class TokenMixing(Mixer):
    """SwiGLU over the positions of a row, the same for every channel; for rows of one length."""

    causal: ClassVar[bool] = False
    fixed_length: ClassVar[bool] = True
    needs_grid: ClassVar[bool] = True
    implementation: ClassVar[str] = "pipeline.mixers.token_mixing:TokenMixing"
    display_name: ClassVar[str] = "Token mixing"
    source: ClassVar[str] = "Tolstikhin et al. 2021; as SwiGLU: Jolicoeur-Martineau 2025"

    name: Literal["token_mixing"] = "token_mixing"
    expansion: float = Field(
        default=4.0,
        gt=0,
        le=1_024,
        description="inner width in rows, times 2/3; 4: as many weights as an MLP of four times the row's length",
    )
    multiple_of: int = Field(
        default=1, ge=1, le=65_536, description="the inner width is rounded up to a multiple of this; 256 is the published rule"
    )


class Stencil(Mixer):
    """A dense map of a cell and its four neighbours on a square grid: one mixer call carries information by one cell."""

    causal: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = True
    implementation: ClassVar[str] = "pipeline.mixers.stencil:Stencil"
    display_name: ClassVar[str] = "Stencil"

    name: Literal["stencil"] = "stencil"


class BothWays(Mixer):
    """Two causal mixers of one kind, each with weights of its own: one reads the row forwards, one backwards, and their outputs add up."""

    causal: ClassVar[bool] = False
    implementation: ClassVar[str] = "pipeline.mixers.both_ways:BothWays"
    display_name: ClassVar[str] = "Both ways"
    source: ClassVar[str] = "Schuster & Paliwal 1997"

    name: Literal["both_ways"] = "both_ways"
    mixer: AnyCausalMixer = Field(default=Lstm(), description="the causal mixer that reads in each direction")

    @property
    def heads(self) -> int:
        """Heads of the mixer; 0: it has none."""
        return getattr(self.mixer, "heads", 0)

    @property
    def label(self) -> str:
        """The short name used in identifiers and labels."""
        return f"{self.mixer.name}_{self.name}"
