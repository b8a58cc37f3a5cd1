"""Checkpoints: the newest undamaged one is found, damage is always noticed, a half-written one never counts."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.storage.errors import BusyError, ForeignSpecError, UserError
from pipeline.training.checkpoint import KEPT, Checkpoints, Saved
from pipeline.training.lease import Lease
from pipeline.training.serialization import read_tensors
from pipeline.training.stamp import Stamp

SPEC = "5" * 64
MUTATIONS = 60


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    with Lease(tmp_path / "run") as lease:
        assert lease.acquire()
        yield Checkpoints(tmp_path / "run", Stamp(SPEC), lease)


def state(step: int) -> dict[str, object]:
    return {"step": step, "weights": torch.full((50,), float(step)), "history": [{"loss": 0.1 * step}]}


def step_of(saved: Saved | None) -> int | None:
    return saved.state["step"] if saved else None


def test_newest_comes_back_and_two_are_kept(checkpoints: Checkpoints) -> None:
    assert checkpoints.load() is None
    for step in (1, 2, 3, 10):
        checkpoints.save(step, state(step), {})
    saved = checkpoints.load()
    assert saved and saved.state["step"] == 10 and saved.state["weights"].equal(torch.full((50,), 10.0))
    assert saved.state["history"] == [{"loss": 0.1 * 10}]
    assert len(list(checkpoints.folder.glob("step-*"))) == KEPT


def test_labelled_weights_travel_along(checkpoints: Checkpoints) -> None:
    kept = checkpoints.save(1, state(1), {"best": {"model": {"w": torch.ones(3)}}})
    kept = checkpoints.save(2, state(2), {**kept, "step-2": {"model": {"w": torch.zeros(3)}}})
    for step in (3, 4, 5):
        kept = checkpoints.save(step, state(step), kept)
    saved = checkpoints.load()
    assert saved and saved.kept == kept
    assert read_tensors(Path(str(kept["best"]["model"])))["w"].equal(torch.ones(3)) and read_tensors(Path(str(kept["step-2"]["model"])))[
        "w"
    ].equal(torch.zeros(3))


def test_labelled_weights_without_hard_links(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoints.save(1, state(1), {"best": {"model": {"w": torch.ones(3)}}})

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in (2, 3, 4):
        kept = checkpoints.save(step, state(step), kept)
    assert step_of(checkpoints.load()) == 4


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "best/model.safetensors", "manifest.json"])
def test_every_damage_is_noticed(checkpoints: Checkpoints, capfd: pytest.CaptureFixture[str], name: str) -> None:
    kept = checkpoints.save(1, state(1), {"best": {"model": {"w": torch.ones(9)}}})
    checkpoints.save(2, state(2), kept)
    newest = checkpoints.folder / "step-000000000002" / name
    newest.write_bytes(whole := newest.read_bytes())  # best/model.safetensors shares its bytes with the older checkpoint until here
    if newest.stat().st_nlink > 1:
        newest.unlink()
    draw = random.Random(0)
    for trial in range(MUTATIONS // 4):
        damaged = bytearray(whole)
        if trial % 3 == 2:
            damaged = damaged[: draw.randrange(len(whole))]
        else:
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        newest.write_bytes(damaged)
        assert step_of(checkpoints.load()) == 1, (name, trial)
        said = capfd.readouterr().err.splitlines()
        assert len(said) == 1 and name in said[0] and "trying the checkpoint before it" in said[0]
    newest.unlink()
    assert step_of(checkpoints.load()) == 1


def test_all_damaged_starts_from_the_beginning(checkpoints: Checkpoints, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step), {})
    for folder in checkpoints.folder.glob("step-*"):
        (folder / "state.json").write_text("{}")
    assert checkpoints.load() is None
    assert "no undamaged checkpoint is left; starting from the beginning" in capfd.readouterr().err
    checkpoints.save(1, state(1), {})
    assert step_of(checkpoints.load()) == 1
    assert [folder.name for folder in checkpoints.folder.glob("step-*")] == ["step-000000000001"]


def test_a_damaged_step_is_replaced_when_it_is_reached_again(checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step), {})
    (checkpoints.folder / "step-000000000002" / "manifest.json").unlink()
    assert step_of(checkpoints.load()) == 1
    checkpoints.save(2, state(2), {})
    assert step_of(checkpoints.load()) == 2


def test_another_specification_is_refused(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, state(1), {})
    with pytest.raises(ForeignSpecError, match=r"step-0+1: belongs to specification 555555555555, expected 777777777777; delete "):
        Checkpoints(checkpoints.folder, Stamp("7" * 64), checkpoints.lease).load()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("at", range(1, 10, 2))
def test_a_full_disk_leaves_the_older_checkpoint(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, code: int, at: int) -> None:
    checkpoints.save(1, state(1), {})
    real, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise OSError(code, os.strerror(code))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"step-0+2.*(disk is full|quota is exceeded); free some space and run again"):
            checkpoints.save(2, state(2), {"best": {"model": {"w": torch.ones(2)}}})
    assert step_of(checkpoints.load()) in (1, 2)
    assert {path.name[:5] for path in checkpoints.folder.iterdir()} <= {"step-", "lock", "lease"}
    checkpoints.save(2, state(2), {})
    assert step_of(checkpoints.load()) == 2


def test_nothing_is_written_without_the_lease(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "lease.json").unlink()
    with pytest.raises(BusyError, match="no longer ours to train: its lease was deleted"):
        checkpoints.save(1, state(1), {})
    assert not list(checkpoints.folder.glob("*step-*"))
