"""Expand a config file into validated runs: presets, sweeps and variants. `pipeline.config.checks` holds the cross-field checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.base import Component, Section
from pipeline.config.checks import check_figures, check_kinds, check_members, check_parents, check_point, find_parent, location_of
from pipeline.config.config_file import Config, Experiment, Point, Runtime, Tracking
from pipeline.config.document import (
    PRESETS,
    ConfigError,
    Location,
    YamlList,
    YamlMapping,
    check_values,
    combinations,
    dropped,
    merged,
    put_dotted,
    read_document,
    same_component,
    shown,
    suggestion,
    value_at,
)
from pipeline.config.figures import AnyFigure, Figure
from pipeline.config.learners import LEARNERS
from pipeline.config.mixers import MIXERS, BothWays, Mixer
from pipeline.config.networks import NETWORKS
from pipeline.config.points import ExpandedConfig, ExpandedExperiment, ExpandedPoint, Written
from pipeline.config.tasks import TASKS, Evaluation
from pipeline.config.tuning import candidates, count_candidates, range_ends
from pipeline.config.validation import validate
from pipeline.storage.paths import is_name

DEEPEST_PRESET = 5
"""Presets that may name each other in a chain."""
COMPONENTS = ("network", "network.name", "network.mixer", "network.mixer.name", "learner", "learner.name")
"""Keys whose values are what an experiment compares, so that tune does not choose among them."""
REQUIRED = [key for key, field in Point.model_fields.items() if field.is_required()]


@dataclass(frozen=True)
class _WrittenPoint:
    """One point of an experiment before validation: base with its overrides merged in, and the keys that were overridden."""

    block: YamlMapping
    variant: str | None
    swept: YamlMapping
    overrides: YamlMapping
    location: Location
    dropped: tuple[tuple[str, Any], ...] = ()
    tuned: YamlMapping | None = None


def expand(document: YamlMapping) -> ExpandedConfig:
    """Validate a document and expand its experiments."""
    _known_keys(document, Config)
    experiments = document.get("experiments")
    if "experiments" not in document:
        raise document.location.error("missing key 'experiments'")
    if not isinstance(experiments, YamlMapping) or not experiments:
        raise document.locations["experiments"].error(f"got {shown(experiments)}; expected a mapping of at least one experiment")
    runtime = validate(Runtime, document.get("runtime", {}), document.locations.get("runtime", document.location))
    tracking = validate(Tracking, document.get("tracking", {}), document.locations.get("tracking", document.location))
    _check_count(experiments, runtime.max_runs)
    found = [_experiment(name, block, experiments.locations[name]) for name, block in experiments.items()]
    check_parents(found)
    return ExpandedConfig(found, runtime, tracking)


def _check_count(experiments: YamlMapping, most: int) -> None:
    """Refuse more points than `runtime.max_runs` before they are made."""
    total = 0
    for name, block in experiments.items():
        axes = block.get("sweep") if isinstance(block, YamlMapping) else None
        variants = block.get("variants") if isinstance(block, YamlMapping) else None
        lengths = (
            {key: len(values) for key, values in axes.items() if isinstance(values, YamlList)} if isinstance(axes, YamlMapping) else {}
        )
        count = math.prod(lengths.values()) + (len(variants) if isinstance(variants, YamlMapping) else 0) * lengths.get("seed", 1)
        count *= count_candidates(block.get("tune")) if isinstance(block, YamlMapping) else 1
        total += count
        if total > most:
            location = block.locations["sweep"] if "sweep" in block else experiments.locations[name]
            raise location.error(
                f"makes {count:,} runs{f', {total:,} with those above' if total > count else ''}; expected at most runtime.max_runs = {most:,}"
            )


def _known_keys(block: YamlMapping, section: type[Section]) -> None:
    for key in block:
        if key not in section.model_fields:
            raise block.locations[key].error("unknown key" + suggestion(key, section.model_fields))


def _experiment(name: str, block: Any, location: Location) -> ExpandedExperiment:
    _check_name(name, location)
    block = _mapping(block, location)
    _known_keys(block, Experiment)
    if "base" not in block:
        raise location.error("missing key 'base'")
    question = validate(str, block.get("question", ""), block.locations.get("question", location))
    if "</" in question:
        raise block.locations["question"].error("got '</'; expected text without it: a report is HTML")
    tried = candidates(_section(block, "tune"))
    if "tune" in block and not tried:
        raise block.locations["tune"].error("got an empty mapping; expected at least one key to tune")
    members = [_member(candidate) for written in _points(block) for candidate in _tried(written, tried)]
    check_members(members)
    _check_replaced(block, tried)
    columns = [key for key in _section(block, "sweep") if key != "seed"]
    written = block.get("figures", [])
    figures, locations = _figures(block), [written.locations[index] for index in range(len(written))]
    experiment = ExpandedExperiment(name, question, columns, members, figures, locations, location, _tune_seeds(block, members))
    check_figures(experiment)
    return experiment


def _tried(written: _WrittenPoint, tried: list[YamlMapping]) -> Iterator[_WrittenPoint]:
    """Lay every candidate's values over a point; the point itself if nothing is tuned."""
    for values in tried:
        for key in values:
            _check_tunable(key, written, values.locations[key])
        lost = (*written.dropped, *_lost(written.block, values))
        here = written.location if written.variant else max(values.locations.values(), key=lambda location: location.line)
        yield replace(written, block=_laid(written.block, values), location=here, dropped=lost, tuned=values)
    if not tried:
        yield written


def _check_tunable(key: str, written: _WrittenPoint, location: Location) -> None:
    """Candidates differ in settings of a network or learner, and are judged on the same validation rows of the same task."""
    if key == "seed":
        raise location.error("a seed cannot be tuned; expected tune_seeds, the number of seeds to try values on")
    if key.split(".")[0] in ("task", "evaluate") or key == "learner.validation_rows":
        raise location.error("candidates are compared on the same validation rows; expected a setting of network or learner, or sweep")
    if key in COMPONENTS:
        raise location.error("a component cannot be tuned; expected a setting such as learner.learning_rate, or sweep")
    if key in written.swept or key in written.overrides:
        other = "sweep" if key in written.swept else f"variants.{written.variant}"
        raise location.error(f"is in tune and in {other}; expected one of the two")


def _tune_seeds(block: YamlMapping, members: list[ExpandedPoint]) -> tuple[int, ...]:
    """The seeds that every candidate is tried on."""
    seeds = tuple(dict.fromkeys(member.point.seed for member in members))
    if "tune_seeds" not in block:
        return seeds if "tune" in block else ()
    location = block.locations["tune_seeds"]
    if "tune" not in block:
        raise location.error("expected a section 'tune' beside it")
    count = validate(int | None, block["tune_seeds"], location)
    if count is not None and not 1 <= count <= len(seeds):
        raise location.error(f"got {count}; expected 1 to {len(seeds)}, the seeds of the experiment")
    return seeds[:count]


def _check_name(name: str, location: Location) -> None:
    if not is_name(name) or "-" in name:
        raise location.error(f"got the name {shown(name)}; expected lower-case letters, digits and _")


def _mapping(value: Any, location: Location) -> YamlMapping:
    if not isinstance(value, YamlMapping):
        raise location.error(f"got {shown(value)}; expected a mapping")
    return value


def _section(block: YamlMapping, key: str) -> YamlMapping:
    return _mapping(block[key], block.locations[key]) if key in block else YamlMapping(block.location)


def _points(block: YamlMapping) -> Iterator[_WrittenPoint]:
    """Every point as written: the product of the sweep, then each variant over the seeds."""
    base = with_presets(_mapping(block["base"], block.locations["base"]))
    _known_keys(base, Point)
    sweep = _section(block, "sweep")
    for key, values in sweep.items():
        check_values(values, sweep.locations[key], "a list of at least one value")
    nothing = YamlMapping(base.location)
    yield from _product(_WrittenPoint(base, None, nothing, nothing, block.locations["base"]), sweep)
    variants = _section(block, "variants")
    for name, overrides in variants.items():
        location = variants.locations[name]
        _check_name(name, location)
        seeds = YamlMapping(sweep.location)
        if "seed" in sweep:
            seeds.put("seed", sweep["seed"], sweep.locations["seed"])
        if "seed" in seeds and "seed" in _mapping(overrides, location):
            raise overrides.locations["seed"].error("seed is swept, and every variant with it; expected one of the two")
        point = _laid(base, _mapping(overrides, location))
        yield from _product(_WrittenPoint(point, name, nothing, overrides, location, _lost(base, overrides)), seeds)


def _laid(base: YamlMapping, overrides: YamlMapping) -> YamlMapping:
    """Base with overrides merged in, `network` before `network.width`: their order in the file does not matter."""
    point = base.copy()
    for key in REQUIRED:
        if key not in point and key not in overrides:
            raise base.location.error(f"missing key '{key}'")
    for key in sorted(overrides):
        put_dotted(point, key, with_presets(overrides[key]), overrides.locations[key])
    return point


def _lost(base: YamlMapping, overrides: YamlMapping) -> tuple[tuple[str, Any], ...]:
    """The fields of base that the overrides drop by naming another component or writing the same one anew."""
    return tuple(pair for key in overrides for pair in dropped(value_at(base, key), with_presets(overrides[key]), key))


def _product(start: _WrittenPoint, axes: YamlMapping) -> Iterator[_WrittenPoint]:
    for swept in combinations(axes, start.location):
        here = start.location if start.variant else [start.location, *swept.locations.values()][-1]
        lost = (*start.dropped, *_lost(start.block, swept))
        yield _WrittenPoint(_laid(start.block, swept), start.variant, swept, start.overrides, here, lost)


def _check_replaced(block: YamlMapping, tried: list[YamlMapping]) -> None:
    """Validate values that no run has: those of base that the sweep or tune replaces in every run, and the ends of tuned ranges."""
    base = block["base"]
    first = next(combinations(_section(block, "sweep"), base.location))
    for key, value in tried[0].items() if tried else ():
        first.put(key, value, tried[0].locations[key])
    for key in first:
        here = location_of(base, key)
        rest = YamlMapping(here)
        for other in first:
            if other != key:
                rest.put(other, first[other], first.locations[other])
        _check_value(_laid(with_presets(base), rest), here, f"{base.location.path}.{key}")
    for key, value, location in range_ends(_section(block, "tune")):
        ended = first.copy()
        ended.put(key, value, location)
        _check_value(_laid(with_presets(base), ended), location, location.path)


def _check_value(point: YamlMapping, location: Location, path: str) -> None:
    """Raise the ConfigError of a point if it is about the value at `path`, and not about how that clashes with others."""
    try:
        _validated(point, location)
    except ConfigError as error:
        if error.location and not error.clash and f"{error.location.path}.".startswith(f"{path}."):
            raise


def _coordinate(value: Any, written: Any) -> Any:
    """A swept value as tables show it: validated; a component by its name and what was written with it."""
    name = value.label if isinstance(value, Mixer) else value.name if isinstance(value, Component) else ""
    if not isinstance(written, YamlMapping) or not isinstance(value, Section):
        return Written(name) if name else list(value) if isinstance(value, tuple) else value
    keys = sorted(written.keys() - {"name", "preset"})
    details = [f"preset={written['preset']}"] if "preset" in written else []
    for key in keys:
        setting = _coordinate(getattr(value, key), written[key])
        if isinstance(value, BothWays) and key == "mixer":  # whose name is in the label
            details += [setting.details] if setting.details else []
        else:
            details.append(f"{key}={setting}")
    return Written(name if "name" in written else "", ", ".join(details))


def _coordinates(keys: YamlMapping, block: YamlMapping, point: Point, evaluation: Evaluation) -> dict[str, Any]:
    """Each dotted key with the validated value it reached; a bare name with the fields it kept."""
    found = {}
    for dotted, written in keys.items():
        first, *rest = dotted.split(".")
        value = evaluation if first == "evaluate" else getattr(point, first)
        for key in rest:
            value = getattr(value, key)
        there = value_at(block, dotted)
        found[dotted] = _coordinate(value, there if same_component(there, written) else written)
    return found


def _validated(block: YamlMapping, location: Location) -> tuple[Point, Evaluation]:
    """One point and what its task measures."""
    point = validate(Point, block, location)
    return point, validate(point.task.evaluation, block.get("evaluate", {}), block.locations.get("evaluate", location))


def _member(written: _WrittenPoint) -> ExpandedPoint:
    block = written.block
    check_kinds(block)
    point, evaluation = _validated(block, written.location)
    tuned = YamlMapping(written.location) if written.tuned is None else written.tuned
    coordinates, overrides, tuned = (_coordinates(keys, block, point, evaluation) for keys in (written.swept, written.overrides, tuned))
    location = location_of(block, "learner.parent") if point.learner.parent else written.location
    member = ExpandedPoint(
        point, evaluation, written.variant, coordinates, overrides, location, dict(sorted(written.dropped, key=lambda pair: pair[0])), tuned
    )
    check_point(member, block)
    return member


def read_preset(name: str) -> YamlMapping:
    """The fragment of that name in workflow/presets, laid over those that it names. Raises ConfigError where it is broken."""
    return with_presets(read_document(PRESETS / f"{name}.yaml"))


def preset_texts(value: Any) -> dict[str, str]:
    """The text of every preset that a written value names, and of those that these name."""
    inner = value.values() if isinstance(value, YamlMapping) else value if isinstance(value, YamlList) else ()
    found = {name: text for item in inner for name, text in preset_texts(item).items()}
    if isinstance(value, YamlMapping) and isinstance(name := value.get("preset"), str):
        path = PRESETS / f"{name}.yaml"
        found |= {name: path.read_text(encoding="utf-8"), **preset_texts(read_document(path))}
    return dict(sorted(found.items()))


def with_presets(value: Any, depth: int = 0) -> Any:
    """A written value in which every mapping that names a preset lies over that preset's fragment.

    It is done before overrides are laid over the base, so that a preset in an override replaces what the base says.
    """
    if not isinstance(value, YamlMapping):
        return value
    block = YamlMapping(value.location)
    for key, item in value.items():
        block.put(key, with_presets(item, depth), value.locations[key])
    if "preset" not in block:
        return block
    location, name = block.locations["preset"], block.pop("preset")
    known = [path.stem for path in sorted(PRESETS.glob("*.yaml"))]
    if name not in known:
        fit = [stem for stem in known if _fits(stem, location)]
        raise location.error(f"got {shown(name)}" + (suggestion(str(name), fit) or "; expected a file of workflow/presets, which has none"))
    if depth > DEEPEST_PRESET:
        raise location.error(f"more than {DEEPEST_PRESET} presets that name each other; expected a chain that ends")
    return merged(with_presets(read_document(PRESETS / f"{name}.yaml"), depth + 1).used_at(location), block)


def _fits(preset: str, location: Location) -> bool:
    """Whether a preset is for the component at `location`, `...learner.preset`, as far as its name tells."""
    components = {"learner": LEARNERS, "network": NETWORKS, "task": TASKS, "mixer": MIXERS}.get(location.path.split(".")[-2:][0])
    try:
        name = read_document(PRESETS / f"{preset}.yaml").get("name")
    except ConfigError:
        return True
    return components is None or not isinstance(name, str) or name in components


def _figures(block: YamlMapping) -> list[Figure]:
    """The figures asked for; each may appear once with the same options."""
    written = block.get("figures", [])
    location = block.locations.get("figures", block.location)
    figures = validate(list[AnyFigure], written, location)
    for index, figure in enumerate(figures):
        if figure.stem in [earlier.stem for earlier in figures[:index]]:
            raise written.locations[index].error(f"{figure.stem} is listed twice; expected each figure once")
    return figures


__all__ = ["ExpandedConfig", "ExpandedExperiment", "ExpandedPoint", "expand", "find_parent", "preset_texts", "read_preset", "with_presets"]
