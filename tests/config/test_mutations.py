"""Every key of a rich config broken in every way: each time one line that names the file, the line and the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.rich import RICH, Entry, block, complaint, entries, plan_of, replaced

ENTRIES = list(entries())
NAMES = ("experiments.first_one", "experiments.first_one.variants.wide")
REQUIRED = ("experiments", "base", "task", "network", "learner", "name", "column", "rows")
COMPONENTS = ("task", "network", "mixer", "learner")
OPTIONAL = ("max_grad_norm", "distinct_rows", "stop_at", "curriculum", "title", "group", "container", "rows", "processes")
OUT_OF_RANGE = {
    "symbols": ["0", "-3", "[0]"],
    "delay": ["0", "{uniform: [5, 2]}", "{uniform: [0, 2]}", "{uniform: [1]}", "{uniform: [1, 2, 3]}"],
    "log_uniform": ["[20, 1]", "[0, 1]", "[1.5, 2]"],
    "alphabet": ["1", "100_000"],
    "noise": ["-1", "5000"],
    "horizon": ["2"],
    "width": ["0", "-1", "1.5"],
    "depth": ["0"],
    "feedforward": ["-0.1"],
    "dropout": ["1.0", "-0.5"],
    "context": ["0"],
    "rows": ["0", "-1", "1.5", "-3k", "0.0001k", "1e15", "999999G"],
    "batch_size": ["0"],
    "learning_rate": ["0", "-1e-3", ".inf", ".nan"],
    "betas": ["[0.9]", "[0.9, 0.9, 0.9]", "[0.9, 1.0]", "[-0.1, 0.9]"],
    "weight_decay": ["-1"],
    "warmup_steps": ["-1"],
    "min_lr_ratio": ["1.5"],
    "half_life": ["0"],
    "max_grad_norm": ["0"],
    "ema_decay": ["1"],
    "distinct_rows": ["0", "3e9"],
    "validation_rows": ["0"],
    "stop_at": ["0", "1.01"],
    "evaluate_every": ["0"],
    "keep": ["[last, first]", "[last, best, 0]", "[true, last]"],
    "start": ["0"],
    "factor": ["1"],
    "threshold": ["0", "2"],
    "upper": ["-1", "1.1"],
    "window": ["0"],
    "delays": ["[0]", "[5, 5]", "[5, word]"],
    "seed": ["-1", "4294967296"],
    "threads": ["0"],
    "checkpoint_seconds": ["0"],
    "mem_mb": ["10"],
    "minutes": ["0"],
    "gpus": ["-1"],
    "processes": ["0"],
    "nodes": ["0"],
    "project": ["''"],
    "tags": ["[1]"],
}
RANGES = [(entry, value) for entry in ENTRIES for value in OUT_OF_RANGE.get(entry.key, [])]


def shown(value: object) -> str:
    return f"{value.line}-{value.path}" if isinstance(value, Entry) else str(value)


def test_the_rich_config_is_right_and_its_lines_are_found(tmp_path: Path) -> None:
    assert len(plan_of(RICH, tmp_path).runs) == 5
    assert len(ENTRIES) == 88
    assert len({entry.path for entry in ENTRIES}) == len(ENTRIES)
    assert ENTRIES[-1].path == "tracking.tags"
    assert [entry.path for entry in ENTRIES if entry.key == "title"] == ["experiments.first_one.figures[1].title"]


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.path not in NAMES], ids=shown)
def test_a_misspelt_key_is_named_with_the_right_one(entry: Entry, tmp_path: Path) -> None:
    first, *rest = block(entry)
    wrong = f"{entry.key}{entry.key[-1]}"
    line, path, message = complaint(replaced(entry, first.replace(f"{entry.key}:", f"{wrong}:", 1), *rest), tmp_path)
    assert line == entry.line
    assert path.startswith(f"{entry.path}{entry.key[-1]}")
    assert message == f"unknown key; did you mean '{entry.key.rsplit('.', 1)[-1]}'?"


@pytest.mark.parametrize("entry", ENTRIES, ids=shown)
def test_a_duplicate_key_is_named_where_it_stands_again(entry: Entry, tmp_path: Path) -> None:
    written = block(entry)
    line, _, message = complaint(replaced(entry, *written, *written), tmp_path)
    assert line == entry.line + len(written)
    assert message == f"duplicate key '{entry.key}'"


def wrong_values(entry: Entry) -> list[str]:
    """Values of another kind than the one that is written; null only where something is required."""
    if entry.key == "delay":
        found = ["word", "[1]", "{a: 1}"]
    elif entry.path in NAMES or not entry.value:
        found = ["3", "[1]", "true"] if entry.key in COMPONENTS else ["3", "word", "[1]"]
        found += ["{}"] if entry.key in ("experiments", "base") else []
    elif entry.value.startswith("["):
        found = ["3", "word", "{a: 1}"]
    elif re.match(r"-?\d", entry.value):
        found = ["word", "[[1]]", "true", "''"]
    elif entry.value in ("true", "false"):
        found = ["word", "[1]", "{a: 1}"]
    else:
        found = ["3", "[1]", "{a: 1}", "true"]
    return found if entry.key in OPTIONAL else [*found, "null"]


TYPES = [(entry, value) for entry in ENTRIES for value in wrong_values(entry)]


@pytest.mark.parametrize(("entry", "value"), TYPES, ids=shown)
def test_a_value_of_the_wrong_kind_is_named(entry: Entry, value: str, tmp_path: Path) -> None:
    line, path, message = complaint(replaced(entry, f"{entry.key}: {value}"), tmp_path)
    assert line == entry.line
    assert path == entry.path or path.startswith((f"{entry.path}.", f"{entry.path}["))
    assert re.match(r"got .+; (expected|did you mean) |unknown key|missing key|expected a mapping of at least one", message), message


@pytest.mark.parametrize(("entry", "value"), RANGES, ids=shown)
def test_a_value_out_of_range_is_named(entry: Entry, value: str, tmp_path: Path) -> None:
    line, path, message = complaint(replaced(entry, f"{entry.key}: {value}"), tmp_path)
    assert line == entry.line
    assert path == entry.path or path.startswith((f"{entry.path}.", f"{entry.path}["))
    assert re.match(r"got .+; expected ", message), message


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.key in REQUIRED and entry.path.count("evaluate") == 0], ids=shown)
def test_a_missing_key_is_named_where_it_belongs(entry: Entry, tmp_path: Path) -> None:
    following = RICH.splitlines()[entry.end] if entry.end < len(RICH.splitlines()) else ""
    text = replaced(entry) if not entry.dash else replaced(entry, following.strip()).replace(f"\n{following}\n", "\n", 1)
    line, path, message = complaint(text, tmp_path)
    parents = {other.parent if other.dash else other.path: other.line for other in ENTRIES}
    assert path == entry.parent
    assert line == (entry.line if entry.dash else parents.get(entry.parent, 1))
    expected = {"rows": "missing budget; expected one of rows, steps, flops and seconds", "experiments": "missing key 'experiments'"}
    assert message == expected.get(entry.key, f"missing key '{entry.key}'")


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.key == "name"], ids=shown)
def test_an_unknown_component_is_named_with_the_nearest(entry: Entry, tmp_path: Path) -> None:
    for wrong, end in ((f"{entry.value}s", f"; did you mean '{entry.value}'?"), ("qqq", "")):
        line, path, message = complaint(replaced(entry, f"name: {wrong}", *block(entry)[1:]), tmp_path)
        assert (line, path) == (entry.line, entry.path)
        assert message.startswith(f"got '{wrong}'; ")
        assert message.endswith(end)
        assert entry.value in message
