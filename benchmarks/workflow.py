"""Overhead of the workflow: wall seconds against the jobs' own seconds, and the share of start-up and imports in the jobs' CPU time.

    python -m benchmarks.workflow            the default suite, minutes
    python -m benchmarks.workflow --quick    a tiny suite, under a minute
    python -m benchmarks.workflow --finished DIR --wall SECONDS    a suite that has run in DIR, without running it again

ours / peer of `workflow`: wall seconds / (sum of the jobs' seconds / cores).
ours / peer of `startup`: CPU seconds of starting and importing / CPU seconds of all jobs.
ours / peer of `help` and `dry_run`: CPU seconds / those of `snakemake --version`, the minimum of any Snakemake call.
ours / peer of `plan_2000` and `dry_run_2000`, a tuned suite of 2,000 runs: the same.
"""

from __future__ import annotations

import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.common import Row, compare, report

REPOSITORY = Path(__file__).resolve().parents[1]
BINARIES = Path(sys.executable).parent
IMPORTS = {
    "describe": "pipeline.cli, ruamel.yaml",
    "generate": "pipeline.cli, pipeline.tasks.generate, pipeline.tasks.copy",
    "seal": "pipeline.cli, pipeline.tasks.generate",
    "train": "pipeline.cli, pipeline.training.train, pipeline.training.fit, pipeline.training.run_files, pipeline.networks.sequence, "
    "pipeline.learners.supervised, pipeline.figures.run_curve",
    "evaluate": "pipeline.cli, pipeline.evaluation.evaluate, pipeline.networks.sequence",
    "choose": "pipeline.cli, pipeline.evaluation.tuning",
    "profile": "pipeline.cli, pipeline.evaluation.profile, pipeline.networks.sequence",
    "collect": "pipeline.cli, pipeline.evaluation.collect",
    "plot": "pipeline.cli, pipeline.figures.accuracy_by",
}
START = "import gc; gc.set_threshold(100_000, 50, 100); import {}; gc.freeze()"
"""As `pipeline.cli.main` does it."""
TINY = """
experiments:
  tiny:
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 20]}, alphabet: 4}
      network: {name: sequence, width: 32}
      learner: {name: supervised, steps: 1500, batch_size: 32, learning_rate: 1e-2, evaluate_every: 500}
      evaluate: {rows: 500, delays: [10, 20]}
    sweep: {network.mixer: [lstm, gru]}
    figures: [{name: accuracy_by, column: delay}, learning_curves]
"""
LARGE = f"""
experiments:
  large:
    base:
      task: {{name: copy, symbols: 3, delay: 5, alphabet: 4}}
      network: {{name: sequence, width: 16}}
      learner: {{name: supervised, steps: 10}}
      evaluate: {{rows: 100}}
    sweep: {{network.mixer: [rnn, lstm, gru, min_gru, min_lstm, lru, mamba, delta_net, rwkv7, attention], seed: [0, 1, 2, 3, 4]}}
    tune: {{learner.learning_rate: {[round(1e-4 * 1.1**k, 8) for k in range(40)]}}}
    figures: [{{name: accuracy_by, column: delay}}]
"""


def cpu_seconds(command: list[str], folder: Path) -> float:
    """CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def median_cpu(command: list[str], folder: Path, repeats: int) -> float:
    """Median over some runs."""
    return statistics.median(cpu_seconds(command, folder) for _ in range(repeats))


def run_suite(folder: Path) -> float:
    """Run plain Snakemake in a folder; its wall seconds."""
    os.environ["PATH"] = f"{BINARIES}:{os.environ['PATH']}"
    begin = time.perf_counter()
    subprocess.run(snakemake("--cores", "all"), cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def snakemake(*words: str) -> list[str]:
    """Snakemake on the repository's Snakefile."""
    return [str(BINARIES / "snakemake"), "--snakefile", str(REPOSITORY / "Snakefile"), *words]


def jobs(folder: Path) -> list[tuple[str, float, float]]:
    """Every job's stage, seconds and CPU seconds, out of the `benchmark:` files.

    A job shorter than Snakemake's sampling interval reports no CPU time; its seconds stand in for it.
    """
    found = []
    root = folder / "results" / "benchmarks"
    for file in sorted(root.rglob("*.tsv")):
        with file.open(encoding="utf-8") as lines:
            row = next(csv.DictReader(lines, delimiter="\t"))
        seconds, cpu = float(row["s"]), row["cpu_time"]
        found.append((file.relative_to(root).parts[0], seconds, float(cpu) if cpu not in ("-", "NA") and float(cpu) > 0 else seconds))
    return found


def rows(folder: Path, wall: float, repeats: int) -> Iterator[Row]:
    """The figures of a finished suite."""
    table, cores = jobs(folder), os.cpu_count() or 1
    yield compare("workflow", wall, sum(seconds for _, seconds, _ in table) / cores, "s", "lower")
    starts = {stage: median_cpu([sys.executable, "-c", START.format(modules)], REPOSITORY, repeats) for stage, modules in IMPORTS.items()}
    yield compare("startup", sum(starts[stage] for stage, _, _ in table), sum(cpu for _, _, cpu in table), "CPU s", "lower")
    floor = median_cpu([str(BINARIES / "snakemake"), "--version"], folder, repeats)
    yield compare("help", median_cpu([str(BINARIES / "pipeline"), "--help"], folder, repeats), floor, "CPU s", "lower")
    yield compare("dry_run", median_cpu(snakemake("--dry-run", "--forceall"), folder, repeats), floor, "CPU s", "lower")
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.yaml").write_text(LARGE)
        yield compare("plan_2000", median_cpu([str(BINARIES / "pipeline"), "plan"], Path(name), repeats), floor, "CPU s", "lower")
        yield compare("dry_run_2000", median_cpu(snakemake("--dry-run"), Path(name), repeats), floor, "CPU s", "lower")


@click.command()
@click.option("--quick", is_flag=True, help="A tiny suite, under a minute.")
@click.option("--finished", type=click.Path(path_type=Path), help="A folder in which a suite has run.")
@click.option("--wall", type=float, help="Wall seconds that the finished suite took.")
def main(quick: bool, finished: Path | None, wall: float | None) -> None:
    """Measure the workflow's overhead."""
    if finished:
        if wall is None:
            raise click.UsageError("--finished needs --wall")
        report(list(rows(finished, wall, 3)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(TINY if quick else (REPOSITORY / "config.yaml").read_text())
        report(list(rows(folder, run_suite(folder), 1 if quick else 3)))


if __name__ == "__main__":
    main()
