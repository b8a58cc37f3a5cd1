"""Files that are not the YAML they should be, and what YAML's corners mean."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.config.document import Location, YamlMapping, merged, put_dotted, read_document, read_text
from pipeline.plan import Plan
from pipeline.storage.errors import MissingFileError, UserError
from tests.config.rich import RICH, SMALL, complaint, plan_of

LINES = SMALL.count("\n")
EMPTY = "expected a mapping of keys to values"
DEEP = "nested more than 50 levels deep; expected a few"
NAME = "expected lower-case letters, digits and _"
BOMB = "bomb: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
)
BROKEN = {
    "empty": ("", 1, "", "got nothing; " + EMPTY),
    "blank": ("  \n\n", 1, "", "got nothing; " + EMPTY),
    "comments only": ("# nothing\n", 1, "", "got nothing; " + EMPTY),
    "list at top": ("- a\n- b\n", 1, "", "got a list; expected a mapping of keys to values"),
    "word": ("word\n", 1, "", "got a string; expected a mapping of keys to values"),
    "tab": (SMALL + "runtime:\n\tthreads: 1\n", LINES + 2, "", "not YAML: a tab; expected spaces"),
    "open list": (SMALL + "tracking:\n  tags: [a, b\n  group: c\n", LINES + 2, "", "not YAML: expected ',' or ']'"),
    "open mapping": (SMALL + "runtime: {threads: 1\ntracking: {}\n", LINES + 1, "", "not YAML: expected ',' or '}'"),
    "open quote": (SMALL + "tracking:\n  group: 'mine\n  tags: []\n", LINES + 2, "", "not YAML: found unexpected end of stream"),
    "two colons": (SMALL + "runtime: threads: 1\n", LINES + 1, "", "not YAML: a second ': ' in one value; put the text in quotes"),
    "wrong indent": (SMALL + "  runtime:\n    threads: 1\n   gpus: 0\n", LINES + 3, "", "not YAML: expected <block end>"),
    "undefined alias": (SMALL + "runtime: *other\n", LINES + 1, "", "not YAML: found undefined alias 'other'"),
    "at sign": (SMALL + "tracking: {group: @x}\n", LINES + 1, "", "not YAML: found character '@'"),
    "two documents": (SMALL + "---\nruntime: {}\n", LINES + 1, "", "not YAML: expected a single document"),
    "control character": (SMALL + "tracking: {group: a\x07}\n", LINES + 1, "", "not YAML: the character U+0007 is not allowed"),
    "null byte": ("experiments: \x00\n", 1, "", "not YAML: the character U+0000 is not allowed"),
    "number as key": (SMALL + "7: 1\n", LINES + 1, "", "got the key 7; expected a string"),
    "truth as key": (SMALL + "runtime:\n  true: 1\n", LINES + 2, "runtime", "got the key true; expected a string"),
    "null as key": (SMALL + "runtime: {~: 1}\n", LINES + 1, "runtime", "got the key nothing; expected a string"),
    "list as key": (SMALL + "? [a, b]\n: 1\n", LINES + 1, "", "got the key ('a', 'b'); expected a string"),
    "tag": (SMALL + "tracking: {group: !!python/object:os.system ls}\n", LINES + 1, "tracking.group", "got ls (TaggedScalar)"),
    "date": (SMALL + "tracking: {group: 2024-01-01}\n", LINES + 1, "tracking.group", "got 2024-01-01 (date)"),
    "bytes": (SMALL + "tracking: {group: !!binary aGk=}\n", LINES + 1, "tracking.group", "got b'hi' (bytes)"),
    "recursive alias": (SMALL + "runtime: &a [*a]\n", LINES + 1, "runtime", "got a list; expected a mapping"),
    "deep list": (SMALL + "runtime: " + "[" * 80 + "]" * 80 + "\n", LINES + 1, "", DEEP),
    "deepest list": ("experiments: " + "[" * 5000 + "]" * 5000 + "\n", 1, "", DEEP),
    "dashes": (SMALL + "runtime: \n  " + "- " * 5000 + "\n", LINES + 2, "", DEEP),
    "deepest mapping": ("".join("  " * level + "k:\n" for level in range(400)), 0, "", DEEP),
    "large file": (SMALL + "# comment\n" * 100_000, 0, "", "larger than 1,000,000 bytes; expected a smaller file"),
    "deep mapping": ("".join("  " * level + "k:\n" for level in range(90)), 52, "", DEEP),
    "alias bomb": (BOMB, 1, "e[2][8][4][0][6]", "more than 30000 values"),
    "binary": (b"\x80\x03abc\x00", 0, "", "not text in UTF-8 (byte 0 is 0x80)"),
    "UTF-16": (SMALL.encode("utf-16"), 0, "", "not text in UTF-8 (byte 0 is 0xFF)"),
    "no experiments": ("experiments: {}\n", 1, "experiments", "got an empty mapping; expected a mapping of at least one experiment"),
    "experiments null": ("runtime: {}\nexperiments:\n", 2, "experiments", "got nothing; expected a mapping of at least one experiment"),
    "experiment null": ("experiments:\n  a:\n", 2, "experiments.a", "got nothing; expected a mapping"),
    "capital name": (SMALL.replace("  a:", "  Big:"), 2, "experiments.Big", "got the name 'Big'; " + NAME),
    "path as name": (SMALL.replace("  a:", "  ../a:"), 2, "experiments.../a", "got the name '../a'; " + NAME),
    "key on top": (SMALL + "experimnts: {}\n", LINES + 1, "experimnts", "unknown key; did you mean 'experiments'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_file_is_one_line(case: str, tmp_path: Path) -> None:
    text, line, path, message = BROKEN[case]
    found = complaint(text, tmp_path)
    assert found[:2] == (line, path)
    assert found[2].startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.yaml", "no such file; expected a config such as config.yaml"),
        ("", "cannot be read (is a directory); expected a config in YAML"),
        ("config.yaml/inner", "cannot be read (not a directory); expected a config in YAML"),
        ("x" * 300, "cannot be read (file name too long); expected a config in YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SMALL)
    with pytest.raises(UserError) as caught:
        read_document(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {message}"
    assert isinstance(caught.value, MissingFileError) == name.startswith("none")


def meant(plan: Plan) -> str:
    """A plan without the text that it comes from."""
    return dataclasses.replace(plan, suite={}).to_json()


def test_a_byte_order_mark_and_foreign_line_ends_are_fine(tmp_path: Path) -> None:
    expected = meant(plan_of(SMALL, tmp_path))
    for content in (b"\xef\xbb\xbf" + SMALL.encode(), SMALL.replace("\n", "\r\n").encode(), SMALL.encode() + b"...\n"):
        (tmp_path / "config.yaml").write_bytes(content)
        assert meant(plan_of(content.decode("utf-8-sig"), tmp_path)) == expected


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("1_000", 1000),
        ("0x10", 16),
        ("0o10", 8),
        ("010", 10),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("12:30", "12:30"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_yaml_is_1_2(written: str, value: object) -> None:
    found = read_text(f"key: {written}\n", "text")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("rows", ["300k", "300_000", "0.3M", "'300k'", "3e5", "300_000.0", "300K", "0.0003G", "'300_000'"])
def test_counts_may_be_spelled_in_many_ways(rows: str, tmp_path: Path) -> None:
    budget = "learner: {name: supervised, rows: 300000}"
    expected = meant(plan_of(SMALL.replace("learner: {name: supervised, steps: 5}", budget), tmp_path))
    assert meant(plan_of(SMALL.replace("learner: {name: supervised, steps: 5}", budget.replace("300000", rows)), tmp_path)) == expected


def test_suffixes_are_exact() -> None:
    from pipeline.config.base import parse_count

    assert [parse_count(f"0.{tenths:02d}M") for tenths in range(100)] == [tenths * 10_000 for tenths in range(100)]
    assert parse_count("0.0001k") == "0.0001k"
    for odd in ("infk", "nank", "1e999999G", "k", "", "1kk", "١k"):
        assert parse_count(odd) == odd or isinstance(parse_count(odd), int)


def test_every_value_knows_its_line_and_path() -> None:
    document = read_text("a: 1\nb:\n  c: [1,\n    {d: 2}]\n", "file")
    inner = document["b"]
    assert document.locations["a"] == Location("file", 1, "a")
    assert inner.locations["c"] == Location("file", 3, "b.c")
    assert inner["c"].locations[1] == Location("file", 4, "b.c[1]")
    assert inner["c"][1].locations["d"] == Location("file", 4, "b.c[1].d")


def lay(below: str, above: str) -> YamlMapping:
    return merged(read_text(below, "below"), read_text(above, "above"))


def test_mappings_merge_and_keep_the_places_of_what_wrote_them() -> None:
    result = lay("m: {a: 1, b: 2}\n", "\nm: {b: 3, c: 4}\n")
    assert result == {"m": {"a": 1, "b": 3, "c": 4}}
    assert {key: (place.file, place.line) for key, place in result["m"].locations.items()} == {
        "a": ("below", 1),
        "b": ("above", 2),
        "c": ("above", 2),
    }


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ("m: {name: gru}", {"name": "gru"}),
        ("m: gru", "gru"),
        ("m: {init: chrono}", {"name": "lstm", "horizon": 5, "init": "chrono"}),
        ("m: null", None),
    ],
)
def test_a_named_component_replaces_and_a_nameless_mapping_merges(above: str, expected: object) -> None:
    assert lay("m: {name: lstm, horizon: 5}\n", above)["m"] == expected


def test_a_distribution_replaces_a_distribution() -> None:
    assert lay("d: {log_uniform: [1, 9]}\n", "d: {uniform: [2, 3]}")["d"] == {"uniform": [2, 3]}


def test_merging_changes_neither_side() -> None:
    below, above = read_text("m: {a: {b: 1}}\n", "below"), read_text("m: {a: {c: 2}}\n", "above")
    result = merged(below, above)
    result["m"]["a"].put("d", 3, result.location)
    assert below == {"m": {"a": {"b": 1}}}
    assert above == {"m": {"a": {"c": 2}}}


def test_a_dotted_path_opens_bare_names_and_missing_mappings() -> None:
    block, here = read_text("network: sequence\ntask: {name: copy, delay: 5}\n", "file"), Location("--set", 0, "x")
    put_dotted(block, "network.mixer.horizon", 9, here)
    put_dotted(block, "evaluate.rows", 3, here)
    assert block == {
        "network": {"name": "sequence", "mixer": {"horizon": 9}},
        "task": {"name": "copy", "delay": 5},
        "evaluate": {"rows": 3},
    }
    with pytest.raises(UserError, match=r"^file:2: task\.delay: got 5; expected a mapping, since 'task\.delay\.uniform' is set in it$"):
        put_dotted(block, "task.delay.uniform", [1, 2], here)


@pytest.mark.parametrize("number", ["0x" + "f" * 9000, "0o" + "7" * 6000, "1" * 5000, "1_" * 300])
def test_a_number_of_thousands_of_digits_is_one_line(number: str) -> None:
    with pytest.raises(UserError, match=r"^c.yaml:2: a number of [\d,]+ digits; expected at most 400$"):
        read_text(f"a: 1\nb: {number}\n", "c.yaml")


def test_text_that_ends_a_reports_page_is_refused(tmp_path: Path) -> None:
    assert "got '</'" in str(complaint(RICH.replace("Which networks remember?", "Which </script> remember?"), tmp_path))
