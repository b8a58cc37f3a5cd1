"""What figures call and how they colour the labels of a suite: proper names from the catalogue, one look per label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.config.document import Location, suggestion
from pipeline.config.figures import Ablations
from pipeline.config.mixers import MIXERS
from pipeline.config.points import ExpandedExperiment, ExpandedPoint, Written

NAMED = ("mixer", "task", "network", "learner")
"""Swept keys whose values say by themselves what they are."""
COLOURS = 8
"""Colours of the palette; slots further apart share one and differ in line style and marker."""
PREFERENCE = ("lstm", "gru", "lru", "attention", "mamba", "gated_delta_net", "relit", "arelit")
"""Networks that have the same colour in every suite, in the order of the palette."""
MODELS = {"attention": "transformer"}
"""What networks of a mixer are called, where that is another name."""


class Part(NamedTuple):
    """What one swept key, or a variant, adds to a label: `lstm` and, of a component with settings of its own, `horizon=40`."""

    name: str
    details: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.details})" if self.details else self.name


Parts = dict[str, Part]
"""What a label is made of: swept key -> what it adds. A run that sweeps nothing has `network`, a variant `variant` besides or alone."""


def as_parts(block: Mapping[str, Any]) -> Parts:
    """The parts as they were frozen."""
    return {key: Part(*part) for key, part in block.items()}


def label_of(parts: Mapping[str, Part]) -> str:
    """The label that these parts make: `gated_delta_net, width 64`; `base` where there are none."""
    if "variant" in parts:
        return "_".join(part.name for part in parts.values())
    return ", ".join(_with_key(key, str(part)) for key, part in parts.items()) or "base"


def _with_key(key: str, text: str) -> str:
    return text if _names_itself(key) else f"{key.rsplit('.', 1)[-1]} {text}"


def _names_itself(key: str) -> bool:
    return key.endswith(NAMED) or key == "variant"


def without(parts: Parts, *keys: str) -> Parts:
    """The parts less those that the swept `keys` added."""
    return {key: part for key, part in parts.items() if key not in keys}


def component_name(name: str) -> str | None:
    """What papers call a mixer, a network of it and attention, or a mixer run both ways; None where there is none of that name."""
    if name in MIXERS:
        return getattr(MIXERS[name], "display_name", "") or name.replace("_", " ")
    if name in MODELS.values():
        return name.capitalize()
    hybrids = {f"{mixer}_attention": mixer for mixer in MIXERS}
    if name in hybrids:
        return f"{component_name(hybrids[name])} + attention"
    both = {f"{mixer}_both_ways": mixer for mixer, kind in MIXERS.items() if kind.causal}
    return f"{component_name(both[name])}, both ways" if name in both else None


def display_name(parts: Parts, own: Mapping[str, str] | None = None) -> str:
    """A label as figures and tables write it: `gated_delta_net, width 64` is `Gated DeltaNet, width 64`.

    own: names that the user gives, to a whole label or to the part of one that names its network.
    """
    own = own or {}
    label = label_of(parts)
    if label in own:
        return own[label]
    return ", ".join(_with_key(key, _display(key, part, own)).replace("_", " ") for key, part in parts.items()) or label


def _display(key: str, part: Part, own: Mapping[str, str]) -> str:
    name = own.get(part.name) or (component_name(part.name) if _names_itself(key) else None) or part.name
    return str(part._replace(name=name))


def display_names(labels: Mapping[str, Parts], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Every label with its name; labels whose names would be the same keep their own."""
    names = {label: display_name(parts, own) for label, parts in labels.items()}
    taken = list(names.values())
    return {label: name if taken.count(name) == 1 else label for label, name in names.items()}


def assign_slots(labels: Iterable[str], memoryless: Iterable[str] = ()) -> dict[str, int]:
    """A slot for every label, no two alike: slot % COLOURS is its colour; those of networks without memory are below zero.

    The networks of PREFERENCE have their own colour first, others begin at one that a hash of the label names, and go to the next colour
    that is used least. So a label's slot does not depend on where it stands among others, except where two want the same colour.
    """
    quiet, used, slots = set(memoryless), [0] * COLOURS, dict[str, int]()
    for label in sorted(set(labels), key=_rank):
        if label in quiet:
            slots[label] = -1 - sum(slot < 0 for slot in slots.values())
            continue
        first = _preferred(label)
        colour = min(((first + step) % COLOURS for step in range(COLOURS)), key=used.__getitem__)
        slots[label] = colour + COLOURS * used[colour]
        used[colour] += 1
    return slots


def _rank(label: str) -> tuple[int, int, str]:
    """Short labels choose first, among them those of PREFERENCE."""
    return label.count(", "), PREFERENCE.index(label) if label in PREFERENCE else COLOURS, label


def _preferred(label: str) -> int:
    return PREFERENCE.index(label) if label in PREFERENCE else hashlib.sha256(label.encode()).digest()[0] % COLOURS


def text(value: Any) -> str:
    """A swept value as it is written in a config."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def labels_of(experiment: ExpandedExperiment) -> list[Parts]:
    """What the label of every member is made of, the same for all seeds; settings of components only where names alone do not suffice."""
    full = [_parts(member) for member in experiment.members]
    short = [{key: part._replace(details="") for key, part in parts.items()} for parts in full]
    found = full if len(set(map(label_of, short))) < len(set(map(label_of, full))) else short
    swept = {label_of(parts) for parts in found if "variant" not in parts}
    for member, parts in zip(experiment.members, found, strict=True):
        if member.variant and label_of(parts) in swept:
            raise member.location.error(f"variant {member.variant!r} has the same name as a swept point; rename the variant")
    return found


def _parts(member: ExpandedPoint) -> Parts:
    """What tells this run from the others of its experiment."""
    if member.variant:
        return _variant_parts(member.variant, member.point.network)
    found = {key: _part(value) for key, value in sorted(member.coordinates.items()) if key != "seed"}
    return found or {"network": Part(member.point.network.label)}


def _part(value: Any) -> Part:
    return Part(value.name, value.details) if isinstance(value, Written) else Part(text(value))


def _variant_parts(variant: str, network: Any) -> Parts:
    """A variant that is named after its network and something more, as `mamba_icr`, has both as parts."""
    mixer = getattr(getattr(network, "mixer", None), "name", "")
    for name in (network.label, mixer, MODELS.get(mixer, "")):
        if name and variant.startswith(f"{name}_"):
            return {"network": Part(name), "variant": Part(variant.removeprefix(f"{name}_"))}
    return {"variant": Part(variant)}


def lines(parts: Parts, coordinates: Mapping[str, Any]) -> dict[str, Parts]:
    """Every label that a run has in figures: its own, and without swept fields of the task or sizes of the network, along which lines run."""
    found = {label_of(parts): parts}
    for key, value in coordinates.items():
        if key.startswith("task.") or (key.startswith("network.") and isinstance(value, int | float)):
            found |= {label_of(less): less for less in (without(line, key) for line in found.values())}
    return found


def all_lines(experiment: ExpandedExperiment, labels: list[Parts]) -> dict[str, Parts]:
    """The labels of an experiment's figures."""
    return {
        label: line
        for member, parts in zip(experiment.members, labels, strict=True)
        for label, line in lines(parts, member.coordinates).items()
    }


def suite_slots(experiments: list[ExpandedExperiment], labels: dict[str, list[Parts]]) -> dict[str, int]:
    """The slot of every label of a suite, see `assign_slots`; a label is grey where none of its networks has memory."""
    quiet: dict[str, bool] = {}
    for experiment in experiments:
        for member, parts in zip(experiment.members, labels[experiment.name], strict=True):
            mixers = [mixer.name for mixer, _ in getattr(member.point.network, "blocks", [])]
            memoryless = set(mixers) == {"none"}
            for line in lines(parts, member.coordinates):
                quiet[line] = quiet.get(line, True) and memoryless
    return assign_slots(quiet, [line for line, memoryless in quiet.items() if memoryless])


def check_names(experiment: ExpandedExperiment, labels: list[Parts]) -> None:
    """The names that figures give to labels are for labels that there are, and different."""
    known = {*all_lines(experiment, labels), *(part.name for parts in labels for part in parts.values())}
    for figure, place in zip(experiment.figures, experiment.figure_locations, strict=True):
        unknown = sorted(set(figure.labels) - known)
        if unknown:
            where = suggestion(unknown[0], known) or f"; expected one of {', '.join(sorted(set(map(label_of, labels))))}"
            raise place.error(f"labels: {figure.name} has no label {unknown[0]!r}{where}")
        if isinstance(figure, Ablations):
            _check_base(figure, experiment, labels, place)
        twice = [name for name in figure.labels.values() if list(figure.labels.values()).count(name) > 1]
        if twice:
            raise place.error(f"labels: {twice[0]!r} names two labels; expected different names")


def _check_base(figure: Ablations, experiment: ExpandedExperiment, labels: list[Parts], place: Location) -> None:
    """There is one label that the variants of an ablation are compared with."""
    written = sorted(set(map(label_of, labels)))
    bases = sorted({label_of(parts) for member, parts in zip(experiment.members, labels, strict=True) if member.variant is None})
    if figure.against is not None and figure.against not in written:
        where = suggestion(figure.against, written) or f"; expected one of {', '.join(written)}"
        raise place.error(f"against: ablations has no label {figure.against!r}{where}")
    if figure.against is None and len(bases) != 1:
        raise place.error(f"against: got none, and {len(bases)} labels that are no variant; expected one of {', '.join(written)}")
