"""The report's table of a tuned experiment: what was chosen for each network, among what, and what stands at the edge of what was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.config.labels import display_names
from pipeline.evaluation.candidates import Candidate, count_text, ranked, value_text
from pipeline.evaluation.schemas import TuningNote
from pipeline.evaluation.summary import NOTHING, Section

FURTHER = {"largest": "larger", "smallest": "smaller"}


def tuning_section(candidates: list[Candidate], note: TuningNote) -> Section:
    """Return the table: chosen values, candidates, seeds, validation of the chosen and of the second best, diverged trials."""
    names = display_names(note.labels)
    header = ["network", *note.keys, "candidates", "seeds", f"{note.goal} of the chosen", "of the second best", "diverged trials"]
    body = [_row(names[label], [each for each in candidates if each.label == label]) for label in note.choices]
    return Section("Tuning", _how(note), header, body, warnings=edge_warnings(note, names))


def _row(name: str, candidates: list[Candidate]) -> list[str]:
    best, *others = ranked(candidates)
    values = [value_text(value) for value in best.values.values()]
    diverged = sum(each.diverged for each in candidates)
    trials = sum(len(each.trials) for each in candidates)
    means = [_mean(best), _mean(others[0]) if others else NOTHING]
    return [name, *values, str(len(candidates)), str(len(best.trials)), *means, f"{diverged}/{trials}"]


def _mean(candidate: Candidate) -> str:
    mean = candidate.mean("objective")
    if mean is None or not math.isfinite(mean):
        return "diverged" if candidate.diverged else NOTHING
    return f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:#.3g}".rstrip(".")


def _how(note: TuningNote) -> str:
    """Say in one sentence how values were chosen."""
    keys = " and ".join([", ".join(note.keys[:-1]), note.keys[-1]] if len(note.keys) > 1 else note.keys)
    verb, seeds = "was" if len(note.keys) == 1 else "were", f"seed{'s' if len(note.seeds) > 1 else ''} {', '.join(map(str, note.seeds))}"
    return f"{keys} {verb} chosen among {count_text(note)} by {note.goal} on {seeds}; test data was read for the chosen only."


def edge_warnings(note: TuningNote, names: Mapping[str, str]) -> list[str]:
    """Return a line for every chosen number that is the smallest or largest of those tried; names: label -> name."""
    return [
        f"{names[label]}: {key} = {value_text(choice['values'][key])} is the {end} value tried; a {FURTHER[end]} one may be better"
        for label, choice in note.choices.items()
        for key, end in choice["edge"].items()
    ]
