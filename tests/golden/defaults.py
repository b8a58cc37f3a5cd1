"""Every default of every component, as it was when its version began: `python -m tests.golden.defaults` writes defaults.json.

An identifier covers what differs from the defaults and the component's version, so a default that changes under the same version would
leave old results standing under a new meaning. The command refuses that; a new field with a neutral default it records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config.base import Section, filled
from pipeline.config.schema import KINDS, sections_of

FILE = Path(__file__).with_suffix(".json")
COMMAND = "python -m tests.golden.defaults"
Defaults = dict[str, dict[str, Any]]


def current() -> Defaults:
    """Version and defaults of every component in this repository, and of the sections that its fields hold."""
    ours = [(kind, item) for kind, items in KINDS.items() for item in items.values() if item.__module__.startswith("pipeline.")]
    return {f"{kind}.{item.model_fields['name'].default}": {"version": item.version, "fields": _fields(item)} for kind, item in ours}


def recorded() -> Defaults:
    """What defaults.json holds."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def _fields(section: type[Section]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, field in section.model_fields.items():
        found[key] = "required" if field.is_required() else _plain(field.get_default(call_default_factory=True))
        for inner in sorted(sections_of(field.annotation), key=lambda kind: kind.__name__):
            found |= {f"{key}.{name}": value for name, value in _fields(inner).items()}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return filled(value)
    return list(value) if isinstance(value, tuple) else value


def unversioned(old: Defaults, new: Defaults) -> list[str]:
    """Each default that changed and each field that went although its component's version stayed."""
    found = []
    for name, entry in old.items():
        if name in new and new[name]["version"] == entry["version"]:
            fields = new[name]["fields"]
            found += [f"{name}.{key}: removed" for key in entry["fields"] if key not in fields]
            found += [
                f"{name}.{key}: was {value!r}, is {fields[key]!r}"
                for key, value in entry["fields"].items()
                if fields.get(key, value) != value
            ]
        elif name in new and new[name]["version"] < entry["version"]:
            found.append(f"{name}: version {entry['version']} became {new[name]['version']}")
    return found


def main() -> None:
    """Write defaults.json, unless a default changed under the same version."""
    found = unversioned(recorded(), current()) if FILE.exists() else []
    if found:
        raise SystemExit("raise `version` of these components first:\n" + "\n".join(found))
    FILE.write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
