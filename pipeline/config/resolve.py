"""From the written file to validated runs: presets, sweeps, variants, and the checks that need more than one field."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.config.base import Component, Section
from pipeline.config.checks import check_figures, check_members, check_parents, check_point, find_parent, place_of
from pipeline.config.document import (
    PRESETS,
    Block,
    ConfigError,
    Items,
    Place,
    dropped,
    merged,
    put_dotted,
    reached,
    read_document,
    same_component,
    shown,
    suggestion,
)
from pipeline.config.experiment import Point, Runtime, Tracking
from pipeline.config.figures import AnyFigure, Figure
from pipeline.config.resolved import Member, Resolved, ResolvedExperiment, Written
from pipeline.config.tasks import Evaluation
from pipeline.config.validation import validate
from pipeline.storage.paths import is_name

DEEPEST = 5
REQUIRED = ("task", "network", "learner")
TOP = ("experiments", "runtime", "tracking")
KEYS = ("question", "base", "sweep", "variants", "figures")


@dataclass(frozen=True)
class _Written:
    """One point of an experiment before validation: all that was laid over base, and which keys did it."""

    block: Block
    variant: str | None
    swept: Block
    overrides: Block
    place: Place
    dropped: tuple[tuple[str, Any], ...] = ()


def resolve(document: Block) -> Resolved:
    """Validate a document and expand its experiments."""
    _known_keys(document, TOP)
    experiments = document.get("experiments")
    if "experiments" not in document:
        raise document.place.error("missing key 'experiments'")
    if not isinstance(experiments, Block) or not experiments:
        raise document.places["experiments"].error(f"got {shown(experiments)}; expected a mapping of at least one experiment")
    runtime = validate(Runtime, document.get("runtime", {}), document.places.get("runtime", document.place))
    tracking = validate(Tracking, document.get("tracking", {}), document.places.get("tracking", document.place))
    _check_count(experiments, runtime.max_runs)
    found = [_experiment(name, block, experiments.places[name]) for name, block in experiments.items()]
    check_parents(found)
    return Resolved(found, runtime, tracking)


def _check_count(experiments: Block, most: int) -> None:
    """Refuse more points than `runtime.max_runs` before they are made."""
    total = 0
    for name, block in experiments.items():
        axes = block.get("sweep") if isinstance(block, Block) else None
        variants = block.get("variants") if isinstance(block, Block) else None
        lengths = {key: len(values) for key, values in axes.items() if isinstance(values, Items)} if isinstance(axes, Block) else {}
        count = math.prod(lengths.values()) + (len(variants) if isinstance(variants, Block) else 0) * lengths.get("seed", 1)
        total += count
        if total > most:
            place = block.places["sweep"] if "sweep" in block else experiments.places[name]
            raise place.error(
                f"makes {count:,} runs{f', {total:,} with those above' if total > count else ''}; expected at most runtime.max_runs = {most:,}"
            )


def _known_keys(block: Block, known: tuple[str, ...]) -> None:
    for key in block:
        if key not in known:
            raise block.places[key].error("unknown key" + suggestion(key, known))


def _experiment(name: str, block: Any, place: Place) -> ResolvedExperiment:
    _check_name(name, place)
    block = _mapping(block, place)
    _known_keys(block, KEYS)
    if "base" not in block:
        raise place.error("missing key 'base'")
    question = validate(str, block.get("question", ""), block.places.get("question", place))
    if "</" in question:
        raise block.places["question"].error("got '</'; expected text without it: a report is HTML")
    members = [_member(written) for written in _points(block)]
    check_members(members)
    _check_replaced(block)
    columns = [key for key in _section(block, "sweep") if key != "seed"]
    written = block.get("figures", [])
    figures, places = _figures(block), [written.places[index] for index in range(len(written))]
    experiment = ResolvedExperiment(name, question, columns, members, figures, places, place)
    check_figures(experiment)
    return experiment


def _check_name(name: str, place: Place) -> None:
    if not is_name(name) or "-" in name:
        raise place.error(f"got the name {shown(name)}; expected lower-case letters, digits and _")


def _mapping(value: Any, place: Place) -> Block:
    if not isinstance(value, Block):
        raise place.error(f"got {shown(value)}; expected a mapping")
    return value


def _section(block: Block, key: str) -> Block:
    return _mapping(block[key], block.places[key]) if key in block else Block(block.place)


def _points(block: Block) -> Iterator[_Written]:
    """Every point as written: the product of the sweep, then each variant over the seeds."""
    base = with_presets(_mapping(block["base"], block.places["base"]))
    _known_keys(base, tuple(Point.model_fields))
    sweep = _section(block, "sweep")
    for key, values in sweep.items():
        _check_axis(values, sweep.places[key])
    nothing = Block(base.place)
    yield from _product(_Written(base, None, nothing, nothing, block.places["base"]), sweep)
    variants = _section(block, "variants")
    for name, overrides in variants.items():
        place = variants.places[name]
        _check_name(name, place)
        seeds = Block(sweep.place)
        if "seed" in sweep:
            seeds.put("seed", sweep["seed"], sweep.places["seed"])
        if "seed" in seeds and "seed" in _mapping(overrides, place):
            raise overrides.places["seed"].error("seed is swept, and every variant with it; expected it in one place")
        point = _laid(base, _mapping(overrides, place))
        yield from _product(_Written(point, name, nothing, overrides, place, _lost(base, overrides)), seeds)


def _laid(base: Block, overrides: Block) -> Block:
    """Overrides laid over a base, `network` before `network.width`: so their order in the file means nothing."""
    point = base.copy()
    for key in REQUIRED:
        if key not in point and key not in overrides:
            raise base.place.error(f"missing key '{key}'")
    for key in sorted(overrides):
        put_dotted(point, key, with_presets(overrides[key]), overrides.places[key])
    return point


def _lost(base: Block, overrides: Block) -> tuple[tuple[str, Any], ...]:
    """What base writes of a component and overrides, which name another or write the same one anew, leave out."""
    return tuple(pair for key in overrides for pair in dropped(reached(base, key), with_presets(overrides[key]), key))


def _check_axis(values: Any, place: Place) -> None:
    if not isinstance(values, Items) or not values:
        raise place.error(f"got {shown(values)}; expected a list of at least one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise values.places[index].error(f"{shown(value)} stands twice in the list; expected different values")


def _product(start: _Written, axes: Block) -> Iterator[_Written]:
    for choice in itertools.product(*(range(len(values)) for values in axes.values())):
        swept, here = Block(start.place), start.place
        for (key, values), index in zip(axes.items(), choice, strict=True):
            here = values.places[index]
            swept.put(key, values[index], here)
        lost = (*start.dropped, *_lost(start.block, swept))
        yield _Written(_laid(start.block, swept), start.variant, swept, start.overrides, here, lost)


def _check_replaced(block: Block) -> None:
    """What stands in base and is replaced by the sweep in every run is read too: a mistake there is still a mistake."""
    base, sweep = block["base"], _section(block, "sweep")
    for key in sweep:
        here = place_of(base, key)
        rest = Block(here)
        for other in sweep:
            if other != key:
                rest.put(other, sweep[other][0], sweep[other].places[0])
        try:
            _validated(_laid(with_presets(base), rest), here)
        except ConfigError as error:
            if error.place and not error.clash and f"{error.place.path}.".startswith(f"{base.place.path}.{key}."):
                raise


def _coordinate(value: Any, written: Any) -> Any:
    """A swept value as it appears in tables: validated; a component by its name and what was written with it."""
    if not isinstance(written, Block) or not isinstance(value, Section):
        return Written(value.name) if isinstance(value, Component) else list(value) if isinstance(value, tuple) else value
    keys = sorted(written.keys() - {"name", "preset"})
    details = [f"preset={written['preset']}"] if "preset" in written else []
    rest = ", ".join([*details, *(f"{key}={_coordinate(getattr(value, key), written[key])}" for key in keys)])
    return Written(written.get("name", ""), rest)


def _coordinates(keys: Block, block: Block, point: Point, evaluation: Evaluation) -> dict[str, Any]:
    """Each dotted key with the validated value it reached; a bare name with the fields it kept."""
    found = {}
    for dotted, written in keys.items():
        first, *rest = dotted.split(".")
        value = evaluation if first == "evaluate" else getattr(point, first)
        for key in rest:
            value = getattr(value, key)
        there = reached(block, dotted)
        found[dotted] = _coordinate(value, there if same_component(there, written) else written)
    return found


def _validated(block: Block, place: Place) -> tuple[Point, Evaluation]:
    """One point and what its task measures."""
    point = validate(Point, block, place)
    return point, validate(point.task.evaluation, block.get("evaluate", {}), block.places.get("evaluate", place))


def _member(written: _Written) -> Member:
    block = written.block
    point, evaluation = _validated(block, written.place)
    coordinates, overrides = (_coordinates(keys, block, point, evaluation) for keys in (written.swept, written.overrides))
    place = place_of(block, "learner.parent") if point.learner.parent else written.place
    member = Member(
        point, evaluation, written.variant, coordinates, overrides, place, dict(sorted(written.dropped, key=lambda pair: pair[0]))
    )
    check_point(member, block)
    return member


def read_preset(name: str) -> Block:
    """The fragment of that name in workflow/presets, laid over those that it names. Raises ConfigError where it is broken."""
    return with_presets(read_document(PRESETS / f"{name}.yaml"))


def preset_texts(value: Any) -> dict[str, str]:
    """The text of every preset that a written value names, and of those that these name."""
    inner = value.values() if isinstance(value, Block) else value if isinstance(value, Items) else ()
    found = {name: text for item in inner for name, text in preset_texts(item).items()}
    if isinstance(value, Block) and isinstance(name := value.get("preset"), str):
        path = PRESETS / f"{name}.yaml"
        found |= {name: path.read_text(encoding="utf-8"), **preset_texts(read_document(path))}
    return dict(sorted(found.items()))


def with_presets(value: Any, depth: int = 0) -> Any:
    """A written value in which every mapping that names a preset lies over that preset's fragment.

    It is done before overrides are laid over the base, so that a preset in an override replaces what the base says.
    """
    if not isinstance(value, Block):
        return value
    block = Block(value.place)
    for key, item in value.items():
        block.put(key, with_presets(item, depth), value.places[key])
    if "preset" not in block:
        return block
    place, name = block.places["preset"], block.pop("preset")
    known = [path.stem for path in sorted(PRESETS.glob("*.yaml"))]
    if name not in known:
        raise place.error(f"got {shown(name)}" + (suggestion(str(name), known) or "; expected a file of workflow/presets, which has none"))
    if depth > DEEPEST:
        raise place.error(f"more than {DEEPEST} presets that name each other; expected a chain that ends")
    return merged(with_presets(read_document(PRESETS / f"{name}.yaml"), depth + 1), block)


def _figures(block: Block) -> list[Figure]:
    """The figures asked for; each may appear once with the same options."""
    written = block.get("figures", [])
    place = block.places.get("figures", block.place)
    figures = validate(list[AnyFigure], written, place)
    for index, figure in enumerate(figures):
        if figure.stem in [earlier.stem for earlier in figures[:index]]:
            raise written.places[index].error(f"{figure.stem} stands twice in the list; expected each figure once")
    return figures


__all__ = ["Member", "Resolved", "ResolvedExperiment", "find_parent", "preset_texts", "read_preset", "resolve", "with_presets"]
