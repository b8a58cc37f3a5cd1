"""The code blocks in the docs run as they are, and the commands they show exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from pipeline.cli import cli
from pipeline.cli.reference import cli_text

REPOSITORY = Path(__file__).resolve().parents[1]
EXTENDING = REPOSITORY / "docs" / "extending.md"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def block(title: str) -> str:
    """The code block of docs/extending.md that is titled with a file name."""
    found = re.findall(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```$', EXTENDING.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{title}: {len(found)} blocks of this title"
    return found[0]


def run(folder: Path, *words: str, cwd: Path) -> str:
    """Call python with what lies in `folder` before anything installed; its output, of which it may say nothing but good."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documented mixer as an installed package: what `pip install` leaves in site-packages."""
    site = tmp_path_factory.mktemp("site")
    folder = site / "recurlab_leaky"
    folder.mkdir()
    (folder / "__init__.py").touch()
    entry = block("pipeline/config/mixers/vectors.py").replace("pipeline.mixers.leaky:Leaky", "recurlab_leaky.leaky:Leaky")
    (folder / "entry.py").write_text(block("recurlab_leaky/entry.py") + "\n\n" + entry, encoding="utf-8")
    code = block("pipeline/mixers/leaky.py")
    assert code.count("from pipeline.config.mixers import Leaky") == 1
    (folder / "leaky.py").write_text(
        code.replace("from pipeline.config.mixers import", "from recurlab_leaky.entry import"), encoding="utf-8"
    )
    project = tomllib.loads(block("pyproject.toml"))["project"]
    info = site / f"recurlab_leaky-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n", encoding="utf-8")
    return site


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the documented entry and file in it, and nothing else edited."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(REPOSITORY / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    page = folder / "pipeline" / "config" / "mixers" / "vectors.py"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n\n{block('pipeline/config/mixers/vectors.py')}", encoding="utf-8")
    (folder / "pipeline" / "mixers" / "leaky.py").write_text(block("pipeline/mixers/leaky.py"), encoding="utf-8")
    return folder


def test_the_documented_mixer_is_in_the_catalogue(package: Path, tmp_path: Path) -> None:
    assert re.search(r"^ +leaky +Leaky integrator", run(package, "-m", "pipeline", "list", "mixers", cwd=tmp_path), re.MULTILINE)
    shown = run(package, "-m", "pipeline", "show", "leaky", cwd=tmp_path)
    assert re.search(r"^  horizon: 100   \(>= 2\)\n      Longest initial time constant, in steps\. Raise it", shown, re.MULTILINE)


def test_the_documented_mixer_keeps_the_contracts(package: Path) -> None:
    words = (
        "-m",
        "pytest",
        "tests/mixers/test_contract.py",
        "tests/mixers/test_recurrence.py",
        "tests/learners/test_matrix.py",
        "-k",
        "leaky",
        "-q",
        "-p",
        "no:cacheprovider",
    )
    passed = re.search(r"(\d+) passed", run(package, *words, cwd=REPOSITORY))
    assert passed
    assert int(passed.group(1)) >= 20, "the contract tests did not pick it up"


@pytest.mark.parametrize("place", ["package", "tree"])
def test_the_documented_mixer_trains(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    sizes = [
        "task.delay=4",
        "task.symbols=2",
        "network.width=8",
        "learner.steps=6",
        "learner.batch_size=4",
        "learner.validation_rows=8",
        "evaluate.rows=8",
    ]
    words = [word for size in ("network.mixer.name=leaky", "network.mixer.horizon=10", *sizes) for word in ("--set", size)]
    table = run(request.getfixturevalue(place), "-m", "pipeline", "try", "copy", *words, "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert re.search(r"^\| leaky \|", table, re.MULTILINE)
    assert (tmp_path / "out" / "runs").exists()


MEASURED = """
experiments:
  copy:
    base:
      task: {name: copy, symbols: 2, delay: 4}
      network: {name: sequence, mixer: lstm, width: 8}
      learner: {name: supervised, steps: 6, batch_size: 4, validation_rows: 8}
      evaluate: {rows: 20, delays: [2, 4, 8], measurement: first_token}
    sweep: {seed: [0, 1]}
    figures: [{name: accuracy_by, column: delay}, accuracy_at_longest, seed_dots]
"""
MEASURING = """
from pathlib import Path

from pipeline.in_process import run_plan
from pipeline.plan import plan_file

code, table = run_plan(plan_file(Path("config.yaml")), Path("results"))
print(table)
raise SystemExit(code)
"""


def test_the_documented_measurement_and_figure_come_to_a_table_and_pictures(tmp_path: Path) -> None:
    """A copy of the package with one module for the kind of measurement, an entry and a file for the figure, and nothing else edited."""
    folder = tmp_path / "tree"
    shutil.copytree(REPOSITORY / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pipeline/evaluation/measurements/first_token.py", "pipeline/figures/seed_dots.py"):
        (folder / name).write_text(block(name), encoding="utf-8")
    page = folder / "pipeline" / "config" / "figures.py"
    entry = block("pipeline/config/figures.py")
    page.write_text(page.read_text(encoding="utf-8").replace("FIGURES = collect(", f"{entry}\n\nFIGURES = collect("), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(MEASURED, encoding="utf-8")
    table = run(folder, "-c", MEASURING, cwd=tmp_path)
    assert "## First tokens that are right (%)" in table and "## The first token: delay 8 (beyond training), symbols 2" in table
    assert re.search(r"^\| LSTM \| [\d.]+ \[[\d.]+, [\d.]+\] \|", table, re.MULTILINE)
    for name in ("accuracy_by_delay", "accuracy_at_longest", "seed_dots"):
        run(folder, "-m", "pipeline", "plot", name, "copy", cwd=tmp_path)
        assert (tmp_path / "results" / "experiments" / "copy" / f"{name}.png").stat().st_size > 5_000
    shown = run(folder, "-m", "pipeline", "list", "measurements", cwd=tmp_path)
    assert re.search(r"^ +first_token +Share of rows", shown, re.MULTILINE)


TASKS = {"latch": ("tests/tasks/test_contract.py", "gap"), "wait": ("tests/tasks/test_environments.py", "delay")}
"""Documented tasks: the tests that run over the catalogue, and the metadata column."""
TASKED = """
experiments:
  documented:
    base:
      task: {{name: {name}, {column}: {{uniform: [2, 4]}}}}
      network: {{name: {network}, mixer: lstm, width: 8}}
      learner: {learner}
      evaluate: {{rows: 20, {column}s: [2, 4, 8]}}
    figures: [{{name: accuracy_by, column: {column}}}]
"""
LEARNERS = {
    "latch": ("sequence", "{name: supervised, steps: 6, batch_size: 4, validation_rows: 8, curriculum: {column: gap, start: 2}}"),
    "wait": ("actor_critic", "{name: ppo, num_updates: 4, num_envs: 4, rollout_steps: 8, validation_rows: 8}"),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_documented_tasks_keep_the_contract_train_and_are_drawn(name: str, tmp_path: Path) -> None:
    """A copy of the package with two new modules, and nothing edited."""
    folder = tmp_path / "tree"
    for part in ("pipeline", "resources", "tests"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for module in (f"pipeline/config/tasks/{name}.py", f"pipeline/tasks/{name}.py"):
        (folder / module).write_text(block(module), encoding="utf-8")
    contract, column = TASKS[name]
    passed = re.search(
        r"(\d+) passed", run(folder, "-m", "pytest", contract, "-k", name, "-q", "-n", "0", "-p", "no:cacheprovider", cwd=folder)
    )
    assert passed and int(passed.group(1)) >= 9, "the contract tests did not pick it up"
    network, learner = LEARNERS[name]
    (tmp_path / "config.yaml").write_text(TASKED.format(name=name, column=column, network=network, learner=learner), encoding="utf-8")
    assert "| LSTM |" in run(folder, "-c", MEASURING, cwd=tmp_path)
    run(folder, "-m", "pipeline", "plot", f"accuracy_by_{column}", "documented", cwd=tmp_path)
    assert (tmp_path / "results" / "experiments" / "documented" / f"accuracy_by_{column}.png").stat().st_size > 5_000


LEARNING = """
import os, signal, sys
from pathlib import Path

from pipeline.config.config_file import Runtime, Tracking
from pipeline.learners.mutual import Mutual
from pipeline.training.train import train

spec, last = Path(sys.argv[1]), int(sys.argv[2])
update = Mutual.update

def counted(self):
    if self.steps == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self)

Mutual.update = counted
sys.exit(train(spec, spec.parents[2], Runtime(threads=1, device="cpu", checkpoint_seconds=1e-9), Tracking()))
"""
"""Trains a run with a checkpoint after every update, and kills itself after so many."""
LOADING = """
import sys
from pathlib import Path

from pipeline import load_run

run = load_run(Path(sys.argv[1]))
assert run.history["validation_accuracy"].iloc[-1] >= 0 and run.history["peer_learning_rate"].iloc[0] == 0.002
for checkpoint in ("model", "last"):
    one, other = (run.network(checkpoint, name=name).state_dict() for name in ("model", "peer"))
    assert one.keys() == other.keys() and any(not one[key].equal(other[key]) for key in one)
try:
    run.network(name="critic")
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the documented learner's entry and file in it, and nothing else edited."""
    folder = tmp_path_factory.mktemp("learner")
    shutil.copytree(REPOSITORY / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    entry = "pipeline/config/learners/mutual.py"
    (folder / entry).write_text(block(entry), encoding="utf-8")
    (folder / "pipeline" / "learners" / "mutual.py").write_text(block("pipeline/learners/mutual.py"), encoding="utf-8")
    return folder


def test_the_documented_learner_of_two_networks_is_killed_and_resumed_to_the_same_bytes(learner: Path, tmp_path: Path) -> None:
    sizes = ["task.delay=4", "task.symbols=2", "network.width=8", "learner.name=mutual", "learner.steps=6", "learner.batch_size=4"]
    sizes += ["learner.peer_learning_rate=0.002", "learner.validation_rows=8", "learner.keep=[last, best]", "learner.select=best"]
    words = [word for size in (*sizes, "learner.evaluate_every=2", "evaluate.rows=8") for word in ("--set", size)]
    whole, again = tmp_path / "whole", tmp_path / "again"
    run(learner, "-m", "pipeline", "try", "copy", *words, "--out", str(whole), cwd=tmp_path)
    (trained,) = (whole / "runs").iterdir()
    shutil.copytree(whole / "datasets", again / "datasets")
    (again / "runs" / trained.name).mkdir(parents=True)
    for name in ("run.yaml", ".run.yaml.sha256"):
        shutil.copy(trained / name, again / "runs" / trained.name)
    spec, environment = again / "runs" / trained.name / "run.yaml", {**os.environ, "PYTHONPATH": str(learner), "OMP_NUM_THREADS": "1"}
    for last in (3, 5):
        died = subprocess.run([sys.executable, "-c", LEARNING, str(spec), str(last)], cwd=tmp_path, env=environment, check=False)
        assert died.returncode == -signal.SIGKILL
    run(learner, "-c", LEARNING, str(spec), "-1", cwd=tmp_path)
    manifests = [(folder / "manifest.json").read_bytes() for folder in (trained, spec.parent)]
    assert manifests[0] == manifests[1]
    files = set(json.loads(manifests[0])["files"])
    assert {"model/model.safetensors", "model/peer.safetensors", "model/last/model.safetensors", "model/last/peer.safetensors"} <= files
    said = run(learner, "-c", LOADING, str(spec.parent), cwd=tmp_path)
    assert said.strip().endswith("network critic: not trained; expected one of model, peer")


def test_the_projects_tests_pass_with_a_plug_in_installed(package: Path) -> None:
    tests = ("tests/config/test_golden.py", "tests/test_architecture.py")
    assert "passed" in run(package, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider", cwd=REPOSITORY)


def commands(path: Path) -> list[str]:
    """Every `pipeline ...` line of a page's bash blocks, without its comment."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE) if path.exists() else []
    return [line for block in blocks for line in block.splitlines() if line.startswith("pipeline ")]


@pytest.mark.parametrize("line", sorted({line for path in PAGES for line in commands(path)}))
def test_every_command_shown_exists_with_its_options(line: str) -> None:
    name, *words = shlex.split(line, comments=True)[1:]
    command = cli.commands[name]
    with click.Context(cli, info_name="pipeline", **cli.context_settings) as top:
        command.make_context(name, words, parent=top)


def test_the_recipe_in_the_docs_is_the_one_that_runs() -> None:
    page = (REPOSITORY / "docs" / "families" / "memory.md").read_text(encoding="utf-8")
    written, preset = (
        YAML(typ="safe", pure=True).load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    )
    suite = YAML(typ="safe", pure=True).load((REPOSITORY / "workflow" / "suites" / "memory.yaml").read_text(encoding="utf-8"))
    base = suite["experiments"]["copy_40"]["base"]
    assert written == {key: base[key] for key in ("task", "network", "learner")}
    path = REPOSITORY / "workflow" / "presets" / f"{base['learner']['preset']}.yaml"
    assert preset == YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def test_the_command_line_page_is_up_to_date() -> None:
    page = (REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_text(cli), "run `pipeline schema --write`"


def test_contributing_stays_short() -> None:
    assert len((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 80
