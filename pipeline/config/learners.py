"""Every learner: how weights follow from data. Code: `pipeline/learners/`, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Clash, Component, Count, Rows, Section
from pipeline.config.catalogue import collect, union_of
from pipeline.config.tasks.base import Kind


class Curriculum(Section):
    """A growing filter on a metadata column: training sees rows with `column` at most the level, which grows as they are mastered."""

    column: str = Field(description="metadata column of the task, for example delay")
    start: int = Field(default=3, ge=1, description="first level, in units of the column")
    factor: float = Field(default=2.0, gt=1, description="what the level is multiplied by when mastered")
    threshold: float = Field(default=0.95, gt=0, le=1, description="symbol accuracy over the last `memory` batches that counts as mastered")
    upper: float = Field(default=0.7, ge=0, le=1, description="accuracy is taken over rows with column at least upper x level")
    memory: int = Field(default=30, ge=1, description="batches after which that accuracy is judged, and taken anew")


class Learner(Component):
    """An update rule with its budget. Exactly one of rows, steps and seconds bounds a run."""

    kind: ClassVar[Kind] = "tokens"
    """The tasks it learns."""
    needs_causal: ClassVar[bool] = True
    """It trains on positions whose future must stay unseen."""

    rows: Count | None = Field(default=None, description="budget in training rows seen")
    steps: Count | None = Field(default=None, description="budget in optimizer steps")
    seconds: float | None = Field(
        default=None, gt=0, description="budget in wall seconds of training; such a run is not reproducible bit by bit"
    )
    batch: int = Field(default=32, ge=1, description="rows per update over all processes")
    parent: str | None = Field(default=None, description="start from the weights of <experiment>[/<variant>], the run with the same seed")
    evaluate_every: int = Field(default=200, ge=1, description="optimizer steps between validations")
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
        if self.rows is not None and self.rows < self.batch:
            raise Clash(f"got {self.rows} rows; expected at least one batch of {self.batch}", "rows", "batch")
        if self.select not in self.keep:
            raise Clash(f"select: {self.select} needs {self.select} in 'keep', got {list(self.keep)}", "select", "keep")
        return self

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run; None where the clock decides."""
        return self.rows // self.batch if self.rows else self.steps

    @property
    def stored_rows(self) -> int:
        """Rows of the training dataset."""
        raise NotImplementedError


class Supervised(Learner):
    """Cross-entropy, or squared error where answers are real, on the scored positions: stochastic gradient descent over labelled rows."""

    implementation: ClassVar[str] = "pipeline.learners.supervised:Supervised"
    version: ClassVar[int] = 3

    name: Literal["supervised"] = "supervised"
    optimizer: Literal["adam", "adamw", "rmsprop"] = Field(default="adam", description="update rule")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of the first and second moment; rmsprop uses the second")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled for adamw, added to the gradient otherwise")
    schedule: Literal["constant", "cosine", "linear", "inverse"] = Field(
        default="constant", description="learning rate after warm-up; inverse: 1 / (1 + step / half_life)"
    )
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate grows linearly from zero")
    final: float = Field(default=0.0, ge=0, le=1, description="the schedule never goes below this share of the peak")
    half_life: int = Field(default=1500, ge=1, description="steps until the inverse schedule has halved")
    clip: float | None = Field(default=1.0, gt=0, description="largest global gradient norm; null: no clipping")
    micro_batch: int | None = Field(
        default=None, ge=1, description="rows per forward and backward pass, whose gradients add up to the batch's: less memory; null: all"
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

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"got {list(betas)}; expected 0 <= beta < 1")
        return betas

    @model_validator(mode="after")
    def _consistent(self) -> Supervised:
        if self.seconds is not None and self.schedule in ("cosine", "linear"):
            raise Clash(f"schedule: {self.schedule} needs a budget in rows or steps, got seconds", "schedule", "seconds")
        if self.data == "stream" and self.distinct_rows is not None:
            raise Clash("'distinct_rows' is used with data: shards only, got data: stream", "distinct_rows", "data")
        return self

    @property
    def stored_rows(self) -> int:
        """Rows of the training dataset."""
        if self.distinct_rows:
            return self.distinct_rows
        steps = self.total_steps
        return min(steps * self.batch, 1_000_000) if steps else 100_000


LEARNERS = collect(globals(), Learner, "recurlab.learners")
if TYPE_CHECKING:
    AnyLearner = Learner
else:
    AnyLearner = union_of(LEARNERS)
