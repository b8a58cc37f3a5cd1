"""The `pipeline` command. Heavy packages are imported inside the commands that need them: `pipeline --help` never loads torch."""

from __future__ import annotations

import gc
import itertools
import sys

import click

from pipeline.cli import catalogue, cleanup, export, solve, stages, status, try_
from pipeline.storage.errors import UserError

MAX_LINE = 1000
"""Longest error message, in characters: it may quote a value of any length."""
EPILOG = """
\b
Exit codes: 0 success, 1 internal error (with traceback), 2 invalid input (one line says what to fix),
75 stopped by a signal with a checkpoint saved (the same command resumes).

\b
Examples:
  pipeline check                                 validate config.yaml
  pipeline plan                                  list its runs and datasets
  pipeline try copy --set task.delay=160         train and evaluate one run in this process
  pipeline status                                what is done, running, to do, and why
"""


class Sections(click.Group):
    """A group whose help lists the commands by section, as in `SECTIONS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return names in the order they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list per section: each command with the first sentence of its help."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(100)) for command in commands])


@click.group(
    cls=Sections, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120}
)
@click.version_option(package_name="recurlab")
def cli() -> None:
    """Recurlab: train any recurrent network on any task, from config.yaml to a report."""


SECTIONS: dict[str, list[click.Command]] = {
    "Inspect": [status.check, status.plan, status.status, catalogue.list_, catalogue.show, catalogue.schema, status.doctor],
    "Run and manage": [try_.try_, solve.solve, export.export, export.submission, cleanup.retrain, cleanup.prune],
    "Workflow stages": [
        stages.describe, stages.generate, stages.seal, stages.train, stages.choose, stages.evaluate, stages.profile,
        stages.collect, stages.plot,
    ],
}  # fmt: skip
for command in itertools.chain(*SECTIONS.values()):
    cli.add_command(command)


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _print_error(message: str) -> None:
    """Print an error as one line that any terminal can show, whatever values it quotes."""
    line = " ".join(message.splitlines()).encode("utf-8", "backslashreplace").decode()
    click.echo(line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}", err=True)


def main() -> None:
    """Run the command line. Invalid input is reported in one line, with exit code 2."""
    # The objects that importing torch creates live until exit: collecting garbage among them, during the import and again at exit, would
    # take a quarter of a job's start-up time.
    gc.set_threshold(100_000, 50, 100)
    try:
        code = _run()
    finally:
        gc.freeze()
    sys.exit(code)


def _run() -> int:
    from pipeline.training.signals import RESUMABLE, Stopped, stoppable

    try:
        with stoppable():
            code = cli(prog_name="pipeline", standalone_mode=False)
    except Stopped as signal:
        click.echo(f"{signal}: stopped; the same command resumes", err=True)
        return RESUMABLE
    except click.exceptions.Abort:
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "pipeline"
        _print_error(f"{where}: {_one_line(error)}; see '{where} --help'")
        return 2
    except click.ClickException as error:
        _print_error(f"pipeline: {_one_line(error)}")
        return 2
    except UserError as error:
        _print_error(str(error))
        return 2
    return code if isinstance(code, int) else 0
