"""All measurements: the modules of this package, and entry points `recurlab.measurements` of other packages."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from pipeline.config.catalogue import collect
from pipeline.config.spec_files import load_component
from pipeline.evaluation.measurements.base import Measurement
from pipeline.storage.errors import UserError

_MODULES = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
MEASUREMENTS = collect({name: item for module in _MODULES for name, item in vars(module).items()}, Measurement, "recurlab.measurements")


def measurement_of(block: dict[str, Any]) -> Measurement:
    """Load the measurement that a file records. Raises UserError if it is not in the catalogue or has another version."""
    return load_component("measurement", block)


def measurement_named(name: str) -> Measurement:
    """Return the measurement of that name with its default settings."""
    if name not in MEASUREMENTS:
        raise UserError(f"measurement {name}: not in the catalogue; expected one of {', '.join(sorted(MEASUREMENTS))}")
    return MEASUREMENTS[name].model_validate({"name": name})  # pyright: ignore[reportReturnType]
