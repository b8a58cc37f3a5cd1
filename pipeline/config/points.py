"""A config file, expanded: experiments and their points, each of them one validated run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.config.base import canonical
from pipeline.config.config_file import Point, Runtime, Tracking
from pipeline.config.document import Location
from pipeline.config.figures import Figure
from pipeline.config.tasks import Evaluation, Task


class Written(str):
    """A swept component as text, `lstm (horizon=40)`, with its name and what was written with it apart."""

    __slots__ = ("details", "name")

    def __new__(cls, name: str, details: str = "") -> Written:
        """The text made of both."""
        made = super().__new__(cls, f"{name} ({details})" if name and details else name or details)
        made.name, made.details = (name, details) if name else (details, "")
        return made


@dataclass(frozen=True)
class ExpandedPoint:
    """One run of an experiment: its validated point and where in the experiment it stands.

    coordinates: swept key -> value. overrides: what its variant sets, likewise. Both hold validated values, components as `Written`.
    tuned: tuned key -> value, likewise; the run is one of several candidates for its point.
    dropped: what base writes and this run does not have, because another component, or the same one written anew, replaced it.
    """

    point: Point
    evaluation: Evaluation
    variant: str | None
    coordinates: dict[str, Any]
    overrides: dict[str, Any]
    location: Location
    dropped: dict[str, Any] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    @property
    def block(self) -> dict[str, Any]:
        """Point and evaluation in canonical form: equal for two spellings of the same run and measurement."""
        return dict(sorted({**canonical(self.point), "evaluate": canonical(self.evaluation)}.items()))

    @property
    def measurement(self) -> Any:
        """How the network is measured: the kind that the evaluation names, by default the task's."""
        return self.evaluation.measured_by(self.point.task)

    @property
    def measured(self) -> list[Task]:
        """The tasks that the evaluation measures, one dataset each."""
        return self.evaluation.points(self.point.task)


@dataclass(frozen=True)
class ExpandedExperiment:
    """An experiment with its sweeps expanded. tune_seeds: the seeds that every tuned value is tried on; empty if nothing is tuned."""

    name: str
    question: str
    columns: list[str]
    members: list[ExpandedPoint]
    figures: list[Figure]
    figure_locations: list[Location]
    location: Location
    tune_seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class ExpandedConfig:
    """A whole config file, validated."""

    experiments: list[ExpandedExperiment]
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Tracking = field(default_factory=Tracking)
