"""Every whole network. Code: `pipeline/networks/`, one file each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Component, Count, FieldConflict, Section
from pipeline.config.catalogue import collect, union_of
from pipeline.config.mixers import AnyMixer, Attention, FullAttention, Lstm, Mixer
from pipeline.config.tasks.base import Kind

SMALLEST_IMAGE = 36
"""Pixels a side that the three convolutions of encoder: nature_cnn need."""


class Network(Component):
    """A model with weights: what a learner trains and an evaluation reads."""

    kind: ClassVar[Kind] = "tokens"
    """The kind of task it is for."""
    grid: ClassVar[bool] = False
    """It is for tasks whose rows are grids only."""
    recursive: ClassVar[bool] = False
    """A call is one step of many, which deep supervision needs."""

    context: int

    @property
    def label(self) -> str:
        """The short name used in identifiers."""
        raise NotImplementedError

    @property
    def causal(self) -> bool:
        """Outputs depend on the past only; false: on the whole row, so that the network has no steps."""
        return True

    @property
    def fixed_length(self) -> bool:
        """Its weights are for rows of one length."""
        return False


class AttentionBlocks(Section):
    """Hybrid networks: blocks with attention instead of the network's mixer, and a feed-forward layer of their own."""

    at: list[Literal["last"] | Annotated[int, Field(ge=1)]] = Field(
        default=["last"], min_length=1, description="which blocks, counted from 1; last: the last one"
    )
    heads: int = Field(default=4, ge=1, le=1_024, description="attention heads; the width must be divisible by twice as many")
    rope_theta: float = Field(
        default=10_000.0, gt=1, le=1e12, description="base of the rotary frequencies; raise it for contexts of many thousand positions"
    )
    feedforward: float = Field(
        default=4.0, ge=0, le=1_024, description="inner width of these blocks' feed-forward layer, in multiples of width; 0: none"
    )

    @field_validator("at")
    @classmethod
    def _any_order(cls, at: list[Any]) -> list[Any]:
        return sorted(set(at), key=str)

    @property
    def mixer(self) -> Attention:
        """The mixer of these blocks."""
        return Attention(heads=self.heads, rope_theta=self.rope_theta)


Residual = bool | Literal["gru"]
"""How the output of a mixer or feed-forward layer joins the residual stream."""
RESIDUAL = (
    "residual connection around each mixer: false: none; true: added; gru: the gate of GTrXL (Parisotto et al. 2020), around the "
    "feed-forward layer too, which steadies reinforcement learning. Use true or gru for more than one block"
)


def check_width(network: Any, **heads: int | None) -> None:
    """Raise FieldConflict unless the width is given or solved for, and heads divide it into even parts.

    heads: numbers of heads besides the mixer's, by field.
    """
    if network.width == "auto" and network.parameters is None:
        raise FieldConflict("width: auto needs 'parameters', the number of weights to aim at", "width")
    if network.width != "auto" and network.parameters is not None:
        raise FieldConflict(f"'parameters' is used with width: auto only, got width: {network.width}", "parameters", "width")
    for field, count in {"mixer": getattr(network.mixer, "heads", None), **heads}.items():
        if count and network.width != "auto" and network.width % (2 * count):
            raise FieldConflict(f"got width {network.width}; {count} heads expect one divisible by {2 * count}", "width", field)


class Stack(Network):
    """A network of `depth` blocks, each a mixer and a feed-forward layer."""

    mixer: AnyMixer = Field(default=Lstm(), description="sequence mixer of every block: the architecture under study")
    width: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default=64, description="channels of the residual stream; auto: solved so that the network has `parameters` weights"
    )
    parameters: Count | None = Field(
        default=None, description="trainable weights, met within 3 %, with width: auto; to compare mixers at equal size"
    )
    depth: int = Field(default=1, ge=1, le=1_024, description="number of blocks")
    feedforward: float = Field(
        default=0.0,
        ge=0,
        le=1_024,
        description="inner width of each block's feed-forward layer, in multiples of width; 0: none; 4 is usual for attention",
    )
    activation: Literal["swiglu", "relu"] = Field(
        default="swiglu", description="feed-forward layer: SwiGLU (Shazeer 2020), or linear, ReLU, linear"
    )
    attention: AttentionBlocks | None = Field(
        default=None, description="blocks with attention instead of the mixer, for a hybrid; null: none"
    )
    norm: Literal["none", "rms", "layer"] = Field(
        default="none", description="normalisation before every mixer and feed-forward layer; use rms or layer for more than one block"
    )
    final_norm: Literal["none", "rms", "layer"] = Field(default="layer", description="normalisation before the head")
    norm_eps: float = Field(default=1e-5, ge=1e-30, le=1e9, description="added to the variance in every normalisation")
    convolution: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description="kernel size of a short convolution before each mixer, in positions; 0: none; 4 helps recall of key-value pairs",
    )
    residual: Residual = Field(default=False, description=RESIDUAL)
    gate_gain: float = Field(default=1.0, gt=0, le=1000, description="gain of the orthogonal initialisation of the gates of residual: gru")
    context: int = Field(default=16_384, ge=1, le=2**24, description="longest sequence the network accepts, in tokens or environment steps")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Stack:
        if self.convolution == 1:
            raise FieldConflict("a convolution of 1 position sees nothing before it; expected 0 for none, or at least 2", "convolution")
        if self.width == 1 and "layer" in (self.norm, self.final_norm):
            raise FieldConflict(
                "a layer norm of one channel is zero whatever it reads; expected a width of at least 2", "width", "norm", "final_norm"
            )
        check_width(self, attention=self.attention and self.attention.heads)
        if not self.mixer.causal and self.attention:
            raise FieldConflict(
                f"{self.mixer.name} is not causal, the attention of a hybrid is; expected attention: null", "attention", "mixer"
            )
        if not self.mixer.causal and self.convolution:
            raise FieldConflict(f"{self.mixer.name} is not causal, the convolution is; expected convolution: 0", "convolution", "mixer")
        deepest = max((at for at in self.attention.at if at != "last"), default=0) if self.attention else 0
        if deepest > self.depth:
            raise FieldConflict(f"got attention at block {deepest}; expected at most the depth of {self.depth}", "attention", "depth")
        return self

    @property
    def label(self) -> str:
        """The short name used in identifiers."""
        assert isinstance(self.mixer, Mixer)
        return f"{self.mixer.label}_attention" if self.attention else self.mixer.label

    @property
    def causal(self) -> bool:
        """All mixers are causal."""
        return all(mixer.causal for mixer, _ in self.blocks)

    @property
    def fixed_length(self) -> bool:
        """Some mixer's weights are for rows of one length."""
        return any(mixer.fixed_length for mixer, _ in self.blocks)

    @property
    def blocks(self) -> list[tuple[Mixer, float]]:
        """The mixer of each block, and the width of its feed-forward layer in multiples of the network's."""
        of_attention = {self.depth if at == "last" else at for at in self.attention.at} if self.attention else set()
        return [
            (self.attention.mixer, self.attention.feedforward)
            if self.attention and number in of_attention
            else (self.mixer, self.feedforward)
            for number in range(1, self.depth + 1)
        ]

    @property
    def stride(self) -> int:
        """What the width is a multiple of: even parts for the heads of every block."""
        return math.lcm(*(2 * getattr(mixer, "heads", 0) or 1 for mixer, _ in self.blocks))


class SequenceNetwork(Stack):
    """Token embedding, `depth` blocks of mixer and feed-forward, a linear head: logits over classes at every position."""

    implementation: ClassVar[str] = "pipeline.networks.sequence:SequenceNetwork"

    name: Literal["sequence"] = "sequence"
    embedding: Literal["learned", "sinusoid", "orthogonal"] = Field(
        default="learned", description="token embedding: learned, or frozen: the sinusoids of Vaswani et al. 2017, or orthogonal vectors"
    )
    tie_embeddings: bool = Field(
        default=False, description="share the weights of head and embedding; for tasks whose answers repeat input tokens"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="dropout probability after each mixer and feed-forward layer, in training; against overfitting"
    )


class RecursiveNetwork(Network):
    """One small network applied again and again: every supervision step refines latent states of all cells and answers anew.

    A supervision step is `outer` cycles. A cycle applies the blocks `inner` times to the reasoning latent, then once to the answer latent.
    """

    implementation: ClassVar[str] = "pipeline.networks.recursive:RecursiveNetwork"
    source: ClassVar[str] = "Jolicoeur-Martineau 2025 (TRM); two networks: Wang et al. 2025 (HRM)"
    grid: ClassVar[bool] = True
    recursive: ClassVar[bool] = True

    name: Literal["recursive"] = "recursive"
    mixer: AnyMixer = Field(
        default=FullAttention(), description="mixer of every block: one that sees both ways, or a causal one that reads the cells in order"
    )
    width: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default=128, description="channels of every latent; auto: solved so that the network has `parameters` weights"
    )
    parameters: Count | None = Field(
        default=None, description="trainable weights, met within 3 %, with width: auto; to compare networks at equal size"
    )
    depth: int = Field(default=2, ge=1, le=1_024, description="blocks that one application of the network passes through")
    feedforward: float = Field(
        default=8 / 3,
        ge=0,
        le=1_024,
        description="inner width of each block's SwiGLU layer, in multiples of width; 0: none; TRM has 3 at width 512",
    )
    outer: int = Field(
        default=3, ge=1, le=1_024, description="cycles in a supervision step (TRM's H_cycles); the learner says how many carry gradients"
    )
    inner: int = Field(
        default=6, ge=1, le=1_024, description="updates of the reasoning latents in a cycle, before the answer's (TRM's L_cycles)"
    )
    latents: int = Field(
        default=2,
        ge=1,
        le=64,
        description="latent states: 2 an answer and a reasoning latent; 1 one for both; more: several reasoning latents updated in turn",
    )
    separate: bool = Field(
        default=False, description="networks of their own for answer and reasoning latents, as in HRM: twice the weights for the same FLOPs"
    )
    registers: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description="positions before the cells that hold the row's identifier and free memory; the halting head reads the first of them, "
        "or the mean over cells if there are none",
    )
    start: Literal["zeros", "fixed", "random"] = Field(
        default="zeros",
        description="latents at the start of a row: zeros; fixed: a random vector drawn once, the same for all cells (TRM); "
        "random: noise drawn anew for every row, so that attempts differ (EqR)",
    )
    starts: int = Field(
        default=1,
        ge=1,
        le=64,
        description="number of different fixed vectors with start: fixed; the k-th attempt at a row starts from the k-th",
    )
    damping: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of a latent that each update keeps; raise it if accuracy falls when there are more steps than in training",
    )
    gate_norm: bool = Field(
        default=False, description="normalise the gated channels of the SwiGLU layers; use it with optimizer: muon at high learning rates"
    )
    gate_convolution: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description="kernel size of a depthwise convolution over the gated channels along the positions (URM); 0: none",
    )
    norm_eps: float = Field(default=1e-5, ge=1e-30, le=1e9, description="added to the mean square in every normalisation")
    context: int = Field(default=16_384, ge=1, le=2**24, description="longest row the network accepts, in tokens")

    @model_validator(mode="after")
    def _sizes_agree(self) -> RecursiveNetwork:
        check_width(self)
        if self.starts > 1 and self.start != "fixed":
            raise FieldConflict(f"got starts: {self.starts} with start: {self.start}; expected start: fixed", "starts", "start")
        if self.separate and self.latents == 1:
            raise FieldConflict(
                "got latents: 1 with separate: true; expected at least 2, the answer's and a reasoning latent", "separate", "latents"
            )
        if self.gate_convolution > 0 and not self.feedforward:
            raise FieldConflict("a convolution in the gate needs a feed-forward layer; expected feedforward above 0", "gate_convolution")
        if self.gate_norm and not self.feedforward:
            raise FieldConflict("gate_norm normalises a feed-forward layer; expected feedforward above 0", "gate_norm")
        if self.registers and self.mixer.needs_grid and not self.mixer.fixed_length:
            message = f"got registers: {self.registers} with mixer {self.mixer.name}; expected 0: they are no cells of a grid"
            raise FieldConflict(message, "registers", "mixer")
        return self

    @property
    def label(self) -> str:
        """The short name used in identifiers."""
        return f"recursive_{self.mixer.label}"

    @property
    def different_starts(self) -> float:
        """How many attempts at a row start differently; inf if each does."""
        return math.inf if self.start == "random" else self.starts

    @property
    def causal(self) -> bool:
        """Every supervision step but the first has seen the whole row."""
        return False

    @property
    def fixed_length(self) -> bool:
        """The mixer's weights are for rows of one length."""
        return self.mixer.fixed_length

    @property
    def blocks(self) -> list[tuple[Mixer, float]]:
        """The mixer of each block, and the width of its feed-forward layer in multiples of the network's."""
        return [(self.mixer, self.feedforward)] * self.depth

    @property
    def stride(self) -> int:
        """What the width is a multiple of: even parts for the heads."""
        return 2 * getattr(self.mixer, "heads", 0) or 1


class ActorCritic(Stack):
    """Encoder of observations, `depth` blocks of mixer and feed-forward, and two heads: policy and value.

    With shared: false, policy and critic have an encoder and blocks each, and the state doubles.
    """

    implementation: ClassVar[str] = "pipeline.networks.actor_critic:ActorCritic"
    source: ClassVar[str] = "encoder of pixels: Mnih et al. 2015"
    kind: ClassVar[Kind] = "environment"

    name: Literal["actor_critic"] = "actor_critic"
    encoder: Literal["none", "mlp", "nature_cnn"] = Field(
        default="none",
        description="encoder of observations: one linear map (none), an MLP, or the convolutions of Mnih et al. 2015 for pixels",
    )
    encoder_depth: int = Field(default=1, ge=1, le=1_024, description="layers of encoder: mlp, each of the network's width")
    encoder_activation: Literal["relu", "tanh"] = Field(default="relu", description="activation of encoder: mlp")
    shared: bool = Field(
        default=True,
        description="policy and critic share encoder and blocks; false: each has its own, which costs twice as "
        "much and removes interference",
    )
    final_norm: Literal["none", "rms", "layer"] = Field(default="none", description="normalisation before the heads")
    residual: Residual = Field(default=True, description=f"{RESIDUAL}; with false, mixer: none sees no observation")
    head_width: int = Field(default=128, ge=1, le=65_536, description="width of the hidden tanh layer of each head")
    policy_gain: float = Field(
        default=0.01,
        gt=0,
        le=1000,
        description="gain of the orthogonal initialisation of the policy's last layer; small: the first policy is nearly uniform",
    )
    critic_gain: float = Field(default=1.0, gt=0, le=1000, description="gain of the orthogonal initialisation of the critic's last layer")
    context: int = Field(default=16_384, ge=1, le=2**24, description="longest episode the network accepts, in steps")


NETWORKS = collect(globals(), Network, "recurlab.networks")
if TYPE_CHECKING:
    AnyNetwork = Network
else:
    AnyNetwork = union_of(NETWORKS)
