"""Checks before jobs are submitted, with fake SLURM and Apptainer commands; tests/slurm uses the real ones."""

from __future__ import annotations

import os
import socket
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import slurm
from pipeline.apptainer import image_digest
from pipeline.job_settings import JobSettings
from pipeline.slurm import cancel_leftover_jobs
from pipeline.storage.errors import UserError
from tests.training.deaths import wait_for


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fake commands, the only one on PATH; the current folder is empty except for logs of SLURM jobs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    work = tmp_path / "work"
    (work / "results" / "logs" / "slurm").mkdir(parents=True)
    monkeypatch.chdir(work)
    return folder


def command(folder: Path, name: str, script: str) -> None:
    """A command that is a shell script."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


class Method(Enum):
    """Snakemake's DeploymentMethod."""

    APPTAINER = 1


def workflow(methods: tuple[Method, ...] = (), default: str | None = None, train: str | None = None) -> SimpleNamespace:
    """The part of Snakemake's workflow object that JobSettings reads."""
    blocks = [{"slurm_partition": SimpleNamespace(raw=name)} if name else {} for name in (default, train)]
    resources = SimpleNamespace(default_resources=blocks[0], overwrite_resources={"train": blocks[1]})
    deployment = SimpleNamespace(deployment_method=set(methods))
    return SimpleNamespace(resource_settings=resources, deployment_settings=deployment)


def test_settings_come_from_the_profile_and_the_command_line() -> None:
    plain = workflow()
    plain.resource_settings.default_resources = None
    assert JobSettings.from_workflow(plain, "x.sif") == JobSettings([], None)
    asked = workflow((Method.APPTAINER,), default="'main'", train="gpu")
    assert JobSettings.from_workflow(asked, "x.sif") == JobSettings(["main", "gpu"], "x.sif")


def test_local_jobs_need_no_checks(commands: Path) -> None:
    JobSettings().check()
    cancel_leftover_jobs(Path("results"), None)


def test_unknown_partitions_are_refused(commands: Path) -> None:
    with pytest.raises(UserError, match=r"^slurm: sbatch is not on PATH; start Snakemake on a login node"):
        JobSettings(["main"]).check()
    command(commands, "sbatch", "")
    command(commands, "sinfo", "echo main; echo gpu")
    JobSettings(["main", "gpu"]).check()
    with pytest.raises(UserError, match=r"^profiles/slurm/config\.yaml: slurm_partition: got big, expected one of gpu, main$"):
        JobSettings(["main", "big"]).check()


def test_an_unreachable_controller_is_a_one_line_error(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(commands, "sbatch", "")
    command(commands, "sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match=r"^slurm: the controller does not answer \(slurm_load_partitions: Unable to contact"):
        JobSettings(["main"]).check()
    monkeypatch.setattr(slurm, "COMMAND_TIMEOUT", 0.2)
    command(commands, "sinfo", "exec /bin/sleep 5")
    with pytest.raises(UserError, match=r"^slurm: sinfo timed out after 0 s"):
        JobSettings(["main"]).check()


def test_a_missing_image_is_refused(commands: Path) -> None:
    with pytest.raises(UserError, match=r"^apptainer: not on PATH"):
        JobSettings(image="x.sif").check()
    command(commands, "apptainer", "")
    with pytest.raises(UserError, match=r"^runtime\.container: x\.sif: no such image; 'make sif' builds"):
        JobSettings(image="x.sif").check()
    Path("x.sif").touch()
    JobSettings(image="x.sif").check()
    JobSettings(image="docker://somewhere/recurlab:cpu").check()


def test_an_image_is_kept_open_until_this_process_exits(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this host only: jobs of a cluster run elsewhere."""
    monkeypatch.setenv("APPTAINERENV_RECURLAB_IMAGE", "")
    command(commands, "apptainer", 'echo "$@" > words; while read -r line; do :; done; echo closed > ended')
    Path("x.sif").touch()
    for elsewhere in (JobSettings(), JobSettings(["main"], "x.sif"), JobSettings(image="docker://somewhere/recurlab:cpu")):
        elsewhere.prepare_image(Path("results"))
        assert not elsewhere.image_holders
    settings = JobSettings(image="x.sif")
    settings.prepare_image(Path("results"))
    assert os.environ["APPTAINERENV_RECURLAB_IMAGE"] == image_digest(Path("x.sif"), Path("no cache"))
    wait_for(lambda: Path("words").exists() and Path("words").read_text())
    assert Path("words").read_text() == "--quiet exec x.sif cat\n"
    assert not Path("ended").exists()
    settings.image_holders[0].communicate()  # closes its standard input, as the end of this process does
    assert Path("ended").exists()


def test_leftover_jobs_are_cancelled_and_waited_for(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path.cwd()
    command(commands, "scancel", 'echo "$@" > cancelled')
    command(commands, "squeue", f"[ -e cancelled ] || printf '7|recurlab_a|{here}\\n8|recurlab_a|/elsewhere\\n9|mine|{here}\\n'")
    cancel_leftover_jobs(Path("results"), {"host": socket.gethostname()})
    assert Path("cancelled").read_text() == "7\n"
    assert capsys.readouterr().err == "results: cancelling 1 jobs that an earlier run left in SLURM's queue\n"


def test_jobs_that_do_not_end_or_belong_to_another_host_are_a_one_line_error(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "CANCEL_TIMEOUT", 0.1)
    command(commands, "scancel", "")
    command(commands, "squeue", f"echo '7|recurlab_a|{Path.cwd()}'")
    with pytest.raises(UserError, match=r"^results: cancelled jobs 7 have not ended after 0 s; try again later$"):
        cancel_leftover_jobs(Path("results"), {"host": socket.gethostname()})
    with pytest.raises(UserError, match=r"^results: 1 jobs of a pipeline on elsewhere are in SLURM's queue; .* scancel 7$"):
        cancel_leftover_jobs(Path("results"), {"host": "elsewhere"})
