"""Invalid configs, through the installed command and through Snakemake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.rich import RICH

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(sys.executable).parent
WRONG: dict[str, tuple[str | bytes | None, str]] = {
    "misspelt key": (RICH.replace("alphabet", "alphabte"), ":11: experiments.first_one.base.task.alphabte: unknown key; did you mean 'alphabet'?"),
    "wrong type": (
        RICH.replace("batch_size: 16", "batch_size: many"),
        ":33: experiments.first_one.base.learner.batch_size: got 'many'; expected a whole number",
    ),
    "out of range": (RICH.replace("dropout: 0.1", "dropout: 1.5"), ":28: experiments.first_one.base.network.dropout: got 1.5; expected less than 1"),
    "unknown component": (RICH.replace("[gru, lstm]", "[grv]"), ":65: experiments.first_one.sweep.network.mixer[0]: got 'grv'; did you mean 'gru'?"),
    "missing key": (RICH.replace("          column: delay\n", ""), ":52: experiments.first_one.base.learner.curriculum: missing key 'column'"),
    "duplicate key": (RICH.replace("  gpus: 0", "  gpus: 0\n  gpus: 1"), ":82: duplicate key 'gpus'"),
    "two budgets": (
        RICH.replace("rows: 300k", "rows: 300k\n        steps: 5"),
        ":33: experiments.first_one.base.learner.steps: got rows and steps; expected one budget out of rows, steps, flops and seconds",
    ),
    "tab": (RICH.replace("  threads: 1", "\tthreads: 1"), ":76: not YAML: a tab; expected spaces"),
    "open bracket": (RICH.replace("[5, 10]", "[5, 10"), ":61: not YAML: expected ',' or ']'"),
    "binary": (b"\x93NUMPY\x01\x00", ": not text in UTF-8 (byte 0 is 0x93); expected a config in YAML"),
    "empty": ("", ":1: got nothing; expected a mapping of keys to values"),
    "no file": (None, ": no such file; expected a config such as config.yaml"),
}  # fmt: skip


def written(folder: Path, case: str) -> str:
    """Write an invalid config and return the expected message."""
    content, message = WRONG[case]
    if content is not None:
        (folder / "suite.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return f"suite.yaml{message}"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the installed commands in a folder."""
    environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder.parent / "cache")}
    return subprocess.run(
        [str(BINARIES / words[0]), *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("case", WRONG)
def test_invalid_configs_are_one_line_from_the_command(case: str, tmp_path: Path) -> None:
    expected = written(tmp_path, case)
    before = sorted(tmp_path.iterdir())
    answer = run(tmp_path, "pipeline", "check", "suite.yaml")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(expected)
    assert answer.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("case", ["open bracket", "no file"])
def test_invalid_configs_are_one_line_from_snakemake(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    expected = written(folder, case)
    words = ["--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "1", "-n", "--config", "suite=suite.yaml"]
    answer = run(folder, "snakemake", *words)
    said = [
        line for line in (answer.stdout + answer.stderr).splitlines() if line and not line.startswith("Using workflow specific profile")
    ]
    assert answer.returncode == 2
    assert len(said) == 1, said
    assert said[0].startswith(expected)
    assert not (folder / "results").exists()
