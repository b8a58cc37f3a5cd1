"""Which components there are: the classes of a module, and those that installed packages add through entry points."""

from __future__ import annotations

import functools
import importlib
import operator
import os
import pkgutil
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from pipeline.config.base import Component
from pipeline.storage.errors import UserError

PLUGINS = "RECURLAB_PLUGINS"
"""Set to off, only the components of this repository are there."""


C = TypeVar("C", bound=Component)


def collect(module: Mapping[str, Any], base: type[C], group: str) -> dict[str, type[C]]:
    """Every component of one kind by name: the subclasses of `base` in the module, then those of the entry point group."""
    found = [item for item in module.values() if isinstance(item, type) and issubclass(item, base) and item is not base]
    found = [item for item in found if isinstance(item.model_fields["name"].default, str)]
    for entry in () if os.environ.get(PLUGINS) == "off" else plug_ins(group):
        try:
            item = entry.load()
        except Exception as error:
            raise UserError(f"entry point {group}:{entry.name}: cannot be imported ({error}); uninstall or repair its package") from None
        if not (isinstance(item, type) and issubclass(item, base)):
            raise UserError(f"entry point {group}:{entry.name}: expected a subclass of {base.__module__}.{base.__name__}")
        found.append(item)
    known: dict[str, type[C]] = {}
    for item in found:
        name = str(item.model_fields["name"].default)
        if name in known:
            raise UserError(
                f"entry point {group}: {item.__module__}.{item.__name__} is named {name}, as {known[name].__module__}'s is; rename one"
            )
        known[name] = item
    return known


def plug_ins(group: str) -> EntryPoints:
    """Entry points of a group in the installed packages."""
    return _installed().select(group=group)


@functools.cache
def _installed() -> Any:  # EntryPoints, in Python 3.11 SelectableGroups: both have select
    """All entry points: to find those of one group takes importlib as long, 15 ms."""
    found: Any = entry_points()
    return found


def pages(package: str) -> dict[str, Any]:
    """All that the modules of a package define, by name: a module that is added there is found without an import anywhere."""
    modules = [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(sys.modules[package].__path__)]
    return {name: value for module in modules for name, value in vars(module).items()}


def union_of(components: Mapping[str, type[Component]]) -> Any:
    """The pydantic type of a component field: a bare name (all defaults), or a mapping with `name`."""
    kinds = tuple(components.values())
    typed: Any = functools.reduce(operator.or_, kinds)
    typed = Annotated[typed, Field(discriminator="name")] if len(kinds) > 1 else typed
    return Annotated[typed, BeforeValidator(_named)]


def _named(value: Any) -> Any:
    """A bare name as mapping. A mapping says its name even where the catalogue has only one to choose: a second may come."""
    if isinstance(value, dict) and "name" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'name'"})
    return {"name": value} if isinstance(value, str) else value


def implementation(component: Component | type[Component]) -> Any:
    """The class that does the work, imported only now: so nothing heavy is loaded until a stage needs it."""
    kind = component if isinstance(component, type) else type(component)
    module, _, attribute = kind.implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)
