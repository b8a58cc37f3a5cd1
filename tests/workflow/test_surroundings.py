"""Environment variables and an unwritable home folder neither change the results nor stop a command."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workflow.suite import BINARIES, REPOSITORY, Suite, tiny

pytestmark = pytest.mark.workflow

FONTS = "font.size: 30\naxes.facecolor: red\nsavefig.dpi: 7\n"


def brought_along(folder: Path) -> dict[str, str]:
    """All at once: variables of Python, pip, uv, matplotlib, the locale, OpenMP, git, wandb, Snakemake and bash, and a home like a full disk."""
    (folder / "bash").write_text("exit 3\n")
    (folder / "matplotlibrc").write_text(FONTS)
    (folder / "late").mkdir()
    (folder / "late" / "scipy.py").write_text("raise SystemExit('the wrong scipy')\n")
    return {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(folder / "matplotlibrc"),
        "PYTHONPATH": str(folder / "late"),
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "ascii",
        "PYTHONHASHSEED": "7",
        "PIP_USER": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "UV_SYSTEM_PYTHON": "1",
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
        "OMP_NUM_THREADS": "3",
        "GIT_DIR": "/nowhere",
        "GIT_WORK_TREE": "/nowhere",
        "WANDB_MODE": "online",
        "WANDB_PROJECT": "another",
        "WANDB_DIR": "/nowhere",
        "BASH_ENV": str(folder / "bash"),
        "CDPATH": "/",
        "TMPDIR": "/nowhere",
        "HOME": "/proc/nowhere",
    }


def test_environment_variables_do_not_change_results(finished: Suite, tmp_path: Path) -> None:
    variables = brought_along(tmp_path)
    suite = Suite(tmp_path, tiny())
    assert (tmp_path / "matplotlibrc").exists(), "matplotlib reads it in the folder it works in"
    suite.run(**variables)
    assert suite.digests() == finished.digests()
    assert not list(suite.results.glob("wandb*"))


def test_make_runs_in_a_folder_and_with_a_suite_whose_names_have_spaces_and_without_a_home(finished: Suite, tmp_path: Path) -> None:
    """A checkout of its own, whose .venv is that of these tests."""
    checkout = tmp_path / "my clone"
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    (checkout / ".venv").symlink_to(BINARIES.parent)
    (BINARIES.parent / ".ready").touch()
    shutil.copytree(finished.folder / "results", checkout / "results")
    shutil.rmtree(checkout / "results" / ".pipeline" / "suites")
    shutil.copytree(finished.folder / ".snakemake", checkout / ".snakemake")
    shutil.copy(finished.folder / "config.yaml", checkout / "my süite.yaml")
    config = (checkout / "my süite.yaml").read_text().replace("delays: [4, 8]", "delays: [4, 9]")
    (checkout / "my süite.yaml").write_text(config)
    variables = brought_along(tmp_path) | {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["make", "SUITE=my süite.yaml"], cwd=checkout, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout / "results" / "reports" / "my-suite.html").exists()
