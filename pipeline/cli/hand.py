"""Commands for work by hand: one chain in one process, results for other programs, and clearing up."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.inputs import FILE, OutFile, OutFolder
from pipeline.storage.errors import BusyError, UserError
from pipeline.storage.seals import seal_of, sealed_by

if TYPE_CHECKING:
    from pipeline.config.document import Block
    from pipeline.plan import Plan

BUDGETS = ("learner.rows", "learner.steps", "learner.seconds")
"""Setting one of these by hand takes the others away."""
BY_HAND = {"tokens": ("sequence", "supervised", 20_000), "environment": ("actor_critic", "ppo", 102_400)}
"""Network, learner and its budget in rows for a task of each kind, where no experiment says them."""


def document_with(name: str, config: Path, overrides: tuple[str, ...], ignore_config: bool = False) -> Block:
    """A config document of one point: the base of experiment `name`, or else the task `name` with defaults, with fields set.

    overrides: `dotted.key=value`, the value in YAML. Raises ConfigError for a key or value that does not fit.
    """
    from pipeline.config.document import Block, Place, named, put_dotted, suggestion
    from pipeline.config.tasks import TASKS

    here = Place("--set", 0, "")
    experiments = {} if ignore_config or not config.exists() else _experiments(config)
    if name in experiments:
        base = experiments[name]["base"].copy()
    elif name in TASKS:
        base = Block(here)
        base.put("task", named(name, here), here)
        task: Any = TASKS[name]
        network, learner, rows = BY_HAND[task.kind]
        base.put("network", named(network, here), here)
        base.put("learner", named(learner, here), here)
        base["learner"].put("rows", rows, here)
    else:
        where = "not a task" if ignore_config else f"neither an experiment of {config} nor a task"
        raise UserError(f"{name}: {where}" + suggestion(name, [*experiments, *TASKS]))
    for override in overrides:
        key, value, place = _parse(override)
        for budget in BUDGETS if key in BUDGETS else ():
            put_dotted(base, budget, None, place)
        put_dotted(base, key, value, place)
    document, inner, experiment = Block(here), Block(here), Block(here)
    experiment.put("base", base, here)
    inner.put("try", experiment, here)
    document.put("experiments", inner, here)
    return document


def _experiments(config: Path) -> dict[str, Any]:
    """The experiments of a config file, known to be right."""
    from pipeline.config.document import read_document
    from pipeline.config.resolve import resolve

    document = read_document(config)
    resolve(document)
    return document["experiments"]


def _parse(override: str) -> tuple[str, Any, Any]:
    from pipeline.config.document import Place, read_text

    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected dotted.key=value, for example task.delay=160")
    block = read_text(f"value: {text}", f"--set {override}")
    return key.strip(), block["value"], Place(f"--set {override}", 0, key.strip())


@click.command("try")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a field by its dotted key; may be given several times.")
@click.option("--config", type=FILE, default="config.yaml", help="The file NAME is looked up in.")
@click.option(
    "--out", type=OutFolder(".pipeline/plan.json"), default="results/try", help="Where to keep the chain; finished parts are used again."
)
def try_(name: str, overrides: tuple[str, ...], config: Path, out: Path) -> int:
    """Run one chain in this process: data, training, evaluation, result.

    NAME is an experiment of the config (its base point) or a task.

    \b
      pipeline try copy --set task.delay=160 --set learner.rows=5000
      pipeline try copy --set network.mixer=gru --set network.width=32 --set learner.seconds=20
    """
    from pipeline.chain import run_chain
    from pipeline.config.resolve import resolve
    from pipeline.plan import make_plan

    plan = make_plan(resolve(document_with(name, config, overrides)))
    code, table = run_chain(plan, out)
    click.echo(table, nl=False)
    return code


@click.command()
@click.argument("experiment")
@click.option("--format", "form", type=click.Choice(["copy-study"]), default="copy-study", help="The form to write.")
@click.option("--out", type=OutFile(".json"), help="The file to write. Default: print it.")
def export(experiment: str, form: str, out: Path | None) -> None:
    """Write a collected experiment in another study's form.

    EXPERIMENT is a folder below results/experiments.

    copy-study is the JSON of the copy-task study that the memory family follows, for an experiment that sweeps a size such as task.symbols:
    size, then network, then mean_test_acc, std_test_acc (of the population, ddof 0), mean_train_time (wall seconds), mean_epochs and
    trial_results, one per seed. An epoch is the time from one validation to the next. The four networks of that study have its names (gru_v1
    is GRU, input_multiplicative_gru is MultiplicativeGRU), others their labels.

    \b
      pipeline export copy_sizes --format copy-study --out experiment_results.json
    """
    from pipeline.evaluation.export import copy_study
    from pipeline.storage.atomic import write_text

    text = {"copy-study": copy_study}[form](experiment, Path("results"))
    if out:
        write_text(out, text)
    else:
        click.echo(text, nl=False)


@click.command()
@click.option("--config", type=FILE, default="config.yaml", help="What this file asks for now is kept.")
@click.option("--also", type=FILE, multiple=True, help="Further config files, of which what they ask for now is kept.")
@click.option("--forget", multiple=True, metavar="SUITE", help="A suite that ran here whose results and report are not kept any more.")
@click.option("--yes", is_flag=True, help="Delete. Without it, only say what would be deleted.")
def prune(config: Path, also: tuple[Path, ...], forget: tuple[str, ...], yes: bool) -> None:
    """Delete results that no suite asks for any more.

    That is runs with their checkpoints, datasets, evaluations, profiles, experiments and reports. Kept is what every suite that ran in this
    folder asked for when it last started; of the files named here, what they ask for now. Without --yes it only lists.
    """
    from pipeline import workspace
    from pipeline.plan import plan_file

    results = Path("results")
    kept = workspace.remembered(results)
    unknown = [name for name in forget if name not in kept]
    if unknown:
        raise UserError(f"--forget {unknown[0]}: no suite of that name ran here; expected one of {', '.join(kept) or 'none'}")
    kept = {name: plan for name, plan in kept.items() if name not in forget}
    kept |= {workspace.suite_name(str(path)): plan_file(path) for path in (config, *also)}
    stale = _stale(results, kept)
    with workspace.hold(results) if yes and (stale or forget) else nullcontext():
        for name in forget if yes else ():
            workspace.forget(results, name)
        for path in stale:
            size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) if path.is_dir() else path.lstat().st_size
            if yes:
                _delete(results, path)
            click.echo(f"{'deleted' if yes else 'would delete'}  {size / 1e6:9.2f} MB  {path}")
    if not stale:
        click.echo("nothing to delete")
    elif not yes:
        click.echo(f"kept is what these suites ask for: {', '.join(sorted(kept))}; run with --yes to delete")


def _stale(results: Path, suites: dict[str, Plan]) -> list[Path]:
    """What lies in the results folder and is in none of the suites' plans."""
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
    stale = [path for kind, names in wanted.items() for path in sorted((results / kind).glob("*")) if path.name not in names]
    networks = {name for plan in plans for name in plan.networks}
    stale += [path for path in _listed(results / "profiles") if path.stem not in networks]
    tables = {f"{item.run}/{item.id}.parquet" for plan in plans for item in plan.evaluations.values()}
    folders = [path for path in (results / "evaluations").glob("*") if path.name in runs]
    return stale + [path for folder in folders for path in _listed(folder) if f"{folder.name}/{path.name}" not in tables]


def _listed(folder: Path) -> list[Path]:
    """The files of a folder, without their seals."""
    return sorted(path for path in folder.glob("*") if sealed_by(path) is None)


def _delete(results: Path, path: Path) -> None:
    from pipeline.storage.damage import remove
    from pipeline.storage.names import inside
    from pipeline.training.live import run_state

    if path.parent.name in ("runs", "checkpoints") and run_state(path.parents[1], path.name).state == "running":
        raise BusyError(f"{path}: being trained right now; stop its job first")
    inside(results, path.parent)
    remove(path)
    remove(seal_of(path))
