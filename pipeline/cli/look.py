"""Commands that only look: the config, the plan, the catalogue, the state of runs, the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.inputs import FILE
from pipeline.storage.errors import UserError

if TYPE_CHECKING:
    from pipeline.plan import Plan

CONFIG = click.argument("config", type=FILE, default="config.yaml")
REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = REPOSITORY / "workflow" / "schemas" / "config.schema.json"
FILES = ("presets", "suites")
REFERENCE = REPOSITORY / "docs" / "reference" / "config.md"
COMMANDS = REPOSITORY / "docs" / "reference" / "cli.md"
VARIABLES = REPOSITORY / "docs" / "reference" / "variables.md"


def table(rows: list[tuple[Any, ...]]) -> str:
    """Rows as text, columns aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


@click.command()
@CONFIG
def check(config: Path) -> None:
    """Validate a config file; nothing is written or run.

    CONFIG is config.yaml unless given.
    """
    from pipeline.plan import plan_file
    from pipeline.retrain import code_lines

    plan = plan_file(config)
    click.echo("\n".join([f"{config}: right. {plan.size}", *code_lines(Path("results"), plan)]))


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON.")
def plan(config: Path, as_json: bool) -> None:
    """Show what a config asks for: every run and dataset by identifier.

    CONFIG is config.yaml unless given. Widths that are solved from a budget are shown too.
    """
    from pipeline.plan import plan_file

    made = plan_file(config)
    if as_json:
        click.echo(made.to_json())
        return
    click.echo(f"{config}: {made.size}")
    for experiment in made.experiments.values():
        click.echo(f"\n{experiment.name}: {experiment.question}")
        rows = [("run", "label", "seed", "width", "budget", "parent")]
        for entry in experiment.spec["runs"]:
            run = made.runs[entry["run"]]
            rows.append((run.id, entry["label"], entry["seed"], _width(made, run.network), _budget(run.spec["learner"]), run.parent or "-"))
        click.echo(table(rows))
        for label, fields in experiment.dropped.items():
            words = ", ".join(f"{key}={value}" for key, value in fields.items())
            click.echo(f"dropped for {label}: {words}")
    click.echo()
    click.echo(
        table(
            [
                ("dataset", "split", "rows", "shards"),
                *((d.id, d.spec["split"], d.spec["rows"], len(d.shards)) for d in made.datasets.values()),
            ]
        )
    )


def _width(plan: Plan, network: str) -> str:
    """The width of a network; solved, which needs torch, where the config says auto."""
    spec = plan.networks[network]
    if spec["network"].get("width") != "auto":
        return str(spec["network"].get("width", "-"))
    from pipeline.config.frozen import revive
    from pipeline.networks.build import resolve_width

    return f"auto = {resolve_width(revive('network', spec['network']), spec['sizes']).width}"


def _budget(learner: dict[str, Any]) -> str:
    return next(f"{learner[key]:,} {key}" for key in ("rows", "steps", "seconds") if learner.get(key) is not None)


@click.command()
@CONFIG
def status(config: Path) -> None:
    """Say of every run whether it is done, running or to do, and why.

    CONFIG is config.yaml unless given.
    """
    from pipeline.plan import plan_file
    from pipeline.retrain import code_lines
    from pipeline.storage.damage import find_damaged
    from pipeline.training.live import run_state
    from pipeline.workspace import owner

    results = Path("results")
    made = plan_file(config)
    rows = [("run", "state", "why")]
    for run in made.runs.values():
        state = run_state(results, run.id)
        rows.append((run.id, state.state, state.detail if state.state != "to do" else _why(results, made, run.id, state.detail)))
    click.echo(table(rows))
    click.echo()
    damaged = find_damaged(results, made.declared)
    missing = {stage: [file for file in files if not (results / file).exists()] for stage, files in made.files().items()}
    totals = {stage: len(files) for stage, files in made.files().items()}
    lines = [(stage, f"{totals[stage] - len(files)}/{totals[stage]}", _example(files)) for stage, files in missing.items()]
    click.echo(table([("stage", "files", "first missing"), *lines]))
    for error in damaged.values():
        click.echo(f"\n{error.rpartition('; ')[0]}; the next run makes it again")
    if changes := code_lines(results, made):
        click.echo("\n" + "\n".join(changes))
    live = owner(results)
    if live:
        click.echo(f"\na pipeline is running here: pid {live.get('pid')} on {live.get('host')} since {live.get('since')}")


def _example(files: list[str]) -> str:
    return f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}" if files else ""


def _why(results: Path, plan: Plan, run: str, detail: str) -> str:
    """Why a run is to do: it failed, its data or parent is not there yet, its specification is new, or simply never started."""
    log = results / "logs" / "train" / f"{run}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    if lines and not detail:
        return f"last attempt ended: {lines[-1][:100]} (see {log})"
    if detail:
        return detail
    waiting = [name for name in plan.runs[run].data if not (results / "datasets" / name / "manifest.json").exists()]
    waiting += [name for name in plan.parents_of(run) if not (results / "runs" / name / "manifest.json").exists()]
    earlier = [path.name for path in sorted((results / "runs").glob(f"{run.rsplit('-', 1)[0]}-*")) if path.name not in plan.runs]
    reasons = [f"waits for {', '.join(waiting)}"] if waiting else []
    reasons += [f"its specification is new (earlier: {', '.join(earlier)})"] if earlier else []
    return "; ".join(reasons) or "never trained"


@click.command("list")
@click.argument("kind", required=False)
def list_(kind: str | None) -> None:
    """List the catalogue: what can be named in a config.

    KIND narrows it down: tasks, mixers, networks, learners, figures, presets or suites.
    """
    from pipeline.config.document import suggestion
    from pipeline.config.schema import KINDS

    shelves = {name: {item: _summary(component) for item, component in components.items()} for name, components in KINDS.items()}
    for name in FILES:
        shelves[name] = {path.stem: _comment(path) for path in sorted((REPOSITORY / "workflow" / name).glob("*.yaml"))}
    if kind is not None and kind not in shelves:
        raise UserError(f"list {kind}: unknown kind{suggestion(kind, shelves)}")
    for name in shelves if kind is None else [kind]:
        click.echo(f"{name}:" if kind is None else "", nl=kind is None)
        click.echo(table([(f"  {item}", text) for item, text in shelves[name].items()] or [("  none", "")]))


def _summary(component: Any) -> str:
    return " ".join((component.__doc__ or "").split("\n\n")[0].split())


def _comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ") if first.startswith("#") else ""


@click.command()
@click.argument("name")
def show(name: str) -> None:
    """Show one component with every field, default and bound.

    NAME is one that `pipeline list` shows. Of a preset or suite the file itself is shown.
    """
    from pipeline.config.document import suggestion
    from pipeline.config.schema import KINDS

    found = [(kind.removesuffix("s"), components[name]) for kind, components in KINDS.items() if name in components]
    files = {path.stem: path for folder in FILES for path in sorted((REPOSITORY / "workflow" / folder).glob("*.yaml"))}
    if not found and name not in files:
        known = [*(item for components in KINDS.values() for item in components), *files]
        raise UserError(f"show {name}: not in the catalogue{suggestion(name, known)}")
    for kind, component in found:
        click.echo(f"{name} ({kind}, version {component.version})\n")
        click.echo("\n\n".join(" ".join(part.split()) for part in (component.__doc__ or "").split("\n\n")) + "\n")
        click.echo(table(_facts(component)))
        _show_fields("field", component)
        if hasattr(component, "evaluation"):
            _show_fields("evaluate", component.evaluation)  # pyright: ignore[reportAttributeAccessIssue]
    if name in files:
        click.echo(files[name].read_text(encoding="utf-8"), nl=False)


def _facts(component: Any) -> list[tuple[str, str]]:
    """What a component says of itself beside its fields."""
    keys = ("source", "implementation", "causal", "constant_state", "columns", "timed")
    facts = {key: getattr(component, key) for key in keys if getattr(component, key, "") != ""}
    words = {key: {True: "yes", False: "no"}[value] if isinstance(value, bool) else value for key, value in facts.items()}
    return [(key, ", ".join(value) if isinstance(value, tuple) else str(value)) for key, value in words.items()]


def _show_fields(title: str, section: Any) -> None:
    """The fields of a section with those of the sections they hold."""
    from pipeline.config.schema import field_rows, sections_of

    rows = []
    for key, default, text in field_rows(section):
        rows.append((key, default or "required", text))
        for inner in sections_of(section.model_fields[key].annotation):
            rows += [(f"{key}.{part}", default or "required", text) for part, default, text in field_rows(inner)]
    if rows:
        click.echo("\n" + table([(title, "default", "meaning"), *rows]))


@click.command()
@click.option("--write", is_flag=True, help="Write workflow/schemas/config.schema.json, docs/reference/config.md, cli.md and variables.md.")
@click.pass_context
def schema(context: click.Context, write: bool) -> None:
    """Print the JSON schema of config files."""
    from pipeline.cli.reference import cli_text
    from pipeline.config.schema import KINDS, reference_text, schema_text
    from pipeline.storage.atomic import write_text
    from pipeline.variables import variables_text

    if not write:
        click.echo(schema_text(), nl=False)
        return
    foreign = sorted(
        name for components in KINDS.values() for name, item in components.items() if not item.__module__.startswith("pipeline.")
    )
    if foreign:
        raise UserError(
            f"schema --write: {', '.join(foreign)}: of installed plug-ins; expected RECURLAB_PLUGINS=off, which leaves them out"
        )
    commands = context.find_root().command
    assert isinstance(commands, click.Group)
    for path, text in (
        (SCHEMA, schema_text()),
        (REFERENCE, reference_text()),
        (COMMANDS, cli_text(commands)),
        (VARIABLES, variables_text()),
    ):
        write_text(path, text)
        click.echo(path)


@click.command()
def doctor() -> int:
    """Check the machine, and every file of the results.

    It looks at versions, device, compiler, disk and the owner of the results folder, verifies every byte that a number can come from, and
    names what is damaged, lost or has no seal.
    """
    from pipeline.doctor import examine

    failed = False
    for name, good, detail in examine(Path("results")):
        failed |= not good
        click.echo(f"{'ok     ' if good else 'PROBLEM'}  {name:<18} {detail}")
    sys.stdout.flush()
    return 2 if failed else 0
