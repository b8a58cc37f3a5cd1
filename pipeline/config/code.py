"""The code behind a component: which source files it is made of, and whether they changed. Nothing is imported for it.

A component's files are the module of its implementation and everything that this imports, in a function or not, from

    its own package        and others of the same distribution
    this package           learners, mixers, networks, ops, tasks
    packages in the open   any that is no installed library: on PYTHONPATH, beside the code, or installed with `pip install -e`

with the C and CUDA sources that these name, in this package each by its own name. Of a plug-in, the module of its entry belongs to it too.
Installed libraries are known by their versions, the settings of this package's own components by `version`.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution, PackageNotFoundError, requires
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.base import Component, Section
from pipeline.config.catalogue import plug_ins
from pipeline.storage.errors import ChangedCodeError
from pipeline.storage.source_code import headers, raw_digest, read_source

Code = dict[str, dict[str, str]]
"""A component such as `mixer lstm` -> its files -> their digests."""
OURS = "pipeline"
FLOORS = ("learners", "mixers", "networks", "ops", "tasks")
"""The parts of this package that components are made of."""
GROUPS = ("recurlab.mixers", "recurlab.tasks", "recurlab.networks", "recurlab.learners", "recurlab.figures", "recurlab.measurements")
"""The entry points of plug-ins."""
LIBRARIES = {"site-packages", "dist-packages"}
MIXED = "mixed"
"""In place of a digest: some of the work was done by one version of the file, and some by another."""


class Module(NamedTuple):
    """A module's dotted name, its file, and the file's name in records, which is the same on every machine."""

    name: str
    file: Path
    label: str

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.file.stem == "__init__" else self.name.rpartition(".")[0]


def code_of(*components: Component, known: Code | None = None) -> Code:
    """The present code of components and of those inside them. known: what was found a moment ago, and what is found now."""
    parts = {f"{kind_of(part)} {part.name}": part for component in components for part in parts_of(component)}
    found = {} if known is None else known
    for name, part in parts.items():
        if name not in found:
            found[name] = {label: digest for label, (_, digest) in files_of(part).items()}
    return {name: found[name] for name in sorted(parts)}


def parts_of(section: Section) -> Iterator[Component]:
    """A component and all that it is made of: those in its fields, and those of its `blocks`."""
    if isinstance(section, Component):
        yield section
    values = [getattr(section, name) for name in type(section).model_fields]
    for value in [*values, *(mixer for mixer, _ in getattr(section, "blocks", ()))]:
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Section):
                yield from parts_of(item)


def kind_of(component: Component) -> str:
    """mixer, network, task, learner, figure or measurement: the catalogue's base class that a component comes from."""
    kinds = {group.removeprefix("recurlab.").removesuffix("s") for group in GROUPS}
    return next(name for kind in type(component).__mro__ if (name := kind.__name__.lower()) in kinds)


def changed(recorded: Mapping[str, Mapping[str, str]] | None, present: Code) -> dict[str, list[str]]:
    """The components of `present` whose recorded files are others, each with the files that differ; all of them without a record."""
    found = {}
    for name, now in present.items():
        before = (recorded or {}).get(name)
        if before != now:
            both = [*now, *(before or {})]
            found[name] = sorted({file for file in both if (before or {}).get(file) != now.get(file)}) if before else ["not recorded"]
    return found


def describe(changes: Mapping[str, Iterable[str]]) -> str:
    """`mixer lstm (pipeline/mixers/lstm.py)`, and the same of all others."""
    return ", ".join(f"{name} ({some(files)})" for name, files in changes.items())


def some(words: Iterable[str], most: int = 3) -> str:
    """The first of some words, and how many more there are."""
    found = list(words)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def check_code(what: str, recorded: Code | None, present: Code, remedy: str, allow: bool) -> str | None:
    """None where the code is the recorded one; else raise ChangedCodeError, or return its line where changed code is allowed.

    what: the thing and how it came to be, as in "results/runs/X: trained". remedy: what makes it anew.
    """
    changes = changed(recorded, present)
    if not changes:
        return None
    line = f"{what} by other code, changed since: {describe(changes)}"
    if not allow:
        raise ChangedCodeError(f"{line}; {remedy}, runtime.changed_code: allow (or --allow-changed-code) takes it as it is")
    return line


def mixed(code: Code) -> Code:
    """The record of what several versions of some components made: it equals that of none."""
    return {name: dict.fromkeys(files, MIXED) for name, files in code.items()}


def merged(recorded: Code | None, present: Code) -> Code:
    """The record of a training started by one version of the code and resumed by another."""
    return present | mixed({name: present[name] for name in changed(recorded, present)})


def files_of(component: Component) -> dict[str, tuple[Path, str]]:
    """The files that a component is made of, by their names in records, each with its digest."""
    kind = type(component)
    start = [kind.implementation.partition(":")[0], *([] if _top(kind.__module__) == OURS else [kind.__module__])]
    own = _distribution_of(_top(start[0]))
    found: dict[str, tuple[Path, str]] = {}
    waiting, seen = start, set(start)
    while waiting:
        module = find_module(waiting.pop())
        if module is None:
            continue
        files, imported = _read(module, _other_entries(kind, module.name))
        found |= files
        new = {name for name in imported if name not in seen and _is_followed(name, own)}
        seen |= new
        waiting += sorted(new)
    return dict(sorted(found.items()))


def _other_entries(kind: type[Component], module: str) -> frozenset[str]:
    """The classes of a page that are entries of other components: they say nothing of this one."""
    page = vars(sys.modules.get(module)).values() if module == kind.__module__ and module in sys.modules else ()
    entries = [item for item in page if isinstance(item, type) and issubclass(item, Component) and item.__module__ == module]
    return frozenset(item.__name__ for item in entries if item not in kind.__mro__)


def _read(module: Module, without: frozenset[str]) -> tuple[dict[str, tuple[Path, str]], list[str]]:
    """A module's file and the sources that it names, with their digests; and the names that it imports."""
    content = module.file.read_bytes()
    if module.file.suffix != ".py":
        return {module.label: (module.file, raw_digest(content))}, []
    source = read_source(content, without)
    sources = source.files(module.file.parent, patterns=_top(module.name) != OURS)
    named = {path for found in sources for path in (found, *headers(found))}
    folder = module.label.rpartition("/")[0]
    below = {path: path.relative_to(module.file.parent).as_posix() for path in named if path.is_relative_to(module.file.parent)}
    sources = {"/".join(filter(None, (folder, name))): (path, raw_digest(path.read_bytes())) for path, name in below.items()}
    return {module.label: (module.file, source.digest), **sources}, list(source.modules(module.package))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_followed(name: str, own: frozenset[str]) -> bool:
    """Whether a module that is imported under this name is part of the component's code."""
    top = _top(name)
    if top == OURS:
        return name.split(".")[1:2] != [] and name.split(".")[1] in FLOORS
    return top in own or _is_in_the_open(top)


@functools.cache
def _is_in_the_open(top: str) -> bool:
    """Whether a package is someone's own source: no standard library, no installed library, nothing that this package depends on."""
    if top in sys.stdlib_module_names or top in _required():
        return False
    places = _places(top)
    return bool(places) and not any(LIBRARIES & set(place.parts) for place in places)


@functools.cache
def _required() -> frozenset[str]:
    try:
        return frozenset(re.split(r"[^\w-]", line)[0].replace("-", "_").lower() for line in requires("recurlab") or ())
    except PackageNotFoundError:
        return frozenset()


@functools.cache
def _distribution_of(top: str) -> frozenset[str]:
    """The top-level names that are installed together with a plug-in's."""
    distributions = [entry.dist for group in GROUPS for entry in plug_ins(group) if entry.dist and _top(entry.module) == top]
    return frozenset({top, *(name for found in distributions[:1] for name in _installed(found))})


def _installed(distribution: Distribution) -> Iterator[str]:
    for file in distribution.files or ():
        if file.suffix == ".py":
            yield file.parts[0].removesuffix(".py")


def _places(top: str) -> list[Path]:
    """The folders of a top-level package, or the file of a top-level module; nothing where there is none."""
    try:
        spec: Any = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    return folders or ([Path(spec.origin)] if spec.has_location and spec.origin else [])


def find_module(name: str) -> Module | None:
    """The module of this dotted name, or, where it is a name inside of one, that one; None for what has no file."""
    top, *rest = name.split(".")
    for place in _places(top):
        if place.is_file():
            return Module(top, place, place.name)
        for length in range(len(rest), -1, -1):
            inner = place.joinpath(*rest[:length])
            candidates = [inner.with_name(f"{inner.name}{suffix}") for suffix in (".py", *EXTENSION_SUFFIXES)] if length else []
            for file in (inner / "__init__.py", *candidates):
                if file.is_file():
                    label = f"{top}/{file.relative_to(place).as_posix()}"
                    return Module(".".join([top, *rest[:length]]), file, label)
    return None
