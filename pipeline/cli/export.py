"""`pipeline export`: an experiment's results in the format of another study."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.param_types import OutFile


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
    from pipeline.storage.atomic import write_text

    text = {"copy-study": copy_study}[form](experiment, Path("results"))
    if out:
        write_text(out, text)
    else:
        click.echo(text, nl=False)
