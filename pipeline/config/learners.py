"""Every learner: training algorithms, supervised and reinforcement learning. Code: `pipeline/learners/`, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Component, Count, FieldConflict, Flops, Rows, Section, WarmUp
from pipeline.config.catalogue import collect, union_of
from pipeline.config.tasks.base import Kind


class Curriculum(Section):
    """Curriculum: training sees rows whose `column` is at most the level, and the level grows as rows are mastered."""

    column: str = Field(
        description=("Metadata column of the task that is limited, for example delay. Choose the one that makes rows hard.")
    )
    start: int = Field(
        default=3, ge=1, le=10**9, description=("First level, in units of the column. Raise it if the first levels are mastered at once.")
    )
    factor: float = Field(
        default=2.0,
        gt=1,
        le=1e6,
        description=("Factor by which a mastered level grows. Lower it if accuracy collapses after each promotion."),
    )
    threshold: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description=(
            "Symbol accuracy, 0..1, over the last `window` batches at which a level counts as mastered. "
            "Lower it if training stalls at a level."
        ),
    )
    upper: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description=(
            "Only rows whose column is at least upper x level count towards the threshold. Raise it to judge by the hardest rows only."
        ),
    )
    window: int = Field(
        default=30,
        ge=1,
        le=10**9,
        description=(
            "Batches over which accuracy is measured; the count then restarts. Raise it for small batches, whose accuracy is noisy."
        ),
    )


class Learner(Component):
    """An update rule with its budget: exactly one of the fields in `budgets` bounds a run.

    A learner that counts the FLOPs of its updates adds "flops" to `budgets`.
    """

    kind: ClassVar[Kind] = "tokens"
    """The tasks it learns."""
    budgets: ClassVar[tuple[str, ...]] = ("rows", "steps", "seconds")
    """The fields that hold a budget: in training examples, in updates, then the others."""
    update_size: ClassVar[str] = "batch_size"
    """The field that says what one update learns from."""
    models: ClassVar[tuple[str, ...]] = ("model",)
    """Names of the networks it exports; `model` is the one that evaluations measure."""
    objective: ClassVar[tuple[str, Literal["lower", "higher"]]] = ("validation_loss", "lower")
    """The history column by which `tune` chooses, and which of two values is better."""
    assets: ClassVar[tuple[str, ...]] = ()
    """Names of further files beside the weights."""
    same_network: ClassVar[bool] = True
    """The network of its parent must be its own; False where it takes over a part of one."""

    flops: Flops | None = Field(
        default=None,
        description=(
            "Budget in floating-point operations of forward and backward passes: 2 per multiply-add of a matrix product. "
            "Use it to compare architectures at equal compute."
        ),
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description=(
            "Budget in wall-clock seconds of training; such a run is not bitwise reproducible. Use it to compare networks at equal time."
        ),
    )
    parent: str | None = Field(
        default=None,
        description=(
            "Experiment, or experiment/variant, to initialise from: the weights of its run with the same seed. Set it to fine-tune."
        ),
    )
    evaluate_every: int = Field(
        default=200,
        ge=1,
        le=10**12,
        description=("Optimizer steps between validations. Raise it if validation takes a noticeable share of the time."),
    )
    validation_rows: Rows = Field(
        default=500,
        description=("Rows of the validation set, never trained on. Raise it if validation accuracy is too noisy to choose weights by."),
    )
    keep: list[Literal["last", "best"] | Count] = Field(
        default=["last"],
        description=(
            "Checkpoints to keep: last, best (on validation), or a number N for one every N updates (supervised: optimizer steps). "
            "Add best if accuracy falls late in training."
        ),
    )
    select: Literal["last", "best"] = Field(
        default="last",
        description=(
            "Which checkpoint is evaluated; best is chosen on validation rows only. Use best with networks that overfit or diverge late."
        ),
    )

    @field_validator("keep")
    @classmethod
    def _any_order(cls, keep: list[Any]) -> list[Any]:
        return sorted(set(keep), key=str)

    @model_validator(mode="after")
    def _one_budget(self) -> Learner:
        given = [key for key in dict.fromkeys((*self.budgets, "flops")) if getattr(self, key) is not None]
        choices = f"{', '.join(self.budgets[:-1])} and {self.budgets[-1]}"
        if len(given) > 1:
            raise FieldConflict(f"got {' and '.join(given)}; expected one budget out of {choices}", *given)
        if not given:
            raise FieldConflict(f"missing budget; expected one of {choices}")
        if given[0] not in self.budgets:
            raise FieldConflict(f"{self.name} does not count FLOPs; expected one budget out of {choices}", *given)
        examples, budget = self.budgets[0], getattr(self, self.budgets[0])
        if budget is not None and budget < self.rows_per_step:
            raise FieldConflict(f"got {examples}: {budget}; expected at least {self.rows_per_step}, one update", examples, self.update_size)
        if self.select not in self.keep:
            raise FieldConflict(f"select: {self.select} needs {self.select} in 'keep', got {list(self.keep)}", "select", "keep")
        return self

    def division_error(self, processes: int) -> str | None:
        """Why so many processes cannot share a training by this learner, in words that begin with a field; None where they can."""
        return f"name: this learner trains in one process, not in {processes}" if processes > 1 else None

    @property
    def rows_per_step(self) -> int:
        """Training rows that one update sees."""
        raise NotImplementedError

    @property
    def budget(self) -> str:
        """The field that holds the budget."""
        return next(key for key in self.budgets if getattr(self, key) is not None)

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole run; None with a budget in FLOPs or seconds."""
        examples, updates = (getattr(self, key) for key in self.budgets[:2])
        return examples // self.rows_per_step if examples else updates

    @property
    def stored_rows(self) -> int | None:
        """Rows of the training dataset; None where nothing is stored."""
        raise NotImplementedError


Schedule = Literal["constant", "cosine", "linear", "inverse"]


class Descent(Learner):
    """A gradient-based learner: its optimizer and learning-rate schedule."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sign_sgd"] = Field(
        default="adam",
        description=("Optimizer, as in torch.optim, or sign_sgd: the sign of the gradient. Use adamw together with weight_decay."),
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=100, description="Peak learning rate. Tune it first, for each network.")
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999),
        description=(
            "Adam's decay rates of the first and second moment; rmsprop uses the second as alpha. Lower the second if the loss spikes."
        ),
    )
    eps: float = Field(
        default=1e-8,
        ge=1e-30,
        le=1,
        description=("Term added to the denominator of the update, as in torch.optim. Raise it if updates blow up where gradients vanish."),
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description=(
            "Weight decay of matrices (weights of linear, convolution and embedding layers); decoupled with adamw, an L2 "
            "penalty otherwise. "
            "Raise it against overfitting."
        ),
    )
    lr_schedule: Schedule = Field(
        default="constant",
        description=(
            "Learning rate after warm-up: constant, cosine or linear decay to min_lr_ratio, or inverse, 1 / (1 + step / "
            "half_life). "
            "Use cosine when the budget is known."
        ),
    )
    warmup_steps: WarmUp = Field(
        default=0,
        description=(
            "Steps over which the learning rate rises linearly from 0; below 1: that fraction of the budget. "
            "Raise it if the loss diverges early; attention usually needs some."
        ),
    )
    min_lr_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "Lowest learning rate of the schedule, as a fraction of learning_rate. Raise it if the loss still falls when the schedule ends."
        ),
    )
    half_life: int = Field(
        default=1500,
        ge=1,
        le=10**12,
        description=("Steps after which the inverse schedule has halved the learning rate. Set it with lr_schedule: inverse only."),
    )
    max_grad_norm: float | None = Field(
        default=1.0,
        ge=1e-6,
        le=1e30,
        description=("Gradient clipping: largest global L2 norm; null: off. Lower it if the loss spikes on long rows."),
    )

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
            raise FieldConflict(message, "warmup_steps", *self.budgets[:2])
        if self.optimizer in ("adamw", "sign_sgd") and self.learning_rate * self.weight_decay > 1:
            message = "learning_rate times weight_decay is {:g}; expected at most 1, which takes all of a weight away"
            raise FieldConflict(message.format(self.learning_rate * self.weight_decay), "weight_decay", "learning_rate", "optimizer")
        self._check_known_budget("lr_schedule", self.lr_schedule in ("cosine", "linear"))
        self._check_known_budget("warmup_steps", 0 < self.warmup_steps < 1)
        if self.flops is not None and 0 < self.warmup_steps < 1 and self.lr_schedule == "inverse":
            message = f"got warmup_steps: {self.warmup_steps} of a budget in flops with lr_schedule: inverse; expected a number of updates"
            raise FieldConflict(message, "warmup_steps", "lr_schedule", "flops")
        return self

    def _check_known_budget(self, field: str, relative: bool) -> None:
        """Raise FieldConflict if a field is relative to a budget in seconds, whose end is not known in advance."""
        if relative and self.seconds is not None:
            others = f"{', '.join(self.budgets[:-2])} or {self.budgets[-2]}"
            message = f"{field}: {getattr(self, field)} with a budget in seconds; expected one in {others}"
            raise FieldConflict(message, field, "seconds")

    @property
    def warmup_updates(self) -> int:
        """Updates of the warm-up; 0 where it is a fraction of a budget in FLOPs."""
        if isinstance(self.warmup_steps, int):
            return self.warmup_steps
        return max(round(self.warmup_steps * self.total_steps), 1) if self.total_steps else 0

    @property
    def warmup_flops(self) -> float:
        """FLOPs of the warm-up, where it is a fraction of a budget in FLOPs; else 0."""
        return self.warmup_steps * self.flops if self.flops is not None and isinstance(self.warmup_steps, float) else 0.0


class Supervised(Descent):
    """Supervised learning: cross-entropy at the scored positions, or squared error for real-valued answers."""

    implementation: ClassVar[str] = "pipeline.learners.supervised:Supervised"
    version: ClassVar[int] = 6
    budgets: ClassVar[tuple[str, ...]] = ("rows", "steps", "flops", "seconds")

    name: Literal["supervised"] = "supervised"
    rows: Count | None = Field(
        default=None, description=("Budget in training rows. Raise it if the validation loss still falls at the end.")
    )
    steps: Count | None = Field(
        default=None, description=("Budget in optimizer steps. Use it instead of rows when batch sizes differ between runs.")
    )
    batch_size: int = Field(
        default=32,
        ge=1,
        le=10**6,
        description=("Rows per optimizer step, over all processes. Raise it if gradients are noisy, together with the learning rate."),
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description=(
            "Rows per forward and backward pass; gradients accumulate over a batch; null: the whole batch. "
            "Set it if a batch does not fit in memory."
        ),
    )
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description=(
            "Decay per step of an exponential moving average of the weights, which is evaluated instead of them; 0: off. "
            "Use 0.99 or more if validation accuracy is noisy."
        ),
    )
    curriculum: Curriculum | None = Field(
        default=None,
        description=(
            "Curriculum on a metadata column: training begins with easy rows; null: off. "
            "Use it if a network stays at chance on the whole task."
        ),
    )
    data: Literal["shards", "stream"] = Field(
        default="shards",
        description=(
            "shards: stored rows, in a new order every epoch; stream: fresh rows at every step, from (seed, step). "
            "Use stream if networks overfit and rows are cheap to generate."
        ),
    )
    distinct_rows: Rows | None = Field(
        default=None,
        description=(
            "Distinct training rows to store; default: as many as the budget sees, at most a million; 100,000 with a budget "
            "in flops or seconds. "
            "Lower it to study overfitting."
        ),
    )
    loader: Literal["auto", "memory", "row_groups"] = Field(
        default="auto",
        description=(
            "memory: all rows decoded in memory; row_groups: read from disk in blocks; auto: by size. Set it only if memory runs out."
        ),
    )
    stop_at: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description=("Validation accuracy, 0..1, at which training stops; null: never. Set it to save time once a task is solved."),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Supervised:
        if self.data == "stream" and self.distinct_rows is not None:
            raise FieldConflict("'distinct_rows' is used with data: shards only, got data: stream", "distinct_rows", "data")
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            message = f"got micro_batch_size: {self.micro_batch_size}; expected at most batch_size: {self.batch_size}"
            raise FieldConflict(message, "micro_batch_size", "batch_size")
        return self

    def division_error(self, processes: int) -> str | None:
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
    """On-policy actor-critic learning: environments step side by side, and an update follows every rollout."""

    kind: ClassVar[Kind] = "environment"
    budgets: ClassVar[tuple[str, ...]] = ("total_timesteps", "num_updates", "flops", "seconds")
    objective: ClassVar[tuple[str, Literal["lower", "higher"]]] = ("validation_return", "higher")
    update_size: ClassVar[str] = "rollout_steps"

    total_timesteps: Count | None = Field(
        default=None,
        description=("Budget in environment steps, summed over all environments. Raise it if the return still rises at the end."),
    )
    num_updates: Count | None = Field(
        default=None,
        description=("Budget in updates, one per rollout. Use it instead of total_timesteps when rollout sizes differ between runs."),
    )
    num_envs: int = Field(
        default=64,
        ge=1,
        le=65_536,
        description=("Number of environments that step side by side. Raise it for less noisy gradients and more steps per second."),
    )
    rollout_steps: int = Field(
        default=32,
        ge=1,
        le=65_536,
        description=("Steps of each environment per rollout. Raise it if rewards come later than a rollout lasts."),
    )
    bptt_steps: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description=(
            "Truncated-BPTT length, in steps; the state is carried over; null: the whole rollout. "
            "Lower it to save memory; keep it longer than what must be remembered."
        ),
    )
    learning_rate: float = Field(default=2e-3, gt=0, le=100, description="Peak learning rate. Tune it first, for each network.")
    eps: float = Field(
        default=1e-5,
        ge=1e-30,
        le=1,
        description=("Term added to the denominator of the update, as in torch.optim. Leave it unless you reproduce a paper."),
    )
    warmup_steps: WarmUp = Field(
        default=0,
        description=(
            "Updates over which the learning rate rises linearly from 0; below 1: that fraction of the budget. "
            "Raise it if the policy collapses early."
        ),
    )
    half_life: int = Field(
        default=1500,
        ge=1,
        le=10**12,
        description=("Updates after which the inverse schedule has halved the learning rate. Set it with lr_schedule: inverse only."),
    )
    max_grad_norm: float | None = Field(
        default=0.5,
        ge=1e-6,
        le=1e30,
        description=("Gradient clipping: largest global L2 norm; null: off. Raise it if most updates are clipped."),
    )
    gamma: float = Field(
        default=0.99,
        gt=0,
        le=1,
        description=(
            "Discount factor per environment step. Raise it towards 1 if rewards come late; lower it if the value function is too noisy."
        ),
    )
    gae_lambda: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description=(
            "Lambda of generalized advantage estimation; 0: one-step TD error, 1: Monte Carlo. Lower it if advantages are too noisy."
        ),
    )
    bootstrap_truncated: bool = Field(
        default=True,
        description=(
            "Bootstrap from the critic where an episode is cut off by a time limit; false: treat it as an end. "
            "Set false to reproduce CleanRL."
        ),
    )
    vf_coef: float = Field(
        default=0.5,
        ge=0,
        le=1000,
        description=(
            "Weight of the value loss, which is half the mean squared error. Raise it if the value function lags behind the returns."
        ),
    )
    ent_coef: float = Field(
        default=0.01,
        ge=0,
        le=1000,
        description=("Weight of the entropy bonus; entropy in nats. Raise it if the policy stops exploring too early."),
    )
    ent_coef_schedule: Schedule = Field(
        default="constant",
        description=("Schedule of ent_coef over updates, with the choices of lr_schedule. Use linear to explore first and exploit later."),
    )
    min_ent_coef_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=("Lowest ent_coef of its schedule, as a fraction of ent_coef. Raise it to keep exploring to the end."),
    )
    evaluate_every: int = Field(
        default=10,
        ge=1,
        le=10**12,
        description=("Updates between validations. Raise it if validation takes a noticeable share of the time."),
    )
    validation_rows: Rows = Field(
        default=100,
        description=("Held-out episodes per validation, never trained on. Raise it if the success rate is too noisy to choose weights by."),
    )
    stop_at: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description=(
            "Share of solved validation episodes, 0..1, at which training stops; null: never. Set it to save time once a task is solved."
        ),
    )

    @model_validator(mode="after")
    def _whole_sequences(self) -> OnPolicy:
        if self.bptt_steps is not None and self.rollout_steps % self.bptt_steps:
            raise FieldConflict(
                f"got bptt_steps: {self.bptt_steps}; expected a divisor of rollout_steps = {self.rollout_steps}",
                "bptt_steps",
                "rollout_steps",
            )
        self._check_known_budget("ent_coef_schedule", self.ent_coef_schedule in ("cosine", "linear"))
        return self

    def division_error(self, processes: int) -> str | None:
        """Each process acts in its part of the environments."""
        if self.num_envs % processes:
            return f"num_envs: got {self.num_envs}, expected a multiple of the {processes} processes"
        return None

    @property
    def rows_per_step(self) -> int:
        """Environment steps of a rollout, over all environments."""
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
    """Proximal policy optimization (PPO): several epochs over each rollout, with a clipped probability ratio."""

    implementation: ClassVar[str] = "pipeline.learners.ppo:PPO"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Schulman et al. 2017; advantages: Schulman et al. 2016"

    name: Literal["ppo"] = "ppo"
    update_epochs: int = Field(
        default=4, ge=1, le=1000, description=("Passes over each rollout. Lower it if approximate_kl or clip_fraction is high.")
    )
    num_minibatches: int = Field(
        default=4,
        ge=1,
        le=10**9,
        description=("Minibatches, hence optimizer steps, per pass; each holds whole sequences. Lower it for less noisy gradients."),
    )
    clip_range: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description=(
            "PPO clip range eps: the probability ratio is clipped to [1 - eps, 1 + eps]. Lower it if the policy changes too fast."
        ),
    )
    clip_range_vf: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description=(
            "Clip range of the value function around its estimate at rollout time; null: no clipping. Set it to 0.2 to reproduce CleanRL."
        ),
    )
    normalize_advantage: bool = Field(
        default=True,
        description=(
            "Normalize advantages to mean 0 and standard deviation 1 in each minibatch. "
            "Turn it off if rewards are so rare that most advantages are noise."
        ),
    )
    target_kl: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description=(
            "Approximate KL divergence from the rollout policy, in nats, at which passes over a rollout stop; null: never. "
            "Set it to about 0.01 if updates are too large."
        ),
    )

    @model_validator(mode="after")
    def _whole_minibatches(self) -> Ppo:
        if self.sequences % self.num_minibatches:
            message = f"got num_minibatches: {self.num_minibatches}; expected a divisor of the {self.sequences} sequences of a rollout"
            raise FieldConflict(message, "num_minibatches", "num_envs", "rollout_steps", "bptt_steps")
        if self.normalize_advantage and self.rows_per_step == self.num_minibatches:
            message = "got minibatches of one step, whose advantages have no deviation; expected more steps, or normalize_advantage: false"
            raise FieldConflict(message, "num_minibatches", "num_envs", "rollout_steps", "normalize_advantage")
        return self

    def division_error(self, processes: int) -> str | None:
        """Each process acts in its part of the environments, and splits its own sequences into `num_minibatches`."""
        each = self.sequences // processes
        if not super().division_error(processes) and each % self.num_minibatches:
            return f"num_minibatches: got {self.num_minibatches}, expected a divisor of the {each} sequences that each of {processes} processes has"
        if not super().division_error(processes) and self.normalize_advantage and self.rows_per_step == self.num_minibatches * processes:
            return f"num_minibatches: {self.num_minibatches} of one step each in each of {processes} processes cannot be normalised; expected fewer"
        return super().division_error(processes)


class A2c(OnPolicy):
    """Advantage actor-critic (A2C): one policy-gradient step per rollout."""

    implementation: ClassVar[str] = "pipeline.learners.a2c:A2C"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Mnih et al. 2016, in its synchronous form"

    name: Literal["a2c"] = "a2c"
    normalize_advantage: bool = Field(
        default=False,
        description=("Normalize advantages to mean 0 and standard deviation 1 in each rollout. Turn it on if the scale of rewards varies."),
    )

    @model_validator(mode="after")
    def _deviation(self) -> A2c:
        if self.normalize_advantage and self.rows_per_step == 1:
            message = "got rollouts of one step, whose advantage has no deviation; expected more steps, or normalize_advantage: false"
            raise FieldConflict(message, "num_envs", "rollout_steps", "normalize_advantage")
        return self

    def division_error(self, processes: int) -> str | None:
        """Each normalises its own advantages."""
        if not super().division_error(processes) and self.normalize_advantage and self.rows_per_step == processes:
            return f"num_envs: one step for each of {processes} processes cannot be normalised; expected more"
        return super().division_error(processes)


LEARNERS = collect(globals(), Learner, "recurlab.learners")
if TYPE_CHECKING:
    AnyLearner = Learner
else:
    AnyLearner = union_of(LEARNERS)
