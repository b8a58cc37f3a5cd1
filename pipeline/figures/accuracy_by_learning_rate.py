"""Validation accuracy of every candidate of a tuned experiment against a tuned key: a line per network, the chosen value marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyByLearningRate
from pipeline.evaluation.candidates import Candidate, ascending, is_number, ranked, value_text
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, Tuning, over_seeds, read_results, read_tuning
from pipeline.figures.style import INK, OUTLINE, LegendEntry, LineStyle

HEIGHT = 1.75
RING, CROSS = 7.0, 4.4
"""Sizes of the marks of chosen and of diverged candidates, points."""
MANY = 8
"""Most values at which every interval is a bar; of more, intervals are bands, and networks are not moved sideways."""
NAMED = 4
"""Most networks that a warning names."""
BOTTOM = 0.03
"""Height of a cross in the panel."""


class KeyAxis(NamedTuple):
    """The x axis: the values of the tuned key, and where each stands: numbers at themselves, others side by side."""

    values: list[Any]
    numeric: bool

    @property
    def dense(self) -> bool:
        """Whether there are too many values for bars."""
        return self.numeric and len(self.values) > MANY

    def place(self, value: Any) -> float:
        """Return the x coordinate of a value."""
        return value if self.numeric else self.values.index(value)


def draw(experiment: Path, out: Path, figure: AccuracyByLearningRate, title: str) -> None:
    """Draw tuning.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a row per label and value of the key."""
    results, tuning = read_results(experiment, figure), read_tuning(experiment)
    metric = tuning.metric(figure.metric)
    score = tuning.score(metric, results)
    shown = _best_at_each(tuning, figure.key)
    key_axis = _key_axis(shown, figure.key)
    seeds = _seeds(shown, figure.key, key_axis, metric)
    data = _plot_data(shown, over_seeds(seeds, ["label", "place"], "value", score), figure.key, key_axis)
    seeds["value"] *= score.scale
    with style.page():
        legend = [*style.legend_entries(results.line_styles, results.names), *_marks(data)]
        width = style.width_of(figure.width, legend=legend)
        name = style.wrapped(panels.score_label(score), HEIGHT)
        room: dict[str, Any] = {"legend": legend, "note": _note(results, tuning, figure.key), "left": panels.room_for(name)}
        upright = _is_upright(key_axis, width - room["left"] - 0.1)
        room |= {"bottom": 0.32 + max(map(style.text_width, map(value_text, key_axis.values)))} if upright else {}
        chart, axes = style.canvas(title, width, HEIGHT, **room)
        axis = axes[0, 0]
        _set_up_x(axis, key_axis, len(results.line_styles), upright)
        for place, (label, line_style) in enumerate(results.line_styles.items()):
            shift = (0, 1) if key_axis.dense else (place, len(results.line_styles))
            _line(axis, data[data["label"] == label], seeds[seeds["label"] == label], key_axis, line_style, shift)
        panels.validation_axis(axis, score, seeds["value"].dropna().tolist())
        axis.set_xlabel(figure.key)
        axis.set_ylabel(name)
        style.save(chart, out, data.drop(columns="place"))


def _best_at_each(tuning: Tuning, key: str) -> list[Candidate]:
    """Return, for every label and value of the key, the best candidate over the other tuned keys."""
    best: dict[tuple[str, str], Candidate] = {}
    for candidate in ranked(tuning.candidates):
        best.setdefault((candidate.label, value_text(candidate.values[key])), candidate)
    return [candidate for candidate in tuning.candidates if best[candidate.label, value_text(candidate.values[key])] is candidate]


def _key_axis(shown: list[Candidate], key: str) -> KeyAxis:
    values = sorted({candidate.values[key] for candidate in shown}, key=ascending)
    return KeyAxis(values, all(map(is_number, values)))


def _seeds(shown: list[Candidate], key: str, key_axis: KeyAxis, metric: str) -> Frame:
    """Return a row per trial: label, place on the x axis, value; none of trainings that diverged."""
    rows = [
        {"label": candidate.label, "place": key_axis.place(candidate.values[key]), "value": trial[metric]}
        for candidate in shown
        for trial in candidate.trials
        if trial["diverged_at"] is None
    ]
    return pd.DataFrame(rows, columns=["label", "place", "value"]).astype({"value": float})


def _plot_data(shown: list[Candidate], means: Frame, key: str, key_axis: KeyAxis) -> Frame:
    """Return a row per candidate with its statistics, which are missing if one of its trainings diverged."""
    rows = [
        {"label": each.label, "place": key_axis.place(each.values[key]), **each.values, "diverged": each.diverged, "chosen": each.chosen}
        for each in shown
    ]
    data = pd.DataFrame(rows).merge(means, on=["label", "place"], how="left")
    statistics = ["mean", "sd", "se", "low", "high"]
    data[statistics] = data[statistics].where(data["diverged"] == 0)
    data["seeds"] = [len(each.trials) for each in shown]
    return data


def _marks(data: Frame) -> list[LegendEntry]:
    """Return the legend entries of the marks."""
    chosen = LegendEntry("chosen", LineStyle(INK, "", "o"), outline=RING - 1)
    return [chosen, *([LegendEntry("diverged", LineStyle(INK, "", "x"), outline=CROSS)] if data["diverged"].any() else [])]


def _note(results: Results, tuning: Tuning, key: str) -> str:
    """Say how it was tuned, which choices are at the edge of what was tried, and where intervals are missing."""
    single = "One seed per candidate: there are no intervals." if len(tuning.note.seeds) == 1 else ""
    return " ".join(filter(None, [results.tuned, _edge(results, tuning, key), single]))


def _edge(results: Results, tuning: Tuning, key: str) -> str:
    """Name the networks whose chosen value is at the edge of those tried; empty if there are none."""
    ends: dict[str, list[str]] = {}
    for label, choice in tuning.note.choices.items():
        if key in choice["edge"]:
            ends.setdefault(choice["edge"][key], []).append(results.names[label])
    named = {end: names if len(names) <= NAMED else [f"{len(names)} networks"] for end, names in sorted(ends.items())}
    found = "; ".join(f"{', '.join(names)} ({end})" for end, names in named.items())
    return f"At the edge of the values tried, so that one beyond may be better: {found}." if found else ""


def _is_upright(key_axis: KeyAxis, width: float) -> bool:
    """Return whether names of values are too long to stand side by side on an axis `width` inches long."""
    widest = max(map(style.text_width, map(value_text, key_axis.values)))
    return not key_axis.numeric and widest + 0.08 > width / len(key_axis.values)


def _set_up_x(axis: Axes, key_axis: KeyAxis, count: int, upright: bool) -> None:
    if key_axis.numeric:
        panels.value_axis(axis, key_axis.values, count, value_text)
        return
    axis.set_xticks(range(len(key_axis.values)), list(map(value_text, key_axis.values)), rotation=90 if upright else 0)
    axis.set_xlim(-0.5, len(key_axis.values) - 0.5)
    axis.grid(visible=False, axis="x")


def _line(axis: Axes, data: Frame, seeds: Frame, key_axis: KeyAxis, line_style: LineStyle, shift: tuple[int, int]) -> None:
    """Draw one network: a dot per seed, the means, a ring around the chosen, a cross for what diverged; shift: which of how many."""

    def across(frame: Frame) -> np.ndarray:
        return panels.dodge(axis, frame["place"], *shift) if len(frame) else np.empty(0)

    known, lost = data.dropna(subset=["mean"]), data[data["diverged"] > 0]
    chosen = known[known["chosen"]]
    axis.plot(across(seeds), seeds["value"], color=line_style.colour, **panels.SEED)
    if len(known):
        _means(axis, across(known), known, key_axis, line_style)
    outline: dict[str, Any] = {"ls": "", "mfc": "none", "mec": line_style.colour, "mew": OUTLINE, "clip_on": False, "zorder": 5}
    axis.plot(across(lost), [BOTTOM] * len(lost), marker="x", ms=CROSS, transform=axis.get_xaxis_transform(), **outline)
    axis.plot(across(chosen), chosen["mean"], marker="o", ms=RING, **outline)


def _means(axis: Axes, x: np.ndarray, known: Frame, key_axis: KeyAxis, line_style: LineStyle) -> None:
    """Draw the means with their intervals, joined by a line if the key is a number."""
    if key_axis.dense:
        axis.fill_between(x, known["low"], known["high"], color=line_style.colour, alpha=0.05, lw=0)
        axis.plot(x, known["mean"], color=line_style.colour, ls=line_style.dash, marker=line_style.marker, mec="white", mew=0.4, zorder=4)
    else:
        panels.means(axis, x, known, line_style, **({} if key_axis.numeric else {"ls": ""}))
