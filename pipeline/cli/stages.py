"""The workflow's stages, one thin command each. The rules call them; a user can call them on the same files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli.param_types import FILE, ROWS, SHARD, THREADS, OutFile, OutFolder, results_folder

RESULTS = Path("results")
TABLE = OutFile(".parquet")


def settings(results: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `runtime` and `tracking` of the frozen plan of this folder; empty if there is none."""
    from pipeline.frozen_plan import frozen_plan_path, read_frozen_plan

    if not frozen_plan_path(results).exists():
        return {}, {}
    plan = read_frozen_plan(results)
    return plan["runtime"], plan["tracking"]


def _allowed(flag: bool, runtime: dict[str, Any]) -> bool:
    return flag or runtime.get("changed_code") == "allow"


def changed_code(command: Any) -> Any:
    """Add the option of every command that reads results which other code may have made."""
    text = "Use inputs that were made by other code. Default: runtime.changed_code of the plan."
    return click.option("--allow-changed-code", "allow", is_flag=True, help=text)(command)


def execution(command: Any) -> Any:
    """Add the two options of every command that computes with torch."""
    command = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Default: runtime.device of the plan.")(command)
    return click.option("--threads", type=THREADS, help="CPU threads. Default: runtime.threads of the plan.")(command)


@click.command()
@click.argument("kind", type=click.Choice(["dataset", "network", "run", "experiment"]))
@click.argument("name")
def describe(kind: str, name: str) -> None:
    """Write one spec of the frozen plan to its file.

    NAME is an identifier that `pipeline plan` shows, or the name of an experiment.
    """
    from pipeline.config.spec_files import write_spec
    from pipeline.frozen_plan import frozen_spec
    from pipeline.storage.paths import safe_join

    spec = frozen_spec(RESULTS, kind, name)
    location = ("profiles", f"{name}.yaml") if kind == "network" else (f"{kind}s", name, f"{kind}.yaml")
    write_spec(safe_join(RESULTS, *location), spec)


@click.command()
@click.argument("folder", type=FILE, required=False)
@click.option("--shard", type=SHARD, help="Write only this shard, counted from 0. Default: write all, then seal.")
@click.option("--task", help="Instead of FOLDER: a task, with its defaults.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --task: set a field, for example delay=200. Repeatable.")
@click.option("--rows", type=ROWS, default=10_000, help="With --task: number of rows.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="train", help="With --task: the split.")
@click.option("--out", type=OutFolder("dataset.yaml"), help="With --task: output folder.")
def generate(
    folder: Path | None, shard: int | None, task: str | None, overrides: tuple[str, ...], rows: int, split: str, out: Path | None
) -> None:
    """Generate the rows of a dataset.

    Either of FOLDER, which holds a dataset.yaml, or of a task given with --task and --out.

    \b
      pipeline generate results/datasets/copy-train-60c593fb --shard 0
      pipeline generate --task copy --set delay=200 --rows 100000 --out data/copy200
    """
    from pipeline.storage.console import ProgressLine
    from pipeline.tasks.generate import generate_shard, seal_dataset

    if (folder is None) == (task is None):
        raise click.UsageError("expected either a dataset FOLDER or --task with --out")
    if folder and (overrides or out):
        raise click.UsageError("--set and --out need --task; the spec of FOLDER is in its dataset.yaml")
    if folder is None:
        if out is None:
            raise click.UsageError("--task needs --out")
        folder = out
        shards = _write_dataset_spec(str(task), overrides, rows, split, out)
    else:
        from pipeline.config.spec_files import read_spec

        shards = int(read_spec(folder / "dataset.yaml", "dataset")["shards"])
    wanted = range(shards) if shard is None else [shard]
    progress = ProgressLine(str(folder), len(wanted), "shards written")
    for done, index in enumerate(wanted):
        progress(done)
        generate_shard(folder, index)
    if shard is None:
        seal_dataset(folder)


def _write_dataset_spec(task: str, overrides: tuple[str, ...], rows: int, split: str, out: Path) -> int:
    from pipeline.cli.try_ import document_of_point
    from pipeline.config.expand import expand
    from pipeline.config.spec_files import write_spec
    from pipeline.plan import dataset_of

    document = document_of_point(task, Path("config.yaml"), overrides, ignore_config=True, section="task")
    dataset = dataset_of(expand(document).experiments[0].members[0].point.task, split, rows)
    write_spec(out / "dataset.yaml", dataset.spec)
    return len(dataset.shards)


@click.command()
@click.argument("folder", type=FILE)
@changed_code
def seal(folder: Path, allow: bool) -> None:
    """Write a dataset's manifest (SHA-256 per shard) and card.

    FOLDER must hold every shard.
    """
    from pipeline.tasks.generate import seal_dataset

    seal_dataset(folder, _allowed(allow, settings(folder.absolute().parent.parent)[0]))


@click.command()
@click.argument("spec", type=FILE)
@execution
@click.option("--processes", type=THREADS, help="Data-parallel processes per node. Default: runtime.processes of the plan.")
@click.option("--nodes", type=THREADS, help="Nodes of this SLURM job to train on. Default: runtime.nodes of the plan.")
@changed_code
def train(spec: Path, allow: bool, **options: Any) -> int:
    """Train a run, resuming from its newest checkpoint.

    SPEC is results/runs/X/run.yaml. On SIGTERM or SIGUSR1, training saves a checkpoint after the current step and exits with code 75; the
    same command resumes.
    """
    from pipeline.config.config_file import Runtime, Tracking
    from pipeline.config.spec_files import read_spec
    from pipeline.learners.parallel import rank
    from pipeline.training.launch import is_rank, launch
    from pipeline.training.train import train as run_training

    results = results_folder(spec, "runs", read_spec(spec, "run")["id"])
    written, tracking = settings(results)
    given = {key: value for key, value in options.items() if value is not None}
    runtime = Runtime(**{**written, **given, **({"changed_code": "allow"} if allow else {})})
    if runtime.nodes * runtime.per_node > 1 and not is_rank():
        return launch(spec, runtime, sys.argv[1:])
    code = run_training(spec, results, runtime, Tracking(**tracking))
    if code == 0 and rank() == 0:
        from pipeline.figures.run_curve import draw_run

        draw_run(spec.parent)
    return code


@click.command()
@click.argument("spec", type=FILE)
@click.option("--data", type=FILE, multiple=True, required=True, help="A sealed dataset folder. Repeatable.")
@click.option("--checkpoint", default="model", help="Weights to evaluate: model, or a label of learner.keep, for example best.")
@click.option("--out", type=TABLE, required=True, help="Parquet table to write, one row per example.")
@click.option("--measurement", metavar="KIND", help="Kind of measurement, or a YAML mapping with its settings. Default: the task's.")
@execution
@changed_code
def evaluate(
    spec: Path,
    data: tuple[Path, ...],
    checkpoint: str,
    out: Path,
    measurement: str | None,
    threads: int | None,
    device: str | None,
    allow: bool,
) -> None:
    """Evaluate a run on test datasets.

    SPEC is results/runs/X/run.yaml.
    """
    from pipeline.config.spec_files import read_spec

    results = results_folder(spec, "runs", read_spec(spec, "run")["id"])
    from pipeline.evaluation.evaluate import evaluate as measure

    runtime, _ = settings(results)
    machine = threads or runtime.get("threads", 1), device or runtime.get("device", "auto")
    kind = None if measurement is None else _measurement(measurement)
    measure(spec, list(data), out, checkpoint, *machine, allow_changed_code=_allowed(allow, runtime), measurement=kind)


def _measurement(text: str) -> Any:
    """Parse the measurement that an option names."""
    from pipeline.config.document import read_text
    from pipeline.config.measurements import read_measurement
    from pipeline.config.spec_files import load_component
    from pipeline.storage.errors import UserError

    value = read_text(f"measurement: {text}", "--measurement")["measurement"]
    if value is None:
        raise UserError("--measurement: got nothing; expected the name of a kind of measurement, or a mapping with 'name'")
    if isinstance(value, dict) and "version" in value:
        return load_component("measurement", value)
    try:
        return read_measurement(value)
    except ValueError as error:
        raise UserError(f"--measurement: {error}") from None


@click.command()
@click.argument("spec", type=FILE)
@click.option("--out", type=TABLE, required=True, help="Parquet table to write, one row per context length.")
@execution
def profile(spec: Path, out: Path, threads: int | None, device: str | None) -> None:
    """Measure a network's size, throughput and latency.

    SPEC is results/profiles/X.yaml.
    """
    from pipeline.config.spec_files import read_spec

    read_spec(spec, "network")
    from pipeline.evaluation.profile import profile as measure

    runtime, _ = settings(spec.absolute().parent.parent)
    measure(spec, out, threads or runtime.get("threads", 1), device or runtime.get("device", "auto"))


@click.command()
@click.argument("spec", type=FILE)
def choose(spec: Path) -> None:
    """Choose among the candidates of a tuned experiment, by validation results.

    SPEC is results/experiments/X/experiment.yaml.
    """
    from pipeline.evaluation.tuning import choose as select

    select(spec, results_folder(spec, "experiments", spec.absolute().parent.name), spec.parent)


@click.command()
@click.argument("spec", type=FILE)
def collect(spec: Path) -> None:
    """Collect the results of an experiment's runs into tables.

    SPEC is results/experiments/X/experiment.yaml.
    """
    from pipeline.evaluation.collect import collect as gather

    gather(spec, results_folder(spec, "experiments", spec.absolute().parent.name), spec.parent)


@click.command()
@click.argument("figure")
@click.argument("experiment")
def plot(figure: str, experiment: str) -> None:
    """Draw one figure as SVG, PDF, PNG and CSV.

    FIGURE and EXPERIMENT are names in the frozen plan.
    """
    from pipeline.config.catalogue import implementation
    from pipeline.config.spec_files import load_component
    from pipeline.figures.style import suite
    from pipeline.frozen_plan import read_frozen_plan
    from pipeline.storage.errors import UserError
    from pipeline.storage.paths import safe_join

    plan = read_frozen_plan(RESULTS)
    spec = plan["experiments"].get(experiment)
    if spec is None:
        raise UserError(f"experiment {experiment}: not in the plan; expected one of {', '.join(plan['experiments'])}")
    if figure not in spec["figures"]:
        raise UserError(f"figure {figure} of {experiment}: not in the plan; expected one of {', '.join(spec['figures']) or 'none'}")
    component = load_component("figure", spec["figures"][figure]["spec"])
    folder = safe_join(RESULTS, "experiments", experiment)
    title = spec["question"] if component.title is None else component.title
    with suite(spec.get("looks", {})):
        implementation(component)(folder, safe_join(folder, figure), component, title)
