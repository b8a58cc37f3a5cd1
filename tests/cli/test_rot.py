"""500 seeded mutations of a finished results folder, of every file and every kind: each is named, or no number comes from the file."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.evaluation.runs import load_run
from pipeline.plan import plan_file
from pipeline.results_lock import last_owner, owner
from pipeline.storage.digest import file_sha256
from pipeline.storage.integrity import set_aside_damaged, verify_all
from pipeline.storage.seals import sealed_file
from pipeline.training.run_status import run_status
from tests.cli.conftest import Call

MUTATIONS = 500
UNSEALED = {"lock", "lease.json", "progress.json", "owner", "verified.json"}
"""Files that no number comes from."""


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(max(len(content), 1))])


def append(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 20)))


def edit(path: Path, draw: random.Random) -> None:
    """Change one digit of a text; in a file without any, as `flip`."""
    content = path.read_bytes()
    digits = [match.start() for match in re.finditer(rb"[0-9]", content)]
    if not digits:
        return flip(path, draw)
    place = draw.choice(digits)
    path.write_bytes(content[:place] + str((int(content[place : place + 1]) + draw.randrange(1, 10)) % 10).encode() + content[place + 1 :])


def halve(path: Path, draw: random.Random) -> None:
    """Drop every second line of a text, half the bytes of anything else."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[::2]) if len(lines) > 1 else path.read_bytes()[: path.stat().st_size // 2])


def swap(path: Path, draw: random.Random) -> None:
    """Another file of the folder in its place."""
    others = [other for other in sorted(Path("results").rglob("*")) if other.is_file() and other.read_bytes() != path.read_bytes()]
    path.write_bytes(draw.choice(others).read_bytes())


def delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "inner").write_text("1")


KINDS: list[Callable[[Path, random.Random], None]] = [flip, flip, truncate, append, edit, halve, swap, delete, empty, folder_instead]


@contextmanager
def mutated(path: Path, kind: Callable[[Path, random.Random], None], draw: random.Random) -> Iterator[bool]:
    """The file mutated, and put back; yields whether anything is different."""
    content = path.read_bytes()
    kind(path, draw)
    yield not path.is_file() or path.read_bytes() != content
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(content)


def named(path: Path) -> bool:
    """Whether `doctor` names the file, or the file that it seals, or the folder whose manifest vouches for it."""
    known = {str(path), str(sealed_file(path) or path), *(str(folder) for folder in path.parents if folder.name == "finished")}
    return any(
        found in known or (Path(found).parent in path.parents and path.name in error) for found, error in verify_all(Path("results"))
    )


@pytest.fixture
def whole(folder: Path, call: Call) -> Path:
    """The finished folder with its figures."""
    for figure in ("accuracy_by_delay", "learning_curves"):
        assert call("plot", figure, "tiny").code == 0
    assert dict(verify_all(Path("results"))) == {}
    return folder


def test_500_mutations_are_reported_or_without_effect(whole: Path, call: Call) -> None:
    plan, draw = plan_file(Path("config.yaml")), random.Random(10)
    (run,) = plan.runs
    files = sorted(path for path in Path("results").rglob("*") if path.is_file())
    numbers = {path: file_sha256(path) for path in files if path.parts[1] in ("experiments", "evaluations")}
    harmless, seen = 0, set()
    for number in range(MUTATIONS):
        path = files[number % len(files)] if number < 2 * len(files) else draw.choice(files)
        with mutated(path, draw.choice(KINDS), draw) as changed:
            if not changed:
                continue
            seen.add(path)
            if path.name in UNSEALED or sealed_file(path) == Path("results/.pipeline/verified.json"):
                harmless += 1
                assert run_status(Path("results"), run).state == "done"
                assert owner(Path("results")) is None
                last_owner(Path("results"))
                assert call("status").code == 0
                assert dict(verify_all(Path("results"))) == {}
            else:
                assert named(path), (number, path)
    assert len(seen) == len(files) and 0 < harmless < 100
    assert {path: file_sha256(path) for path in numbers} == numbers


def test_only_damaged_declared_files_are_set_aside(whole: Path) -> None:
    plan, draw = plan_file(Path("config.yaml")), random.Random(3)
    files = [file for files in plan.files().values() for file in files if (Path("results") / file).exists()]
    for kind in (flip, truncate, append, edit, swap, empty, folder_instead):
        for file in files:
            path = Path("results") / file
            seal = path.with_name(f".{path.name}.sha256")
            content, sealed = path.read_bytes(), seal.read_bytes()
            kind(path, draw)
            (line,) = set_aside_damaged(Path("results"), files)
            assert line.startswith(f"{path}: ") and line.endswith(f"; moved to {path.name}.damaged, it is regenerated")
            assert not path.exists() and path.with_name(f"{path.name}.damaged").exists()
            path.write_bytes(content)
            seal.write_bytes(sealed)
    assert list(set_aside_damaged(Path("results"), files)) == []


def test_corruption_without_changed_times_is_found_after_a_failed_job(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.storage import integrity

    results = Path("results")
    files = [file for files in plan_file(Path("config.yaml")).files().values() for file in files]
    monkeypatch.setattr(integrity, "TIMESTAMP_GRACE", -60.0)
    assert integrity.find_damaged(results, files, record=True) == {}
    path = results / "experiments" / "tiny" / "results.parquet"
    usual, before = integrity._signature, integrity._signature(path)  # pyright: ignore[reportPrivateUsage]
    flip(path, random.Random(0))
    monkeypatch.setattr(integrity, "_signature", lambda asked: before if asked == path else usual(asked))
    assert integrity.find_damaged(results, files) == {}
    integrity.forget_verified(results)
    assert list(integrity.find_damaged(results, files)) == [path]


def test_commands_refuse_damaged_inputs(whole: Path, call: Call) -> None:
    (run,) = Path("results/runs").iterdir()
    spec = run / "run.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("learning_rate: 0.001", "learning_rate: 0.002"))
    assert spec.read_text() != text
    for words in (("train", spec), ("collect", "results/experiments/tiny/experiment.yaml")):
        answer = call(*words)
        assert answer.code == 2 and f"{spec}: SHA-256 " in answer.err and answer.err.count("\n") == 1
    spec.write_text(text)
    assert load_run(run.name).spec["seed"] == 0


def test_damaged_weights_are_restored_without_training(whole: Path, call: Call) -> None:
    files = [file for files in plan_file(Path("config.yaml")).files().values() for file in files]
    (run,) = Path("results/runs").iterdir()
    weights = run / "model" / "model.safetensors"
    before = file_sha256(weights)
    flip(weights, random.Random(1))
    assert len(list(set_aside_damaged(Path("results"), files))) == 1
    answer = call("train", run / "run.yaml")
    assert answer.code == 0 and "already finished" in answer.err
    assert file_sha256(weights) == before
    assert file_sha256(weights.with_name("model.safetensors.damaged")) != before
    assert dict(verify_all(Path("results"))) == {}
