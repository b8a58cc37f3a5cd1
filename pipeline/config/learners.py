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
        default=0.95, gt=0, le=1, description="symbol accuracy over the last `window` batches from which on a level is mastered"
    )
    upper: float = Field(default=0.7, ge=0, le=1, description="accuracy is taken over rows with column at least upper x level")
    window: int = Field(default=30, ge=1, le=10**9, description="batches after which that accuracy is judged, and taken anew")


class Learner(Component):
    """An update rule with its budget: exactly one of the fields in `budgets` bounds a run."""

    kind: ClassVar[Kind] = "tokens"
    """The tasks it learns."""
    budgets: ClassVar[tuple[str, str, str]] = ("rows", "steps", "seconds")
    """The fields that hold a budget: in training examples, in updates, in seconds."""
    portion: ClassVar[str] = "batch_size"
    """The field that says what one update learns from."""
    models: ClassVar[tuple[str, ...]] = ("model",)
    """Names of the networks it exports; `model` is the one that evaluations measure."""
    assets: ClassVar[tuple[str, ...]] = ()
    """Names of further files beside the weights."""
    same_network: ClassVar[bool] = True
    """The network of its parent must be its own; False where it takes over a part of one."""

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
        examples, updates, seconds = self.budgets
        given = [key for key in self.budgets if getattr(self, key) is not None]
        if len(given) > 1:
            raise Clash(f"got {' and '.join(given)}; expected one budget out of {examples}, {updates} and {seconds}", *given)
        if not given:
            raise Clash(f"missing budget; expected one of {examples}, {updates} and {seconds}")
        budget = getattr(self, examples)
        if budget is not None and budget < self.rows_per_step:
            raise Clash(f"got {examples}: {budget}; expected at least one update's {self.rows_per_step}", examples, self.portion)
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
        examples, updates, _ = (getattr(self, key) for key in self.budgets)
        return examples // self.rows_per_step if examples else updates

    @property
    def stored_rows(self) -> int | None:
        """Rows of the training dataset; None where nothing is stored."""
        raise NotImplementedError


Schedule = Literal["constant", "cosine", "linear", "inverse"]


class Descent(Learner):
    """A learner that descends gradients: its optimizer and the schedule of its learning rate."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sign_sgd"] = Field(default="adam", description="update rule")
    learning_rate: float = Field(default=1e-3, gt=0, le=100, description="peak learning rate")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of the first and second moment; rmsprop uses the second")
    eps: float = Field(default=1e-8, ge=1e-30, le=1, description="added to the root of the second moment")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="shrinks matrices: weights of linear maps, convolutions and embeddings; decoupled for adamw, added to the gradient otherwise",
    )
    lr_schedule: Schedule = Field(default="constant", description="learning rate after warm-up; inverse: 1 / (1 + step / half_life)")
    warmup_steps: int = Field(default=0, ge=0, le=10**12, description="steps over which the learning rate grows linearly from zero")
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1, description="lowest learning rate of the schedule, as a fraction of learning_rate")
    half_life: int = Field(default=1500, ge=1, le=10**12, description="steps until the inverse schedule has halved")
    max_grad_norm: float | None = Field(default=1.0, ge=1e-6, le=1e30, description="largest global gradient norm; null: no clipping")

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"got {list(betas)}; expected 0 <= beta < 1")
        return betas

    @model_validator(mode="after")
    def _descends(self) -> Descent:
        if self.total_steps is not None and self.warmup_steps > self.total_steps:
            message = f"got warmup_steps: {self.warmup_steps}; expected at most the budget of {self.total_steps} updates"
            raise Clash(message, "warmup_steps", *self.budgets[:2])
        if self.optimizer in ("adamw", "sign_sgd") and self.learning_rate * self.weight_decay > 1:
            message = "learning_rate times weight_decay is {:g}; expected at most 1, which takes all of a weight away"
            raise Clash(message.format(self.learning_rate * self.weight_decay), "weight_decay", "learning_rate", "optimizer")
        if self.seconds is not None and self.lr_schedule in ("cosine", "linear"):
            message = f"lr_schedule: {self.lr_schedule} with a budget in seconds; expected one in {self.budgets[0]} or {self.budgets[1]}"
            raise Clash(message, "lr_schedule", "seconds")
        return self


class Supervised(Descent):
    """Cross-entropy, or squared error where answers are real, on the scored positions: stochastic gradient descent over labelled rows."""

    implementation: ClassVar[str] = "pipeline.learners.supervised:Supervised"
    version: ClassVar[int] = 6

    name: Literal["supervised"] = "supervised"
    rows: Count | None = Field(default=None, description="budget in training rows seen")
    steps: Count | None = Field(default=None, description="budget in optimizer steps")
    batch_size: int = Field(default=32, ge=1, le=10**6, description="rows per update over all processes")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="rows per forward and backward pass, whose gradients add up to the batch's: less memory; null: all",
    )
    ema_decay: float = Field(
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
        return (
            f"batch_size: got {self.batch_size} rows, expected a multiple of the {processes} processes"
            if self.batch_size % processes
            else None
        )

    @property
    def rows_per_step(self) -> int:
        """The batch."""
        return self.batch_size

    @property
    def stored_rows(self) -> int | None:
        """Rows of the training dataset; None where they come fresh."""
        if self.data == "stream":
            return None
        if self.distinct_rows:
            return self.distinct_rows
        steps = self.total_steps
        return min(steps * self.batch_size, 1_000_000) if steps else 100_000


class OnPolicy(Descent):
    """An actor and a critic that learn from what they did: environments step side by side, an update follows every rollout."""

    kind: ClassVar[Kind] = "environment"
    budgets: ClassVar[tuple[str, str, str]] = ("total_timesteps", "num_updates", "seconds")
    portion: ClassVar[str] = "rollout_steps"

    total_timesteps: Count | None = Field(default=None, description="budget in environment steps, over all environments")
    num_updates: Count | None = Field(default=None, description="budget in updates, one for each rollout")
    num_envs: int = Field(default=64, ge=1, le=65_536, description="environments that step side by side")
    rollout_steps: int = Field(default=32, ge=1, le=65_536, description="steps of each environment between two updates")
    bptt_steps: int | None = Field(default=None, ge=1, le=65_536, description="truncated-BPTT length, in steps; null: the whole rollout")
    learning_rate: float = Field(default=2e-3, gt=0, le=100, description="peak learning rate")
    eps: float = Field(default=1e-5, ge=1e-30, le=1, description="added to the root of the second moment")
    warmup_steps: int = Field(default=0, ge=0, le=10**12, description="updates over which the learning rate grows linearly from zero")
    half_life: int = Field(default=1500, ge=1, le=10**12, description="updates until the inverse schedule has halved")
    max_grad_norm: float | None = Field(default=0.5, ge=1e-6, le=1e30, description="largest global gradient norm; null: no clipping")
    gamma: float = Field(default=0.99, gt=0, le=1, description="discount factor")
    gae_lambda: float = Field(
        default=0.95, ge=0, le=1, description="decay of later errors of the critic in an advantage; 0: the next step's only, 1: all"
    )
    bootstrap_truncated: bool = Field(
        default=True, description="an episode cut off by a time limit is worth what the critic still expects of it; false: nothing more"
    )
    vf_coef: float = Field(default=0.5, ge=0, le=1000, description="weight of the value loss, which is half the mean squared error")
    ent_coef: float = Field(default=0.01, ge=0, le=1000, description="weight of the entropy bonus; entropy is in nats")
    ent_coef_schedule: Schedule = Field(default="constant", description="ent_coef over updates, in the forms of lr_schedule")
    min_ent_coef_ratio: float = Field(default=0.0, ge=0, le=1, description="lowest ent_coef of its schedule, as a fraction of ent_coef")
    evaluate_every: int = Field(default=10, ge=1, le=10**12, description="updates between validations")
    validation_rows: Rows = Field(default=100, description="held-out episodes of a validation, never trained on")
    stop_at: float | None = Field(default=None, gt=0, le=1, description="stop once this share of the validation episodes is solved")

    @model_validator(mode="after")
    def _whole_sequences(self) -> OnPolicy:
        if self.bptt_steps is not None and self.rollout_steps % self.bptt_steps:
            raise Clash(
                f"got bptt_steps: {self.bptt_steps}; expected a divisor of rollout_steps = {self.rollout_steps}",
                "bptt_steps",
                "rollout_steps",
            )
        if self.seconds is not None and self.ent_coef_schedule in ("cosine", "linear"):
            message = (
                f"ent_coef_schedule: {self.ent_coef_schedule} with a budget in seconds; expected one in total_timesteps or num_updates"
            )
            raise Clash(message, "ent_coef_schedule", "seconds")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each acts in its part of the copies."""
        if self.num_envs % processes:
            return f"num_envs: got {self.num_envs}, expected a multiple of the {processes} processes"
        return None

    @property
    def rows_per_step(self) -> int:
        """Environment steps of a rollout, over all copies."""
        return self.num_envs * self.rollout_steps

    @property
    def sequences(self) -> int:
        """Training sequences that a rollout gives."""
        return self.num_envs * (self.rollout_steps // (self.bptt_steps or self.rollout_steps))

    @property
    def stored_rows(self) -> int | None:
        """None: what is learned from happens while learning."""
        return None


class Ppo(OnPolicy):
    """Proximal policy optimisation: several passes over a rollout, in which the policy is held near the one that acted."""

    implementation: ClassVar[str] = "pipeline.learners.ppo:PPO"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Schulman et al. 2017; advantages: Schulman et al. 2016"

    name: Literal["ppo"] = "ppo"
    update_epochs: int = Field(default=4, ge=1, le=1000, description="passes over each rollout")
    num_minibatches: int = Field(default=4, ge=1, le=10**9, description="optimizer steps of a pass; each sees whole sequences")
    clip_range: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="PPO clip range eps: the probability ratio is clipped to [1 - eps, 1 + eps]",
    )
    clip_range_vf: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="clip range of the value function; null: no clipping",
    )
    normalize_advantage: bool = Field(default=True, description="shift and scale each minibatch's advantages to mean 0, deviation 1")
    target_kl: float | None = Field(
        default=None, gt=0, le=1e6, description="stop passing over a rollout when the policy has moved so far, in nats; null: never"
    )

    @model_validator(mode="after")
    def _whole_minibatches(self) -> Ppo:
        if self.sequences % self.num_minibatches:
            message = f"got num_minibatches: {self.num_minibatches}; expected a divisor of the {self.sequences} sequences of a rollout"
            raise Clash(message, "num_minibatches", "num_envs", "rollout_steps", "bptt_steps")
        if self.normalize_advantage and self.rows_per_step == self.num_minibatches:
            message = "got minibatches of one step, whose advantages have no deviation; expected more steps, or normalize_advantage: false"
            raise Clash(message, "num_minibatches", "num_envs", "rollout_steps", "normalize_advantage")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each acts in its part of the copies, and cuts its own sequences into as many minibatches."""
        each = self.sequences // processes
        if not super().undivided(processes) and each % self.num_minibatches:
            return f"num_minibatches: got {self.num_minibatches}, expected a divisor of the {each} sequences that each of {processes} processes has"
        if not super().undivided(processes) and self.normalize_advantage and self.rows_per_step == self.num_minibatches * processes:
            return f"num_minibatches: {self.num_minibatches} of one step each in each of {processes} processes cannot be normalised; expected fewer"
        return super().undivided(processes)


class A2c(OnPolicy):
    """Advantage actor-critic: one step of plain policy gradient per rollout, all of it at once."""

    implementation: ClassVar[str] = "pipeline.learners.a2c:A2C"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Mnih et al. 2016, in its synchronous form"

    name: Literal["a2c"] = "a2c"
    normalize_advantage: bool = Field(default=False, description="shift and scale each rollout's advantages to mean 0, deviation 1")

    @model_validator(mode="after")
    def _deviation(self) -> A2c:
        if self.normalize_advantage and self.rows_per_step == 1:
            message = "got rollouts of one step, whose advantage has no deviation; expected more steps, or normalize_advantage: false"
            raise Clash(message, "num_envs", "rollout_steps", "normalize_advantage")
        return self

    def undivided(self, processes: int) -> str | None:
        """Each normalises its own advantages."""
        if not super().undivided(processes) and self.normalize_advantage and self.rows_per_step == processes:
            return f"num_envs: one step for each of {processes} processes cannot be normalised; expected more"
        return super().undivided(processes)


LEARNERS = collect(globals(), Learner, "recurlab.learners")
if TYPE_CHECKING:
    AnyLearner = Learner
else:
    AnyLearner = union_of(LEARNERS)
