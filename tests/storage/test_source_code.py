"""Digests of source files, and the modules and files they use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.storage.source_code import headers, read_source

CODE = b'''
"""A module."""
import math
from torch import nn

LIMIT = 3


class Gate(nn.Module):
    """A gate."""

    def forward(self, x):
        """Forward."""
        return math.tanh(x) * LIMIT


class Other:
    pass
'''


def edited(*changes: tuple[bytes, bytes]) -> bytes:
    """The code after some replacements, each of which is there once."""
    code = CODE
    for before, after in changes:
        assert code.count(before) == 1
        code = code.replace(before, after)
    return code


LOOKS = {
    "comment": edited((b"LIMIT = 3", b"# why three\nLIMIT = 3  # because")),
    "docstring of the module": edited((b"A module.", b"Another text.")),
    "docstring of a class": edited((b'    """A gate."""\n\n', b"")),
    "docstring of a function": edited((b"Forward.", b"Forward, as in the paper.")),
    "blank lines": CODE.replace(b"\n\n", b"\n\n\n\n"),
    "line breaks": edited((b"math.tanh(x) * LIMIT", b"(\n            math.tanh(x)\n            * LIMIT\n        )")),
    "quotes of a docstring": CODE.replace(b'"""', b"'''"),
}
MEANS = {
    "function": edited((b"tanh", b"sinh")),
    "constant": edited((b"LIMIT = 3", b"LIMIT = 4")),
    "kind of a number": edited((b"LIMIT = 3", b"LIMIT = 3.0")),
    "operator": edited((b"(x) * LIMIT", b"(x) + LIMIT")),
    "import": edited((b"import math", b"import cmath as math")),
    "base class": edited((b"nn.Module", b"nn.Identity")),
    "an empty string": edited((b"tanh(x)", b"tanh(x, '')")),
    "order": edited((b"math.tanh(x) * LIMIT", b"LIMIT * math.tanh(x)")),
}


@pytest.mark.parametrize("case", LOOKS)
def test_formatting_does_not_change_the_digest(case: str) -> None:
    assert LOOKS[case] != CODE
    assert read_source(LOOKS[case]).digest == read_source(CODE).digest


@pytest.mark.parametrize("case", MEANS)
def test_a_change_of_meaning_changes_the_digest(case: str) -> None:
    assert read_source(MEANS[case]).digest != read_source(CODE).digest


def test_skipped_classes_do_not_affect_the_digest() -> None:
    without = frozenset({"Other"})
    changed = edited((b"    pass", b"    x = 1"))
    assert read_source(CODE, without).digest == read_source(changed, without).digest
    assert read_source(CODE).digest != read_source(changed).digest


def test_the_digest_is_the_same_in_every_version_of_python() -> None:
    """Recorded once, by Python 3.11."""
    code = CODE + b'X = f"{LIMIT!r:>{LIMIT}} {{}} {1e-3}" "joined" + str(b"\\x00")\nY = [(a, *b) for a, *b in [] if a][1:2, ...]\n'
    assert read_source(code).digest == "0649385631a319f8"


def test_invalid_python_is_digested_as_bytes() -> None:
    assert read_source(b"def (").digest != read_source(b"def ( ").digest


def test_imports_are_found_everywhere() -> None:
    code = b"""
import a.b, c
from d import e
from . import f
from .g import h as i
from ..j import k
from l import *
if TYPE_CHECKING:
    import m
else:
    import n
def late():
    import o
    importlib.import_module("p.q")
    importlib.import_module(".r", __package__)
"""
    expected = ["a.b", "c", "d.e", "own.inner.f", "own.inner.g.h", "own.j.k", "l", "n", "o", "p.q", "own.inner.r"]
    assert sorted(read_source(code).modules("own.inner")) == sorted(expected)


def test_files_named_in_string_literals_are_found(tmp_path: Path) -> None:
    (tmp_path / "csrc").mkdir()
    for name in ("scan.c", "other.c", "csrc/fast.cu", "scan.txt"):
        (tmp_path / name).touch()
    source = read_source(b'A = "scan.c"; B = "csrc/fast.cu"; C = "scan.txt"; D = "../scan.c"; E = "missing.c"; F = "/scan.c"')
    assert list(source.files(tmp_path, patterns=True)) == [tmp_path / "scan.txt", tmp_path / "csrc/fast.cu", tmp_path / "scan.c"]
    every = read_source(b'A = Path(__file__).with_suffix(".c")')
    assert list(every.files(tmp_path, patterns=True)) == [tmp_path / "other.c", tmp_path / "scan.c"]
    assert list(every.files(tmp_path, patterns=False)) == []


def test_headers_are_followed(tmp_path: Path) -> None:
    (tmp_path / "scan.c").write_text('#include <math.h>\n  #include "one.h"\n#include "missing.h"\n')
    (tmp_path / "one.h").write_text('#include "two.h"\n')
    (tmp_path / "two.h").write_text('#include "one.h"\n#define TWO 2\n')
    assert headers(tmp_path / "scan.c") == [tmp_path / "one.h", tmp_path / "two.h"]
