"""Generated from the models, never written by hand: the JSON schema that editors complete keys from, and the reference page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter

from pipeline.config.base import Component, Distribution, Section
from pipeline.config.config_file import Config, Experiment, Point, Runtime, Tracking
from pipeline.config.figures import FIGURES
from pipeline.config.learners import LEARNERS, Curriculum
from pipeline.config.measurements import measurements
from pipeline.config.mixers import MIXERS
from pipeline.config.networks import NETWORKS
from pipeline.config.tasks import TASKS, Task

KINDS: dict[str, Mapping[str, type[Component]]] = {
    "tasks": TASKS,
    "mixers": MIXERS,
    "networks": NETWORKS,
    "learners": LEARNERS,
    "figures": FIGURES,
    "measurements": measurements(),
}
COUNT = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[0-9_.]+[kKmMgGtTpP]?$"}]}


def json_schema() -> dict[str, Any]:
    """The schema of a config file, JSON Schema 2020-12."""
    schema = TypeAdapter(Config).json_schema()
    definitions = schema["$defs"]
    for component in KINDS["measurements"].values():
        definitions[component.__name__] = TypeAdapter(component).json_schema()
    for kind, components in KINDS.items():
        for component in components.values():
            _relax(definitions[component.__name__], preset=kind not in ("figures", "measurements"))
    evaluations = {task.evaluation.__name__: task.evaluation for task in TASKS.values() if issubclass(task, Task)}
    for name, evaluation in evaluations.items():
        definitions[name] = TypeAdapter(evaluation).json_schema()
        kinds = [{"$ref": f"#/$defs/{component.__name__}"} for component in KINDS["measurements"].values()]
        field = definitions[name]["properties"]["measurement"]
        field["anyOf"] = [{"enum": sorted(KINDS["measurements"])}, *kinds, {"type": "null"}]
    point = definitions["Point"]
    point.pop("required", None)
    point["properties"]["evaluate"] = {
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in sorted(evaluations)],
        "description": Point.model_fields["evaluate"].description,
    }
    for holder in (point, *(definitions[component.__name__] for component in (*NETWORKS.values(), *MIXERS.values()))):
        for key in ("task", "network", "learner", "mixer"):
            if key in holder["properties"]:
                _allow_bare_name(holder["properties"][key])
    _allow_bare_name(definitions["Experiment"]["properties"]["figures"]["items"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_with_counts(schema)}


def _relax(definition: dict[str, Any], preset: bool) -> None:
    """A component may take a preset, which may hold what is required."""
    definition.pop("required", None)
    if preset:
        definition["properties"]["preset"] = {"type": "string", "description": "a fragment of workflow/presets/ laid beneath"}


def _allow_bare_name(field: dict[str, Any]) -> None:
    """A component may be a bare name; the discriminator keyword would forbid it."""
    choices = field.pop("oneOf", None) or [{"$ref": field.pop("$ref")}]
    field.pop("discriminator", None)
    names = [choice["$ref"].rsplit("/", 1)[-1] for choice in choices]
    known = sorted(name for components in KINDS.values() for name, component in components.items() if component.__name__ in names)
    field["anyOf"] = [{"enum": known}, *choices]


def _with_counts(value: Any) -> Any:
    """Counts may be written with a suffix."""
    if isinstance(value, dict):
        if value.get("type") == "integer" and any(isinstance(example, str) for example in value.get("examples", [])):
            rest = {key: item for key, item in value.items() if key not in ("type", "minimum")}
            return {**rest, **COUNT}
        return {key: _with_counts(item) for key, item in value.items()}
    return [_with_counts(item) for item in value] if isinstance(value, list) else value


def schema_text() -> str:
    """The schema as it stands in `workflow/schemas/config.schema.json`."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


def reference_text() -> str:
    """The reference page as it stands in `docs/reference/config.md`."""
    parts = [
        "# Config reference",
        "",
        "Generated from the models by `pipeline schema --write`; do not edit.",
        "",
        "A component is a bare name (all defaults) or a mapping with `name`; `preset: NAME` lays `workflow/presets/NAME.yaml` beneath it.",
        "Counts understand the suffixes k, M, G, T and P: `300k`, `0.5M`, `2P`.",
    ]
    top = {
        "Experiment": Experiment,
        "Point (`base`)": Point,
        "Distribution": Distribution,
        "Curriculum": Curriculum,
        "Runtime": Runtime,
        "Tracking": Tracking,
    }
    for title, section in top.items():
        parts += ["", f"## {title}", "", _first(section), "", *_table(section)]
    for kind, components in KINDS.items():
        parts += ["", f"## {kind.capitalize()}"]
        for name, component in components.items():
            parts += ["", f"### `{name}`", "", _first(component), *_table(component)]
            if kind == "tasks":
                parts += ["", "`evaluate`:", *_table(component.evaluation)]  # pyright: ignore[reportAttributeAccessIssue]
    return "\n".join(parts) + "\n"


def _first(section: type[Section]) -> str:
    text = " ".join((section.__doc__ or "").split())
    source = getattr(section, "source", "")
    return f"{text} Source: {source}.\n" if source else f"{text}\n"


def _table(section: type[Section]) -> list[str]:
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key, default, allowed, meaning in field_rows(section):
        rows.append(f"| `{key}` | {f'`{default}`' if default else ''} | {allowed} | {meaning} |")
    return rows if len(rows) > 2 else []


def field_rows(section: type[Section]) -> list[tuple[str, str, str, str]]:
    """Every field a user may write: key, default as YAML-like text (empty if required), choices or bounds, meaning."""
    rows = []
    for key, field in section.model_fields.items():
        if key == "name":
            continue
        default = "" if field.is_required() else _default(field.get_default(call_default_factory=True))
        bounds = ", ".join(_bound(item) for item in field.metadata if _bound(item))
        choices = _choices(field.annotation)
        rows.append((key, default, ", ".join(text for text in (choices, bounds) if text), field.description or ""))
    return rows


def _bound(item: Any) -> str:
    for attribute, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
        if (bound := getattr(item, attribute, None)) is not None:
            return f"{sign} {bound:g}" if abs(bound) >= 10**6 else f"{sign} {bound}"
    return ""


def _choices(annotation: Any) -> str:
    return " / ".join(f"`{choice}`" for choice in get_args(annotation)) if get_origin(annotation) is Literal else ""


def _default(value: Any) -> str:
    if isinstance(value, Component):
        return value.name
    if isinstance(value, Section):
        return "{}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def sections_of(annotation: Any) -> set[type[Section]]:
    """The sections that a field may hold; components, which have pages of their own, are left out."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return set() if issubclass(annotation, Component) else {annotation}
    return {kind for part in get_args(annotation) for kind in sections_of(part)}
