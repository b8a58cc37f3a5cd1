"""The command-line page of the docs: the help of every command, as `--help` prints it."""

from __future__ import annotations

import click

WIDTH = 110
"""Characters per line: the terminal of whoever generates the page must not matter."""

INTRODUCTION = """# Command line

Generated from `--help` by `pipeline schema --write`; do not edit.

The first group of commands only looks, the second works by hand, the third are the stages that the workflow's rules call.
"""


def cli_text(root: click.Group) -> str:
    """The page as it stands in `docs/reference/cli.md`. `root` is the group of all commands, in the order they were added."""
    top = click.Context(root, info_name="pipeline", terminal_width=WIDTH, **root.context_settings)
    parts = [INTRODUCTION, _help(root, top)]
    for name, command in root.commands.items():
        parts.append(f"## `pipeline {name}`\n\n{_help(command, click.Context(command, info_name=name, parent=top, terminal_width=WIDTH))}")
    return "\n".join(parts)


def _help(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context).rstrip()}\n```\n"
