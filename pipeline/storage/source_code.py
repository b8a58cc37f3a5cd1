"""Digest Python source files and find the modules and files that they use, without importing them.

Comments, docstrings, formatting and the version of Python do not change a digest.
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
IGNORED_FIELDS = ("ctx", "kind", "type_comment", "type_ignores")
"""Fields of a syntax tree that do not affect what the code does."""
NATIVE = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".pyx")
"""Suffixes of source files that a module compiles."""
LONGEST_NAME = 200


@dataclass
class Source:
    """A parsed Python file. `imported`: (level, module, imported name), as in an import statement; `texts`: its string literals."""

    digest: str = ""
    imported: list[tuple[int, str, str]] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    def modules(self, package: str) -> Iterator[str]:
        """Yield the dotted names that a module in `package` imports; `from a.b import c` gives `a.b.c`."""
        for level, module, name in self.imported:
            base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            yield ".".join([*base, *(part for part in (module, name) if part)])

    def files(self, folder: Path, patterns: bool) -> Iterator[Path]:
        """Yield the files in the module's folder that its string literals name: C and CUDA sources such as "csrc/scan.cu", data such as "gain.json".

        patterns: also expand "*.cu", and ".cu" alone, to every file with this suffix.
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
    """Return the digest of raw bytes."""
    return hashlib.sha256(content).hexdigest()[:LENGTH]


def headers(path: Path) -> list[Path]:
    """Return the files in a C source's folder that it includes, directly or indirectly."""
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
    """Parse a Python file, skipping the top-level classes in `without`. If it is not valid Python, its digest is that of its bytes."""
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
    """Serialize a syntax tree to words, without empty fields, so that fields added by later Python versions change nothing."""
    if imports:
        source.imported += _imported(node)
    typed = isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
    words.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if name in IGNORED_FIELDS or value is None or value == []:
            continue
        words.append(name)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST):
                words.append(repr(item))
                source.texts.update([item] if isinstance(item, str) else [])
            elif not _is_ignored(item, node):
                _walk(item, source, words, imports and not (typed and name == "body"))
    words.append(")")


def _is_ignored(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a node is a docstring, or an empty string that Python 3.12 adds to f-strings."""
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
    """Return the name `a` of a node `a` or `module.a`; empty for any other node."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
