"""A whole plan in one process, stage after stage, without Snakemake: what `pipeline try` does."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.experiment import Runtime, Tracking
from pipeline.config.frozen import write_spec
from pipeline.plan import Plan
from pipeline.storage.damage import make_room
from pipeline.storage.seals import write_sealed
from pipeline.workspace import frozen_plan


def run_chain(plan: Plan, results: Path) -> tuple[int, str]:
    """Make everything in the plan but the figures below `results`. Finished parts are used again.

    Returns the exit code of training (75 when a signal stopped it) and the experiments' tables as Markdown.
    """
    from pipeline.evaluation.collect import collect
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.evaluation.profile import profile
    from pipeline.storage.progress import say
    from pipeline.training.spec import read_run
    from pipeline.training.stamp import check_run
    from pipeline.training.train import train

    runtime, tracking = Runtime(**plan.runtime), Tracking(**plan.tracking)
    allow = runtime.changed_code == "allow"
    for line in make_room(results, plan.declared):
        say(line)
    _describe(plan, results)
    _make_data(plan, results)
    for run in plan.runs:
        spec = results / "runs" / run / "run.yaml"
        if (spec.parent / "manifest.json").exists():
            check_run(read_run(spec), results, allow)
        else:
            code = train(spec, results, runtime, tracking)
            if code:
                return code, ""
    for item in plan.evaluations.values():
        data = [results / "datasets" / name for name in item.datasets]
        out = results / "evaluations" / item.run / f"{item.id}.parquet"
        evaluate(results / "runs" / item.run / "run.yaml", data, out, "model", runtime.threads, runtime.device, allow)
    for network in plan.networks:
        table = results / "profiles" / f"{network}.parquet"
        if not table.exists():
            profile(table.with_suffix(".yaml"), table, runtime.threads, runtime.device)
    tables = []
    for name in plan.experiments:
        folder = results / "experiments" / name
        collect(folder / "experiment.yaml", results, folder)
        tables.append((folder / "table.md").read_text(encoding="utf-8"))
    return 0, "\n".join(tables)


def _describe(plan: Plan, results: Path) -> None:
    for name, dataset in plan.datasets.items():
        write_spec(results / "datasets" / name / "dataset.yaml", dataset.spec)
    for name, spec in plan.networks.items():
        write_spec(results / "profiles" / f"{name}.yaml", spec)
    for name, run in plan.runs.items():
        write_spec(results / "runs" / name / "run.yaml", run.spec)
    for name, experiment in plan.experiments.items():
        write_spec(results / "experiments" / name / "experiment.yaml", experiment.spec)
    write_sealed(frozen_plan(results), plan.to_json())


def _make_data(plan: Plan, results: Path) -> None:
    from pipeline.tasks.generate import generate_shard, seal_dataset

    for name, dataset in plan.datasets.items():
        folder = results / "datasets" / name
        if (folder / "manifest.json").exists():
            continue
        for index, shard in enumerate(dataset.shards):
            if not (folder / f"{shard}.parquet").exists():
                generate_shard(folder, index)
        seal_dataset(folder)
