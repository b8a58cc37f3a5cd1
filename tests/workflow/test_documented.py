"""Every command and snippet in README and docs runs as shown, with smaller budgets; commands that cannot run here are listed with the reason."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.try_ import document_of_point, try_
from pipeline.config.expand import expand
from pipeline.plan import plan_file
from tests.workflow.suite import BINARIES, REPOSITORY, Suite

pytestmark = pytest.mark.workflow

PAGES = [
    REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "docs/index.md", "docs/how-it-works.md", "docs/extending.md")
] + sorted((REPOSITORY / "docs" / "families").glob("*.md"))
"""docs/containers.md and docs/cluster.md need an image and a cluster: tests/containers and tests/slurm run what they show."""
ELSEWHERE = {
    "pipeline schema --write": "it would write into this checkout; tests/config/test_golden.py compares what it writes",
    "pipeline retrain 'copy-lstm-*' --yes": "it needs trained runs; tests/test_retrain.py has them",
    "pipeline solve RUN 53..7....6..195...": "it needs a trained run; tests/cli/test_solve.py has them",
    "pipeline submission RUN --out submission.json": "likewise",
    "pipeline export copy_sizes --format copy-study": "it needs the memory suite; tests/evaluation/test_copy_study.py has such results",
}
SMALLER = ("--set", "evaluate.rows=20", "--set", "learner.validation_rows=20", "--set")
"""Options added to every `pipeline try`."""
BUDGETS = ("learner.rows", "learner.steps", "learner.flops", "learner.seconds", "learner.updates", "learner.total_timesteps")
# Commands with the mixer of docs/extending.md run in tests/test_contributing.py, which installs it.


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def lines(*starts: str) -> list[str]:
    """The lines of bash blocks that start so, without their comments."""
    found = {
        shlex.join(shlex.split(line, comments=True)) for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()
    }
    return sorted(line for line in found if line.startswith(starts))


def smaller(words: list[str]) -> list[str]:
    """The words of `pipeline try` with a budget of seconds in the place of their own."""
    acts = words[2] in ("gymnasium", "t_maze", "mystery_path")
    kept = words[:3]
    for option, value in zip(words[3::2], words[4::2], strict=True):
        kept += [] if value.partition("=")[0] in BUDGETS else [option, value]
    return [*kept, *SMALLER, *(("learner.total_timesteps=2048",) if acts else ("learner.rows=2048", "--set", "learner.warmup_steps=0"))]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("line", [line for line in lines("pipeline ") if line not in ELSEWHERE and "leaky" not in line])
def test_the_command_runs(line: str, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    words = shlex.split(line)
    done = call(tmp_path, *(smaller(words) if words[1] == "try" else words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() or list((tmp_path / words[words.index("--out") + 1]).glob("*.parquet"))


def test_commands_tested_elsewhere_are_still_documented() -> None:
    assert set(ELSEWHERE) <= set(lines("pipeline "))


def test_generated_rows_can_be_read_as_documented(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "families" / "memory.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(pipeline generate.*?)^```$", page, re.DOTALL | re.MULTILINE)
    done = call(tmp_path, "bash", "-ec", block)
    assert done.returncode == 0 and "'tokens'" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("line", lines("make", "snakemake"))
def test_documented_make_and_snakemake_calls_work(line: str, finished: Suite, workspace: Callable[..., Suite]) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        assert call(REPOSITORY, "make", "-n", *words[1:]).returncode == 0
    else:
        code, output = workspace().call(*words[1:])
        assert code == 0, output


@pytest.mark.parametrize(("page", "number"), [("README.md", 0), ("docs/how-it-works.md", 0)])
def test_the_snippet_runs_on_finished_results(page: str, number: int, finished: Suite) -> None:
    snippet = blocks(REPOSITORY / page, "python")[number]
    named = re.findall(r'load_run\("([^"]+)"\)', snippet)
    assert set(named) <= set(plan_file(REPOSITORY / "config.yaml").runs), "a run of the default suite"
    run = next(path.name for path in sorted((finished.results / "runs").iterdir()))
    done = call(finished.folder, sys.executable, "-c", re.sub(r'load_run\("[^"]+"\)', f'load_run("{run}")', snippet))
    assert done.returncode == 0, done.stderr


def as_written(line: str) -> list[str]:
    words = shlex.split(line)
    return [value for word, value in itertools.pairwise(words) if word == "--set"]


EXAMPLES = [line.strip() for line in (try_.help or "").splitlines() if line.strip().startswith("pipeline try")]


@pytest.mark.parametrize("line", [line for line in [*lines("pipeline try"), *EXAMPLES] if "leaky" not in line])
def test_the_settings_of_a_documented_try_go_together(line: str) -> None:
    """As written: above, every training has a smaller budget and no warm-up."""
    (experiment,) = expand(document_of_point(shlex.split(line)[2], REPOSITORY / "config.yaml", tuple(as_written(line)))).experiments
    assert len(experiment.members) == 1
