"""Run a whole plan in this process, without Snakemake: `pipeline try`."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.config_file import Runtime, Tracking
from pipeline.config.spec_files import load_component, write_spec
from pipeline.frozen_plan import frozen_plan_path
from pipeline.plan import Plan
from pipeline.storage.integrity import set_aside_damaged
from pipeline.storage.seals import write_sealed


def run_plan(plan: Plan, results: Path) -> tuple[int, str]:
    """Run everything in the plan except the figures, into `results`; finished parts are reused.

    Of a tuned experiment: train its trials, choose, then train the chosen values on the other seeds and evaluate only those.

    Returns the exit code of training (75 if a signal stopped it) and the experiments' tables as Markdown.
    """
    from pipeline.evaluation.tuning import choose
    from pipeline.storage.console import print0

    for line in set_aside_damaged(results, plan.declared_and_chosen(results)):
        print0(line)
    _write_specs(plan, results)
    _generate(plan, results)
    code = _train(plan, results, plan.certain_runs())
    if code:
        return code, ""
    for name in filter(plan.is_tuned, plan.experiments):
        folder = results / "experiments" / name
        choose(folder / "experiment.yaml", results, folder)
    code = _train(plan, results, plan.shown_runs(results))
    return (code, "") if code else (0, _tables(plan, results))


def _train(plan: Plan, results: Path, runs: list[str]) -> int:
    """Train runs that are not trained yet, parents before their children; returns the exit code."""
    from pipeline.training.run_spec import read_run
    from pipeline.training.stamp import check_run
    from pipeline.training.train import train

    runtime, tracking = Runtime(**plan.runtime), Tracking(**plan.tracking)
    for run in runs:
        spec = results / "runs" / run / "run.yaml"
        if (spec.parent / "manifest.json").exists():
            check_run(read_run(spec), results, runtime.changed_code == "allow")
        elif code := train(spec, results, runtime, tracking):
            return code
    return 0


def _tables(plan: Plan, results: Path) -> str:
    """Evaluate and profile what the experiments show, and collect it; returns their tables as Markdown."""
    from pipeline.evaluation.collect import collect
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.evaluation.profile import profile

    runtime = Runtime(**plan.runtime)
    machine, allow = (runtime.threads, runtime.device), runtime.changed_code == "allow"
    shown = {(item.run, item.id): item for name in plan.experiments for item in plan.evaluations_of(name, results)}
    for item in shown.values():
        data = [results / "datasets" / name for name in item.datasets]
        out, kind = results / "evaluations" / item.run / f"{item.id}.parquet", load_component("measurement", item.measurement)
        evaluate(results / "runs" / item.run / "run.yaml", data, out, "model", *machine, allow, kind)
    for network in dict.fromkeys(network for name in plan.experiments for network in plan.networks_of(name, results)):
        table = results / "profiles" / f"{network}.parquet"
        if not table.exists():
            profile(table.with_suffix(".yaml"), table, *machine)
    tables = []
    for name in plan.experiments:
        folder = results / "experiments" / name
        collect(folder / "experiment.yaml", results, folder)
        tables.append((folder / "table.md").read_text(encoding="utf-8"))
    return "\n".join(tables)


def _write_specs(plan: Plan, results: Path) -> None:
    for name, dataset in plan.datasets.items():
        write_spec(results / "datasets" / name / "dataset.yaml", dataset.spec)
    for name, spec in plan.networks.items():
        write_spec(results / "profiles" / f"{name}.yaml", spec)
    for name, run in plan.runs.items():
        write_spec(results / "runs" / name / "run.yaml", run.spec)
    for name, experiment in plan.experiments.items():
        write_spec(results / "experiments" / name / "experiment.yaml", experiment.spec)
    write_sealed(frozen_plan_path(results), plan.to_json())


def _generate(plan: Plan, results: Path) -> None:
    from pipeline.tasks.generate import generate_shard, seal_dataset

    for name, dataset in plan.datasets.items():
        folder = results / "datasets" / name
        if (folder / "manifest.json").exists():
            continue
        for index, shard in enumerate(dataset.shards):
            if not (folder / f"{shard}.parquet").exists():
                generate_shard(folder, index)
        seal_dataset(folder)
