"""A source file read, never imported: a digest of what it means, and what it loads.

Comments, docstrings, formatting and the version of Python that reads the file change no digest.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LENGTH = 16
"""Hexadecimal digits of a digest."""
SILENT = ("ctx", "kind", "type_comment", "type_ignores")
"""Fields of a syntax tree that carry no meaning of their own."""
NATIVE = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".pyx")
"""Suffixes of sources that a module compiles."""
LONGEST_NAME = 200


@dataclass
class Source:
    """What is read from a Python file. `imported`: (level, module, name taken from it), as in an import statement; `texts`: its strings."""

    digest: str = ""
    imported: list[tuple[int, str, str]] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    def modules(self, package: str) -> Iterator[str]:
        """Dotted names that a module in `package` imports, `a.b.c` where it takes c from a.b."""
        for level, module, name in self.imported:
            base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            yield ".".join([*base, *(part for part in (module, name) if part)])

    def files(self, folder: Path, patterns: bool) -> Iterator[Path]:
        """Files below the module's folder that its strings name: C and CUDA sources such as "csrc/scan.cu", data such as "gain.json".

        patterns: so do "*.cu", and ".cu" alone, which names every file of this suffix.
        """
        names = [text for text in sorted(self.texts) if "." in text and len(text) < LONGEST_NAME and text.isprintable()]
        yield from (
            folder / name
            for name in names
            if not name.endswith(NATIVE) and re.fullmatch(r"\w[\w./-]*", name) and ".." not in name and (folder / name).is_file()
        )
        for name in (name for name in names if name.endswith(NATIVE)):
            if not name.startswith("/") and ".." not in name and (patterns or not ("*" in name or name in NATIVE)):
                yield from (path for path in sorted(folder.glob(f"*{name}" if name in NATIVE else name)) if path.is_file())


def raw_digest(content: bytes) -> str:
    """Digest of bytes as they are."""
    return hashlib.sha256(content).hexdigest()[:LENGTH]


def headers(path: Path) -> list[Path]:
    """Files beside a C source that it includes, and those that these include."""
    found, waiting = [path], [path]
    while waiting:
        source = waiting.pop()
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split('"')[1] for line in lines if line.lstrip().startswith("#include") and line.count('"') == 2]
        new = [file for name in names if (file := source.parent / name).is_file() and file not in found]
        found, waiting = found + new, waiting + new
    return found[1:]


@functools.lru_cache(maxsize=2000)
def read_source(content: bytes, without: frozenset[str] = frozenset()) -> Source:
    """Read a Python file's content; top-level classes `without` are passed over. What is no Python has the digest of its bytes."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return Source(raw_digest(content))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in without)]
    source, words = Source(), list[str]()
    _walk(tree, source, words, imports=True)
    source.digest = raw_digest(" ".join(words).encode())
    return source


def _walk(node: ast.AST, source: Source, words: list[str], imports: bool) -> None:
    """Spell a tree as words, without its empty fields: one that a later Python adds then changes nothing."""
    if imports:
        source.imported += _imported(node)
    typed = isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
    words.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if name in SILENT or value is None or value == []:
            continue
        words.append(name)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST):
                words.append(repr(item))
                source.texts.update([item] if isinstance(item, str) else [])
            elif not _is_silent(item, node):
                _walk(item, source, words, imports and not (typed and name == "body"))
    words.append(")")


def _is_silent(node: ast.AST, parent: ast.AST) -> bool:
    """Whether this is a string that stands alone and documents what is around it, or an empty one, which Python 3.12 adds to f-strings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    return isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant) and node.value == ""


def _imported(node: ast.AST) -> Collection[tuple[int, str, str]]:
    if isinstance(node, ast.Import):
        return [(0, alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.level, node.module or "", alias.name.removesuffix("*")) for alias in node.names]
    if isinstance(node, ast.Call) and node.args and _name(node.func) in ("import_module", "__import__"):
        name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        if isinstance(name, str):
            return [(len(name) - len(name.lstrip(".")), name.lstrip("."), "")]
    return []


def _name(node: ast.AST) -> str:
    """`a` and `module.a` are named a; nothing else has a name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
