"""Commands that delete results: `prune` those that no suite lists, `retrain` those to compute again."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.param_types import FILE
from pipeline.storage.errors import BusyError, UserError
from pipeline.storage.seals import seal_path, sealed_file

if TYPE_CHECKING:
    from pipeline.plan import Plan
    from pipeline.retrain import Deletion


@click.command()
@click.option("--config", type=FILE, default="config.yaml", help="Keep what this file lists now.")
@click.option("--also", type=FILE, multiple=True, help="Keep what these config files list now, too.")
@click.option("--forget", multiple=True, metavar="SUITE", help="Do not keep the results and report of this suite, which ran here.")
@click.option("--yes", is_flag=True, help="Delete. Without it, only list what would be deleted.")
def prune(config: Path, also: tuple[Path, ...], forget: tuple[str, ...], yes: bool) -> None:
    """Delete results that no suite lists any more.

    These are runs with their checkpoints, datasets, evaluations, profiles, experiments and reports. Every suite that ran in this folder
    keeps what it listed when it last started; the files given here keep what they list now. Without --yes nothing is deleted.
    """
    from pipeline.plan import plan_file
    from pipeline.results_lock import acquire_lock
    from pipeline.suites import delete_plan, saved_plans, suite_name

    results = Path("results")
    kept = saved_plans(results)
    unknown = [name for name in forget if name not in kept]
    if unknown:
        raise UserError(f"--forget {unknown[0]}: no suite of that name ran here; expected one of {', '.join(kept) or 'none'}")
    kept = {name: plan for name, plan in kept.items() if name not in forget}
    kept |= {suite_name(str(path)): plan_file(path) for path in (config, *also)}
    stale = _stale(results, kept)
    with acquire_lock(results) if yes and (stale or forget) else nullcontext():
        for name in forget if yes else ():
            delete_plan(results, name)
        for path in stale:
            size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) if path.is_dir() else path.lstat().st_size
            if yes:
                _delete_result(results, path)
            click.echo(f"{'deleted' if yes else 'would delete'}  {size / 1e6:9.2f} MB  {path}")
    if not stale:
        click.echo("nothing to delete")
    elif not yes:
        click.echo(f"kept: everything that these suites list: {', '.join(sorted(kept))}; run with --yes to delete")


def _stale(results: Path, suites: dict[str, Plan]) -> list[Path]:
    """Return the paths in the results folder that no suite's plan lists."""
    plans = list(suites.values())
    runs = {name for plan in plans for name in plan.runs}
    wanted: dict[str, set[str]] = {
        "runs": runs,
        "checkpoints": runs,
        "datasets": {name for plan in plans for name in plan.datasets},
        "experiments": {name for plan in plans for name in plan.experiments},
        "evaluations": runs,
        "reports": {f"{name}.html" for name in suites},
    }
    stale = [path for folder, names in wanted.items() for path in sorted((results / folder).glob("*")) if path.name not in names]
    networks = {name for plan in plans for name in plan.networks}
    stale += [path for path in _files(results / "profiles") if path.stem not in networks]
    tables = {f"{item.run}/{item.id}.parquet" for plan in plans for item in plan.evaluations.values()}
    folders = [path for path in (results / "evaluations").glob("*") if path.name in runs]
    return stale + [path for folder in folders for path in _files(folder) if f"{folder.name}/{path.name}" not in tables]


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder, without their seals."""
    return sorted(path for path in folder.glob("*") if sealed_file(path) is None)


def _delete_result(results: Path, path: Path) -> None:
    from pipeline.storage.files import delete
    from pipeline.storage.paths import check_inside
    from pipeline.training.run_status import run_status

    if path.parent.name in ("runs", "checkpoints") and run_status(path.parents[1], path.name).state == "running":
        raise BusyError(f"{path}: being trained right now; stop its job first")
    check_inside(results, path.parent)
    delete(path)
    delete(seal_path(path))


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--changed", is_flag=True, help="All runs of the last plan in results/ whose code has changed since they were trained.")
@click.option("--yes", is_flag=True, help="Delete. Without it, only list what would be deleted.")
def retrain(runs: tuple[str, ...], changed: bool, yes: bool) -> None:
    """Delete runs, so that the next snakemake trains them again.

    RUNS are identifiers, quoted patterns such as 'copy-gru-*', experiments, or folders such as results/try/runs/X. Deleted with a run: its
    checkpoints (or it would be restored from them), its evaluations, the runs that start from its weights, and the datasets and profiles
    it used that other code made. Without --yes nothing is deleted.

    \b
      pipeline retrain 'copy-gru-*'
      pipeline retrain --changed --yes
    """
    from pipeline.results_lock import acquire_lock
    from pipeline.retrain import changed_runs, plan_deletion, select_runs

    results, words = _results_and_names(runs)
    plan = _last_plan(results)
    if not words and not changed:
        raise click.UsageError("expected RUNS, or --changed")
    selected = [*select_runs(results, plan, words), *(changed_runs(results, plan) if changed else ())]
    deletion = plan_deletion(results, plan, selected)
    with acquire_lock(results) if yes and selected else nullcontext():
        deletion.delete() if yes else deletion.check()
        _show(deletion, "deleted" if yes else "would delete")
    if not selected:
        click.echo("nothing to delete")
    else:
        click.echo("the next snakemake trains them again" if yes else "run with --yes to delete")


def _results_and_names(runs: tuple[str, ...]) -> tuple[Path, list[str]]:
    """Return the results folder, taken from runs given as folders, and the runs' names."""
    folders = {path.parents[1] for word in runs if (path := Path(word)).parent.name in ("runs", "checkpoints")}
    if len(folders) > 1:
        raise UserError(f"retrain: got runs of {' and '.join(sorted(map(str, folders)))}; expected those of one results folder")
    return next(iter(folders), Path("results")), [Path(word).name for word in runs]


def _last_plan(results: Path) -> Plan:
    from pipeline.frozen_plan import frozen_plan_path, read_frozen_plan
    from pipeline.plan import Plan

    return Plan.from_dict(read_frozen_plan(results)) if frozen_plan_path(results).exists() else Plan()


def _show(deletion: Deletion, verb: str) -> None:
    for run in (*deletion.runs, *deletion.children):
        click.echo(f"{verb}  {run}{', which starts from the weights of another' if run in deletion.children else ''}")
    items = {"evaluation": deletion.evaluations, "dataset": deletion.datasets, "profile": deletion.profiles}
    counts = [f"{len(found)} {name}{'' if len(found) == 1 else 's'}" for name, found in items.items() if found]
    if counts:
        click.echo(f"{verb}  with them {', '.join(counts)}")
    if deletion.experiments:
        click.echo(f"to be updated: tables and figures of {', '.join(deletion.experiments)}")
