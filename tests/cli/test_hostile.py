"""Every command with invalid or hostile input: one line, exit code 2, within seconds, and nothing written."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline.cli import cli
from pipeline.cli.param_types import OutFile, OutFolder
from pipeline.storage.digest import file_sha256
from pipeline.storage.seals import seal_path
from tests.cli.conftest import TINY, Answer, Call

SECONDS = 5
DEEP = 10_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
SWEEP = TINY.replace("    figures:", "    sweep: {%s}\n    figures:") % ", ".join(
    f"{key}: [{', '.join(map(str, range(1, 11)))}]"
    for key in ("seed", "task.delay", "task.symbols", "network.width", "network.depth", "learner.steps", "learner.batch_size")
)
TEXTS: dict[str, str | bytes] = {
    "empty": "", "nothing but NUL": b"\0" * 1000,
    "binary": bytes(range(256)) * 40, "no UTF-8": b"id: \xff\xfe\n", "UTF-16": TINY.encode("utf-16"),
    "a list": "[1, 2]", "a number": "3", "deep list": "id: " + "[" * DEEP + "]" * DEEP, "deep mapping": "{id: " * DEEP + "}" * DEEP,
    "deep block": "".join(" " * level + "k:\n" for level in range(1300)), "dashes": "- " * DEEP, "questions": "? " * DEEP,
    "alias bomb": BOMB, "alias bomb in a specification": f"id: x\nname: x\n{BOMB}", "endless alias": "id: &a {id: *a}",
    "python": "id: !!python/object/apply:os.getcwd []",
    "sweep of 10^7": SWEEP, "long key": "k" * 900_000 + ": 1", "long text": "id: " + "x" * 900_000, "long number": "id: " + "9" * 900_000,
    "long list": "id: [" + "1," * 480_000 + "1]", "many keys": "".join(f"k{index}: 1\n" for index in range(80_000)), "no key": ": : :",
    "NUL in a text": 'id: "\\0"',
}  # fmt: skip


@pytest.fixture
def place(folder: Path) -> Path:
    """A finished results folder, and beside it every file that no command should read, in `bad/`."""
    bad = folder / "bad"
    bad.mkdir()
    for name, content in TEXTS.items():
        (bad / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with (bad / "large.yaml").open("wb") as file:
        file.truncate(1 << 30)
    os.mkfifo(bad / "fifo")
    (bad / "loop").symlink_to("loop")
    (bad / "folder").mkdir()
    return folder


FILES = ["/", "/etc/passwd", "/dev/zero", "/dev/random", "bad/fifo", "bad/loop", "bad/folder", "bad/large.yaml", "a\0b", "x" * 5000,
         "no/such/file",
         *(f"bad/{name}.yaml" for name in TEXTS)]  # fmt: skip
OUTS = ["/", "/etc/passwd", "/dev/zero", "/dev/null", "bad/fifo", "config.yaml", "config.yaml/x", "bad", "a\0b"]
WORDS = ["", "../../../../x", "/etc/passwd", "a\0b", "x" * 100_000, "\udcff", "-", "..", "."]
SETTINGS = ["", "=", "x", "a\0b=1", "task.delay=" + "[" * DEEP, "task=" + "{a: " * DEEP, f"{'k.' * DEEP}k=1", f"{'k' * 100_000}=1",
         "task.delay=\0", "task.delay=.nan",
            "task.delay=99999999999999999999999", "task.delay=-1", "task=/etc/passwd", "task.delay=&a [*a]", "network.width=1e400",
            "seed=\udcff",
            "task.delay: 3\nlearner=1", "learner.parent=../../x"]  # fmt: skip
NUMBERS = ["99999999999999999999", "-1", "nan", "inf", "1e3", "0x10", "", "1.5", "9" * 5000, "\0"]


def run_of(folder: Path) -> str:
    """The one run of the folder."""
    return next(folder.glob("results/runs/*")).name


def sound(command: str, folder: Path) -> list[str]:
    """Valid arguments for the parameters that are not under test; none for commands not listed."""
    run, test = run_of(folder), next(folder.glob("results/datasets/copy-test-*"))
    network = next(folder.glob("results/profiles/*.yaml"))
    words: dict[str, list[Any]] = {
        "try": ["tiny"],
        "export": ["tiny"],
        "describe": ["run", run],
        "generate": ["--task", "copy", "--rows", "4", "--out", "new"],
        "train": [f"results/runs/{run}/run.yaml"],
        "evaluate": [f"results/runs/{run}/run.yaml", "--data", test, "--out", "new.parquet"],
        "profile": [network, "--out", "new.parquet"],
        "collect": ["results/experiments/tiny/experiment.yaml"],
        "plot": ["learning_curves", "tiny"],
    }
    return [str(word) for word in words.get(command, [])]


def hostile(command: click.Command) -> Iterator[tuple[click.Parameter, str]]:
    """Every parameter of a command with every value that it must refuse."""
    for parameter in command.params:
        kind = parameter.type
        if isinstance(kind, click.types.BoolParamType) or parameter.name in ("help", "version"):
            continue
        if isinstance(kind, OutFile | OutFolder):
            values = OUTS
        elif isinstance(kind, click.IntRange | click.types.IntParamType | click.types.FloatParamType):
            values = NUMBERS
        elif "--set" in parameter.opts:
            values = SETTINGS
        else:
            values = FILES if kind.name == "path" else WORDS
        yield from ((parameter, value) for value in values)


def words_for(command: click.Command, parameter: click.Parameter, value: str, folder: Path) -> list[str]:
    """The command line in which one parameter has a hostile value and the others are valid."""
    words = sound(str(command.name), folder)
    if isinstance(parameter, click.Option):
        name = parameter.opts[0]
        if name in words:
            words[words.index(name) + 1] = value
            return words
        return [*words, name, value]
    at = [other.name for other in command.params if isinstance(other, click.Argument)].index(parameter.name)
    if command.name == "generate":
        return [value]
    return [*words[:at], value, *words[at + 1 :]]


CASES = [(name, parameter, value) for name, command in cli.commands.items() for parameter, value in hostile(command)]


def state(folder: Path) -> dict[str, Any]:
    """Every file below a folder with its SHA-256; locks and endless files by their mode only."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 29:
            found[str(path)] = path.lstat().st_mode
        else:
            found[str(path)] = file_sha256(path)
    return found


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail after so many CPU seconds, or, on a machine busy with other work, 20 times as many of the clock: a call that blocks uses none."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not ended within {seconds} s")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, seconds), signal.ITIMER_REAL: (signal.SIGALRM, 20 * seconds)}
    before = {number: signal.signal(number, stop) for number, _ in timers.values()}
    for timer, (_, limit) in timers.items():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def check(answer: Answer) -> None:
    """Assert one line and exit code 2."""
    assert answer.code == 2, answer
    assert answer.out == "", answer.out[:500]
    assert answer.err.count("\n") == 1, answer.err[:500]
    assert len(answer.err) < 2000
    assert "Traceback" not in answer.err


GROUPS = sorted({(name, str(parameter.name)) for name, parameter, _ in CASES})


@pytest.mark.parametrize(("command", "parameter"), GROUPS)
def test_invalid_values_are_refused_in_one_line(command: str, parameter: str, place: Path, call: Call) -> None:
    """`GROUPS` is built from the commands, so a new command is tested too."""
    before = state(place)
    passwd = Path("/etc/passwd").read_bytes()
    wrong = []
    for name, item, value in CASES:
        if (name, item.name) != (command, parameter):
            continue
        words = words_for(cli.commands[name], item, value, place)
        try:
            with within(SECONDS):
                check(call(name, *words))
        except (Exception, SystemExit) as error:
            wrong.append(f"{value[:60]!r}: {type(error).__name__} {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)
    assert state(place) == before
    assert Path("/etc/passwd").read_bytes() == passwd
    assert Path("/dev/null").is_char_device() and Path("/dev/zero").is_char_device()


def test_every_command_is_covered() -> None:
    without = {name for name in cli.commands if name not in {case[0] for case in CASES}}
    assert without == {"schema", "doctor"}, "these take no values"


HOSTILE: list[Any] = [None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "word", "../../../../x", "/etc/passwd", "a/b",
         "..", "-rf", "x" * 300,
                      "A b", "\n", [], {}, ["../x"], {"name": "../x"}, [[[]]], {"a": {"b": {}}}]  # fmt: skip


NAMED = ("id", "name", "run", "evaluation", "network", "parent", "train", "validation")
"""Keys of names, each of which is tried as a path that leads out."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from leaves(item, (*path, key))


def mutated(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a path."""
    twin = json.loads(json.dumps(value))
    inner = twin
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return twin


def written(path: Path, block: Any) -> None:
    """Write a block in the form of the file it replaces."""
    from pipeline.config.spec_files import dump

    path.write_text(json.dumps(block) if path.suffix == ".json" else dump(block))


SPECS = {
    "train": ("runs/*/run.yaml", 25),
    "evaluate": ("runs/*/run.yaml", 10),
    "generate": ("datasets/copy-test-*/dataset.yaml", 40),
    "seal": ("datasets/copy-test-*/dataset.yaml", 20),
    "collect": ("experiments/tiny/experiment.yaml", 40),
    "profile": ("profiles/*.yaml", 12),
    "describe": (".pipeline/plan.json", 25),
    "plot": (".pipeline/plan.json", 25),
}
"""Commands that read a frozen file, which one, and how many mutations of it are tried."""


def command_line(command: str, file: Path, folder: Path) -> list[str]:
    """The command that reads the frozen file, its outputs in new files."""
    run, test = run_of(folder), next(folder.glob("results/datasets/copy-test-*"))
    words = {
        "train": [file],
        "evaluate": [file, "--data", test, "--out", folder / "results" / "new.parquet"],
        "generate": [file.parent],
        "seal": [file.parent],
        "collect": [file],
        "profile": [file, "--out", folder / "results" / "new.parquet"],
        "describe": ["run", run],
        "plot": ["learning_curves", "tiny"],
    }
    return [command, *map(str, words[command])]


def outside(folder: Path) -> dict[str, Any]:
    """Everything around the results folder."""
    return {name: kept for name, kept in state(folder.parent).items() if not name.startswith(str(folder / "results"))}


@pytest.mark.parametrize("command", SPECS)
def test_mutated_specs_and_plans_are_refused_or_harmless(command: str, folder: Path, call: Call) -> None:
    """Seeded mutations of every value: one line and code 2, or done with what it says; nothing outside the results folder in any case."""
    from pipeline.config.spec_files import read_spec

    pattern, count = SPECS[command]
    (file,) = folder.glob(f"results/{pattern}")
    block = json.loads(file.read_text()) if file.suffix == ".json" else read_spec(file)
    cases = [(path, value) for path in leaves(block) for value in HOSTILE]
    chosen = random.Random(command).sample(cases, min(count, len(cases)))
    chosen += [(path, "../../../../x") for path in leaves(block) if path[-1] in NAMED]
    before, wrong = outside(folder), []
    shutil.copytree(folder / "results", folder.parent / "kept")
    for path, value in chosen:
        shutil.rmtree(folder / "results")
        shutil.copytree(folder.parent / "kept", folder / "results")
        written(file, mutated(block, path, value))
        try:
            with within(30):
                answer = call(*command_line(command, file, folder))
            if answer.code != 0:
                check(answer)
        except (Exception, SystemExit) as error:
            wrong.append(f"{path} = {value!r:.40}: {type(error).__name__} {str(error)[:300]}")
    shutil.rmtree(folder.parent / "kept")
    assert not wrong, "\n".join(wrong)
    assert outside(folder) == before


@pytest.mark.parametrize("field", ["id", "train", "validation", "parent"])
def test_a_run_with_a_path_as_its_name_writes_nothing(field: str, folder: Path, call: Call) -> None:
    from pipeline.config.spec_files import read_spec, write_spec

    (file,) = folder.glob("results/runs/*/run.yaml")
    block = read_spec(file)
    inner = block["data"] if field in block["data"] else block["learner"] if field == "parent" else block
    inner[field] = "../../../../x"
    write_spec(file, block)
    before = state(folder.parent)
    answer = call("train", file)
    check(answer)
    assert "got the name '../../../../x'; expected letters, digits, - and _" in answer.err
    assert state(folder.parent) == before


def test_a_run_is_trained_in_its_own_folder_only(folder: Path, call: Call) -> None:
    (file,) = folder.glob("results/runs/*/run.yaml")
    for made in (file, seal_path(file)):
        (folder / made.name).write_bytes(made.read_bytes())
    (folder / "link").symlink_to(file.parent)
    before = state(folder.parent)
    for path in ("run.yaml", "link/run.yaml"):
        answer = call("train", path)
        check(answer)
        assert answer.err.startswith(f"{path}: its seal belongs to {file.parent.name}/run.yaml")
    assert state(folder.parent) == before


@pytest.mark.parametrize("linked", ["runs", "checkpoints", ".pipeline"])
def test_nothing_is_written_through_a_symlink_out_of_the_results(linked: str, folder: Path, call: Call) -> None:
    (file,) = folder.glob("results/runs/*/run.yaml")
    target, place = folder.parent / "elsewhere", folder / "results" / linked
    place.rename(target)
    place.symlink_to(target)
    before = state(target)
    (folder / "config.yaml").write_text(TINY.replace("width: 8", "width: 12"))
    words = {"runs": ["describe", "run", file.parent.name], "checkpoints": ["train", file], ".pipeline": ["prune", "--yes"]}
    check(call(*words[linked]))
    assert state(target) == before
