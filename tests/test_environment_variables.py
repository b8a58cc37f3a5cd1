"""The table of environment variables, and `clean_environment`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.environment_variables import TABLE, clean_environment, recorded, treatment

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MPLBACKEND", "removed"),
        ("MPLCONFIGDIR", "honoured"),
        ("WANDB_API_KEY", "honoured"),
        ("WANDB_CACHE_DIR", "honoured"),
        ("WANDB_DIR", "removed"),
        ("WANDB_PROJECT", "removed"),
        ("PYTHONPATH", "searched last"),
        ("PYTHONUNBUFFERED", "honoured"),
        ("PIP_USER", "removed"),
        ("PIP_INDEX_URL", "honoured"),
        ("MKL_CBWR", "recorded"),
        ("MKL_DYNAMIC", "honoured"),
        ("BASH_ENV", "removed"),
        ("EDITOR", ""),
    ],
)
def test_the_first_matching_entry_applies(name: str, expected: str) -> None:
    assert treatment(name) == expected


def test_removed_variables_are_deleted_and_others_stay() -> None:
    environ = {"MPLBACKEND": "module://x", "WANDB_MODE": "online", "WANDB_API_KEY": "k", "EDITOR": "vi", "BASH_ENV": "/x"}
    clean_environment(environ)
    assert environ == {"WANDB_API_KEY": "k", "EDITOR": "vi"}


def test_variables_that_affect_rounding_are_recorded() -> None:
    assert recorded({"ATEN_CPU_CAPABILITY": "default", "HOME": "/root"}) == {"ATEN_CPU_CAPABILITY": "default"}


def test_the_makefile_unsets_removed_variables() -> None:
    lines = re.findall(r"^unexport (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    unset = {name for line in lines for name in line.split()} - {"PYTHONDONTWRITEBYTECODE"}
    wanted = {name for entry in TABLE if entry.treatment in ("removed", "searched last") for name in entry.names.split()}
    assert unset == wanted - {"WANDB_*"}


@pytest.mark.parametrize("heavy", ["numpy", "torch"])
def test_pythonpath_is_searched_last(heavy: str, tmp_path: Path) -> None:
    (tmp_path / heavy).mkdir()
    (tmp_path / heavy / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "of_a_user.py").write_text("")
    code = f"from pipeline.environment_variables import clean_environment; clean_environment(); import {heavy}, of_a_user"
    environ = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, cwd=REPOSITORY, timeout=120)


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_an_ascii_terminal_does_not_stop_a_command(variables: dict[str, str], tmp_path: Path) -> None:
    text = "experiments:\n  é: {}\n"
    (tmp_path / "ünsinn.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pipeline", "check", "ünsinn.yaml"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **variables}
    done = subprocess.run(command, capture_output=True, env=environ, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
