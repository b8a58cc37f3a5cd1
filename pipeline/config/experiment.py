"""The config file as a whole: experiments, runtime, tracking."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.config.base import Section
from pipeline.config.figures import AnyFigure
from pipeline.config.learners import AnyLearner
from pipeline.config.networks import AnyNetwork
from pipeline.config.tasks import AnyTask


class Point(Section):
    """One run: what is learned, by which network, how, measured how, from which seed."""

    task: AnyTask = Field(description="the problem")
    network: AnyNetwork = Field(description="the model")
    learner: AnyLearner = Field(description="the update rule and its budget")
    evaluate: dict[str, Any] = Field(default={}, description="what is measured on test rows; changing it never retrains")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of weights and of the order of rows")


class Experiment(Section):
    """Runs that belong together: a base point, the product of the swept lists over it, and named extra points."""

    question: str = Field(default="", description="what the experiment asks, shown above its figures")
    base: Point = Field(description="the point that sweep and variants start from")
    sweep: dict[str, list[Any]] = Field(default={}, description="dotted key into base -> list of values; the product of all lists is run")
    variants: dict[str, dict[str, Any]] = Field(default={}, description="name -> overrides by dotted key, each swept over seed")
    figures: list[AnyFigure] = Field(default=[], description="figures to draw, by name or as mapping with options")


class Runtime(Section):
    """How runs are executed; never part of a run's identity."""

    threads: int = Field(
        default=1, ge=1, le=1_024, description="CPU threads per training or evaluation job; one is fastest when jobs run side by side"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU if there is one")
    checkpoint_seconds: float = Field(default=30.0, gt=0, le=1e9, description="wall seconds between training checkpoints")
    mem_mb: int = Field(default=2000, ge=100, le=10**9, description="memory asked of a cluster per training or evaluation job")
    minutes: int = Field(default=240, ge=1, le=10**7, description="time asked of a cluster per training job")
    gpus: int = Field(
        default=0, ge=0, le=1_024, description="GPUs a training uses on each node, one process on each; an evaluation uses one of them"
    )
    processes: int | None = Field(
        default=None, ge=1, le=1_024, description="processes that share a training on each node; null: one a GPU, or one without GPUs"
    )
    nodes: int = Field(default=1, ge=1, le=65_536, description="nodes that share a training, within a SLURM job")
    max_runs: int = Field(default=10_000, ge=1, le=10**6, description="runs that a config may ask for; a sweep of more is refused")
    changed_code: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="weights, checkpoints and datasets that were made by other code than the present one: refuse them, or take them as they are",
    )
    container: str = Field(
        default="containers/recurlab.sif", min_length=1, description="image used with --sdm apptainer: a stable path or a URI"
    )

    @property
    def per_node(self) -> int:
        """Processes of a training on each node."""
        return self.processes or max(self.gpus, 1)


class Tracking(Section):
    """Mirroring of training curves to Weights & Biases. Parquet is the record either way."""

    wandb: Literal["off", "offline", "online"] = Field(default="off", description="online falls back to offline without an API key")
    project: str = Field(default="recurlab", min_length=1, description="project the runs appear in")
    group: str | None = Field(default=None, description="group of runs; default: the task's name")
    tags: list[str] = Field(default=[], description="tags on every run")


class Config(Section):
    """config.yaml."""

    experiments: dict[str, Experiment] = Field(description="name -> experiment; the name is a folder below results/experiments/")
    runtime: Runtime = Field(default=Runtime(), description="how runs are executed")
    tracking: Tracking = Field(default=Tracking(), description="mirroring to Weights & Biases")
