"""The `pipeline` command. Nothing heavy is imported until a command needs it: `pipeline --help` never loads torch."""

from __future__ import annotations

import gc
import itertools
import sys

import click

from pipeline.cli import hand, look, retrain, stages
from pipeline.storage.errors import UserError

LONGEST_LINE = 1000
"""Characters of an error at most: a value of the user's may be of any length."""
EPILOG = """
\b
Exit codes: 0 done, 1 our fault (with a trace), 2 yours (one line says what to mend),
75 stopped by a signal: run the same command again.

\b
Examples:
  pipeline check                                 is config.yaml right?
  pipeline plan                                  what would run, under which names
  pipeline try copy --set task.delay=160         one run by hand, in this process
  pipeline status                                what is done, running, to do, and why
"""


class Sections(click.Group):
    """A group that lists its commands as `SECTIONS` does, in that order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One list per section, each command with its first sentence."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(100)) for command in commands])


@click.group(
    cls=Sections, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120}
)
@click.version_option(package_name="recurlab")
def cli() -> None:
    """Recurlab: any recurrent network on any task, from config.yaml to a report."""


SECTIONS: dict[str, list[click.Command]] = {
    "Look": [look.check, look.plan, look.status, look.list_, look.show, look.schema, look.doctor],
    "By hand": [hand.try_, hand.export, retrain.retrain, hand.prune],
    "Stages of the workflow": [
        stages.describe, stages.generate, stages.seal, stages.train, stages.evaluate, stages.profile, stages.collect, stages.plot,
    ],
}  # fmt: skip
for command in itertools.chain(*SECTIONS.values()):
    cli.add_command(command)


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _say(message: str) -> None:
    """Print an error as one line that a terminal can show, whatever the user's words in it."""
    line = " ".join(message.splitlines()).encode("utf-8", "backslashreplace").decode()
    click.echo(line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}", err=True)


def main() -> None:
    """Run the command line. A user's error is one line and exit code 2."""
    # What torch makes while it is imported stays to the end: looking through it for garbage, while it comes and again at exit, is a
    # quarter of a job's start-up.
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
        click.echo(f"{signal}: stopped; run the same command again", err=True)
        return RESUMABLE
    except click.exceptions.Abort:
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "pipeline"
        _say(f"{where}: {_one_line(error)}; see '{where} --help'")
        return 2
    except click.ClickException as error:
        _say(f"pipeline: {_one_line(error)}")
        return 2
    except UserError as error:
        _say(str(error))
        return 2
    return code if isinstance(code, int) else 0
