"""Components of this repository and those that installed packages add."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, ClassVar, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.config import catalogue, mixers, tasks
from pipeline.config.catalogue import collect, implementation, union_of
from pipeline.config.mixers import MIXERS, Lstm, Mixer
from pipeline.config.schema import KINDS
from pipeline.config.tasks import TASKS
from pipeline.storage.errors import UserError


class Leaky(Mixer):
    """Added by a package."""

    implementation: ClassVar[str] = "collections:OrderedDict"
    name: Literal["leaky"] = "leaky"


class Twin(Mixer):
    """Added by a package under a name that is taken."""

    name: Literal["lstm"] = "lstm"


class Wrong:
    """No component."""


def collected(monkeypatch: pytest.MonkeyPatch, *values: str) -> dict[str, Any]:
    """The mixers when a package declares these entry points."""
    entries = [EntryPoint(name=f"entry{index}", value=value, group="recurlab.mixers") for index, value in enumerate(values)]
    monkeypatch.setattr(catalogue, "plug_ins", lambda group: entries if group == "recurlab.mixers" else [])
    return collect(dict(vars(mixers)), Mixer, "recurlab.mixers")


def test_a_package_adds_a_component(monkeypatch: pytest.MonkeyPatch) -> None:
    found = collected(monkeypatch, f"{__name__}:Leaky")
    assert found == {**MIXERS, "leaky": Leaky}
    chosen = TypeAdapter(union_of(found)).validate_python("leaky")
    assert chosen == Leaky()
    assert implementation(chosen).__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.to.be:found", r"cannot be imported \(No module named 'nowhere'\); uninstall or repair its package"),
        (f"{__name__}:Missing", r"cannot be imported \(.*Missing.*\); uninstall or repair its package"),
        (f"{__name__}:Wrong", r"expected a subclass of pipeline\.config\.mixers\.base\.Mixer"),
        (f"{__name__}:__name__", r"expected a subclass of pipeline\.config\.mixers\.base\.Mixer"),
    ],
)
def test_a_package_that_adds_nonsense_is_named_in_one_line(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=rf"^entry point recurlab\.mixers:entry0: {message}$"):
        collected(monkeypatch, value)


def test_a_name_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        collected(monkeypatch, f"{__name__}:Twin")
    assert (
        str(caught.value) == f"entry point recurlab.mixers: {__name__}.Twin is named lstm, as pipeline.config.mixers.cells's is; rename one"
    )


def test_a_union_of_one_asks_for_a_name_too() -> None:
    only = TypeAdapter(union_of({"lstm": Lstm}))
    assert only.validate_python("lstm") == only.validate_python({"name": "lstm"}) == only.validate_python(Lstm()) == Lstm()
    with pytest.raises(ValidationError, match="union_tag_not_found"):
        only.validate_python({"horizon": 9})


def test_every_page_of_tasks_is_collected() -> None:
    pages = [import_module(f"{tasks.__name__}.{page.name}") for page in iter_modules(tasks.__path__)]
    written = {item for page in pages for item in vars(page).values() if isinstance(item, type) and issubclass(item, tasks.Task)}
    written = {item for item in written if isinstance(item.model_fields["name"].default, str)}
    assert written == {item for item in TASKS.values() if item.__module__.startswith(f"{tasks.__name__}.")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_is_documented_and_its_code_exists(kind: str) -> None:
    for name, component in KINDS[kind].items():
        assert component.__doc__, name
        assert component.version >= 1
        assert component.model_fields["name"].default == name
        module, _, attribute = component.implementation.partition(":")
        assert find_spec(module), f"{name}: no module {module}"
        assert attribute
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
