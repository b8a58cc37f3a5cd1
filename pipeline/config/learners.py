"""Every learner: how weights follow from data, or from acting. Code: `pipeline/learners/`, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Clash, Component, Count, Rows, Section
from pipeline.config.catalogue import collect, union_of
from pipeline.config.tasks.base import Kind


class Curriculum(Section):
    """A growing filter on a metadata column: training sees rows with `column` at most the level, which grows as they are mastered."""

    column: str = Field(description="metadata column of the task, for example delay")
    start: int = Field(default=3, ge=1, le=10**9, description="first level, in units of the column")
    factor: float = Field(default=2.0, gt=1, le=1e6, description="what the level is multiplied by when mastered")
    threshold: float = Field(
        default=0.95, gt=0, le=1, description="symbol accuracy over the last `memory` batches from which on a level is mastered"
    )
    upper: float = Field(default=0.7, ge=0, le=1, description="accuracy is taken over rows with column at least upper x level")
    memory: int = Field(default=30, ge=1, le=10**9, description="batches after which that accuracy is judged, and taken anew")


class Learner(Component):
    """An update rule with its budget. Exactly one of rows, steps and seconds bounds a run."""

    kind: ClassVar[Kind] = "tokens"
    """The tasks it learns."""
    needs_causal: ClassVar[bool] = True
    """It trains on positions whose future must stay unseen."""
    portion: ClassVar[str] = "batch"
    """The field that says what one update learns from."""

    rows: Count | None = Field(default=None, description="budget in training rows seen")
    steps: Count | None = Field(default=None, description="budget in optimizer steps")
    seconds: float | None = Field(
        default=None, gt=0, le=1e9, description="budget in wall seconds of training; such a run is not reproducible bit by bit"
    )
    parent: str | None = Field(default=None, description="start from the weights of <experiment>[/<variant>], the run with the same seed")
    evaluate_every: int = Field(default=200, ge=1, le=10**12, description="optimizer steps between validations")
    validation_rows: Rows = Field(default=500, description="rows of the validation set, never trained on")
    keep: list[Literal["last", "best"] | Count] = Field(
        default=["last"], description="labelled checkpoints to keep; a number keeps one every so many steps"
    )
    select: Literal["last", "best"] = Field(
        default="last", description="which weights are evaluated; best is judged on validation rows only"
    )

    @field_validator("keep")
    @classmethod
    def _any_order(cls, keep: list[Any]) -> list[Any]:
        return sorted(set(keep), key=str)

    @model_validator(mode="after")
    def _one_budget(self) -> Learner:
        given = [key for key in ("rows", "steps", "seconds") if getattr(self, key) is not None]
        if len(given) > 1:
            raise Clash(f"got {' and '.join(given)}; expected one budget out of rows, steps and seconds", *given)
        if not given:
            raise Clash("missing budget; expected one of rows, steps and seconds")
        if self.rows is not None and self.rows < self.rows_per_step:
            raise Clash(f"got {self.rows} rows; expected at least one {self.portion} of {self.rows_per_step}", "rows", self.portion)
        if self.select not in self.keep:
            raise Clash(f"select: {self.select} needs {self.select} in 'keep', got {list(self.keep)}", "select", "keep")
        return self

    def undivided(self, processes: int) -> str | None:
        """Why so many processes cannot share a training by this learner, in words that begin with a field; None where they can."""
        return f"name: this learner trains in one process, not in {processes}" if processes > 1 else None

    @property
    def rows_per_step(self) -> int:
        """Training rows that one update sees."""
        raise NotImplementedError

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole run; None where the clock decides."""
        return self.rows // self.rows_per_step if self.rows else self.steps

    @property
    def stored_rows(self) -> int | None:
        """Rows of the training dataset; None where nothing is stored."""
        raise NotImplementedError


Schedule = Literal["constant", "cosine", "linear", "inverse"]


class Descent(Learner):
    """A learner that descends gradients: its optimizer and the schedule of its learning rate."""

    optimizer: Literal["adam", "adamw", "rmsprop"] = Field(default="adam", description="update rule")
    learning_rate: float = Field(default=1e-3, gt=0, le=100, description="peak learning rate")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of the first and second moment; rmsprop uses the second")
    epsilon: float = Field(default=1e-8, ge=1e-30, le=1, description="added to the root of the second moment")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="shrinks matrices: weights of linear maps, convolutions and embeddings; decoupled for adamw, added to the gradient otherwise",
    )
    schedule: Schedule = Field(default="constant", description="learning rate after warm-up; inverse: 1 / (1 + step / half_life)")
    warmup: int = Field(default=0, ge=0, le=10**12, description="steps over which the learning rate grows linearly from zero")
    final: float = Field(default=0.0, ge=0, le=1, description="the schedule never goes below this share of the peak")
    half_life: int = Field(default=1500, ge=1, le=10**12, description="steps until the inverse schedule has halved")
    clip: float | None = Field(default=1.0, ge=1e-6, le=1e30, description="largest global gradient norm; null: no clipping")

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"got {list(betas)}; expected 0 <= beta < 1")
        return betas

    @model_validator(mode="after")
    def _descends(self) -> Descent:
        if self.total_steps is not None and self.warmup > self.total_steps:
            raise Clash(
                f"got a warm-up of {self.warmup} steps; expected at most the budget of {self.total_steps}", "warmup", "rows", "steps"
            )
        if self.optimizer == "adamw" and self.learning_rate * self.weight_decay > 1:
            message = "learning_rate times weight_decay is {:g}; expected at most 1, which takes all of a weight away"
            raise Clash(message.format(self.learning_rate * self.weight_decay), "weight_decay", "learning_rate", "optimizer")
        if self.seconds is not None and self.schedule in ("cosine", "linear"):
            raise Clash(f"schedule: {self.schedule} needs a budget in rows or steps, got seconds", "schedule", "seconds")
        return self


class Supervised(Descent):
    """Cross-entropy, or squared error where answers are real, on the scored positions: stochastic gradient descent over labelled rows."""

    implementation: ClassVar[str] = "pipeline.learners.supervised:Supervised"
    version: ClassVar[int] = 6

    name: Literal["supervised"] = "supervised"
    batch: int = Field(default=32, ge=1, le=10**6, description="rows per update over all processes")
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="rows per forward and backward pass, whose gradients add up to the batch's: less memory; null: all",
    )
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay per step of a moving average of the weights that is evaluated instead; 0: off"
    )
    curriculum: Curriculum | None = Field(default=None, description="growing filter on a metadata column")
    data: Literal["shards", "stream"] = Field(
        default="shards", description="stored rows, or fresh rows at every step keyed by (seed, step)"
    )
    distinct_rows: Rows | None = Field(
        default=None,
        description="different training rows stored; default: as many as the budget sees, at most a million; 100 thousand for seconds",
    )
    loader: Literal["auto", "memory", "row_groups"] = Field(
        default="auto", description="hold all rows decoded, or read row groups as they come; auto: by size"
    )
    stop_at: float | None = Field(default=None, gt=0, le=1, description="stop once validation symbol accuracy reaches this")

    @model_validator(mode="after")
    def _consistent(self) -> Supervised:
        if self.data == "stream" and self.distinct_rows is not None:
            raise Clash("'distinct_rows' is used with data: shards only, got data: stream", "distinct_rows", "data")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each takes its part of the batch's rows."""
        return f"batch: got {self.batch} rows, expected a multiple of the {processes} processes" if self.batch % processes else None

    @property
    def rows_per_step(self) -> int:
        """The batch."""
        return self.batch

    @property
    def stored_rows(self) -> int | None:
        """Rows of the training dataset; None where they come fresh."""
        if self.data == "stream":
            return None
        if self.distinct_rows:
            return self.distinct_rows
        steps = self.total_steps
        return min(steps * self.batch, 1_000_000) if steps else 100_000


class Acting(Descent):
    """An actor and a critic that learn from what they did: copies of an environment act side by side, an update follows every rollout.

    Its rows are environment steps, over all copies; its steps are updates, one for each rollout.
    """

    kind: ClassVar[Kind] = "environment"
    portion: ClassVar[str] = "rollout"

    rows: Count | None = Field(default=None, description="budget in environment steps, over all copies")
    steps: Count | None = Field(default=None, description="budget in updates, one for each rollout")
    environments: int = Field(default=64, ge=1, le=65_536, description="copies of the environment that act side by side")
    rollout: int = Field(default=32, ge=1, le=65_536, description="steps of every copy between two updates")
    sequence: int | None = Field(
        default=None, ge=1, le=65_536, description="steps that gradients cross, as many sequences as make up the rollout; null: all of it"
    )
    learning_rate: float = Field(default=2e-3, gt=0, le=100, description="peak learning rate")
    epsilon: float = Field(default=1e-5, ge=1e-30, le=1, description="added to the root of the second moment")
    warmup: int = Field(default=0, ge=0, le=10**12, description="updates over which the learning rate grows linearly from zero")
    half_life: int = Field(default=1500, ge=1, le=10**12, description="updates until the inverse schedule has halved")
    clip: float | None = Field(default=0.5, ge=1e-6, le=1e30, description="largest global gradient norm; null: no clipping")
    discount: float = Field(default=0.99, gt=0, le=1, description="what a reward counts for one step earlier (gamma)")
    gae_lambda: float = Field(
        default=0.95, ge=0, le=1, description="decay of later errors of the critic in an advantage; 0: the next step's only, 1: all"
    )
    bootstrap_truncated: bool = Field(
        default=True, description="an episode cut off by a time limit is worth what the critic still expects of it; false: nothing more"
    )
    value_weight: float = Field(default=0.5, ge=0, le=1000, description="weight of the critic's loss, half of its mean squared error")
    entropy_weight: float = Field(default=0.01, ge=0, le=1000, description="weight of the policy's entropy, in nats, which is encouraged")
    entropy_schedule: Schedule = Field(default="constant", description="entropy weight over updates, in the forms of `schedule`")
    entropy_final: float = Field(default=0.0, ge=0, le=1, description="the entropy schedule never goes below this share of the weight")
    evaluate_every: int = Field(default=10, ge=1, le=10**12, description="updates between validations")
    validation_rows: Rows = Field(default=100, description="held-out episodes of a validation, never trained on")
    stop_at: float | None = Field(default=None, gt=0, le=1, description="stop once this share of the validation episodes is solved")

    @model_validator(mode="after")
    def _whole_sequences(self) -> Acting:
        if self.sequence is not None and self.rollout % self.sequence:
            raise Clash(
                f"got sequences of {self.sequence} steps; expected a divisor of the rollout's {self.rollout}", "sequence", "rollout"
            )
        if self.seconds is not None and self.entropy_schedule in ("cosine", "linear"):
            message = f"entropy_schedule: {self.entropy_schedule} with a budget in seconds; expected one in rows or steps"
            raise Clash(message, "entropy_schedule", "seconds")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each acts in its part of the copies."""
        if self.environments % processes:
            return f"environments: got {self.environments} copies, expected a multiple of the {processes} processes"
        return None

    @property
    def rows_per_step(self) -> int:
        """Environment steps of a rollout, over all copies."""
        return self.environments * self.rollout

    @property
    def sequences(self) -> int:
        """Training sequences that a rollout gives."""
        return self.environments * (self.rollout // (self.sequence or self.rollout))

    @property
    def stored_rows(self) -> int | None:
        """None: what is learned from happens while learning."""
        return None


class Ppo(Acting):
    """Proximal policy optimisation: several passes over a rollout, in which the policy is held near the one that acted."""

    implementation: ClassVar[str] = "pipeline.learners.ppo:PPO"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Schulman et al. 2017; advantages: Schulman et al. 2016"

    name: Literal["ppo"] = "ppo"
    epochs: int = Field(default=4, ge=1, le=1000, description="passes over each rollout")
    minibatches: int = Field(default=4, ge=1, le=10**9, description="optimizer steps of a pass; each sees whole sequences")
    ratio_clip: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="how far from 1 a probability ratio still counts: beyond, an action is neither pulled nor pushed",
    )
    value_clip: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="how far the critic may move from its answer while acting before its loss stops falling; null: anywhere",
    )
    normalise_advantages: bool = Field(default=True, description="shift and scale each minibatch's advantages to mean 0, deviation 1")
    target_kl: float | None = Field(
        default=None, gt=0, le=1e6, description="stop passing over a rollout when the policy has moved so far, in nats; null: never"
    )

    @model_validator(mode="after")
    def _whole_minibatches(self) -> Ppo:
        if self.sequences % self.minibatches:
            message = f"got {self.minibatches} minibatches; expected a divisor of the {self.sequences} sequences of a rollout"
            raise Clash(message, "minibatches", "environments", "rollout", "sequence")
        if self.normalise_advantages and self.rows_per_step == self.minibatches:
            message = "got minibatches of one step, whose advantages have no deviation; expected more steps, or normalise_advantages: false"
            raise Clash(message, "minibatches", "environments", "rollout", "normalise_advantages")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each acts in its part of the copies, and cuts its own sequences into as many minibatches."""
        each = self.sequences // processes
        if not super().undivided(processes) and each % self.minibatches:
            return f"minibatches: got {self.minibatches}, expected a divisor of the {each} sequences that each of {processes} processes has"
        if not super().undivided(processes) and self.normalise_advantages and self.rows_per_step == self.minibatches * processes:
            return f"minibatches: {self.minibatches} of one step each in each of {processes} processes cannot be normalised; expected fewer"
        return super().undivided(processes)


class A2c(Acting):
    """Advantage actor-critic: one step of plain policy gradient per rollout, all of it at once."""

    implementation: ClassVar[str] = "pipeline.learners.a2c:A2C"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Mnih et al. 2016, in its synchronous form"

    name: Literal["a2c"] = "a2c"
    normalise_advantages: bool = Field(default=False, description="shift and scale each rollout's advantages to mean 0, deviation 1")

    @model_validator(mode="after")
    def _deviation(self) -> A2c:
        if self.normalise_advantages and self.rows_per_step == 1:
            message = "got rollouts of one step, whose advantage has no deviation; expected more steps, or normalise_advantages: false"
            raise Clash(message, "environments", "rollout", "normalise_advantages")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each normalises its own advantages."""
        if not super().undivided(processes) and self.normalise_advantages and self.rows_per_step == processes:
            return f"environments: one step for each of {processes} processes cannot be normalised; expected more"
        return super().undivided(processes)


LEARNERS = collect(globals(), Learner, "recurlab.learners")
if TYPE_CHECKING:
    AnyLearner = Learner
else:
    AnyLearner = union_of(LEARNERS)
