"""Every kind of measurement: the modules of this package, then those that other packages add as entry points `recurlab.measurements`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from pipeline.config.catalogue import collect
from pipeline.config.spec_files import load_component
from pipeline.evaluation.measurements.base import Measurement
from pipeline.storage.errors import UserError

_MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
MEASUREMENTS = collect({name: item for module in _MODULES for name, item in vars(module).items()}, Measurement, "recurlab.measurements")


def measurement_of(block: dict[str, Any]) -> Measurement:
    """The measurement that a file says it is of. Raises UserError where no such kind is in the catalogue, or it has another version."""
    return load_component("measurement", block)


def measurement_named(name: str) -> Measurement:
    """The measurement of that name with its default settings."""
    if name not in MEASUREMENTS:
        raise UserError(f"measurement {name}: not in the catalogue; expected one of {', '.join(sorted(MEASUREMENTS))}")
    return MEASUREMENTS[name].model_validate({"name": name})  # pyright: ignore[reportReturnType]
