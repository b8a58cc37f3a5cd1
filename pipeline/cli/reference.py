"""docs/reference/cli.md: the help of every command."""

from __future__ import annotations

import click

WIDTH = 110
"""Characters per line, whatever terminal generates the page."""

INTRODUCTION = """# Command line

Generated from `--help` by `pipeline schema --write`; do not edit.

Commands in the first group read and report; those in the second run one point, export or delete results; those in the third are the
workflow's stages, which its rules call.
"""


def cli_text(root: click.Group) -> str:
    """Return the text of `docs/reference/cli.md`. `root` is the group of all commands."""
    top = click.Context(root, info_name="pipeline", terminal_width=WIDTH, **root.context_settings)
    parts = [INTRODUCTION, _help(root, top)]
    for name, command in root.commands.items():
        parts.append(f"## `pipeline {name}`\n\n{_help(command, click.Context(command, info_name=name, parent=top, terminal_width=WIDTH))}")
    return "\n".join(parts)


def _help(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context).rstrip()}\n```\n"
