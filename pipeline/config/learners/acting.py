"""Learners that act in environments. Code: `pipeline/learners/`, one file each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Count, FieldConflict, Rows, WarmUp
from pipeline.config.learners.base import Descent, Schedule
from pipeline.config.tasks.base import Kind


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
    def passes(self) -> tuple[float, float]:
        """Acting, and every epoch of learning."""
        return 1.0, float(getattr(self, "update_epochs", 1))

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
