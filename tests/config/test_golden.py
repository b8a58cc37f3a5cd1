"""What is generated from the models or recorded of them is in step with them; every config that is shipped is right."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.config.mixers import MIXERS
from pipeline.config.schema import KINDS, json_schema, reference_text, schema_text
from pipeline.environment_variables import variables_text
from pipeline.plan import plan_file
from tests.config.rich import RICH, SMALL, block, entries, replaced
from tests.golden import defaults

REPOSITORY = Path(__file__).resolve().parents[2]
SUITES = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "workflow" / "suites").glob("*.yaml"))]
PRESETS = sorted((REPOSITORY / "workflow" / "presets").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def as_editor_reads(text: str) -> Any:
    """The text as an editor's YAML 1.2 reader sees it."""
    return YAML(typ="safe", pure=True).load(text)


def test_no_default_changed_without_a_new_version() -> None:
    assert not defaults.unversioned(defaults.recorded(), defaults.current()), "raise `version` of what changed"
    assert defaults.recorded() == defaults.current(), f"where every new field's default is neutral: {defaults.COMMAND}"


def test_the_check_of_defaults_sees_what_it_should() -> None:
    old = defaults.current()
    assert "learners.supervised" in old
    assert old["learners.supervised"]["fields"]["curriculum.factor"] == 2.0
    assert old["tasks.copy"]["fields"]["delay"] == 100

    def changed(edit: Any) -> list[str]:
        new = copy.deepcopy(old)
        edit(new["tasks.copy"])
        return defaults.unversioned(old, new)

    assert changed(lambda entry: entry["fields"].update(delay=7)) == ["tasks.copy.delay: was 100, is 7"]
    assert changed(lambda entry: entry["fields"].pop("delay")) == ["tasks.copy.delay: removed"]
    assert changed(lambda entry: (entry["fields"].update(delay=7), entry.update(version=entry["version"] + 1))) == []
    assert changed(lambda entry: entry.update(version=0)) == ["tasks.copy: version 1 became 0"]
    assert changed(lambda entry: entry["fields"].update(new=False)) == []


def test_schema_and_reference_are_in_step() -> None:
    """Of this repository's own components, whatever plug-ins are installed beside it."""
    code = "import sys; from pipeline.config.schema import reference_text, schema_text; sys.stdout.write(schema_text() + '\\0' + reference_text())"
    environment = {**os.environ, "RECURLAB_PLUGINS": "off", "PYTHONUTF8": "1"}
    made = subprocess.run([sys.executable, "-c", code], env=environment, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    schema = REPOSITORY / "workflow" / "schemas" / "config.schema.json"
    reference = REPOSITORY / "docs" / "reference" / "config.md"
    assert [path.read_text(encoding="utf-8") for path in (schema, reference)] == made.split("\0"), "run `pipeline schema --write`"
    assert (reference.parent / "variables.md").read_text(encoding="utf-8") == variables_text(), "run `pipeline schema --write`"


def test_the_reference_names_every_field() -> None:
    text = reference_text()
    for components in KINDS.values():
        for name, component in components.items():
            part = text.split(f"### `{name}`\n")[1].split("\n### ")[0]
            assert " ".join((component.__doc__ or "").split()) in part
            for key, field in component.model_fields.items():
                assert key == "name" or f"| `{key}` | " in part
                assert key == "name" or field.description, f"{name}.{key} has no description"


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_is_right(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(as_editor_reads(path.read_text(encoding="utf-8")))
    assert plan_file(path).runs


POINTS = {
    "tokens": {"task": "copy", "network": "sequence", "learner": "{name: supervised, steps: 5}"},
    "grid": {"task": "maze", "network": "recursive", "learner": "{name: supervised, steps: 5}"},
    "environment": {"task": "t_maze", "network": "actor_critic", "learner": "{name: ppo, num_updates: 5}"},
}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_right(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    written = as_editor_reads(path.read_text(encoding="utf-8"))
    written = {"name": "actor_critic", **written}  # one that leaves the name open is for any kind of network
    known: Any = {name: component for components in KINDS.values() for name, component in components.items()}
    component = known[written["name"]]
    validator.evolve(schema={"$ref": f"#/$defs/{component.__name__}", "$defs": json_schema()["$defs"]}).validate(written)
    kind = next(kind.removesuffix("s") for kind, components in KINDS.items() if written["name"] in components)
    budget = "" if kind != "learner" or {*component.budgets} & written.keys() else f", {component.budgets[1]}: 1000"
    mixer: Any = written.get("mixer", "lstm")
    mixer = MIXERS[mixer if isinstance(mixer, str) else mixer["name"]]
    grid = getattr(component, "grid", False) or not mixer.causal
    point = POINTS["grid" if grid else getattr(component, "kind", "tokens")] | {
        kind: f"{{name: {written['name']}, preset: {path.stem}{budget}}}"
    }
    if kind == "mixer":
        point["network"] = f"{{name: sequence, mixer: {point.pop(kind)}}}"
    lines = "".join(f"      {key}: {value}\n" for key, value in point.items())
    assert expand(read_text(f"experiments:\n  a:\n    base:\n{lines}", "text")).experiments


def test_the_schema_takes_what_the_loader_takes(validator: jsonschema.Draft202012Validator) -> None:
    short = SMALL.replace("steps: 5", "rows: 300k, keep: [last, 2k], validation_rows: 1_000")
    short = short.replace("{name: copy, symbols: 3, delay: 9}", "copy").replace("{name: sequence, mixer: gru, width: 8}", "sequence")
    for text in (RICH, SMALL, short, SMALL.replace("delay: 9", "delay: {uniform: [3, 9]}")):
        assert expand(read_text(text, "text")).experiments
        validator.validate(as_editor_reads(text))


def test_the_schema_refuses_misspelt_keys_and_wrong_values(validator: jsonschema.Draft202012Validator) -> None:
    free = ("sweep", "variants", "experiments.first_one.base.task.name")
    checked = 0
    for entry in entries():
        if any(part in entry.path for part in free) or entry.path == "experiments.first_one":
            continue
        first, *rest = block(entry)
        wrong = [replaced(entry, first.replace(f"{entry.key}:", f"{entry.key}x:", 1), *rest), replaced(entry, f"{entry.key}: [[{{a: 1}}]]")]
        for text in wrong:
            assert not validator.is_valid(as_editor_reads(text)), text
            checked += 1
    assert checked > 130


def test_the_schema_is_json_of_its_own_draft() -> None:
    schema = json.loads(schema_text())
    assert schema["$schema"].endswith("2020-12/schema")
    for kind in ("tasks", "mixers", "networks", "learners", "figures"):
        for component in KINDS[kind].values():
            assert schema["$defs"][component.__name__]["additionalProperties"] is False
