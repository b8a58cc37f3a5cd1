"""Every whole network. Code: `pipeline/networks/`, one file each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Clash, Component, Count, Section
from pipeline.config.catalogue import collect, union_of
from pipeline.config.mixers import AnyMixer, Attention, Lstm, Mixer
from pipeline.config.tasks.base import Kind

SMALLEST_IMAGE = 36
"""Pixels a side that the three convolutions of encoder: nature_cnn need."""


class Network(Component):
    """A model with weights: what a learner trains and an evaluation reads."""

    kind: ClassVar[Kind] = "tokens"
    """The tasks it is made for."""

    context: int

    @property
    def label(self) -> str:
        """The short name used in identifiers."""
        raise NotImplementedError


class AttentionBlocks(Section):
    """Which blocks of a stack are a transformer's: attention in place of the stack's mixer, and a feed-forward layer of their own."""

    at: list[Literal["last"] | Annotated[int, Field(ge=1)]] = Field(
        default=["last"], min_length=1, description="these blocks, counted from 1, or the last one"
    )
    heads: int = Field(default=4, ge=1, le=1_024, description="attention heads; must divide the width into even parts")
    rotary_base: float = Field(default=10_000.0, gt=1, le=1e12, description="base of the rotary frequencies")
    feedforward: float = Field(
        default=4.0, ge=0, le=1_024, description="width of these blocks' gated feed-forward layer, in multiples of width; 0: none"
    )

    @field_validator("at")
    @classmethod
    def _any_order(cls, at: list[Any]) -> list[Any]:
        return sorted(set(at), key=str)

    @property
    def mixer(self) -> Attention:
        """What these blocks mix with."""
        return Attention(heads=self.heads, rotary_base=self.rotary_base)


Residual = bool | Literal["gru"]
"""How what a mixer or feed-forward layer gives joins its input."""
RESIDUAL = (
    "false: each mixer's output replaces its input; true: it is added; gru: it, and that of the feed-forward layer, "
    "comes in through a relu and the gate of GTrXL (Parisotto et al. 2020)"
)


class Stack(Network):
    """A network whose middle is blocks of mixer and feed-forward, one after the other."""

    mixer: AnyMixer = Field(default=Lstm(), description="what carries information along the sequence")
    width: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default=64, description="channels of the residual stream; auto solves it from parameters"
    )
    parameters: Count | None = Field(default=None, description="trainable weights to come within 3 % of, with width: auto")
    depth: int = Field(default=1, ge=1, le=1_024, description="number of blocks")
    feedforward: float = Field(
        default=0.0, ge=0, le=1_024, description="width of each block's feed-forward layer, in multiples of width; 0: none"
    )
    activation: Literal["swiglu", "relu"] = Field(
        default="swiglu", description="feed-forward layers: gated with silu (Shazeer 2020), or two maps with biases and a relu between"
    )
    attention: AttentionBlocks | None = Field(default=None, description="blocks that are a transformer's: a hybrid; null: none")
    norm: Literal["none", "rms", "layer"] = Field(default="none", description="normalisation before every mixer and feed-forward")
    final_norm: Literal["none", "rms", "layer"] = Field(default="layer", description="normalisation before the head")
    norm_epsilon: float = Field(default=1e-5, ge=1e-30, le=1e9, description="added to the variance by every normalisation")
    convolution: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description="positions seen by a short_convolution between each mixer and its input; 0: none, 2 to 4 are usual",
    )
    residual: Residual = Field(default=False, description=RESIDUAL)
    gate_gain: float = Field(default=1.0, gt=0, le=1000, description="gain at which the gates of residual: gru start orthogonal")
    context: int = Field(default=16_384, ge=1, le=2**24, description="longest sequence the network accepts, in tokens")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Stack:
        if self.convolution == 1:
            raise Clash("a convolution of 1 position sees nothing before it; expected 0 for none, or at least 2", "convolution")
        if self.width == 1 and "layer" in (self.norm, self.final_norm):
            raise Clash(
                "a layer norm of one channel is zero whatever it reads; expected a width of at least 2", "width", "norm", "final_norm"
            )
        if self.width == "auto" and self.parameters is None:
            raise Clash("width: auto needs 'parameters', the number of weights to aim at", "width")
        if self.width != "auto" and self.parameters is not None:
            raise Clash(f"'parameters' is used with width: auto only, got width: {self.width}", "parameters", "width")
        for field, heads in (("mixer", getattr(self.mixer, "heads", None)), ("attention", self.attention and self.attention.heads)):
            if heads and self.width != "auto" and self.width % (2 * heads):
                raise Clash(f"got width {self.width}; {heads} heads expect one divisible by {2 * heads}", "width", field)
        deepest = max((at for at in self.attention.at if at != "last"), default=0) if self.attention else 0
        if deepest > self.depth:
            raise Clash(f"got attention at block {deepest}; expected at most the depth of {self.depth}", "attention", "depth")
        return self

    @property
    def label(self) -> str:
        """The short name used in identifiers."""
        assert isinstance(self.mixer, Mixer)
        return f"{self.mixer.name}_attention" if self.attention else self.mixer.name

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
    """Token embedding, `depth` blocks of mixer and feed-forward, a linear head: a distribution over classes at every position."""

    implementation: ClassVar[str] = "pipeline.networks.sequence:SequenceNetwork"

    name: Literal["sequence"] = "sequence"
    embedding: Literal["learned", "sinusoid", "orthogonal"] = Field(
        default="learned", description="vectors of the tokens: trained, or frozen waves of Vaswani et al. 2017, or frozen orthogonal codes"
    )
    tied: bool = Field(default=False, description="the head's weights are the embedding's, without a bias")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of channels dropped after each mixer and feed-forward in training")


class ActorCritic(Stack):
    """Encoder of observations, `depth` blocks of mixer and feed-forward, and two heads: what to do, and how much reward is to come.

    With shared: false policy and critic have an encoder and blocks each, and the network twice the state.
    """

    implementation: ClassVar[str] = "pipeline.networks.actor_critic:ActorCritic"
    source: ClassVar[str] = "encoder of pixels: Mnih et al. 2015"
    kind: ClassVar[Kind] = "environment"

    name: Literal["actor_critic"] = "actor_critic"
    encoder: Literal["none", "mlp", "nature_cnn"] = Field(
        default="none",
        description="what an observation passes before the blocks: one linear map; layers with an activation; three convolutions of pixels",
    )
    encoder_depth: int = Field(default=1, ge=1, le=1_024, description="layers of encoder: mlp, each as wide as the network")
    encoder_activation: Literal["relu", "tanh"] = Field(default="relu", description="after each layer of encoder: mlp")
    shared: bool = Field(default=True, description="policy and critic read one trunk of encoder and blocks; false: each has its own")
    final_norm: Literal["none", "rms", "layer"] = Field(default="none", description="normalisation before the heads")
    residual: Residual = Field(default=True, description=f"{RESIDUAL}; with false mixer: none is blind")
    head_width: int = Field(default=128, ge=1, le=65_536, description="channels of the tanh layer of each of the two heads")
    policy_gain: float = Field(
        default=0.01, gt=0, le=1000, description="gain at which the policy's last layer starts orthogonal; small: no action is preferred"
    )
    critic_gain: float = Field(default=1.0, gt=0, le=1000, description="gain at which the critic's last layer starts orthogonal")
    context: int = Field(default=16_384, ge=1, le=2**24, description="longest episode the network accepts, in steps")


NETWORKS = collect(globals(), Network, "recurlab.networks")
if TYPE_CHECKING:
    AnyNetwork = Network
else:
    AnyNetwork = union_of(NETWORKS)
