"""Trainers in processes of their own that die where they are told to: at their nth operation on a file, with nothing tidied up."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.learners.supervised import Supervised
from pipeline.storage.errors import UserError
from tests.training.tiny import digests, train_tiny

DEAD = 99
OPERATIONS = [(os, name) for name in ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")]
"""What is counted besides writes of content, which die half done."""


def spawn(body: Callable[[], int]) -> int:
    """Run `body` in a forked process, which ends with its code; returns the process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries; the child starts none of its own before it trains
        child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = body()
    except UserError as error:
        print(error, file=sys.stderr)
        code = 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def train_and_die(results: Path, run: str, at: int, log: Path | None = None) -> int:
    """Train, saving after every step, and die at file operation number `at`; every operation's name is added to `log`."""

    def body() -> int:
        arm(at, log)
        return train_tiny(results, run, checkpoint_seconds=1e-9)

    return ended(spawn(body))


def assert_deaths_change_nothing(folder: Path, run: str, points: int) -> None:
    """Kill a run described in `folder / "undisturbed"` at so many file operations, spread over its training: it ends in the same bytes."""
    undisturbed = folder / "undisturbed"
    assert train_tiny(undisturbed, run) == 0
    expected = digests(undisturbed, run)
    assert "model/model.safetensors" in expected and "history.parquet" in expected

    def fresh(name: str) -> Path:
        results = folder / name
        shutil.copytree(undisturbed / "datasets", results / "datasets")
        (results / "runs" / run).mkdir(parents=True)
        for name in ("run.yaml", ".run.yaml.sha256"):
            shutil.copy(undisturbed / "runs" / run / name, results / "runs" / run)
        return results

    counting = fresh("counting")
    assert train_and_die(counting, run, at=-1, log=counting / "log") == 0
    assert digests(counting, run) == expected, "saving must change nothing"
    names = (counting / "log").read_text().splitlines()
    for index in range(len(names) // points // 2, len(names), len(names) // points):
        results = fresh(str(index))
        assert train_and_die(results, run, at=index + 1) == -signal.SIGKILL, names[index]
        assert ended(spawn(lambda results=results: train_tiny(results, run))) == 0, names[index]
        assert digests(results, run) == expected, names[index]


def train_counting(results: Path, run: str, updates: Path, pause: float = 0.0, checkpoint_seconds: float = 1e9) -> int:
    """Start a trainer that writes its process id into `updates` at every update; returns its process id."""

    def body() -> int:
        update = Supervised.update

        def counted(self: Supervised) -> Any:
            with updates.open("a", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(pause)
            return update(self)

        Supervised.update = counted
        return train_tiny(results, run, checkpoint_seconds)

    return spawn(body)


def arm(at: int, log: Path | None) -> None:
    """Count file operations of this process from now on, and kill it at one of them."""
    done = 0

    def operation(name: str, half: Callable[[], object] | None = None) -> None:
        nonlocal done
        done += 1
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        if done == at:
            if half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(place: Any, name: str) -> None:
        real = getattr(place, name)

        def counted(*args: Any, **options: Any) -> Any:
            operation(f"{name} {args[0]}")
            return real(*args, **options)

        setattr(place, name, counted)

    for place, name in OPERATIONS:
        wrap(place, name)
    write_bytes, write_text, copyfile, write_table = Path.write_bytes, Path.write_text, shutil.copyfile, pq.write_table

    def half_bytes(self: Path, data: bytes) -> int:
        operation(f"write {self}", lambda: write_bytes(self, data[: len(data) // 2]))
        return write_bytes(self, data)

    def half_text(self: Path, text: str, **options: Any) -> int:
        operation(f"write {self}", lambda: write_text(self, text[: len(text) // 2], **options))
        return write_text(self, text, **options)

    def half_copy(source: Path, target: Path) -> Any:
        operation(f"copy {target}", lambda: write_bytes(target, source.read_bytes()[:10]))
        return copyfile(source, target)

    def half_table(table: Any, path: Path, **options: Any) -> None:
        operation(f"write {path}", lambda: write_bytes(path, b"PAR1"))
        write_table(table, path, **options)

    Path.write_bytes = half_bytes  # pyright: ignore[reportAttributeAccessIssue]
    Path.write_text = half_text  # pyright: ignore[reportAttributeAccessIssue]
    shutil.copyfile = half_copy
    pq.write_table = half_table
