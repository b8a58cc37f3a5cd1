"""What figures call and how they colour the labels of a suite: proper names from the catalogue, one look per label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config.document import suggestion
from pipeline.config.mixers import MIXERS
from pipeline.config.resolved import ResolvedExperiment

NAMED = ("mixer", "task", "network", "learner")
"""Swept keys whose values say by themselves what they are."""
COLOURS = 8
"""Colours of the palette; slots further apart share one and differ in line style and marker."""
PREFERENCE = ("lstm", "gru", "lru", "attention", "mamba", "gated_delta_net", "relit", "arelit")
"""Networks that have the same colour in every suite, in the order of the palette."""
ALSO = {"transformer": "Transformer"}
"""Networks that go by another name than their mixer's."""


def component_name(name: str) -> str | None:
    """What papers call a mixer; None where there is none of that name."""
    if name in MIXERS:
        return getattr(MIXERS[name], "display_name", "") or name.replace("_", " ")
    return ALSO.get(name)


def display_name(label: str, own: Mapping[str, str] | None = None) -> str:
    """A label as figures write it: `gated_delta_net, width 64` is `Gated DeltaNet, width 64`.

    own: names that the user gives, to a whole label or to the part of one that names its network.
    """
    own = own or {}
    if label in own:
        return own[label]
    return ", ".join(_part(part, own) for part in label.split(", "))


def _part(part: str, own: Mapping[str, str]) -> str:
    """One part of a label: what begins with a mixer's name has its proper name, `mamba_icr` becomes `Mamba, icr`."""
    word, space, rest = part.partition(" ")
    if word in own:
        return own[word] + space + rest
    known = component_name(word)
    if known:
        return known + space + rest
    if word.endswith("_attention") and component_name(word.removesuffix("_attention")):
        return f"{component_name(word.removesuffix('_attention'))} + attention{space}{rest}"
    for name in sorted([*MIXERS, *ALSO], key=len, reverse=True):
        if word.startswith(f"{name}_"):
            return f"{component_name(name)}, {word.removeprefix(f'{name}_').replace('_', ' ')}{space}{rest}"
    return word.replace("_", " ") + space + rest


def display_names(labels: Iterable[str], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Every label with its name; labels whose names would be the same keep their own."""
    labels = list(labels)
    names = {label: display_name(label, own) for label in labels}
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


def part_of_label(key: str, value: Any) -> str:
    """What a swept key's value adds to the labels of its runs."""
    return text(value) if key.endswith(NAMED) else f"{key.rsplit('.', 1)[-1]} {text(value)}"


def label_without(label: str, key: str, value: Any) -> str:
    """A run's label less what the swept `key` added to it: `lstm, delay 100` without task.delay is `lstm`. `base` where nothing is left."""
    part = f", {part_of_label(key, value)}, "
    return f", {label}, ".replace(part, ", ", 1)[2:-2] or "base"


def lines(label: str, coordinates: dict[str, Any]) -> set[str]:
    """Every label that a run has in figures: its own, and without swept fields of the task or sizes of the network, along which lines run."""
    found = {label}
    for key, value in coordinates.items():
        if key.startswith("task.") or (key.startswith("network.") and isinstance(value, int | float)):
            found |= {label_without(line, key, value) for line in found}
    return found


def all_lines(experiment: ResolvedExperiment, labels: list[str]) -> set[str]:
    """The labels of an experiment's figures."""
    return {line for member, label in zip(experiment.members, labels, strict=True) for line in lines(label, member.coordinates)}


def suite_slots(experiments: list[ResolvedExperiment], labels: dict[str, list[str]]) -> dict[str, int]:
    """The slot of every label of a suite, see `pipeline.config.labels`; a label is grey where none of its networks has memory."""
    quiet: dict[str, bool] = {}
    for experiment in experiments:
        for member, label in zip(experiment.members, labels[experiment.name], strict=True):
            mixers = [mixer.name for mixer, _ in getattr(member.point.network, "blocks", [])]
            memoryless = set(mixers) == {"none"}
            for line in lines(label, member.coordinates):
                quiet[line] = quiet.get(line, True) and memoryless
    return assign_slots(quiet, [line for line, memoryless in quiet.items() if memoryless])


def check_names(experiment: ResolvedExperiment, labels: list[str]) -> None:
    """The names that figures give to labels are for labels that there are, and different."""
    known = {*all_lines(experiment, labels), *(part.split(" ")[0] for label in labels for part in label.split(", "))}
    for figure, place in zip(experiment.figures, experiment.figure_places, strict=True):
        unknown = sorted(set(figure.labels) - known)
        if unknown:
            where = suggestion(unknown[0], known) or f"; expected one of {', '.join(sorted(set(labels)))}"
            raise place.error(f"labels: {figure.name} has no label {unknown[0]!r}{where}")
        twice = [name for name in figure.labels.values() if list(figure.labels.values()).count(name) > 1]
        if twice:
            raise place.error(f"labels: {twice[0]!r} names two labels; expected different names")
