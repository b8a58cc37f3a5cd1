"""What a plan holds: datasets, networks, runs, evaluations and experiments by identifier, and what the workflow's rules ask of them.

`pipeline.plan` makes it from a config; it is frozen as JSON while its jobs run. Never imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.choices import chosen_entries, trial_entries
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.stage_outputs import TABLES, patterns, written

Spec = dict[str, Any]


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
        sizes = ", ".join(f"{len(things):,} {kind}{'' if len(things) == 1 else 's'}" for kind, things in kinds.items())
        open_runs = len(self.runs) - len(self.certain_runs())
        return sizes + (f"; {open_runs:,} of the runs are trained only if tune chooses them" if open_runs else "")

    def spec(self, kind: str, name: str) -> Spec:
        """Return the spec of a dataset, network, run or experiment, as `describe` writes it."""
        things = {"dataset": self.datasets, "network": self.networks, "run": self.runs, "experiment": self.experiments}[kind]
        if name not in things:
            raise UserError(f"{kind} {name}: not in the plan; expected one of {', '.join(sorted(things)[:5])} ...")
        thing = things[name]
        return thing if isinstance(thing, dict) else thing.spec

    def files(self) -> dict[str, list[str]]:
        """Return every declared file by stage, relative to the results folder: the inputs of `rule all`."""
        certain, untuned = self.certain_runs(), self._untuned()
        profiled = {run["network"] for run in untuned}
        figures = [(name, figure) for name, experiment in self.experiments.items() for figure in experiment.figures]
        return {
            "describe": [
                *(f"datasets/{name}/dataset.yaml" for name in self.datasets),
                *(f"profiles/{name}.yaml" for name in self.networks),
                *(f"runs/{name}/run.yaml" for name in certain),
                *(f"experiments/{name}/experiment.yaml" for name in self.experiments),
            ],
            "generate": written("generate", [(name, shard) for name, dataset in self.datasets.items() for shard in dataset.shards]),
            "seal": written("seal", self.datasets),
            "train": [file for name in certain for file in written("train", [name], self.runs[name].further)],
            "evaluate": written("evaluate", dict.fromkeys((run["run"], run["evaluation"]) for run in untuned)),
            "profile": written("profile", [name for name in self.networks if name in profiled]),
            "choose": written("choose", filter(self.is_tuned, self.experiments)),
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

    def entries(self, experiment: str, results: Path | None = None) -> list[Spec]:
        """Return the entries of an experiment's runs: of a tuned one all candidates, or, given the results folder, the chosen ones.

        Raises MissingFileError or CorruptFileError if it has not chosen yet.
        """
        spec = self.experiments[experiment].spec
        return spec["runs"] if results is None else chosen_entries(spec, results / "experiments" / experiment)

    def evaluations_of(self, experiment: str, results: Path | None = None) -> list[PlannedEvaluation]:
        """Return the evaluations that an experiment collects; `results` as in `entries`."""
        return [self.evaluation(run["run"], run["evaluation"]) for run in self.entries(experiment, results)]

    def is_tuned(self, experiment: str) -> bool:
        """Return whether an experiment chooses among candidates."""
        return "tune" in self.experiments[experiment].spec

    def trials(self, experiment: str) -> list[str]:
        """Return the runs among which an experiment chooses: every candidate on the seeds that it is tried on; none if nothing is tuned."""
        return list(dict.fromkeys(entry["run"] for entry in trial_entries(self.experiments[experiment].spec)))

    def choice_of(self, experiment: str) -> list[str]:
        """Return the files in which a tuned experiment says what it tried and chose; none if nothing is tuned."""
        return [f"results/{file}" for file in written("choose", [experiment])] if self.is_tuned(experiment) else []

    def declared_and_chosen(self, results: Path) -> list[str]:
        """Return every declared file, and those of the runs that tuned experiments chose, as far as they have chosen."""
        found = dict.fromkeys(self.declared)
        for run in self._chosen(results):
            found |= dict.fromkeys(written("train", [run["run"]], self.runs[run["run"]].further))
            found |= dict.fromkeys(written("evaluate", [(run["run"], run["evaluation"])]))
            found |= dict.fromkeys(written("profile", [run["network"]]))
        return list(found)

    def chosen_runs(self, results: Path) -> list[str]:
        """Return the runs that tuned experiments chose, as far as they have chosen."""
        return [run["run"] for run in self._chosen(results)]

    def _chosen(self, results: Path) -> list[Spec]:
        found: list[Spec] = []
        for name in filter(self.is_tuned, self.experiments):
            with suppress(CorruptFileError, MissingFileError):
                found += self.entries(name, results)
        return found

    def certain_runs(self) -> list[str]:
        """Return the runs that are trained whatever is chosen."""
        return self._with_parents({run["run"] for run in self._untuned()} | {run for name in self.experiments for run in self.trials(name)})

    def shown_runs(self, results: Path) -> list[str]:
        """Return the runs that the experiments' tables show, and their ancestors; `results` as in `entries`."""
        return self._with_parents({run["run"] for name in self.experiments for run in self.entries(name, results)})

    def _with_parents(self, runs: set[str]) -> list[str]:
        """Return these runs and their ancestors, parents before their children."""
        wanted = set(runs)
        for name in reversed(self.runs):
            wanted |= set(self.parents_of(name)) if name in wanted else set()
        return [name for name in self.runs if name in wanted]

    def _untuned(self) -> list[Spec]:
        return [run for name, experiment in self.experiments.items() if not self.is_tuned(name) for run in experiment.spec["runs"]]

    def parents_of(self, run: str) -> list[str]:
        """Return the run whose weights this one starts from, if any."""
        parent = self.runs[run].parent
        return [parent] if parent else []

    def code_of(self, stage: str, root: str, experiment: str = "", figure: str = "") -> list[str]:
        """Return the source files that a table (`collect`) or a figure (`plot`) depends on; `root`: the folder of the Snakefile."""
        names = ("candidates", "collect", "milestones", "overlap", "points", "settings", "statistics", "summary", "tuning_table")
        modules = [f"pipeline/evaluation/{name}.py" for name in names] + sorted(
            {name for item in self.evaluations.values() for name in item.modules}
        )
        if stage == "choose":
            modules = ["pipeline/config/choices.py", "pipeline/evaluation/candidates.py", "pipeline/evaluation/tuning.py"]
        if stage == "plot":
            shared = ("figures/style", "figures/axes", "figures/frames", "evaluation/candidates", "evaluation/series")
            modules = [*(f"pipeline/{name}.py" for name in shared), *self.experiments[experiment].figures[figure].modules]
        here = Path(root).resolve() == Path.cwd()
        return [module if here else str(Path(root).resolve() / module) for module in modules]

    def trainings(self) -> list[tuple[list[str], str]]:
        """Group runs by their further files: those files and a regular expression of the runs, one train rule each. First: no such files."""
        runs: dict[tuple[str, ...], list[str]] = {(): []}
        for name, run in self.runs.items():
            runs.setdefault(tuple(run.further), []).append(name)
        return [(list(files), "|".join(map(re.escape, names)) or "-" if len(runs) > 1 else "[^/]+") for files, names in runs.items()]

    def results_of(self, experiment: str, results: Path) -> list[str]:
        """Return the evaluations, histories, timings and profiles that an experiment collects; `results` as in `entries`."""
        found: dict[str, None] = {}
        for run in self.entries(experiment, results):
            files = (f"evaluations/{run['run']}/{run['evaluation']}.parquet", f"profiles/{run['network']}.parquet")
            found |= dict.fromkeys((*files, *(f"runs/{run['run']}/{name}.parquet" for name in ("history", "timing"))))
        return [f"results/{file}" for file in found]

    def manifests_of(self, experiment: str, results: Path) -> list[str]:
        """Return the manifests of the datasets on which an experiment's runs are trained and evaluated; `results` as in `entries`."""
        return [f"results/datasets/{name}/manifest.json" for name in self.datasets_of(experiment, results)]

    def datasets_of(self, experiment: str, results: Path | None = None) -> list[str]:
        """Return the datasets on which an experiment's runs are trained and evaluated; `results` as in `entries`."""
        entries = self.entries(experiment, results)
        measured = {name for run in entries for name in self.evaluation(run["run"], run["evaluation"]).datasets}
        return sorted(measured | {name for run in entries if (name := self.runs[run["run"]].spec["data"]["train"])})

    def networks_of(self, experiment: str, results: Path | None = None) -> list[str]:
        """Return the networks whose profiles an experiment collects; `results` as in `entries`."""
        return sorted({run["network"] for run in self.entries(experiment, results)})


def _experiment_from_dict(value: Spec) -> PlannedExperiment:
    return PlannedExperiment(**{**value, "figures": {name: PlannedFigure(**figure) for name, figure in value["figures"].items()}})
