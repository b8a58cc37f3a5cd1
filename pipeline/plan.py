"""Turn the resolved config into datasets, networks, runs, evaluations and experiments, each with its identifier. Never imports torch.

An identifier is a readable slug and a digest of the canonical spec: what differs from the defaults, component versions, and the
identifiers it depends on. Experiments with equal specs share the runs.

    config.yaml -> Plan -> plan.json (frozen while its jobs run) -> the Snakefile's targets and every rule's params
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.base import Component, canonical, filled
from pipeline.config.code import files_of
from pipeline.config.document import read_document
from pipeline.config.expand import ExpandedConfig, ExpandedExperiment, ExpandedPoint, expand, find_parent, preset_texts
from pipeline.config.labels import Parts, all_lines, check_names, label_of, labels_of, suite_slots
from pipeline.config.tasks.base import NATS
from pipeline.storage.digest import canonical_json, digest
from pipeline.storage.errors import UserError
from pipeline.storage.stage_outputs import TABLES, patterns, written

Spec = dict[str, Any]
SHARD_ROWS = 65_536
"""Rows per shard; each shard is one `generate` job."""


@dataclass(frozen=True)
class PlannedDataset:
    """Rows of one task and split, in shards."""

    id: str
    spec: Spec
    shards: list[str]


@dataclass(frozen=True)
class PlannedRun:
    """One training: its spec, datasets, parent and network. `further`: files it writes besides those of its stage, such as other networks."""

    id: str
    spec: Spec
    canonical: Spec
    data: list[str]
    parent: str | None
    network: str
    further: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedEvaluation:
    """One run evaluated on a list of datasets: the measurement and its source files."""

    run: str
    id: str
    datasets: list[str]
    measurement: Spec
    modules: list[str]

    @property
    def option(self) -> str:
        """The measurement as an option of `pipeline evaluate`."""
        return json.dumps(self.measurement)


@dataclass(frozen=True)
class PlannedFigure:
    """One figure of an experiment: its options, the source files that draw it, its caption."""

    spec: Spec
    modules: list[str]
    caption: str


@dataclass(frozen=True)
class PlannedExperiment:
    """Runs shown together.

    dropped: by label, the keys of base that its runs do not use because another component replaced base's. overlap: which test rows may
    occur in training, in the tasks' words. looks: the style slot of each label, see `pipeline.config.labels`; a label has the same slot in
    all experiments of a suite.
    """

    name: str
    question: str
    spec: Spec
    figures: dict[str, PlannedFigure]
    dropped: dict[str, Spec]
    overlap: str = ""
    looks: dict[str, int] = field(default_factory=dict)


@dataclass
class Plan:
    """Everything in a config, by identifier. `suite`: the config's file name and text, and the texts of its presets."""

    datasets: dict[str, PlannedDataset] = field(default_factory=dict)
    networks: dict[str, Spec] = field(default_factory=dict)
    runs: dict[str, PlannedRun] = field(default_factory=dict)
    evaluations: dict[str, PlannedEvaluation] = field(default_factory=dict)
    experiments: dict[str, PlannedExperiment] = field(default_factory=dict)
    runtime: Spec = field(default_factory=dict)
    tracking: Spec = field(default_factory=dict)
    suite: Spec = field(default_factory=dict)

    def to_json(self) -> str:
        """Serialize. Keys keep their order: to Snakemake, a mapping in another order is another value."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Deserialize JSON text."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, block: Spec) -> Plan:
        """Deserialize parsed JSON."""
        return cls(
            datasets={key: PlannedDataset(**value) for key, value in block["datasets"].items()},
            networks=block["networks"],
            runs={key: PlannedRun(**value) for key, value in block["runs"].items()},
            evaluations={key: PlannedEvaluation(**value) for key, value in block["evaluations"].items()},
            experiments={key: _experiment_from_dict(value) for key, value in block["experiments"].items()},
            runtime=block["runtime"],
            tracking=block["tracking"],
            suite=block["suite"],
        )

    @property
    def declared(self) -> list[str]:
        """Every declared file, relative to the results folder."""
        return [file for files in self.files().values() for file in files]

    @property
    def size(self) -> str:
        """The number of experiments, runs, datasets and networks, as text."""
        kinds = {"experiment": self.experiments, "run": self.runs, "dataset": self.datasets, "network": self.networks}
        return ", ".join(f"{len(things):,} {kind}{'' if len(things) == 1 else 's'}" for kind, things in kinds.items())

    def spec(self, kind: str, name: str) -> Spec:
        """Return the spec of a dataset, network, run or experiment, as `describe` writes it."""
        things = {"dataset": self.datasets, "network": self.networks, "run": self.runs, "experiment": self.experiments}[kind]
        if name not in things:
            raise UserError(f"{kind} {name}: not in the plan; expected one of {', '.join(sorted(things)[:5])} ...")
        thing = things[name]
        return thing if isinstance(thing, dict) else thing.spec

    def files(self) -> dict[str, list[str]]:
        """Return every declared file by stage, relative to the results folder: the inputs of `rule all`."""
        figures = [(name, figure) for name, experiment in self.experiments.items() for figure in experiment.figures]
        return {
            "describe": [
                *(f"datasets/{name}/dataset.yaml" for name in self.datasets),
                *(f"profiles/{name}.yaml" for name in self.networks),
                *(f"runs/{name}/run.yaml" for name in self.runs),
                *(f"experiments/{name}/experiment.yaml" for name in self.experiments),
            ],
            "generate": written("generate", [(name, shard) for name, dataset in self.datasets.items() for shard in dataset.shards]),
            "seal": written("seal", self.datasets),
            "train": [file for name, run in self.runs.items() for file in written("train", [name], run.further)],
            "evaluate": written("evaluate", [(item.run, item.id) for item in self.evaluations.values()]),
            "profile": written("profile", self.networks),
            "collect": written("collect", self.experiments),
            "plot": written("plot", figures),
        }

    def outputs(self, stage: str, *suffixes: str, further: Iterable[str] = ()) -> list[str]:
        """Return the outputs of a stage's rule, with wildcards; only those that end in one of the suffixes, if any are given."""
        return [f"results/{file}" for file in patterns(stage, further) if file.endswith(suffixes or "")]

    def tables(self) -> list[str]:
        """Return the tables of an experiment that figures read."""
        return self.outputs("collect", *(f"{table}.parquet" for table in TABLES))

    def accelerators(self, most: int | None = None) -> dict[str, int | str]:
        """Return the GPUs that a job requests, at most `most` on one node.

        With several nodes, the executor can request GPUs per node only as `gres`, and all stages of a SLURM job must request the same.
        """
        gpus = self.runtime["gpus"]
        if self.runtime["nodes"] > 1 and gpus:
            return {"gpu": 0, "gres": f"gpu:{gpus}"}
        return {"gpu": gpus if most is None else min(gpus, most), "gres": ""}

    def evaluation(self, run: str, evaluation: str) -> PlannedEvaluation:
        """Return an evaluation of a run by its identifier."""
        return self.evaluations[f"{run}/{evaluation}"]

    def evaluations_of(self, experiment: str) -> list[PlannedEvaluation]:
        """Return the evaluations that an experiment collects."""
        return [self.evaluation(run["run"], run["evaluation"]) for run in self.experiments[experiment].spec["runs"]]

    def parents_of(self, run: str) -> list[str]:
        """Return the run whose weights this one starts from, if any."""
        parent = self.runs[run].parent
        return [parent] if parent else []

    def code_of(self, stage: str, root: str, experiment: str = "", figure: str = "") -> list[str]:
        """Return the source files that a table (`collect`) or a figure (`plot`) depends on; `root`: the folder of the Snakefile."""
        names = ("collect", "milestones", "overlap", "points", "settings", "statistics", "summary")
        modules = [f"pipeline/evaluation/{name}.py" for name in names] + sorted(
            {name for item in self.evaluations.values() for name in item.modules}
        )
        if stage == "plot":
            shared = ("figures/style", "figures/axes", "figures/frames", "evaluation/series")
            modules = [*(f"pipeline/{name}.py" for name in shared), *self.experiments[experiment].figures[figure].modules]
        here = Path(root).resolve() == Path.cwd()
        return [module if here else str(Path(root).resolve() / module) for module in modules]

    def trainings(self) -> list[tuple[list[str], str]]:
        """Group runs by their further files: those files and a regular expression of the runs, one train rule each. First: no such files."""
        runs: dict[tuple[str, ...], list[str]] = {(): []}
        for name, run in self.runs.items():
            runs.setdefault(tuple(run.further), []).append(name)
        return [(list(files), "|".join(map(re.escape, names)) or "-" if len(runs) > 1 else "[^/]+") for files, names in runs.items()]

    def datasets_of(self, experiment: str) -> list[str]:
        """Return the datasets on which an experiment's runs are trained and evaluated."""
        runs = {run["run"] for run in self.experiments[experiment].spec["runs"]}
        measured = {name for item in self.evaluations_of(experiment) for name in item.datasets}
        return sorted(measured | {name for run in runs if (name := self.runs[run].spec["data"]["train"])})

    def networks_of(self, experiment: str) -> list[str]:
        """Return the networks whose profiles an experiment collects."""
        return sorted({run["network"] for run in self.experiments[experiment].spec["runs"]})


def _experiment_from_dict(value: Spec) -> PlannedExperiment:
    return PlannedExperiment(**{**value, "figures": {name: PlannedFigure(**figure) for name, figure in value["figures"].items()}})


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
            spec={"name": experiment.name, "columns": sorted(experiment.columns), "runs": runs},
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
        datasets = sorted(self._dataset(task, "test", member.evaluation.rows) for task in member.measured)
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


def _plain(value: Any) -> Any:
    """Convert a swept value to a plain JSON and YAML type."""
    return str(value) if isinstance(value, str) else value
