"""The lock on a results folder, and the frozen plan that jobs read."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import workspace
from pipeline.frozen_plan import frozen_plan_path, frozen_spec
from pipeline.plan import Plan
from pipeline.results_lock import acquire_lock, owner
from pipeline.storage.errors import BusyError, MissingFileError, UserError
from pipeline.workspace import Workspace, is_read_only
from tests.config.rich import SMALL

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.results_lock import acquire_lock
held = acquire_lock(Path("results"))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another_owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds results/ below the folder until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, and the current one."""
    (tmp_path / "config.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(*words: str, main: bool = True) -> Workspace:
    """The workspace that Snakemake called with these words opens."""
    return Workspace(Path("config.yaml"), Path("results"), main=main, arguments=list(words))


def test_a_second_owner_is_refused_with_the_name_of_the_first(folder: Path) -> None:
    with another_owner(folder) as process:
        with pytest.raises(BusyError) as caught:
            acquire_lock(Path("results"))
        said = str(caught.value)
        assert said.startswith(f"results: another pipeline is running here (pid {process.pid} on {socket.gethostname()} since 20")
        assert "\n" not in said
        live = owner(Path("results"))
        assert live is not None
        assert live["pid"] == process.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_is_released_when_its_owner_dies(folder: Path, number: signal.Signals) -> None:
    with another_owner(folder) as process:
        process.send_signal(number)
        process.wait()
        assert owner(Path("results")) is None
        with acquire_lock(Path("results")):
            live = owner(Path("results"))
            assert live is not None
            assert live["pid"] == os.getpid()
    assert owner(Path("results")) is None


def test_children_of_the_owner_do_not_inherit_the_lock(folder: Path) -> None:
    with acquire_lock(Path("results")):
        child = subprocess.Popen(["sleep", "30"])
    try:
        assert owner(Path("results")) is None
        acquire_lock(Path("results")).close()
    finally:
        child.kill()
        child.wait()


def test_reading_the_owner_never_blocks_a_new_one(folder: Path) -> None:
    acquire_lock(Path("results")).close()
    with Path("results/.pipeline/owner").open("r") as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        release = threading.Timer(0.1, lambda: fcntl.flock(looker, fcntl.LOCK_UN))
        release.start()
        acquire_lock(Path("results")).close()
        release.join()


def test_a_new_owner_deletes_stale_snakemake_locks(folder: Path) -> None:
    locks = folder / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    stale = [locks / "0.input.lock", locks / "0.output.lock"]
    for lock in stale:
        lock.touch()
    with another_owner(folder):
        for lock in stale:
            lock.touch()
        with pytest.raises(BusyError):
            opened()
        opened("-n")
        assert all(lock.exists() for lock in stale)
    held = opened()
    assert held.lock is not None
    assert not list(locks.iterdir())
    held.lock.close()


@pytest.mark.parametrize(
    "words", [["-n"], ["--dry-run", "--cores", "2"], ["-np"], ["-nq", "all"], ["--lint"], ["--dag"], ["--summary"], ["-l"]]
)
def test_read_only_options_take_no_lock_and_write_nothing(words: list[str], folder: Path) -> None:
    found = opened(*words)
    assert found.lock is None
    assert found.plan.runs
    assert sorted(folder.iterdir()) == [folder / "config.yaml"]


@pytest.mark.parametrize(
    "words", [[], ["--cores", "2"], ["--config", "suite=-n"], ["--report", "r.html"], ["--no-lock", "all"], ["--nolock"], ["-j4"]]
)
def test_other_options_are_not_read_only(words: list[str]) -> None:
    assert not is_read_only(words)


def test_snakemake_knows_every_read_only_option() -> None:
    from snakemake.cli import get_argument_parser

    known = get_argument_parser()._option_string_actions
    assert set(known) >= workspace.READ_ONLY


def test_the_owner_freezes_its_plan_and_jobs_read_it(folder: Path) -> None:
    main = opened()
    assert frozen_plan_path(Path("results")).read_text() == main.plan.to_json()
    (folder / "config.yaml").write_text(SMALL.replace("steps: 5", "steps: 6"))
    job = opened("--target-jobs", "x", main=False)
    assert job.plan == main.plan
    assert job.lock is None
    (folder / "config.yaml").write_text("nonsense: [")
    assert opened(main=False).plan == main.plan
    with pytest.raises(UserError, match=r"config\.yaml:1: not YAML"):
        opened("-n")
    assert main.lock is not None
    main.lock.close()


def test_a_dry_run_beside_a_live_owner_reads_the_edited_config(folder: Path) -> None:
    main = opened()
    (folder / "config.yaml").write_text(SMALL.replace("steps: 5", "steps: 6"))
    assert set(opened("-n").plan.runs) != set(main.plan.runs)
    assert Plan.from_json(frozen_plan_path(Path("results")).read_text()) == main.plan
    assert main.lock is not None
    main.lock.close()


def test_an_invalid_config_leaves_the_folder_untouched(folder: Path) -> None:
    (folder / "config.yaml").write_text(SMALL.replace("steps", "stesp"))
    with pytest.raises(UserError, match="did you mean 'steps'"):
        opened()
    assert sorted(folder.iterdir()) == [folder / "config.yaml"]


def test_a_job_without_a_frozen_plan_is_an_error(folder: Path) -> None:
    with pytest.raises(MissingFileError, match=r"^results/\.pipeline/plan\.json: no such file; expected the plan that snakemake freezes"):
        opened(main=False)


def test_specs_are_read_from_the_frozen_plan(folder: Path) -> None:
    main = opened()
    for kind, things in (
        ("dataset", main.plan.datasets),
        ("network", main.plan.networks),
        ("run", main.plan.runs),
        ("experiment", main.plan.experiments),
    ):
        for name in things:
            assert frozen_spec(Path("results"), kind, name) == main.plan.spec(kind, name)
    with pytest.raises(UserError, match=r"^run copy-x: not in the frozen plan results/\.pipeline/plan\.json; 'pipeline plan' shows"):
        frozen_spec(Path("results"), "run", "copy-x")
    assert main.lock is not None
    main.lock.close()


def test_an_invalid_config_exits_with_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text(SMALL.replace("steps", "stesp"))
    with pytest.raises(SystemExit) as caught:
        Workspace.open(Path("config.yaml"), Path("results"), SimpleNamespace(is_main_process=True))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "config.yaml:6: experiments.a.base.learner.stesp: unknown key; did you mean 'steps'?\n"


def test_a_file_in_place_of_the_folder_is_one_line(folder: Path) -> None:
    (folder / "results").write_text("")
    with pytest.raises(UserError, match=r"^results/\.pipeline/owner: is a file, expected a folder; move it away$"):
        acquire_lock(Path("results"))
    (folder / "results").unlink()
    (folder / "results" / ".pipeline" / "owner").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^results/\.pipeline/owner: is a folder, expected a file; move it away$"):
        acquire_lock(Path("results"))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "permission denied; expected a writable folder"),
        (errno.EROFS, "read-only file system; expected a writable folder"),
        (errno.ENOSPC, "the disk is full; free some space and run again (no results are lost)"),
        (errno.EDQUOT, "the disk quota is exceeded; free some space and run again (no results are lost)"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(number: int, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(UserError) as caught:
            acquire_lock(Path("results"))
    assert str(caught.value) == f"results/.pipeline/owner: {message}"


def test_a_file_system_without_locks_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        UserError, match=r"^results/\.pipeline/owner: cannot be locked \(No locks available\); expected a file system with flock$"
    ):
        acquire_lock(Path("results"))


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a read-only file system needs root on Linux")
def test_a_read_only_file_system_is_one_line(folder: Path) -> None:
    (folder / "results").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder / "results")], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(UserError, match="read-only file system"):
            acquire_lock(Path("results"))
    finally:
        subprocess.run(["umount", str(folder / "results")], check=True)


def test_the_lock_file_names_the_owner(folder: Path) -> None:
    with acquire_lock(Path("results")):
        written = json.loads((folder / "results" / ".pipeline" / "owner").read_text())
    assert written["pid"] == os.getpid()
    assert written["host"] == socket.gethostname()
    assert set(written) == {"pid", "host", "since"}
