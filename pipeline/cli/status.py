"""Commands that report: check a config, show its plan and the status of its runs, check the machine."""

from __future__ import annotations

import sys
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.param_types import FILE
from pipeline.cli.tables import format_table

if TYPE_CHECKING:
    from pipeline.plan import Plan

CONFIG = click.argument("config", type=FILE, default="config.yaml")


@click.command()
@CONFIG
def check(config: Path) -> None:
    """Validate a config file without running anything.

    CONFIG defaults to config.yaml.
    """
    from pipeline.plan import plan_file
    from pipeline.retrain import changed_code_report

    plan = plan_file(config)
    click.echo("\n".join([f"{config}: OK ({plan.size})", *changed_code_report(Path("results"), plan)]))


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
def plan(config: Path, as_json: bool) -> None:
    """Show every run and dataset of a config with its identifier.

    CONFIG defaults to config.yaml. Widths solved from a parameter budget are shown too, and the rows that a budget in FLOPs comes to.
    """
    from pipeline.plan import plan_file

    made = plan_file(config)
    if as_json:
        click.echo(made.to_json())
        return
    click.echo(f"{config}: {made.size}")
    for experiment in made.experiments.values():
        click.echo(f"\n{experiment.name}: {experiment.question}")
        keys = experiment.spec.get("tune", {}).get("keys", [])
        rows = [("run", "label", "seed", *(key.rsplit(".", 1)[-1] for key in keys), "width", "budget", "parent")]
        for entry in experiment.spec["runs"]:
            run, values = made.runs[entry["run"]], [entry["tuned"][key] for key in keys]
            shown = _width(made, run.network), _budget(run.spec), run.parent or "-"
            rows.append((run.id, entry["label"], entry["seed"], *values, *shown))
        click.echo(format_table(rows))
        for line in _tuning(made, experiment.name, Path("results")):
            click.echo(line)
        for label, fields in experiment.dropped.items():
            words = ", ".join(f"{key}={value}" for key, value in fields.items())
            click.echo(f"{label} does not use these keys of base: {words}")
    click.echo()
    sizes = _sizes([dataset.spec["task"] for dataset in made.datasets.values()])
    datasets = [(d.id, d.spec["split"], d.spec["rows"], len(d.shards), size) for d, size in zip(made.datasets.values(), sizes, strict=True)]
    click.echo(format_table([("dataset", "split", "rows", "shards", "task"), *datasets]))


def _sizes(tasks: list[dict[str, Any]]) -> list[str]:
    """Return, for each task, the fields in which tasks of its name differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for task in tasks:
        for key, value in task.items():
            values.setdefault((task["name"], key), set()).add(_text(value))
    return [", ".join(f"{key} {_text(task[key])}" for key in task if len(values[task["name"], key]) > 1) or "-" for task in tasks]


def _text(value: Any) -> str:
    """Return a value on one line, a distribution as `log_uniform 1..20`."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {'..'.join(map(str, item)) if isinstance(item, list) else item}" for key, item in value.items() if item is not None
        )
    return str(value)


def _tuning(plan: Plan, experiment: str, results: Path) -> list[str]:
    """Return lines that say what a tuned experiment tries, and what it has chosen."""
    from pipeline.config.choices import read_choices
    from pipeline.storage.errors import CorruptFileError, MissingFileError

    spec = plan.experiments[experiment].spec
    if "tune" not in spec:
        return []
    tune, trials = spec["tune"], plan.trials(experiment)
    seeds, (objective, better) = ", ".join(map(str, tune["seeds"])), tune["objective"]
    noun = "seed" if len(tune["seeds"]) == 1 else "seeds"
    lines = [f"tune: {', '.join(tune['keys'])} chosen by {objective} ({better} is better) from {len(trials):,} trials on {noun} {seeds}"]
    try:
        choices = read_choices(spec, results / "experiments" / experiment)
    except MissingFileError:
        return [*lines, "tune: nothing chosen yet"]
    except CorruptFileError as error:
        return [*lines, str(error)]
    for label, choice in choices.items():
        values = ", ".join(f"{key} = {value}" for key, value in choice["values"].items())
        lines.append(f"tune: {label}: {values}, of {choice['candidates']}")
        lines += [f"tune: {label}: {key} is the {edge} value tried; try more" for key, edge in choice["edge"].items()]
    return lines


def _width(plan: Plan, network: str) -> str:
    """Return the width of a network; solving `auto` imports torch."""
    spec = plan.networks[network]
    if spec["network"].get("width") != "auto":
        return str(spec["network"].get("width", "-"))
    from pipeline.config.spec_files import load_component
    from pipeline.networks.build import resolve_width

    return f"auto = {resolve_width(load_component('network', spec['network']), spec['sizes']).width}"


def _budget(run: dict[str, Any]) -> str:
    """Return the budget of a run; the rows of one in FLOPs are counted here, which imports torch."""
    from pipeline.config.base import SUFFIXES
    from pipeline.config.spec_files import load_component

    learner = load_component("learner", run["learner"])
    amount = getattr(learner, learner.budget)
    if learner.budget != "flops":
        return f"{amount:,} {learner.budget}"
    import torch

    from pipeline.learners.flop_budget import rows_in_budget

    torch.set_num_threads(1)  # counts take steps of one row, in which threads only wait for each other
    rows, exact = rows_in_budget(learner, load_component("network", run["network"]), load_component("task", run["task"]))
    suffix, factor = max(((key, factor) for key, factor in SUFFIXES.items() if amount % factor == 0), key=itemgetter(1), default=("", 1))
    return f"{amount // factor:,}{suffix if suffix == 'k' else suffix.upper()} flops = {'' if exact else 'about '}{rows:,} {learner.budgets[0]}"


@click.command()
@CONFIG
def status(config: Path) -> None:
    """Show each run's status and the reason.

    CONFIG defaults to config.yaml.
    """
    from pipeline.plan import plan_file
    from pipeline.results_lock import owner
    from pipeline.retrain import changed_code_report
    from pipeline.storage.integrity import find_damaged
    from pipeline.training.run_status import run_status

    results = Path("results")
    made = plan_file(config)
    rows = [("run", "status", "reason")]
    wanted = {*made.certain_runs(), *made.chosen_runs(results)}
    for run in made.runs.values():
        state = run_status(results, run.id)
        reason = state.detail if state.state != "to do" else _reason(results, made, run.id, state.detail)
        if run.id in wanted or state.state != "to do":
            rows.append((run.id, state.state, reason))
    click.echo(format_table(rows))
    if unchosen := len(made.runs) + 1 - len(rows):
        click.echo(f"{unchosen:,} more candidates are trained only if they are chosen")
    for name in made.experiments:
        for line in _tuning(made, name, results):
            click.echo(f"{name}: {line}")
    click.echo()
    damaged = find_damaged(results, made.declared_and_chosen(results))
    missing = {stage: [file for file in files if not (results / file).exists()] for stage, files in made.files().items()}
    totals = {stage: len(files) for stage, files in made.files().items()}
    lines = [(stage, f"{totals[stage] - len(files)}/{totals[stage]}", _first(files)) for stage, files in missing.items()]
    click.echo(format_table([("stage", "files", "first missing"), *lines]))
    for error in damaged.values():
        click.echo(f"\n{error.rpartition('; ')[0]}; the next run regenerates it")
    if changes := changed_code_report(results, made):
        click.echo("\n" + "\n".join(changes))
    live = owner(results)
    if live:
        click.echo(f"\na pipeline is running here: pid {live.get('pid')} on {live.get('host')} since {live.get('since')}")


def _first(files: list[str]) -> str:
    return f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}" if files else ""


def _reason(results: Path, plan: Plan, run: str, detail: str) -> str:
    """Explain why a run is to do: it failed, its data or parent is missing, its spec is new, or it never started."""
    log = results / "logs" / "train" / f"{run}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    if lines and not detail:
        return f"last attempt ended with: {lines[-1][:100]} (see {log})"
    if detail:
        return detail
    waiting = [name for name in plan.runs[run].data if not (results / "datasets" / name / "manifest.json").exists()]
    waiting += [name for name in plan.parents_of(run) if not (results / "runs" / name / "manifest.json").exists()]
    earlier = [path.name for path in sorted((results / "runs").glob(f"{run.rsplit('-', 1)[0]}-*")) if path.name not in plan.runs]
    reasons = [f"waiting for {', '.join(waiting)}"] if waiting else []
    reasons += [f"its config has changed (earlier: {', '.join(earlier)})"] if earlier else []
    return "; ".join(reasons) or "never trained"


@click.command()
def doctor() -> int:
    """Check the installation, the machine and every file in results/.

    It checks versions, device, compiler, free disk and the lock on results/, verifies the SHA-256 of every file that a number comes from,
    and lists files that are damaged, missing or not sealed.
    """
    from pipeline.doctor import run_checks

    failed = False
    for name, ok, detail in run_checks(Path("results")):
        failed |= not ok
        click.echo(f"{'ok     ' if ok else 'PROBLEM'}  {name:<18} {detail}")
    sys.stdout.flush()
    return 2 if failed else 0
