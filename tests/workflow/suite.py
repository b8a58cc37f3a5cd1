"""A tiny suite run for real by Snakemake in a folder of its own."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(sys.executable).parent
VARYING = ("logs", "benchmarks", "checkpoints", ".pipeline", "profiles", "reports", "wandb")
SIDECARS = ("timing.parquet", "costs.parquet", "environment.json")

TINY: dict[str, Any] = {
    "experiments": {
        "first": {
            "question": "Does it run?",
            "base": {
                "task": {"name": "copy", "symbols": 3, "delay": {"log_uniform": [1, 8]}, "alphabet": 4},
                "network": {"name": "sequence", "mixer": "gru", "width": 8},
                "learner": {
                    "name": "supervised",
                    "steps": 30,
                    "batch_size": 8,
                    "learning_rate": 0.01,
                    "evaluate_every": 10,
                    "validation_rows": 32,
                },
                "evaluate": {"rows": 32, "delays": [4, 8]},
                "seed": 0,
            },
            "sweep": {"network.mixer": ["gru", "none"]},
            "figures": [{"name": "accuracy_by", "column": "delay"}],
        },
    },
}


def tiny() -> dict[str, Any]:
    """A copy of the tiny config, free to be changed."""
    return copy.deepcopy(TINY)


class Suite:
    """A folder with a config.yaml, and what Snakemake does in it."""

    PATIENCE = 900
    """Seconds that one invocation may take."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder / "cache")}
        self.write(config)

    def write(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        stream = io.StringIO()
        YAML(typ="safe", pure=True).dump(config, stream)
        (self.folder / "config.yaml").write_text(stream.getvalue())

    def command(self, *words: str) -> list[str]:
        """Plain `snakemake` with the repository's Snakefile and default profile."""
        return [str(BINARIES / "snakemake"), "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2", *words]

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start Snakemake in a process group of its own."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of one invocation."""
        process = self.start(*words, **environment)
        output, _ = process.communicate(timeout=self.PATIENCE)
        return process.returncode, output

    def run(self, **environment: str) -> Counter[str]:
        """Run to the end and say which jobs were done."""
        code, output = self.call(**environment)
        assert code == 0, output
        return jobs(output)

    def planned(self, *words: str) -> Counter[str]:
        """The jobs of a dry run."""
        code, output = self.call("--dry-run", *words)
        assert code == 0, output
        return jobs(output)

    def pipeline(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call the `pipeline` command in the folder."""
        return subprocess.run(
            [str(BINARIES / "pipeline"), *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file of the digested set: all that must not vary from run to run of the same config."""
        files = [path for path in sorted(self.results.rglob("*")) if path.is_file() and _digested(path.relative_to(self.results))]
        return {str(path.relative_to(self.results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made_once(factory: pytest.TempPathFactory, name: str, config: dict[str, Any]) -> tuple[Suite, Counter[str]]:
    """A suite run to its end in a folder that all workers of a test run share, by the first that asks; and the jobs it took."""
    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, done = shared / f"a földer of {name}", shared / f"{name}.json"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            done.write_text(json.dumps(Suite(folder, config).run()))
    return Suite(folder, config), Counter(json.loads(done.read_text()))


def _digested(path: Path) -> bool:
    timed = path.name.startswith(("training_time", "step_cost"))
    return (
        path.parts[0] not in VARYING and path.name not in SIDECARS and not timed and not path.name.endswith((".tmp", ".sha256", ".damaged"))
    )


def jobs(output: str) -> Counter[str]:
    """The job counts that Snakemake announces, without `all` and the total."""
    found = re.findall(r"^([a-z_]+) +(\d+)$", output, re.MULTILINE)
    return Counter({name: int(count) for name, count in dict(found).items() if name not in ("all", "total")})


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Poll until `condition()` is true; on timeout fail with what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
