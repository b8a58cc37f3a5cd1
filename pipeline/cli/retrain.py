"""`pipeline retrain`: throw results away on purpose."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.storage.errors import UserError

if TYPE_CHECKING:
    from pipeline.plan import Plan
    from pipeline.retrain import Waste


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--changed", is_flag=True, help="All runs of the folder's last plan whose code has changed since they were trained.")
@click.option("--yes", is_flag=True, help="Throw away. Without it, only say what would be.")
def retrain(runs: tuple[str, ...], changed: bool, yes: bool) -> None:
    """Throw results away, so that the next snakemake makes them again.

    RUNS are identifiers, quoted patterns such as 'copy-gru-*', experiments, or folders such as results/try/runs/X. With a run go its
    checkpoints, from which it would be put back otherwise, its evaluations, runs that start from its weights, and datasets and profiles
    that other code made for it. Without --yes it only lists them.

    \b
      pipeline retrain 'copy-gru-*'
      pipeline retrain --changed --yes
    """
    from pipeline.retrain import changed_runs, named, waste_of
    from pipeline.workspace import hold

    results, words = _folder(runs)
    plan = _last_plan(results)
    if not words and not changed:
        raise click.UsageError("expected RUNS, or --changed")
    found = [*named(results, plan, words), *(changed_runs(results, plan) if changed else ())]
    waste = waste_of(results, plan, found)
    with hold(results) if yes and found else nullcontext():
        waste.throw_away() if yes else waste.check()
        _show(waste, "threw away" if yes else "would throw away")
    if not found:
        click.echo("nothing to throw away")
    else:
        click.echo("the next snakemake makes them again" if yes else "run with --yes to throw away")


def _folder(runs: tuple[str, ...]) -> tuple[Path, list[str]]:
    """The results folder, which is that of a run given as a folder; and the runs' names."""
    folders = {path.parents[1] for word in runs if (path := Path(word)).parent.name in ("runs", "checkpoints")}
    if len(folders) > 1:
        raise UserError(f"retrain: got runs of {' and '.join(sorted(map(str, folders)))}; expected those of one results folder")
    return next(iter(folders), Path("results")), [Path(word).name for word in runs]


def _last_plan(results: Path) -> Plan:
    from pipeline.plan import Plan
    from pipeline.workspace import frozen_plan, read_frozen

    return Plan.of_frozen(read_frozen(results)) if frozen_plan(results).exists() else Plan()


def _show(waste: Waste, verb: str) -> None:
    for run in (*waste.runs, *waste.children):
        click.echo(f"{verb}  {run}{', which starts from the weights of another' if run in waste.children else ''}")
    things = {"evaluation": waste.evaluations, "dataset": waste.datasets, "profile": waste.profiles}
    counts = [f"{len(found)} {name}{'' if len(found) == 1 else 's'}" for name, found in things.items() if found]
    if counts:
        click.echo(f"{verb}  with them {', '.join(counts)}")
    if waste.experiments:
        click.echo(f"what follows: tables and figures of {', '.join(waste.experiments)}")
