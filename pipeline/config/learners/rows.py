"""Learners of labelled rows. Code: `pipeline/learners/`, one file each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Count, FieldConflict, Rows, Section
from pipeline.config.learners.base import Descent


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


class FromRows(Descent):
    """A learner of batches of labelled rows, stored or fresh."""

    budgets: ClassVar[tuple[str, ...]] = ("rows", "steps", "flops", "seconds")

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
    identifier_learning_rate: float = Field(
        default=1e-2,
        gt=0,
        le=100,
        description="Learning rate of the identifiers' table, by the sign of its gradient. Lower it if networks memorise identifiers.",
    )
    identifier_weight_decay: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Weight decay of the rows of the identifiers' table that a batch uses. Raise it if networks memorise identifiers.",
    )

    @model_validator(mode="after")
    def _rows_consistent(self) -> FromRows:
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            message = f"got micro_batch_size: {self.micro_batch_size}; expected at most batch_size: {self.batch_size}"
            raise FieldConflict(message, "micro_batch_size", "batch_size")
        if self.data == "stream" and self.distinct_rows is not None:
            raise FieldConflict("'distinct_rows' is used with data: shards only, got data: stream", "distinct_rows", "data")
        if self.identifier_learning_rate * self.identifier_weight_decay > 1:
            raise FieldConflict(
                "identifier_learning_rate times identifier_weight_decay is above 1; expected at most 1",
                "identifier_weight_decay",
                "identifier_learning_rate",
            )
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


class Supervised(FromRows):
    """Supervised learning: cross-entropy at the scored positions, or squared error for real-valued answers."""

    implementation: ClassVar[str] = "pipeline.learners.supervised:Supervised"
    version: ClassVar[int] = 6

    name: Literal["supervised"] = "supervised"
    curriculum: Curriculum | None = Field(
        default=None,
        description=(
            "Curriculum on a metadata column: training begins with easy rows; null: off. "
            "Use it if a network stays at chance on the whole task."
        ),
    )


CellLoss = Literal["softmax", "stablemax"]
"""How logits become the probabilities of a cross-entropy."""


class DeepSupervision(FromRows):
    """Deep supervision: a recursive network answers after every supervision step and is corrected there.

    Each update is one supervision step of every row of the batch; a row stays for several, its latents carried over without gradients.
    """

    implementation: ClassVar[str] = "pipeline.learners.deep_supervision:DeepSupervision"
    source: ClassVar[str] = "Jolicoeur-Martineau 2025 (TRM); Wang et al. 2025 (HRM); warm_up: random: Bansal et al. 2022"
    grid: ClassVar[bool] = True

    name: Literal["deep_supervision"] = "deep_supervision"
    supervision: int = Field(
        default=16,
        ge=1,
        le=4_096,
        description="Most supervision steps of a row in training. Raise it for puzzles that need more thinking.",
    )
    warm_up: Literal["off", "random"] = Field(
        default="off",
        description=(
            "off: rows stay until they halt, one update per supervision step; random: every update has new rows, which take fewer than "
            "`supervision` steps, a random number, without gradients first. Use random if rows are plentiful."
        ),
    )
    halting: Literal["off", "halt", "continue"] = Field(
        default="off",
        description=(
            "When a row leaves the batch: after `supervision` steps; or earlier, once its halting logit is above 0 (TRM), or above its "
            "logit to continue, learned by Q-learning (HRM). Use halt to spend fewer updates on puzzles that are solved."
        ),
    )
    exploration: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Probability, per row and step, that the row cannot halt before a random step. Raise it if rows halt too early.",
    )
    q_coef: float = Field(
        default=0.5,
        ge=0,
        le=1_000,
        description="Weight of the halting loss, binary cross-entropy of whether the answer is right. Set it to 0 to train answers only.",
    )
    gradient: Annotated[int, Field(ge=0, le=1_024)] | Literal["all"] = Field(
        default=1,
        description=(
            "Last cycles of a supervision step that gradients pass through; all: every one; 0: the last update of the reasoning latents and "
            "that of the answer only (HRM). Raise it at the cost of memory and time."
        ),
    )
    loss: CellLoss = Field(
        default="softmax",
        description=(
            "Probabilities of the cross-entropy; stablemax (Prieto et al. 2025) grows linearly, not exponentially. "
            "Use it to repeat published results."
        ),
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of each label spread over all classes. Raise it if the network is overconfident."
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Standard deviation of noise added to the latents before every supervision step. Raise it if more steps spoil answers.",
    )
    attempts: int = Field(
        default=1,
        ge=1,
        le=64,
        description=(
            "Attempts at every row; only the best one's answer is trained. Raise it, with as many network.starts or start: random, "
            "if some puzzles are never solved."
        ),
    )
    grow_until: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the budget over which the number of outer cycles grows from 1 to the network's. Raise it to save time early.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DeepSupervision:
        if self.warm_up == "random" and self.halting != "off":
            raise FieldConflict(
                f"got halting: {self.halting} with warm_up: random; expected off: rows leave at every update", "halting", "warm_up"
            )
        if self.halting != "off" and not self.q_coef:
            raise FieldConflict(
                f"got q_coef: 0 with halting: {self.halting}, so nobody learns to halt; expected q_coef above 0", "q_coef", "halting"
            )
        if self.rows is not None and self.warm_up == "off":
            message = "a budget in rows with rows that stay in the batch; expected one in steps, flops or seconds, or warm_up: random"
            raise FieldConflict(message, "rows", "warm_up")
        self._check_known_budget("grow_until", self.grow_until > 0)
        return self

    @property
    def rows_drawn(self) -> float:
        """All rows with warm_up: random; else those that have taken all steps, as if none halted before."""
        return self.batch_size if self.warm_up == "random" else self.batch_size / self.supervision

    @property
    def passes(self) -> tuple[float, float]:
        """The mean of 0..supervision - 1 steps, and the step after the update's that q_continue learns from; every attempt counts."""
        before = (self.supervision - 1) / 2 if self.warm_up == "random" else 0.0
        return self.attempts * (before + (self.halting == "continue")), float(self.attempts)

    def cycles_with_gradient(self, outer: int) -> int:
        """Return how many of the cycles of a supervision step gradients pass through; 0: its last updates only."""
        return outer if self.gradient == "all" else min(self.gradient, outer)
