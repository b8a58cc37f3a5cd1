"""The door to the kinds of measurement, whose modules lie above the config: they are imported when a config is resolved, not before."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from pipeline.config.base import Component


def measurements() -> dict[str, type[Component]]:
    """Every kind of measurement by name."""
    return importlib.import_module("pipeline.evaluation.measurements").MEASUREMENTS


def read_measurement(value: Any) -> Any:
    """A measurement from its name, or from a mapping with `name` and settings. Raises ValueError, one line, where there is none such."""
    if value is None or isinstance(value, Component):
        return value
    block = {"name": value} if isinstance(value, str) else value
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        raise ValueError(f"got {value!r}; expected the name of a kind of measurement, or a mapping with 'name'")
    known = measurements()
    if block["name"] not in known:
        raise ValueError(f"got {block['name']!r}; expected one of {', '.join(sorted(known))}")
    try:
        return known[block["name"]].model_validate(dict(block))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


AnyMeasurement = Annotated[Any, BeforeValidator(read_measurement, json_schema_input_type=str | dict[str, Any] | None)]
"""A kind of measurement in a config: its name, or a mapping with `name`."""
