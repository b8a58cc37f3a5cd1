"""Puzzles as given, the answers after each number of supervision steps, and the solution: a strip per puzzle and network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from pipeline.config.figures import SolutionStrips
from pipeline.config.tasks.base import Glyph
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, read, read_results
from pipeline.figures.style import GREY, INK, PALE

WRONG = "#d7191c"
"""Colour of the frame of a wrong cell, and of a wrong digit."""
MAX_HEIGHT = 1.3
"""Largest height of a grid, inches."""
TITLE = 0.34
"""Height of the titles above a strip, inches."""
STEPS = "supervision"


def draw(experiment: Path, out: Path, figure: SolutionStrips, title: str) -> None:
    """Draw details.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: the first test puzzles of every network's first seed."""
    results = read_results(experiment, figure)
    details = read(experiment, "details")
    chosen = _chosen(details, results, figure.puzzles)
    strips = list(chosen.groupby(["label", "row"], sort=False))
    steps = sorted(chosen[STEPS].unique())
    with style.page():
        width = style.width_of(figure.width, panels=2)
        high = min(MAX_HEIGHT, (width - 0.16) / (len(steps) + 2) - 0.06)
        note = " ".join(filter(None, [f"Puzzles at {_point(results)}." if _point(results) else "", results.tuned]))
        room: dict[str, Any] = {
            "left": 0.08,
            "right": 0.08,
            "bottom": 0.04,
            "head": TITLE,
            "hspace": TITLE / high,
            "wspace": 0.06,
            "note": note,
        }
        shape = (len(strips), len(steps) + 2)
        chart, axes = style.canvas(title, width, (high + TITLE) * len(strips) - TITLE, shape, **room)
        for row, ((label, _), strip) in zip(axes, strips, strict=True):
            _strip(row, strip.sort_values(STEPS), results.names[label], results.note.glyphs)
        style.save(chart, out, chosen.drop(columns=["prompt", "target", "answer"]))


def _point(results: Results) -> str:
    return results.point_name(STEPS)


def _chosen(details: Frame, results: Results, most: int) -> Frame:
    """Select the first puzzles at the figure's point, of the first seed of every label, after every number of steps."""
    point = results.at(STEPS)
    found = details[details["answer"].notna()]
    for column in results.points:
        if column != STEPS:
            found = found[found[column].isin(point[column])]
    found = found[found["seed"] == found.groupby("label")["seed"].transform("min")]
    first = sorted(found["row"].unique())[:most]
    return results.ordered(found[found["row"].isin(first)], "row", STEPS)


def _strip(axes: Any, strip: Frame, name: str, glyphs: tuple[Glyph, ...]) -> None:
    """Draw one puzzle: as given, every answer, the solution."""
    rows = strip.to_dict("records")
    prompt, target = (np.asarray(rows[0][key]) for key in ("prompt", "target"))
    _grid(axes[0], prompt, prompt, None, glyphs)
    axes[0].set_title(f"{name}, seed {rows[0]['seed']}\npuzzle", loc="left", pad=2, fontsize=style.SMALL)
    for axis, row in zip(axes[1:-1], rows, strict=True):
        _grid(axis, np.asarray(row["answer"]), prompt, target, glyphs)
        steps = f"{row[STEPS]} step{'' if row[STEPS] == 1 else 's'}"
        outcome = "solved" if row["exact"] else f"{row['scored'] - row['correct']} wrong"
        axis.set_title(f"{steps}\n{outcome}", loc="left", pad=2, fontsize=style.SMALL)
    _grid(axes[-1], target, prompt, None, glyphs)
    axes[-1].set_title("solution", loc="left", pad=2, fontsize=style.SMALL)


def _grid(axis: Axes, cells: np.ndarray, given: np.ndarray, target: np.ndarray | None, glyphs: tuple[Glyph, ...]) -> None:
    """Draw a grid. given: the puzzle, whose cells have bold text. target: the solution, to mark wrong cells; cells of token 0 have none."""
    side = math.isqrt(len(cells))
    glyph = [glyphs[token] if token < len(glyphs) else Glyph("#ffffff", str(token)) for token in cells.tolist()]
    axis.imshow(np.array([to_rgb(one.colour) for one in glyph]).reshape(side, side, 3), interpolation="nearest")
    size = 0.55 * 72 * style.panel_size(axis)[1] / side
    for place, one in enumerate(glyph):
        wrong = target is not None and target[place] > 0 and target[place] != cells[place]
        y, x = divmod(place, side)
        if one.text:
            known = bool(glyphs and given[place] < len(glyphs) and glyphs[given[place]].text)
            axis.text(x, y, one.text, ha="center", va="center_baseline", fontsize=size, color=WRONG if wrong else INK if known else GREY)
        elif wrong:
            axis.add_patch(Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, fill=False, ec=WRONG, lw=max(0.4, 7 / side)))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=PALE, lw=0.6)
