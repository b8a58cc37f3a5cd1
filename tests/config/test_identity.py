"""One meaning, one identity: however a config is written, its plan is the same; and what is frozen comes back as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from pipeline.config.base import Component, Distribution, Section, canonical, filled
from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.config.learners import Supervised
from pipeline.config.mixers import Gru, Lstm
from pipeline.config.networks import SequenceNetwork
from pipeline.config.schema import KINDS
from pipeline.config.spec_files import Kind, load_component, read_spec, write_spec
from pipeline.config.tasks import Copy
from pipeline.plan import Plan, make_plan
from pipeline.storage.atomic import write_text
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import CorruptFileError, ForeignSpecError, MissingFileError, UserError
from pipeline.storage.seals import name_in_seal, seal_path
from tests.config.rich import RICH, SMALL

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = re.compile(r"[a-z_][\w .?]*")
COUNTS = ("rows", "distinct_rows", "validation_rows")


class Scribe:
    """Writes a mapping as YAML in a hand that is drawn at random: order, style, quotes, comments, blank lines, spelling of numbers."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def document(self, value: dict[str, Any]) -> str:
        """The whole file."""
        return "".join(f"{line}{self.noise()}\n{self.blank()}" for line in self.block(value))

    def noise(self) -> str:
        return self.random.choice(["", "", "", "  ", "  # a remark: with [brackets"])

    def blank(self) -> str:
        return self.random.choice(["", "", "", "", "\n", "# remark\n", "     # another\n"])

    def items(self, value: dict[str, Any]) -> list[tuple[str, Any]]:
        return self.random.sample(list(value.items()), len(value))

    def block(self, value: dict[str, Any]) -> list[str]:
        """A mapping, a key to a line; what it holds may be one line or a block again."""
        lines = []
        for key, item in self.items(value):
            if isinstance(item, dict) and item and self.random.random() < 0.7:
                indent = " " * self.random.choice([1, 2, 4, 7])
                lines += [f"{self.text(key)}:", *(indent + line for line in self.block(item))]
            elif isinstance(item, list) and item and self.random.random() < 0.3:
                lines += [f"{self.text(key)}:", *(f"- {self.flow(part, key)}" for part in self.parts(key, item))]
            else:
                lines.append(f"{self.text(key)}:{' ' * self.random.choice([1, 1, 3])}{self.flow(item, key)}")
        return lines

    def parts(self, key: str, value: list[Any]) -> list[Any]:
        """The list, in any order where the order means nothing."""
        unordered = "." in key or key in ("figures", "keep", "delays", "symbols", "seed")
        return self.random.sample(value, len(value)) if unordered else value

    def flow(self, value: Any, key: str) -> str:
        """A value on one line."""
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.text(inner)}: {self.flow(item, inner)}" for inner, item in self.items(value)) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(self.flow(item, key) for item in self.parts(key, value)) + "]"
        if isinstance(value, str):
            return self.text(value)
        return "null" if value is None else self.number(value, key)

    def text(self, value: str) -> str:
        return self.random.choice([value, value, f"'{value}'", f'"{value}"']) if PLAIN.fullmatch(value) else f"'{value}'"

    def number(self, value: Any, key: str) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        choices = [str(value), f"{value}.0" if isinstance(value, int) else repr(value), f"{Decimal(str(value)):e}"]
        choices += [f"{value:_}", hex(value)] if isinstance(value, int) else []
        choices += [f"{value // 1000}k", f"{Decimal(value) / 1_000_000}M"] if key in COUNTS and value % 1000 == 0 else []
        return self.random.choice(choices)


def flat(plan: Plan) -> list[str]:
    """Everything the workflow reads of a plan, key order included: to Snakemake a mapping in another order is another value."""
    kinds = (plan.datasets, plan.networks, plan.runs, plan.evaluations, plan.experiments)
    things = [thing if isinstance(thing, dict) else asdict(thing) for kind in kinds for _, thing in sorted(kind.items())]
    for thing in things:
        if "figures" in thing:
            thing["figures"] = sorted(thing["figures"].items())
            del thing["dropped"]  # shown as it was written, and read by no job
    return [json.dumps(thing) for thing in things]


WRITTEN = YAML(typ="safe", pure=True).load(RICH.replace("300k", "300000"))
PLANNED = flat(make_plan(expand(read_text(RICH, "c.yaml"))))


@QUICK
@given(st.randoms(use_true_random=False))
def test_the_hand_a_config_is_written_in_changes_nothing(random: Random) -> None:
    text = Scribe(random).document(WRITTEN)
    assert flat(make_plan(expand(read_text(text, "c.yaml")))) == PLANNED, text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("delay: 9}", "delay: 9, alphabet: 8, recall: forward, selective: false, noise: 0}"),
        ("mixer: gru", "mixer: {name: gru}"),
        ("mixer: gru", "mixer: {name: gru, horizon: 40, init: default}"),
        ("width: 8", "width: 8, depth: 1, context: 16384, parameters: null"),
        ("steps: 5", "steps: 5, batch_size: 32, keep: [last], rows: null, curriculum: null, betas: [0.9, 0.999]"),
        ("experiments:", "runtime: {}\ntracking: {wandb: off}\nexperiments:"),
        ("    base:", "    question: ''\n    sweep: {}\n    variants: {}\n    figures: []\n    base:"),
        ("    base:", "    base:\n      seed: 0\n      evaluate: {rows: 1000, delays: []}"),
    ],
)  # fmt: skip
def test_spelling_a_default_out_changes_nothing(old: str, new: str) -> None:
    assert SMALL.count(old) == 1
    plans = [make_plan(expand(read_text(text, "c.yaml"))) for text in (SMALL, SMALL.replace(old, new))]
    assert flat(plans[0]) == flat(plans[1])


def test_what_runs_are_executed_with_is_no_part_of_them() -> None:
    text = SMALL + "runtime: {threads: 2, device: cpu}\ntracking: {wandb: offline}\n"
    one, other = (make_plan(expand(read_text(written, "c.yaml"))) for written in (SMALL, text))
    assert (one.runs, one.datasets, one.experiments) == (other.runs, other.datasets, other.experiments)
    assert one.runtime != other.runtime


def test_the_canonical_form_covers_what_differs_and_every_version() -> None:
    network = SequenceNetwork(mixer=Gru(init="chrono"), depth=2)
    assert canonical(network) == {
        "name": "sequence",
        "version": 1,
        "depth": 2,
        "mixer": {"name": "gru", "version": Gru.version, "init": "chrono"},
    }
    assert canonical(SequenceNetwork()) == {"name": "sequence", "version": 1, "mixer": {"name": "lstm", "version": Lstm.version}}
    assert canonical(Copy(delay=Distribution(uniform=(1, 3)))) == {"name": "copy", "version": 1, "delay": {"uniform": [1, 3]}}
    assert canonical(Copy(symbols=10, delay=100)) == {"name": "copy", "version": 1}


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Written values of a field, right and nearly right."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return values(inner, [*metadata, *more])
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        parts = get_args(annotation)
        return (
            st.lists(values(parts[0], []), max_size=3)
            if get_origin(annotation) is list
            else st.tuples(*(values(part, []) for part in parts)).map(list)
        )
    if get_origin(annotation) is dict:
        return st.dictionaries(*(values(part, []) for part in get_args(annotation)), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return written(annotation)
    if annotation is type(None):
        return st.none()
    if get_args(annotation):
        return st.one_of(*(values(part, metadata) for part in get_args(annotation)))
    simple = {
        bool: st.booleans(),
        int: st.integers(1, 4000),
        float: st.one_of(st.sampled_from([0.0, 0.5, 0.99, 1.0, 2.5]), st.floats(1e-6, 0.999)),
        str: st.sampled_from(["delay", "symbols", "a/b", "é: x"]),
    }
    return simple[annotation]


def written(kind: type[Section]) -> st.SearchStrategy[dict[str, Any]]:
    """A component as a user writes it: its name and some of its fields."""
    fields = {key: values(field.annotation, field.metadata) for key, field in kind.model_fields.items() if key != "name"}
    required = {key: fields.pop(key) for key, field in kind.model_fields.items() if field.is_required()}
    if issubclass(kind, Supervised):
        required["steps"] = st.integers(1, 100)
        for budget in Supervised.budgets:
            fields.pop(budget)
    name = {"name": st.just(kind.model_fields["name"].default)} if issubclass(kind, Component) else {}
    return st.fixed_dictionaries({**name, **required}, optional=fields)


COMPONENTS = [(kind.removesuffix("s"), component) for kind, items in KINDS.items() for component in items.values()]


@pytest.mark.parametrize(("kind", "component"), COMPONENTS, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_every_component_comes_back_from_its_frozen_form(
    kind: Kind, component: type[Component], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    checked = 0

    @settings(QUICK, max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], database=None)
    @given(written(component))
    def check(block: dict[str, Any]) -> None:
        nonlocal checked
        try:
            found = component.model_validate(block)
        except ValidationError:
            assume(False)
            return
        checked += 1
        frozen = filled(found)
        assert frozen["version"] == component.version
        assert set(frozen) == {*component.model_fields, "version"}
        write_spec(path, frozen)
        assert read_spec(path) == frozen
        assert load_component(kind, read_spec(path)) == found
        assert canonical(load_component(kind, frozen)) == canonical(found)
        assert json.loads(json.dumps(canonical(found), allow_nan=False)) == canonical(found)
        again = component.model_validate(unversioned(canonical(found)))
        assert again == found

    check()
    assert checked


def unversioned(value: Any) -> Any:
    """A canonical block as a user would write it: without versions."""
    if isinstance(value, dict):
        return {key: unversioned(item) for key, item in value.items() if not (key == "version" and "name" in value)}
    return [unversioned(item) for item in value] if isinstance(value, list) else value


def test_a_frozen_form_of_another_version_is_refused() -> None:
    block = filled(Copy())
    with pytest.raises(ForeignSpecError, match=r"^task copy: written for version 99, this is version 1; run the workflow again$"):
        load_component("task", {**block, "version": 99})
    with pytest.raises(ForeignSpecError, match="written for version None"):
        load_component("task", {key: value for key, value in block.items() if key != "version"})
    with pytest.raises(UserError, match=r"^task cpoy: not in the catalogue; expected one of adding, arc, associative_recall"):
        load_component("task", {**block, "name": "cpoy"})
    with pytest.raises(ForeignSpecError, match=r"^task copy: dealy: .*expected a specification written by this version$"):
        load_component("task", {**block, "dealy": 3})


def test_an_inner_component_of_another_version_is_refused() -> None:
    block = filled(SequenceNetwork())
    block["mixer"]["version"] = 99
    with pytest.raises(ForeignSpecError, match=r"mixer lstm: written for version 99"):
        load_component("network", block)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda path: None, MissingFileError, "no such file"),
        (lambda path: path.write_text("a: [1"), CorruptFileError, "not readable as YAML"),
        (lambda path: path.write_bytes(b"\x80\xff"), CorruptFileError, "not readable as YAML"),
        (lambda path: path.write_text("- 1\n"), CorruptFileError, "expected a mapping, got list"),
        (lambda path: path.write_text(""), CorruptFileError, "expected a mapping, got NoneType"),
    ],
)
def test_a_frozen_file_that_cannot_be_read_is_named(
    write: Callable[[Path], Any], error: type[UserError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    write(path)
    if path.exists():
        write_text(seal_path(path), f"{file_sha256(path)}  {name_in_seal(path)}\n")
    with pytest.raises(error) as caught:
        read_spec(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_the_version_of_a_mixer_within_a_mixer_is_checked() -> None:
    network = SequenceNetwork.model_validate({"mixer": {"name": "both_ways", "mixer": "gru"}})
    block = filled(network)
    assert load_component("network", block) == network
    block["mixer"]["mixer"]["version"] = 99
    with pytest.raises(ForeignSpecError, match="mixer gru: written for version 99"):
        load_component("network", block)
