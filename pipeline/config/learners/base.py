"""What the learners of all families have in common: their budget, and the gradient-based ones their optimizer and its schedule."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Component, Count, FieldConflict, Flops, Rows, WarmUp
from pipeline.config.tasks.base import Kind


class Learner(Component):
    """An update rule with its budget: exactly one of the fields in `budgets` bounds a run.

    A learner that counts the FLOPs of its updates adds "flops" to `budgets`.
    """

    kind: ClassVar[Kind] = "tokens"
    """The tasks it learns."""
    grid: ClassVar[bool] = False
    """It learns tasks whose rows are grids, by recursive networks, and no others."""
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
    def rows_drawn(self) -> float:
        """Mean new training rows of an update; fewer than it sees if rows stay for several."""
        return self.rows_per_step

    @property
    def passes(self) -> tuple[float, float]:
        """Mean forward passes of a row, or of a step, in the update that sees it: those without a backward pass, and those with one."""
        return 0.0, 1.0

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
DECOUPLED = ("adamw", "sign_sgd", "adam_atan2", "muon")
"""Optimizers whose weight decay is decoupled from the gradient."""


class Descent(Learner):
    """A gradient-based learner: its optimizer and learning-rate schedule."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sign_sgd", "adam_atan2", "muon"] = Field(
        default="adam",
        description=(
            "Optimizer, as in torch.optim; sign_sgd: the gradient's sign; adam_atan2: AdamW with a bounded step (Everett et al. 2024); muon "
            "(Jordan et al. 2024): orthogonal steps of matrices, AdamW elsewhere. Use adamw with weight_decay."
        ),
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=100, description="Peak learning rate. Tune it first, for each network.")
    outer_learning_rate: float = Field(
        default=1e-3,
        gt=0,
        le=100,
        description=(
            "With optimizer: muon, the peak learning rate of what it leaves to AdamW: embeddings, heads, biases and gains. "
            "Tune it after learning_rate."
        ),
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999),
        description=(
            "Adam's decay rates of the first and second moment; rmsprop uses the second as alpha, muon the first as momentum. "
            "Lower the second if the loss spikes."
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
        if self.optimizer in DECOUPLED and self.learning_rate * self.weight_decay > 1:
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
