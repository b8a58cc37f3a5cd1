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

    task: AnyTask = Field(description=("The problem: a component of Tasks. Choose it by what you want to know."))
    network: AnyNetwork = Field(description=("The model: a component of Networks. Sweep network.mixer to compare architectures."))
    learner: AnyLearner = Field(
        description=(
            "The training algorithm and its budget: a component of Learners. "
            "Use supervised for rows of tokens, ppo or a2c for environments."
        )
    )
    evaluate: dict[str, Any] = Field(
        default={},
        description=("What is measured on test rows; the fields depend on the task. Change it freely: it re-evaluates and never retrains."),
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description=("Random seed of the weights and of the order of rows. Sweep it: intervals are over seeds.")
    )


class Experiment(Section):
    """Runs that belong together: a base point, the product of the swept lists over it, and named extra points."""

    question: str = Field(default="", description=("What the experiment asks, shown above its figures. Set it for readers of the report."))
    base: Point = Field(description=("The point that sweep and variants modify. Put what all runs share here."))
    sweep: dict[str, list[Any]] = Field(
        default={},
        description=("Dotted key -> list of values; the product of all lists is run. Use it to compare several values of a field."),
    )
    variants: dict[str, dict[str, Any]] = Field(
        default={},
        description=("Name -> overrides of base by dotted key, each run for every seed. Use it for points outside the sweep's product."),
    )
    tune: dict[str, Any] = Field(
        default={},
        description=(
            "Dotted key -> values to try at every point of the sweep; tables and figures show the best by validation. With `random: 20`, "
            "that many draws, from lists or ranges such as {log_uniform: [1e-4, 1e-2]}. Use it to compare architectures fairly."
        ),
    )
    tune_seeds: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Seeds that every tuned value is tried on, the first of the sweep; the others are trained at the chosen value only; null: all. "
            "Lower it to save compute."
        ),
    )
    figures: list[AnyFigure] = Field(
        default=[],
        description=(
            "Figures to draw, by name or as a mapping with options. Add any that `pipeline list figures` shows; nothing is trained again."
        ),
    )


class Runtime(Section):
    """How runs are executed; never part of a run's identity."""

    threads: int = Field(
        default=1,
        ge=1,
        le=1_024,
        description=(
            "CPU threads per training or evaluation job. Raise it for large networks only; with 1, jobs run side by side fastest."
        ),
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description=("Device of training and evaluation; auto: a GPU if there is one. Set cpu for bitwise reproducible results."),
    )
    checkpoint_seconds: float = Field(
        default=30.0,
        gt=0,
        le=1e9,
        description=("Wall-clock seconds between training checkpoints. Raise it if checkpoints are large and the disk is slow."),
    )
    mem_mb: int = Field(
        default=2000,
        ge=100,
        le=10**9,
        description=("Memory requested from a cluster per training or evaluation job, in MB. Raise it if jobs are killed."),
    )
    minutes: int = Field(
        default=240,
        ge=1,
        le=10**7,
        description=("Time requested from a cluster per training job, in minutes. Raise it for long runs; one that is cut off resumes."),
    )
    gpus: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description=(
            "GPUs per training job and node, one process on each; an evaluation uses one of them. "
            "Raise it to train one run on several GPUs."
        ),
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        le=1_024,
        description=(
            "Processes per training job and node; null: one per GPU, or one without GPUs. Set it to share a training without GPUs."
        ),
    )
    nodes: int = Field(
        default=1, ge=1, le=65_536, description=("Nodes per training job, within SLURM. Raise it if one node is not enough.")
    )
    max_runs: int = Field(
        default=10_000, ge=1, le=10**6, description=("Largest number of runs that a config may ask for. Raise it for a larger sweep.")
    )
    changed_code: Literal["refuse", "allow"] = Field(
        default="refuse",
        description=(
            "Whether to use weights, checkpoints and datasets made by other code than the current: refuse or allow. "
            "Set allow after a change that leaves numbers as they are."
        ),
    )
    container: str = Field(
        default="containers/recurlab.sif",
        min_length=1,
        description=("Container image used with --sdm apptainer: a path or a URI. Change it if the image lies elsewhere."),
    )

    @property
    def per_node(self) -> int:
        """Processes of a training on each node."""
        return self.processes or max(self.gpus, 1)


class Tracking(Section):
    """Training curves on Weights & Biases. The Parquet files are written either way."""

    wandb: Literal["off", "offline", "online"] = Field(
        default="off",
        description=(
            "Weights & Biases logging: off, offline or online; online falls back to offline without an API key. "
            "Set online to watch runs in a browser."
        ),
    )
    project: str = Field(default="recurlab", min_length=1, description=("Weights & Biases project. Set it to group the runs of a study."))
    group: str | None = Field(
        default=None, description=("Weights & Biases group; default: the task's name. Set it to group runs another way.")
    )
    tags: list[str] = Field(default=[], description="Weights & Biases tags of every run. Add some to filter by.")


class Config(Section):
    """config.yaml."""

    experiments: dict[str, Experiment] = Field(
        description=("Name -> experiment; the name is its folder in results/experiments/. Add one per question.")
    )
    runtime: Runtime = Field(
        default=Runtime(), description=("How runs are executed; never part of a run's identity. Set it for your machine.")
    )
    tracking: Tracking = Field(default=Tracking(), description="Logging to Weights & Biases. Turn it on to follow runs there.")
