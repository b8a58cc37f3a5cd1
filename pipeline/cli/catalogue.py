"""Commands about the catalogue: what a config can name, the fields of each component, the JSON schema."""

from __future__ import annotations

import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

import click

from pipeline.cli.tables import format_table
from pipeline.storage.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
REFERENCE = REPOSITORY / "docs" / "reference"
SCHEMA = REPOSITORY / "workflow" / "schemas" / "config.schema.json"
WIDTH = 100
"""Maximum characters per line of `pipeline show`."""
FILES = ("presets", "suites")
"""Folders below workflow/ whose YAML files are listed too."""


@click.command("list")
@click.argument("kind", required=False)
def list_(kind: str | None) -> None:
    """List the catalogue: what a config can name.

    KIND restricts the list to tasks, mixers, networks, learners, figures, measurements, presets or suites.
    """
    from pipeline.config.document import suggestion
    from pipeline.config.schema import KINDS

    entries = {name: {item: _summary(component) for item, component in components.items()} for name, components in KINDS.items()}
    for name in FILES:
        entries[name] = {path.stem: _comment(path) for path in sorted((REPOSITORY / "workflow" / name).glob("*.yaml"))}
    if kind is not None and kind not in entries:
        raise UserError(f"list {kind}: unknown kind{suggestion(kind, entries)}")
    for name in entries if kind is None else [kind]:
        click.echo(f"{name}:" if kind is None else "", nl=kind is None)
        click.echo(format_table([(f"  {item}", text) for item, text in entries[name].items()] or [("  none", "")]))


def _summary(component: Any) -> str:
    return " ".join((component.__doc__ or "").split("\n\n")[0].split())


def _comment(path: Path) -> str:
    """The first sentence of the comment at the top of a file."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(line.lstrip("# ") for line in lines))[0]


@click.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a component: every field with its default, bounds and meaning.

    NAME is one that `pipeline list` shows. For a preset or suite, print its file.
    """
    from pipeline.config.document import suggestion
    from pipeline.config.schema import KINDS
    from pipeline.config.tasks.base import Task
    from pipeline.evaluation.measurements.base import Measurement

    matches = [(kind.removesuffix("s"), components[name]) for kind, components in KINDS.items() if name in components]
    files = {path.stem: path for folder in FILES for path in sorted((REPOSITORY / "workflow" / folder).glob("*.yaml"))}
    if not matches and name not in files:
        known = [*(item for components in KINDS.values() for item in components), *files]
        raise UserError(f"show {name}: not in the catalogue{suggestion(name, known)}")
    for kind, component in matches:
        click.echo(f"{name} ({kind}, version {component.version})\n")
        click.echo("\n\n".join(" ".join(part.split()) for part in (component.__doc__ or "").split("\n\n")) + "\n")
        click.echo(format_table(_properties(component)))
        if issubclass(component, Task) and component.columns:
            rows = [(column, item.unit or "category", item.meaning) for column, item in component.columns.items()]
            click.echo("\n" + format_table([("column", "unit", "meaning"), *rows]))
        if issubclass(component, Measurement):
            scores = [
                (f"  {key}", score.shown_unit.format(unit="nats, or squared error"), score.label) for key, score in component.scores.items()
            ]
            click.echo("\nscores:\n" + format_table([("  name", "unit", "label"), *scores]))
        _show_fields("fields", component)
        if hasattr(component, "evaluation"):
            _show_fields("fields of evaluate", component.evaluation)  # pyright: ignore[reportAttributeAccessIssue]
    if name in files:
        click.echo(files[name].read_text(encoding="utf-8"), nl=False)


def _properties(component: Any) -> list[tuple[str, str]]:
    """Return what a component declares besides its fields."""
    keys = ("source", "implementation", "causal", "constant_state")
    values = {key: value for key in keys if (value := getattr(component, key, "")) != "" and not isinstance(value, property)}
    words = {key: {True: "yes", False: "no"}[value] if isinstance(value, bool) else value for key, value in values.items()}
    return [(key, ", ".join(value) if isinstance(value, tuple) else str(value)) for key, value in words.items()]


def _show_fields(title: str, section: Any) -> None:
    """Print the fields of a section and of the sections nested in it."""
    from pipeline.config.schema import field_rows, sections_of

    rows = []
    for key, *row in field_rows(section):
        rows.append((key, *row))
        for inner in sections_of(section.model_fields[key].annotation):
            rows += [(f"{key}.{part}", *row) for part, *row in field_rows(inner)]
    if rows:
        click.echo(f"\n{title}:")
    for key, default, allowed, meaning in rows:
        click.echo(f"\n  {key}: {default or 'required'}" + (f"   ({allowed.replace('`', '')})" if allowed else ""))
        click.echo(textwrap.fill(meaning, WIDTH, initial_indent="      ", subsequent_indent="      "))


@click.command()
@click.option(
    "--write", is_flag=True, help="Write workflow/schemas/config.schema.json and config.md, cli.md, variables.md of docs/reference."
)
@click.pass_context
def schema(context: click.Context, write: bool) -> None:
    """Print the JSON schema of config files."""
    from pipeline.cli.reference import cli_text
    from pipeline.config.schema import KINDS, reference_text, schema_text
    from pipeline.environment_variables import variables_text
    from pipeline.storage.atomic import write_text

    if not write:
        click.echo(schema_text(), nl=False)
        return
    plugins = sorted(
        name for components in KINDS.values() for name, item in components.items() if not item.__module__.startswith("pipeline.")
    )
    if plugins:
        raise UserError(f"schema --write: {', '.join(plugins)} come from installed plug-ins; set RECURLAB_PLUGINS=off to leave them out")
    commands = context.find_root().command
    assert isinstance(commands, click.Group)
    for path, text in (
        (SCHEMA, schema_text()),
        (REFERENCE / "config.md", reference_text()),
        (REFERENCE / "cli.md", cli_text(commands)),
        (REFERENCE / "variables.md", variables_text()),
    ):
        write_text(path, text)
        click.echo(path)
