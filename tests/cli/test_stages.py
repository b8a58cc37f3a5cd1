"""The stages, `try` and `export`, called as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.spec_files import read_spec
from pipeline.plan import plan_file
from pipeline.results_lock import acquire_lock
from pipeline.storage.digest import file_sha256
from pipeline.storage.seals import sealed_file, write_sealed
from tests.cli.conftest import TINY, Call
from tests.evaluation.test_copy_study import make


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_describe_writes_the_frozen_spec(folder: Path, call: Call) -> None:
    before = digests(folder / "results")
    plan = plan_file(Path("config.yaml"))
    for kind, things in (("dataset", plan.datasets), ("network", plan.networks), ("run", plan.runs), ("experiment", plan.experiments)):
        for name in things:
            assert call("describe", kind, name) == (0, "", "")
    assert digests(folder / "results") == before
    assert call("describe", "run", "nothing").err.startswith(
        "run nothing: not in the frozen plan results/.pipeline/plan.json; 'pipeline plan' shows"
    )


def test_generate_and_seal_are_deterministic(folder: Path, call: Call) -> None:
    (data,) = folder.glob("results/datasets/copy-train-*")
    before = digests(data)
    for path in data.iterdir():
        if "dataset.yaml" not in path.name:
            path.unlink()
    assert call("generate", data, "--shard", "0").code == 0
    assert sorted(path.name for path in data.iterdir() if sealed_file(path) is None) == ["00000.parquet", "dataset.yaml"]
    assert call("seal", data).code == 0
    assert digests(data) == before
    shutil.rmtree(data)
    assert call("describe", "dataset", data.name).code == 0
    assert call("generate", data).code == 0
    assert digests(data) == before


def test_generate_from_a_task(empty: Path, call: Call) -> None:
    words = [
        "generate",
        "--task",
        "copy",
        "--set",
        "delay={log_uniform: [3, 9]}",
        "--set",
        "symbols=4",
        "--rows",
        "50",
        "--out",
        "data/here",
    ]
    assert call(*words) == (0, "", "")
    out = empty / "data" / "here"
    assert sorted(path.name for path in out.iterdir() if sealed_file(path) is None) == [
        "00000.parquet",
        "card.md",
        "dataset.yaml",
        "manifest.json",
    ]
    spec = read_spec(out / "dataset.yaml", "dataset")
    assert (spec["rows"], spec["split"], spec["task"]["symbols"], spec["task"]["delay"]["log_uniform"]) == (50, "train", 4, [3, 9])
    before = digests(out)
    assert call(*words).code == 0
    assert digests(out) == before


def test_train_resumes_and_its_exit_code_says_so(folder: Path, call: Call) -> None:
    (run,) = folder.glob("results/runs/*")
    weights = file_sha256(run / "model" / "model.safetensors")
    assert call("train", run / "run.yaml").code == 0
    assert file_sha256(run / "model" / "model.safetensors") == weights
    assert (run / "curve.svg").exists()


def test_evaluate_profile_collect_and_plot(folder: Path, call: Call) -> None:
    (run,), (data,), (network,) = (folder.glob(f"results/{pattern}") for pattern in ("runs/*", "datasets/copy-test-*", "profiles/*.yaml"))
    (table,) = folder.glob("results/evaluations/*/*.parquet")
    before = file_sha256(table)
    table.unlink()
    assert call("evaluate", run / "run.yaml", "--data", data, "--out", table, "--threads", "1", "--device", "cpu").code == 0
    assert file_sha256(table) == before
    assert call("profile", network, "--out", "profile.parquet").code == 0
    assert (folder / "profile.parquet").exists()
    experiment = folder / "results" / "experiments" / "tiny"
    before_tables = digests(experiment)
    assert call("collect", experiment / "experiment.yaml").code == 0
    assert digests(experiment) == before_tables
    for figure in ("accuracy_by_delay", "learning_curves"):
        assert call("plot", figure, "tiny").code == 0
        assert {path.suffix for path in experiment.glob(f"{figure}.*")} == {".svg", ".pdf", ".png", ".csv"}
    assert "Does it work?" in (experiment / "learning_curves.svg").read_text()


def test_try_runs_one_point_and_reuses_it(empty: Path, call: Call) -> None:
    (empty / "config.yaml").write_text(TINY)
    answer = call("try", "tiny", "--set", "learner.steps=2", "--set", "network.mixer=none", "--out", "here")
    assert answer.code == 0
    assert "| no memory |" in answer.out
    runs = list((empty / "here" / "runs").iterdir())
    assert [run.name.rsplit("-", 1)[0] for run in runs] == ["copy-none-s0"]
    assert read_spec(runs[0] / "run.yaml", "run")["learner"]["steps"] == 2
    before = digests(runs[0])
    assert call("try", "tiny", "--set", "network.mixer=none", "--set", "learner.steps=2", "--out", "here").out == answer.out
    with acquire_lock(Path("here")):
        busy = call("try", "tiny", "--out", "here")
    assert (busy.code, busy.err.startswith("here: another pipeline is running here (pid ")) == (2, True)
    assert digests(runs[0]) == before


@pytest.mark.parametrize("budget", ["learner.rows=64", "learner.steps=3", "learner.seconds=5"])
def test_a_budget_set_by_option_replaces_the_configs(budget: str, empty: Path) -> None:
    from pipeline.cli.try_ import document_of_point
    from pipeline.config.expand import expand

    (empty / "config.yaml").write_text(TINY)
    for name in ("tiny", "copy"):
        point = expand(document_of_point(name, Path("config.yaml"), (budget,))).experiments[0].members[0].point
        given = {key for key in ("rows", "steps", "seconds") if getattr(point.learner, key) is not None}
        assert given == {budget.partition("=")[0].removeprefix("learner.")}


MISTAKES = [
    (["try", "tinny"], "tinny: neither an experiment of config.yaml nor a task; did you mean 'tiny'?"),
    (["try", "copy", "--config", "nope.yaml"], "nope.yaml: no such file; expected a config such as config.yaml"),
    (["try", "tiny", "--set", "learner.rows=64", "--set", "learner.steps=2"], "--set learner.rows=64: learner.rows: got rows and steps"),
    (["try", "tiny", "--set", "task.dealy=3"], "--set task.dealy=3: task.dealy: unknown key; did you mean 'delay'?"),
    (["try", "tiny", "--set", "task.delay=-3"], "--set task.delay=-3: task.delay: got -3; expected at least 1"),
    (["try", "tiny", "--set", "task.delay"], "--set task.delay: expected dotted.key=value, for example task.delay=160"),
    (["try", "tiny", "--set", "task.delay=[1"], "--set task.delay=[1:1: not YAML: "),
    (["try", "tiny", "--set", "network.mixer=lstn"], "--set network.mixer=lstn: network.mixer: got 'lstn'; did you mean 'lstm'?"),
    (["generate"], "pipeline generate: expected either a dataset FOLDER or --task with --out; see 'pipeline generate --help'"),
    (["generate", "--task", "copy"], "pipeline generate: --task needs --out; see 'pipeline generate --help'"),
    (["generate", "x", "--set", "delay=3"], "pipeline generate: --set and --out need --task; "),
    (["generate", "--task", "cpoy", "--out", "y"], "cpoy: not a task; did you mean 'copy'?"),
    (["generate", "--task", "copy", "--set", "dealy=1", "--out", "y"], "--set dealy=1: dealy: unknown key; did you mean 'delay'?"),
    (["generate", "x"], "x/dataset.yaml: no such file; expected a specification written by 'pipeline describe'"),
    (["generate", "--task", "copy", "--rows", "0", "--out", "y"], "pipeline generate: invalid value for '--rows': 0 is not in the range 1<=x<="),
    (["seal", "x"], "x/dataset.yaml: no such file; expected a specification written by 'pipeline describe'"),
    (["train", "x/run.yaml"], "x/run.yaml: no such file; expected a specification written by 'pipeline describe'"),
    (["train", "."], ".: is a folder; expected a specification written by 'pipeline describe'"),
    (["train", "config.yaml"], "config.yaml: not sealed (no .config.yaml.sha256); expected a specification written by 'pipeline describe'"),
    (["collect", "config.yaml"], "config.yaml: in the wrong folder; expected experiments/"),
    (["profile", "other.yaml", "--out", "z.parquet"], "other.yaml: missing key 'id'; expected what 'pipeline describe network' writes"),
    (["evaluate", "other.yaml", "--data", "d", "--out", "z.parquet"], "other.yaml: missing key 'id'; expected what 'pipeline describe run' writes"),
    (["plot", "cost_quality", "tiny"], "results/.pipeline/plan.json: no such file; expected the plan that snakemake freezes"),
    (["describe", "run", "x"], "results/.pipeline/plan.json: no such file; expected the plan that snakemake freezes"),
    (["describe", "rum", "x"], "pipeline describe: invalid value for '{dataset|network|run|experiment}': 'rum' is not one of "),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_invalid_input_is_one_line_and_writes_nothing(words: list[str], message: str, empty: Path, call: Call) -> None:
    (empty / "config.yaml").write_text(TINY)
    write_sealed(empty / "other.yaml", TINY)
    answer = call(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(message)
    assert answer.err.count("\n") == 1
    assert sorted(path.name for path in empty.iterdir()) == [".other.yaml.sha256", "config.yaml", "other.yaml"]


def test_try_reports_errors_of_its_config(empty: Path, call: Call) -> None:
    for text, message in (
        (TINY.replace("delay", "dealy"), "config.yaml:5: experiments.tiny.base.task.dealy: unknown key; did you mean 'delay'?\n"),
        ("experiments: [tiny]\n", "config.yaml:1: experiments: got a list; expected a mapping of at least one experiment\n"),
        ("experiments: {tiny: 3}\n", "config.yaml:1: experiments.tiny: got 3; expected a mapping\n"),
    ):
        (empty / "config.yaml").write_text(text)
        assert call("try", "tiny") == (2, "", message)


def test_a_figure_that_is_not_planned_is_reported(folder: Path, call: Call) -> None:
    expected = "figure cost_quality of tiny: not in the plan; expected one of accuracy_by_delay, learning_curves\n"
    assert call("plot", "cost_quality", "tiny") == (2, "", expected)


def test_export_writes_a_file_or_prints_it(folder: Path, call: Call) -> None:
    expected = "experiment tiny: its runs were trained at one size; expected a sweep over a size, such as task.symbols\n"
    assert call("export", "tiny", "--format", "copy-study", "--out", "out.json") == (2, "", expected)
    assert not Path("out.json").exists()
    assert call("export", "tiyn").err == "experiment tiyn: not in results/experiments; did you mean 'tiny'?\n"
    assert call("export", "tiny", "--format", "xml").code == 2
    make(Path("results"), sizes=(10, 20))
    printed = call("export", "study")
    assert (printed.code, printed.err, list(json.loads(printed.out))) == (0, "", ["10", "20"])
    assert call("export", "study", "--format", "copy-study", "--out", "new/out.json") == (0, "", "")
    assert [path.read_text() for path in Path("new").iterdir()] == [printed.out]


def test_a_missing_checkpoint_or_model_is_one_line(folder: Path, call: Call) -> None:
    (run,), (data,) = folder.glob("results/runs/*"), folder.glob("results/datasets/copy-test-*")
    answer = call("evaluate", run / "run.yaml", "--data", data, "--out", "z.parquet", "--checkpoint", "best")
    assert answer.code == 2
    assert "checkpoint best: not kept" in answer.err
    shutil.rmtree(run / "model")
    answer = call("evaluate", run / "run.yaml", "--data", data, "--out", "z.parquet")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "model" in answer.err


LIGHT = """
import contextlib, io, sys
from pathlib import Path
from pipeline.cli import main

def call(*words):
    sys.argv = ["pipeline", *words]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            assert end.code == 0, (words, end.code)
    loaded = [name for name in sys.argv[0:0] + HEAVY if name in sys.modules]
    assert not loaded, (words, loaded)

HEAVY = ["torch", "pydantic"]
data = next(Path("results/datasets").glob("copy-train-*"))
call("--help")
call("describe", "dataset", data.name)
HEAVY = ["torch", "matplotlib", "wandb"]
for words in (["check"], ["plan"], ["status"], ["list"], ["show", "lstm"], ["schema"], ["prune"]):
    call(*words)
HEAVY = ["torch", "wandb"]
call("generate", str(data), "--shard", "0")
call("seal", str(data))
call("collect", "results/experiments/tiny/experiment.yaml")
call("plot", "accuracy_by_delay", "tiny")
"""


def test_commands_that_do_not_need_torch_do_not_import_it(folder: Path) -> None:
    answer = subprocess.run([sys.executable, "-c", LIGHT], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr


def test_help_is_fast() -> None:
    before = os.times()
    subprocess.run([sys.executable, "-m", "pipeline", "--help"], check=True, capture_output=True, timeout=60)
    after = os.times()
    assert (after.children_user + after.children_system) - (before.children_user + before.children_system) < 1


def test_runtime_settings_come_from_the_frozen_plan(folder: Path) -> None:
    from pipeline.cli.param_types import results_folder
    from pipeline.cli.stages import settings

    assert settings(folder / "results")[0]["threads"] == 1
    assert settings(folder / "elsewhere") == ({}, {})
    assert results_folder(Path("results/runs/x/run.yaml"), "runs", "x") == folder / "results"
    assert json.loads((folder / "results" / ".pipeline" / "plan.json").read_text())["tracking"]["wandb"] == "off"
