"""pydantic's findings as one line each: file, line, dotted key, what was found, what was expected."""

from __future__ import annotations

import difflib
import functools
import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.config.base import FieldConflict
from pipeline.config.document import ConfigError, Location, YamlList, YamlMapping, shown, suggestion

EXPECTED = {
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a name or a mapping with 'name'",
    "union_tag_not_found": "a name or a mapping with 'name'",
    "string_type": "a string",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "a string of at least {min_length} character",
}
"""What pydantic's types of error expect, in a user's words."""


def validate(kind: Any, value: Any, location: Location) -> Any:
    """The validated value, or a ConfigError for the finding that comes first in the file."""
    try:
        valid = _adapter(kind).validate_python(value)
    except ValidationError as error:
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for finding in error.errors(include_url=False):
            groups.setdefault(_path(value, finding), []).append(finding)
        failures = [_failure(kind, value, location, path, findings) for path, findings in groups.items()]
        raise min(failures, key=lambda failure: failure[0])[1] from None
    _refuse_truth(value, valid, location)
    return valid


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _path(root: Any, finding: Any) -> tuple[Any, ...]:
    """The part of a finding's location that exists in the written value (the rest are union tags and missing keys)."""
    path: list[Any] = []
    value = root
    for step in finding["loc"]:
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            value = value[step]
            path.append(step)
    if finding["type"] == "union_tag_not_found" and isinstance(value, dict):
        path += difflib.get_close_matches("name", value, n=1)
    error = finding.get("ctx", {}).get("error")
    if isinstance(error, FieldConflict) and isinstance(value, YamlMapping):
        given = [field for field in error.fields if field in value]
        path += [max(given, key=lambda field: (not value.locations[field].used_at, value.locations[field].line))] if given else []
    if finding["type"] == "union_tag_invalid" and isinstance(value, dict) and "name" in value:
        path.append("name")
    return tuple(path)


def _refuse_truth(written: Any, valid: Any, location: Location) -> None:
    """pydantic reads true as the number 1; a user who writes it there means something else."""
    if isinstance(written, bool) and isinstance(valid, int | float) and not isinstance(valid, bool):
        raise location.error(f"got {shown(written)}; expected a number")
    if isinstance(written, YamlList) and isinstance(valid, list | tuple):
        for item, here in zip(written, written.locations, strict=True):
            _refuse_truth(item, valid[0] if valid else None, here)
    if isinstance(written, YamlMapping):
        for key, item in written.items():
            _refuse_truth(item, valid.get(key) if isinstance(valid, dict) else getattr(valid, key, None), written.locations[key])


def _failure(
    kind: Any, root: Any, location: Location, path: tuple[Any, ...], findings: list[Any]
) -> tuple[tuple[bool, str, int], ConfigError]:
    """What is wrong at one path, and its rank: in order of lines, missing keys last, since a misspelt one explains a missing one."""
    here, value = location, root
    for step in path:
        if isinstance(value, YamlMapping | YamlList):
            here = value.locations[step]  # pyright: ignore[reportCallIssue, reportArgumentType]
        value = value[step]
    error = here.error(_message(kind, root, path, value, findings))
    error.clash = isinstance(findings[0].get("ctx", {}).get("error"), FieldConflict)
    return (findings[0]["type"] == "missing", here.file, here.line), error


def _message(kind: Any, root: Any, path: tuple[Any, ...], value: Any, findings: list[Any]) -> str:
    first = findings[0]
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            return "unknown key" + suggestion(str(path[-1]), _fields(kind, root, path[:-1]))
        case "missing" if isinstance(first["loc"][-1], int):
            return f"got a list of {len(value)}; expected a list of {findings[-1]['loc'][-1] + 1}"
        case "missing":
            return f"missing key '{first['loc'][-1]}'"
        case "union_tag_not_found" if path and isinstance(path[-1], str) and difflib.get_close_matches("name", path[-1:]):
            return "unknown key; did you mean 'name'?"
        case "union_tag_not_found" if isinstance(value, dict):
            return "missing key 'name'"
        case "union_tag_invalid":
            return f"got {shown(value)}" + suggestion(str(value), _words(context["expected_tags"]))
        case "value_error":
            return str(context["error"])
        case "literal_error" if len(findings) == 1:
            return f"got {shown(value)}" + suggestion(str(value), _words(context["expected"]))
    expected = " or ".join(dict.fromkeys(_expected(finding) for finding in findings))
    return f"got {shown(value)}; expected {expected}"


def _words(listed: str) -> list[str]:
    """The words in pydantic's list of them: `'a', 'b' or 'c'`; numbers have no quotes."""
    return re.findall(r"'([^']+)'", listed) or re.findall(r"\d+", listed)


def _expected(finding: Any) -> str:
    if finding["type"] == "literal_error":
        return " or ".join(_words(finding["ctx"]["expected"]))
    if finding["type"] in EXPECTED:
        return EXPECTED[finding["type"]].format(**finding.get("ctx", {}))
    return (finding["msg"][:1].lower() + finding["msg"][1:]).removeprefix("input should be ").removeprefix("value should be ")


def _fields(kind: Any, root: Any, path: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a path of the written value."""
    models, value = _models(kind), root
    for step in path:
        value = value[step]
        if isinstance(step, int):
            continue
        annotations = [model.model_fields[step].annotation for model in _chosen(models, root) if step in model.model_fields]
        models, root = [inner for annotation in annotations for inner in _models(annotation)], value
    return sorted({name for model in _chosen(models, value) for name in model.model_fields})


def _chosen(models: list[type[BaseModel]], value: Any) -> list[type[BaseModel]]:
    name = value.get("name") if isinstance(value, dict) else value
    exact = [model for model in models if "name" in model.model_fields and model.model_fields["name"].default == name]
    return exact or models


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, types.UnionType, list, dict):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []
