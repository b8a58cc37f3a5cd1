"""Spec files: the sealed YAML files that describe a run, dataset, network or experiment, read, written and loaded as components."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML, YAMLError

from pipeline.config.document import LARGEST_DOCUMENT, check_text
from pipeline.storage.errors import CorruptFileError, ForeignSpecError, UserError
from pipeline.storage.seals import read_sealed, write_sealed

Kind = Literal["task", "network", "mixer", "learner", "figure", "measurement"]
SpecKind = Literal["dataset", "network", "run", "experiment"]
LARGEST_EXPERIMENT = 1_000_000
"""Values of an experiment's specification at most, which lists every run; other specifications are as small as a config."""


def dump(block: dict[str, Any]) -> str:
    """A mapping as YAML text, keys in the order given, short lists on one line."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = None
    writer.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    writer.width = 120
    stream = io.StringIO()
    writer.dump(block, stream)
    return stream.getvalue()


def write_spec(path: Path, block: dict[str, Any]) -> None:
    """Write a frozen specification and its seal."""
    write_sealed(path, dump(block))


def read_spec(path: Path, kind: SpecKind | None = None) -> dict[str, Any]:
    """Read a frozen specification, its seal verified.

    Raises MissingFileError, CorruptFileError, or UserError for one of another kind, naming the file.
    """
    try:
        text = read_sealed(path, "a specification written by 'pipeline describe'").decode()
        check_text(text, str(path), LARGEST_EXPERIMENT if kind == "experiment" else LARGEST_DOCUMENT)
        block = YAML(typ="safe", pure=True).load(text)
        _check_values(block)
    except (YAMLError, ValueError, RecursionError):
        raise CorruptFileError(f"{path}: not readable as YAML; delete it and run again") from None
    if not isinstance(block, dict):
        raise CorruptFileError(f"{path}: expected a mapping, got {type(block).__name__}; delete it and run again")
    if kind:
        _check(path, kind, block)
    return block


def _check(path: Path, kind: SpecKind, block: dict[str, Any]) -> None:
    from pipeline.config.spec_models import complaint

    wrong = complaint(kind, block)
    if wrong:
        raise UserError(f"{path}: {wrong}; expected what 'pipeline describe {kind}' writes")


def _check_values(value: Any) -> None:
    """Raise ValueError for more values than a specification can have, aliases counted where they are used: such are made to fill memory."""
    left, inner = LARGEST_EXPERIMENT, [value]
    while inner:
        item = inner.pop()
        inner += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []
        left -= 1
        if left < 0 or len(inner) > LARGEST_EXPERIMENT:
            raise ValueError("too many values")


def load_component(kind: Kind, block: dict[str, Any]) -> Any:
    """The component that a frozen block describes.

    Raises ForeignSpecError when the block was written by another version of the component: its fields may mean something else now.
    """
    from pydantic import ValidationError

    known = _catalogue(kind)
    name = str(block.get("name"))
    if name not in known:
        raise UserError(f"{kind} {name}: not in the catalogue; expected one of {', '.join(sorted(known))}")
    _check_version(kind, name, block.get("version"), known[name].version)
    try:
        found = known[name].model_validate(_without_versions(block))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ForeignSpecError(f"{kind} {name}: {where}: {first['msg']}; expected a specification written by this version") from None
    _check_versions(found, block)
    return found


def _check_versions(component: Any, block: Any) -> None:
    """Raise ForeignSpecError where a component within this one, at any depth, was written for another version."""
    from pipeline.config.base import Component

    for key, inner in component:
        if isinstance(inner, Component) and isinstance(block.get(key), dict):
            _check_version(key, inner.name, block[key].get("version"), type(inner).version)
            _check_versions(inner, block[key])


def _check_version(kind: str, name: str, written: Any, present: int) -> None:
    if written != present:
        raise ForeignSpecError(f"{kind} {name}: written for version {written}, this is version {present}; run the workflow again")


def _without_versions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_versions(item) for key, item in value.items() if not (key == "version" and "name" in value)}
    if isinstance(value, list):
        return [_without_versions(item) for item in value]
    return value


def _catalogue(kind: Kind) -> dict[str, Any]:
    from pipeline.config import figures, learners, mixers, networks, tasks
    from pipeline.config.measurements import measurements

    if kind == "measurement":
        return measurements()
    pages = {
        "task": tasks.TASKS,
        "network": networks.NETWORKS,
        "mixer": mixers.MIXERS,
        "learner": learners.LEARNERS,
        "figure": figures.FIGURES,
    }
    return pages[kind]
