"""Turn the resolved config into datasets, networks, runs, evaluations and experiments, each with its identifier. Never imports torch.

An identifier is a readable slug and a digest of the canonical spec: what differs from the defaults, component versions, and the
identifiers it depends on. Experiments with equal specs share the runs.

    config.yaml -> Plan -> plan.json (frozen while its jobs run) -> the Snakefile's targets and every rule's params
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.base import Component, canonical, filled
from pipeline.config.code import files_of
from pipeline.config.document import read_document
from pipeline.config.expand import ExpandedConfig, ExpandedExperiment, ExpandedPoint, expand, find_parent, preset_texts
from pipeline.config.labels import Parts, all_lines, check_names, label_of, labels_of, suite_slots
from pipeline.config.tasks.base import NATS
from pipeline.planned import Plan, PlannedDataset, PlannedEvaluation, PlannedExperiment, PlannedFigure, PlannedRun, Spec
from pipeline.storage.digest import canonical_json, digest
from pipeline.storage.errors import UserError

SHARD_ROWS = 65_536
"""Rows per shard; each shard is one `generate` job."""


def _modules(figure: Component) -> list[str]:
    """Return the module of a built-in figure, relative to the Snakefile's folder; for a plug-in, all of its own files."""
    module = type(figure).implementation.partition(":")[0]
    if module.startswith("pipeline."):
        return [f"{module.replace('.', '/')}.py"]
    return [str(path) for label, (path, _) in files_of(figure).items() if not label.startswith("pipeline/")]


def _measurement_modules(measurement: Component) -> list[str]:
    """Return the modules of a measurement and its base classes, relative to the Snakefile's folder; for a plug-in, also its own files."""
    names = [parent.__module__ for parent in type(measurement).__mro__ if parent.__module__.startswith("pipeline.evaluation.")]
    own = [] if type(measurement).__module__.startswith("pipeline.") else [str(path) for path, _ in files_of(measurement).values()]
    return sorted({*(f"{name.replace('.', '/')}.py" for name in names), *own})


def plan_file(path: Path) -> Plan:
    """Plan a config file. Raises ConfigError, one line, if the config is invalid."""
    document, text = read_document(path), path.read_text(encoding="utf-8-sig")
    plan = make_plan(expand(document))
    plan.suite = {"file": str(path), "text": text, "presets": preset_texts(document)}
    return plan


def make_plan(resolved: ExpandedConfig) -> Plan:
    """Plan a validated config."""
    return _Planner(resolved).plan()


@dataclass
class _Planner:
    resolved: ExpandedConfig
    made: Plan = field(default_factory=Plan)

    def plan(self) -> Plan:
        self.made.runtime = filled(self.resolved.runtime)
        self.made.tracking = filled(self.resolved.tracking)
        labels = {experiment.name: labels_of(experiment) for experiment in self.resolved.experiments}
        slots = suite_slots(self.resolved.experiments, labels)
        for experiment in self.resolved.experiments:
            self._experiment(experiment, labels[experiment.name], slots)
        return self.made

    def _experiment(self, experiment: ExpandedExperiment, labels: list[Parts], slots: dict[str, int]) -> None:
        check_names(experiment, labels)
        runs = [self._entry(member, parts) for member, parts in zip(experiment.members, labels, strict=True)]
        runs.sort(key=lambda run: (run["label"], run["seed"], run["run"]))
        self.made.experiments[experiment.name] = PlannedExperiment(
            name=experiment.name,
            question=experiment.question,
            spec={"name": experiment.name, "columns": sorted(experiment.columns), "runs": runs, **_tune(experiment)},
            figures={
                figure.stem: PlannedFigure(filled(figure), _modules(figure), figure.caption(experiment.members[0].point.task))
                for figure in experiment.figures
            },
            dropped=dict(
                sorted(
                    (label_of(parts), member.dropped) for parts, member in zip(labels, experiment.members, strict=True) if member.dropped
                )
            ),
            overlap=" ".join(dict.fromkeys(task.overlap for member in experiment.members for task in member.measured if task.overlap)),
            looks={line: slots[line] for line in sorted(all_lines(experiment, labels))},
        )

    def _entry(self, member: ExpandedPoint, parts: Parts) -> Spec:
        """Return the entry of one run in its experiment's spec."""
        point = member.point
        run = self._run(member)
        datasets = sorted(self._dataset(task, "test", member.evaluation.rows_of(task)) for task in member.measured)
        measurement = member.measurement
        block = {"datasets": datasets, "measurement": canonical(measurement)}
        evaluation = PlannedEvaluation(
            run.id,
            f"{measurement.name.replace('_', '-')}-{digest(block)}",
            datasets,
            filled(measurement),
            _measurement_modules(measurement),
        )
        self.made.evaluations[f"{run.id}/{evaluation.id}"] = evaluation
        further = {} if point.task.unit == NATS else {"unit": point.task.unit}
        if point.task.kind == "environment":
            returns = member.evaluation.returns(point.task)
            further |= {"limit": point.task.longest} | ({"returns": list(returns)} if returns else {})
        return {
            "run": run.id,
            "label": label_of(parts),
            "parts": {key: list(part) for key, part in parts.items()},
            "variant": member.variant,
            "seed": point.seed,
            "coordinates": {key: _plain(value) for key, value in sorted(member.coordinates.items()) if key != "seed"},
            "evaluation": evaluation.id,
            "rows": {name: self.made.datasets[name].spec["rows"] for name in datasets},
            "network": run.network,
            "task": point.task.name,
            "chance": point.task.chance,
            "baseline": point.task.baseline,
            **further,
            "batch": point.learner.rows_per_step,
            "evaluate": filled(member.evaluation),
            **({"tuned": {key: _plain(value) for key, value in sorted(member.tuned.items())}} if member.tuned else {}),
        }

    def _run(self, member: ExpandedPoint) -> PlannedRun:
        point, parent = member.point, None
        if point.learner.parent:
            parent = self._run(find_parent(self.resolved.experiments, member)).id
        stored = point.learner.stored_rows
        train = None if stored is None else self._dataset(point.task, "train", stored)
        validation = self._dataset(point.task, "validation", point.learner.validation_rows)
        data = {"train": train, "validation": validation}
        learner = canonical(point.learner)
        if parent:
            learner["parent"] = parent
        network = self._network(point.network, point.task.sizes)
        block = {
            "task": canonical(point.task),
            "network": canonical(point.network),
            "learner": learner,
            "seed": point.seed,
            "data": data,
        }
        identifier = self._identifier(f"{point.task.name}-{point.network.label}-s{point.seed}", block)
        shown = {"task": filled(point.task), "network": filled(point.network), "learner": {**filled(point.learner), "parent": parent}}
        spec = {"id": identifier, **shown, "seed": point.seed, "data": data}
        models = [f"{name}.safetensors" for name in point.learner.models if name != "model"]
        further = [f"model/{name}" for name in (*models, *point.learner.assets)]
        run = PlannedRun(identifier, spec, block, [item for item in data.values() if item], parent, network, further)
        return self.made.runs.setdefault(identifier, run)

    def _dataset(self, task: Component, split: str, rows: int) -> str:
        dataset = dataset_of(task, split, rows)
        self._register(dataset.id, {key: value for key, value in dataset.spec.items() if key != "id"})
        return self.made.datasets.setdefault(dataset.id, dataset).id

    def _network(self, network: Any, sizes: dict[str, Any]) -> str:
        identifier = self._identifier(network.label, {"network": canonical(network), "sizes": sizes})
        spec = {"id": identifier, "network": filled(network), "sizes": sizes}
        self.made.networks.setdefault(identifier, spec)
        return identifier

    def _identifier(self, slug: str, block: Spec) -> str:
        identifier = f"{slug.replace('_', '-')}-{digest(block)}"
        self._register(identifier, block)
        return identifier

    def _register(self, identifier: str, block: Spec) -> None:
        """Raise UserError on a digest collision: two different specs with one identifier."""
        known = self._blocks.setdefault(identifier, canonical_json(block))
        if known != canonical_json(block):
            raise UserError(f"{identifier}: two different specs share this identifier; change a value of one of them, for example its seed")

    _blocks: dict[str, str] = field(default_factory=dict)


def dataset_of(task: Component, split: str, rows: int) -> PlannedDataset:
    """Plan the dataset of `rows` rows of one task and split."""
    count = -(-rows // SHARD_ROWS)
    block = {"task": canonical(task), "split": split, "rows": rows, "shards": count}
    identifier = f"{task.name}-{split}".replace("_", "-") + f"-{digest(block)}"
    spec = {"id": identifier, "task": filled(task), "split": split, "rows": rows, "shards": count}
    return PlannedDataset(identifier, spec, [f"{index:05d}" for index in range(count)])


def _tune(experiment: ExpandedExperiment) -> Spec:
    """What a tuned experiment chooses: the keys, the seeds that every candidate is tried on, and by which validation result."""
    if not experiment.tune_seeds:
        return {}
    members = experiment.members
    objective = list(members[0].point.learner.objective)
    return {"tune": {"keys": sorted(members[0].tuned), "seeds": list(experiment.tune_seeds), "objective": objective}}


def _plain(value: Any) -> Any:
    """Convert a swept value to a plain JSON and YAML type."""
    return str(value) if isinstance(value, str) else value
