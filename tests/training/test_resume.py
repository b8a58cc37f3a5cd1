"""A training that is killed anywhere ends in the same bytes as one that is not: dropout, averaging, schedule, curriculum, labels included.

Shards (rows in memory, and by row groups) and streams; the kill falls into the middle of an epoch and of a window of batches.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from pipeline.storage.errors import ForeignSpecError, UserError
from pipeline.storage.seals import write_sealed
from pipeline.storage.tables import read_table
from pipeline.training.run_status import run_status
from pipeline.training.signals import RESUMABLE
from tests.training.deaths import ended, spawn, train_and_die, train_counting, wait_for
from tests.training.tiny import digests, tiny_run, train_tiny

MODES = {"shards": {}, "row groups": {"loader": "row_groups"}, "stream": {"data": "stream"}}
SHORT = {"steps": 6, "evaluate_every": 3, "keep": ["last", "best", 2], "select": "best"}
POINTS = 7
"""File operations, spread over a whole training, at which it is killed, per mode."""

Result = tuple[Path, str, dict[str, str]]
Make = Callable[[str], Result]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A finished training in each mode: its results folder, its run, its digests."""

    @cache
    def make(mode: str) -> Result:
        results = tmp_path_factory.mktemp("undisturbed")
        run = tiny_run(results, **MODES[mode], **SHORT)
        assert train_tiny(results, run) == 0
        return results, run, digests(results, run)

    return make


def fresh(made: Result, results: Path) -> str:
    """The same run described anew, with the same data and nothing trained."""
    shutil.copytree(made[0] / "datasets", results / "datasets")
    (results / "runs" / made[1]).mkdir(parents=True)
    for name in ("run.yaml", ".run.yaml.sha256"):
        shutil.copy(made[0] / "runs" / made[1] / name, results / "runs" / made[1])
    return made[1]


def operations(made: Result, results: Path) -> list[str]:
    """The names of all file operations of a training that saves after every step, in order."""
    run = fresh(made, results)
    assert train_and_die(results, run, at=-1, log=results / "log") == 0
    assert digests(results, run) == made[2], "saving must change nothing"
    return (results / "log").read_text().splitlines()


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_any_file_operation(undisturbed: Make, tmp_path: Path, mode: str) -> None:
    made = undisturbed(mode)
    names = operations(made, tmp_path / "log")
    decisive = [index for index, name in enumerate(names) if name.startswith("rename") or "/manifest.json" in name]
    offset = list(MODES).index(mode)
    spread = range(offset, len(names), len(names) // POINTS)
    for index in sorted({*spread, *decisive[offset :: len(MODES) * 3]}):
        results = tmp_path / str(index)
        run = fresh(made, results)
        assert train_and_die(results, run, at=index + 1) == -signal.SIGKILL, names[index]
        assert ended(spawn(lambda results=results, run=run: train_tiny(results, run))) == 0, names[index]
        assert digests(results, run) == made[2], names[index]
        assert not [path for path in results.rglob("*.tmp")], names[index]
        shutil.rmtree(results)


@pytest.mark.parametrize("mode", MODES)
def test_killed_again_and_again(undisturbed: Make, tmp_path: Path, mode: str) -> None:
    """The same attempt is killed ever later, so that it comes forward by less than one save at a time."""
    made = undisturbed(mode)
    run = fresh(made, tmp_path)
    for at in range(40, 400, 9):
        code = train_and_die(tmp_path, run, at)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert digests(tmp_path, run) == made[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL])
def test_signals(undisturbed: Make, tmp_path: Path, number: signal.Signals) -> None:
    made = undisturbed("shards")
    run = fresh(made, tmp_path)
    child = train_counting(tmp_path, run, tmp_path / "updates", pause=0.1, checkpoint_seconds=0.15)
    wait_for(lambda: list((tmp_path / "checkpoints" / run).glob("step-*")))
    os.kill(child, number)
    assert ended(child) == (-number if number == signal.SIGKILL else RESUMABLE)
    state = run_status(tmp_path, run)
    assert state.state == "to do" and state.detail.startswith("stopped; resumes from step ")
    if number != signal.SIGKILL:
        done = len((tmp_path / "updates").read_text().splitlines())
        assert state.detail.endswith(f" {done}"), "the step under way was finished and saved"
    assert train_tiny(tmp_path, run) == 0
    assert digests(tmp_path, run) == made[2]
    assert run_status(tmp_path, run).state == "done"


def test_timing_goes_on_counting(undisturbed: Make, tmp_path: Path) -> None:
    made = undisturbed("shards")
    run = fresh(made, tmp_path)
    child = train_counting(tmp_path, run, tmp_path / "updates", pause=0.05)
    wait_for(lambda: (tmp_path / "updates").exists() and len((tmp_path / "updates").read_text()) > 0)
    os.kill(child, signal.SIGTERM)
    assert ended(child) == RESUMABLE
    assert train_tiny(tmp_path, run) == 0
    timing = read_table(tmp_path / "runs" / run / "timing.parquet")
    assert timing.column("step").to_pylist() == read_table(tmp_path / "runs" / run / "history.parquet").column("step").to_pylist()
    seconds = timing.column("wall_seconds").to_pylist()
    assert seconds == sorted(seconds)
    assert seconds[-1] > 0.05, "the pause of the first attempt is in it"


def test_a_damaged_newest_checkpoint_costs_only_time(undisturbed: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = undisturbed("shards")
    run = fresh(made, tmp_path)
    assert train_and_die(tmp_path, run, at=190) == -signal.SIGKILL
    newest = max((tmp_path / "checkpoints" / run).glob("step-*"))
    (newest / "state.safetensors").write_bytes(b"")
    capfd.readouterr()
    assert train_tiny(tmp_path, run) == 0
    said = capfd.readouterr().err
    assert "trying the checkpoint before it" in said and "resuming from step" in said
    assert digests(tmp_path, run) == made[2]


def test_a_checkpoint_of_another_specification_is_never_used(undisturbed: Make, tmp_path: Path) -> None:
    made = undisturbed("shards")
    run = fresh(made, tmp_path)
    assert train_and_die(tmp_path, run, at=150) == -signal.SIGKILL
    spec = tmp_path / "runs" / run / "run.yaml"
    write_sealed(spec, spec.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02"))
    with pytest.raises(ForeignSpecError, match=rf"checkpoints/{run}/step-\d+: belongs to specification \w+, expected \w+; delete .*{run}"):
        train_tiny(tmp_path, run)


def test_a_result_of_another_specification_is_never_used(undisturbed: Make, tmp_path: Path) -> None:
    made = undisturbed("shards")
    run = fresh(made, tmp_path)
    assert train_tiny(tmp_path, run) == 0
    spec = tmp_path / "runs" / run / "run.yaml"
    write_sealed(spec, spec.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02"))
    with pytest.raises(ForeignSpecError, match=f"checkpoints/{run}/finished: belongs to specification"):
        train_tiny(tmp_path, run)


def test_a_full_disk_stops_in_one_line_and_loses_nothing(undisturbed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = undisturbed("shards")
    run = fresh(made, tmp_path)
    real = Path.write_bytes
    for at in (1, 5, 9):
        count = 0

        def full(self: Path, data: bytes, at: int = at) -> int:
            nonlocal count
            count += 1
            if count > at:
                real(self, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            return real(self, data)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(UserError, match=r"the disk is full; free some space and run again \(no results are lost\)"):
                train_tiny(tmp_path, run, checkpoint_seconds=1e-9)
        assert not list(tmp_path.rglob("*.tmp"))
    assert train_tiny(tmp_path, run) == 0
    assert digests(tmp_path, run) == made[2]
