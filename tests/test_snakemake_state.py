"""Whatever is in `.snakemake/`, Snakemake's own reader can read it after the repair."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from snakemake.persistence.file import FilePersistence

from pipeline.results_lock import acquire_lock
from pipeline.snakemake_state import FOLDERS, check_records, invalid_records, repair_state
from pipeline.storage.atomic import write_text
from pipeline.storage.errors import UserError

OUTPUTS = ["results/experiments/tiny/results.parquet", "results/runs/copy/manifest.json", "results/datasets/" + "long" * 80 + "/card.md"]
RECORD: dict[str, Any] = {
    "rule": "collect", "input": ["a.py"], "log": ["x.log"], "shellcmd": "pipeline collect", "params": ["'base'"], "code": "pipeline",
    "record_format_version": 6, "conda_env": None, "container_img_url": "x.sif", "software_stack_hash": "d4", "job_hash": 87,
    "starttime": 1.5, "endtime": 2.5, "incomplete": False, "external_jobid": None, "input_checksums": {"a.py": "sha256:ab"},
}  # fmt: skip
CONTENTS = [
    b"",
    b"\xff\xfe",
    b"[1]",
    b"3",
    b"null",
    b"{}",
    b"[" * 100_000,
    b'{"starttime": 1}',
    b"\x80abc",
    json.dumps(RECORD).encode("utf-16"),
]
FIELDS: list[tuple[str, Any]] = [
    ("params", [[1]]), ("params", 3), ("input", [{}]), ("input", "a"), ("log", [1]), ("starttime", None), ("starttime", "now"),
    ("endtime", []), ("record_format_version", "new"), ("input_checksums", [1]), ("incomplete", "perhaps"), ("rule", {}),
]  # fmt: skip


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.snakemake/` with a record and a mark for each output, written by Snakemake, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for output in OUTPUTS:
        reader = persistence()
        reader._io_write(reader._metadata_path, RECORD, output)  # pyright: ignore[reportPrivateUsage]
        reader._io_write(reader._incomplete_path, {"external_jobid": "7"}, output)  # pyright: ignore[reportPrivateUsage]
    write_text(Path(OUTPUTS[0]), "a table")
    return tmp_path / ".snakemake"


def persistence() -> FilePersistence:
    return FilePersistence(path=Path(".snakemake"))


def read_everything() -> list[Any]:
    """What Snakemake reads of every output before it runs anything: its record, its parameters as a set, marks and locks."""
    reader = persistence()
    for output in OUTPUTS:
        record = reader._read_record(output)  # pyright: ignore[reportPrivateUsage]
        set((record and record.params) or [])
        sorted((record and record.input) or [])
    list(reader._read_locks())  # pyright: ignore[reportPrivateUsage]
    return sorted(reader._get_external_jobids(OUTPUTS))  # pyright: ignore[reportPrivateUsage]


def records(state: Path) -> list[Path]:
    return sorted(path for kind in ("metadata", "incomplete") for path in (state / kind).rglob("*") if path.is_file())


def test_valid_records_are_kept(state: Path) -> None:
    before = {path: path.read_bytes() for path in records(state)}
    assert list(repair_state(state)) == []
    assert {path: path.read_bytes() for path in records(state)} == before and len(before) == 6
    assert read_everything() == ["7"]
    check_records(state)
    assert list(repair_state(state / "nothing")) == []


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_records_that_snakemake_cannot_read_are_deleted(state: Path, content: bytes) -> None:
    for path in records(state):
        path.write_bytes(content)
    lines = list(repair_state(state))
    assert all("\n" not in line and "; deleted" in line for line in lines) and len(lines) >= 3
    assert list(invalid_records(state)) == []
    assert read_everything() == []
    assert not Path(OUTPUTS[0]).exists()  # a table that nothing tells what it was made with is made again


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_of_another_type_is_noticed(state: Path, field: str, value: Any) -> None:
    for path in (state / "metadata").rglob("*"):
        if path.is_file():
            path.write_text(json.dumps({**RECORD, field: value}))
    assert len(list(repair_state(state))) == 3
    assert read_everything() == ["7"]


def test_200_mutated_records_never_cause_a_traceback(state: Path) -> None:
    draw, whole = random.Random(5), {path: path.read_bytes() for path in records(state)}
    for _ in range(200):
        for path, content in whole.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        path = draw.choice(list(whole))
        content = bytearray(whole[path])
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: draw.randrange(1, len(content) + 1)])
        list(repair_state(state))
        read_everything()


def test_misplaced_folders_and_files_are_deleted(state: Path) -> None:
    for path in records(state):
        path.unlink()
        path.mkdir()
        (path / "inner").write_text("1")
    for name in FOLDERS[2:]:
        for path in [state / name] if (state / name).is_dir() else []:
            path.rmdir()
        (state / name).write_bytes(b"\xff")
    assert len(list(repair_state(state))) == 6 + len(FOLDERS) - 2
    (state / "locks").mkdir()
    (state / "locks" / "0.input.lock").mkdir()
    acquire_lock(Path("results")).close()
    assert read_everything() == []


def test_a_dry_run_reports_records_and_deletes_nothing(state: Path) -> None:
    path = records(state)[0]
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"^.+: invalid JSON or UTF-8; delete it, or run snakemake, which does$"):
        check_records(state)
    assert path.read_bytes() == b"\xff"
    path.write_text('{"rule": ')  # as a live Snakemake leaves it for a moment: Snakemake passes it over itself
    check_records(state)


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".snakemake").write_text("x")
    with pytest.raises(UserError, match=r"\.snakemake: is a file, but Snakemake needs a folder; move it away$"):
        list(repair_state(tmp_path / ".snakemake"))


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["", "metadata", "incomplete", "locks"])
def test_a_folder_of_another_user_is_one_line(state: Path, name: str) -> None:
    for path in [state.parent, state, *state.rglob("*")]:
        path.chmod(0o777)
    (state / name).chmod(0o755)  # below, a relative path: the folders of this test belong to root
    advice = r"root runs 'chmod -R g\+rwX \.snakemake results' and both run 'umask 002' before snakemake"
    with another_user(), pytest.raises(UserError, match=rf": permission denied, owned by root; expected .*\(to share it, {advice}\)$"):
        list(repair_state(Path(".snakemake")))
    (state / name).chmod(0o777)
    with another_user():
        assert list(repair_state(Path(".snakemake"))) == []
    records(state)[0].chmod(0o600)
    with another_user(), pytest.raises(UserError, match="permission denied, owned by root"):
        list(repair_state(Path(".snakemake")))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_results_of_another_user_are_one_line_and_shared_ones_work(state: Path) -> None:
    acquire_lock(Path("results")).close()
    state.parent.chmod(0o755)
    with another_user(), pytest.raises(UserError, match=r"results/\.pipeline/owner: permission denied, owned by root; .* 'umask 002'"):
        acquire_lock(Path("results"))
    for path in [state.parent, Path("results"), *Path("results").rglob("*"), state, *state.rglob("*")]:
        path.chmod(0o777)
    with another_user():
        acquire_lock(Path("results")).close()
