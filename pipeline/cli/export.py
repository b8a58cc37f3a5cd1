"""`pipeline export` and `pipeline submission`: results in the format of another study, or of a competition."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.param_types import FILE, OutFile


@click.command()
@click.argument("experiment")
@click.option("--format", "form", type=click.Choice(["copy-study"]), default="copy-study", help="Output format.")
@click.option("--out", type=OutFile(".json"), help="File to write. Default: standard output.")
def export(experiment: str, form: str, out: Path | None) -> None:
    """Export an experiment's results in the format of another study.

    EXPERIMENT is a folder in results/experiments.

    copy-study is the experiment_results.json of https://github.com/hunglongtrangithub/rnn-copy-task, a comparison of LSTM, GRU and
    multiplicative variants. The experiment must sweep a size, such as task.symbols. Keys: size, then network, then mean_test_acc,
    std_test_acc (population, ddof 0), mean_train_time (wall seconds), mean_epochs and trial_results, one per seed. An epoch is the time
    between two validations. That repository's four networks get its names (gru_v1 is GRU, input_multiplicative_gru is
    MultiplicativeGRU), others their labels.

    \b
      pipeline export copy_sizes --format copy-study --out experiment_results.json
    """
    from pipeline.evaluation.copy_study import copy_study

    _write({"copy-study": copy_study}[form](experiment, Path("results")), out)


@click.command()
@click.argument("run", type=FILE)
@click.option("--out", type=OutFile(".json"), help="File to write. Default: standard output.")
@click.option("--steps", type=click.IntRange(1), help="Supervision steps whose votes are submitted. Default: the most that were measured.")
@click.option("--evaluation", metavar="ID", help="Evaluation of the run, if it has several with votes.")
def submission(run: Path, out: Path | None, steps: int | None, evaluation: str | None) -> None:
    """Write ARC's official file: two answers to every test pair.

    RUN is a run of arc below results/runs, or its folder. The answers are those that most symmetries of a pair gave in the run's evaluation;
    set evaluate.votes for more of them. Puzzles that are too large for the run's task are answered by one black cell.

    \b
      pipeline submission arc-recursive-full-attention-s0-7f3a9c2e --out submission.json
    """
    import json

    from pipeline.cli.solve import run_of
    from pipeline.evaluation.arc_submission import arc_submission

    _write(json.dumps(arc_submission(run_of(run).folder, evaluation, steps)) + "\n", out)


def _write(text: str, out: Path | None) -> None:
    from pipeline.storage.atomic import write_text

    if out:
        write_text(out, text)
    else:
        click.echo(text, nl=False)
