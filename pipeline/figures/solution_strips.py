"""Puzzles as given, the answers after each number of supervision steps, and the solution: a strip per puzzle and network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pipeline.config.figures import SolutionStrips
from pipeline.config.tasks.base import Glyph
from pipeline.figures import style
from pipeline.figures.frames import SUPERVISION, Frame, Results, read, read_results
from pipeline.figures.style import COLOURS, GREY, INK, PALE, LegendEntry, LineStyle

WRONG, ANSWERED = "#d7191c", COLOURS[0]
"""Colour of the frame of a wrong cell and of a wrong digit; of a right digit that was not given."""
MAX_SIDE, GAP = 1.3, 0.08
"""Largest side of a grid, and space between two, inches."""
NAME, HEADING = 0.14, 0.28
"""Height of a strip's name, and of the two lines above each of its grids, inches."""
SPACE = 0.12
"""Space below a strip, inches."""


class Cells(NamedTuple):
    """A grid to draw: two lines above it, its tokens, and the solution if wrong cells are marked."""

    heading: str
    tokens: np.ndarray
    target: np.ndarray | None = None


def draw(experiment: Path, out: Path, figure: SolutionStrips, title: str) -> None:
    """Draw details.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: the first test puzzles of every network's first seed."""
    results = read_results(experiment, figure)
    width = style.width_of(figure.width, panels=2)
    columns, lines = _shape(width, any(glyph.text for glyph in results.note.glyphs))
    chosen = _chosen(read(experiment, "details"), results, figure.puzzles)
    strips = [_spread(strip, columns * lines - 2) for _, strip in chosen.groupby(["label", "row"], sort=False)]
    columns = min(columns, max(map(len, strips)) + 2)
    side = min(MAX_SIDE, (width - 0.16 - GAP * (columns - 1)) / columns)
    grids = [_grids(strip) for strip in strips]
    heights = [NAME + math.ceil(len(some) / columns) * (HEADING + side) + SPACE for some in grids]
    with style.page():
        room: dict[str, Any] = {"left": 0.08, "right": 0.08, "head": 0.06, "bottom": 0.04, "note": _note(results)}
        chart, ((frame,),) = style.canvas(title, width, sum(heights), legend=_legend(results.note.glyphs), **room)
        frame.set_axis_off()
        top = chart.get_size_inches()[1] * frame.get_position().y1
        for strip, some, height in zip(strips, grids, heights, strict=True):
            _strip(chart, top, strip, some, columns, side, results)
            top -= height
        style.save(chart, out, _shown(strips))


def _shape(width: float, has_text: bool) -> tuple[int, int]:
    """Return the most grids side by side and the most lines of a strip: characters need larger cells than colours."""
    if width > style.COLUMN:
        return (6 if has_text else 8), 1
    return (3 if has_text else 4), 2


def _note(results: Results) -> str:
    point = results.point_name(SUPERVISION)
    return " ".join(filter(None, [f"Puzzles at {point}." if point else "", results.tuned]))


def _legend(glyphs: tuple[Glyph, ...]) -> list[LegendEntry]:
    named = [LegendEntry(glyph.name, LineStyle(glyph.colour, "", "s")) for glyph in glyphs if glyph.name]
    if any(glyph.text for glyph in glyphs):
        return [*named, LegendEntry("wrong", LineStyle(WRONG, "", "s"))]
    return [*named, LegendEntry("wrong", LineStyle(WRONG, "", "s"), outline=4.5)]


def _chosen(details: Frame, results: Results, most: int) -> Frame:
    """Select the first puzzles at the figure's point, of the first seed of every label, after every number of steps."""
    point = results.at(SUPERVISION)
    found = details[details["answer"].notna()]
    for column in results.points:
        if column != SUPERVISION:
            found = found[found[column].isin(point[column])]
    found = found[found["seed"] == found.groupby("label")["seed"].transform("min")]
    first = sorted(found["row"].unique())[:most]
    return results.ordered(found[found["row"].isin(first)], "row", SUPERVISION)


def _spread(strip: Frame, most: int) -> Frame:
    """Keep at most so many numbers of steps, the first and the last among them; of a network without recursion, which answers once, one."""
    if strip["q"].isna().all():
        return strip.tail(1)
    kept = np.unique(np.linspace(0, len(strip) - 1, min(most, len(strip))).round().astype(int))
    return strip.iloc[kept]


def _shown(strips: list[Frame]) -> Frame:
    """Return what is drawn: the tokens of each grid with spaces between them."""
    data = pd.concat(strips)
    for name in ("prompt", "answer", "target"):
        data[name] = [" ".join(map(str, tokens)) for tokens in data[name]]
    return data


def _grids(strip: Frame) -> list[Cells]:
    """Return the grids of a puzzle: as given, every answer, the solution."""
    rows = strip.to_dict("records")
    prompt, target = (np.asarray(rows[0][key]) for key in ("prompt", "target"))
    answers = [Cells(_heading(row), np.asarray(row["answer"]), target) for row in rows]
    return [Cells("puzzle", prompt), *answers, Cells("solution", target)]


def _strip(chart: Figure, top: float, strip: Frame, grids: list[Cells], columns: int, side: float, results: Results) -> None:
    """Draw the grids of a puzzle below its name. top: of the strip. side: of a grid. Both in inches."""
    width, height = chart.get_size_inches()
    label, seed = strip[["label", "seed"]].iloc[0]
    look = {"va": "top", "ha": "left", "fontsize": style.SMALL, "fontweight": "bold"}
    chart.text(0.08 / width, top / height, f"{results.names[label]}, seed {seed}", **look)
    for place, grid in enumerate(grids):
        line, column = divmod(place, columns)
        low = top - NAME - (line + 1) * (HEADING + side)
        axis = chart.add_axes(((0.08 + column * (side + GAP)) / width, low / height, side / width, side / height))
        _draw_grid(axis, grid, grids[0].tokens, results.note.glyphs, results.note.boxes)


def _heading(row: dict[str, Any]) -> str:
    """Return the number of steps, and how many cells are wrong."""
    steps = "answer" if np.isnan(row["q"]) else f"{row[SUPERVISION]} step{'' if row[SUPERVISION] == 1 else 's'}"
    return f"{steps}\n{'solved' if row['exact'] else f'''{row['scored'] - row['correct']} wrong'''}"


def _draw_grid(axis: Axes, grid: Cells, given: np.ndarray, glyphs: tuple[Glyph, ...], boxes: Mapping[int, tuple[int, int]]) -> None:
    """Draw a grid. given: the puzzle, whose characters are bold. Cells whose solution is token 0 are never wrong."""
    side = math.isqrt(len(grid.tokens))
    axis.set_title(grid.heading, loc="left", pad=2, fontsize=style.SMALL)
    cells = [_glyph(glyphs, token) for token in grid.tokens.tolist()]
    axis.imshow(np.array([to_rgb(cell.colour) for cell in cells]).reshape(side, side, 3), interpolation="nearest")
    points = 72 * style.panel_size(axis)[1] / side
    for place, cell in enumerate(cells):
        wrong = grid.target is not None and grid.target[place] > 0 and grid.target[place] != grid.tokens[place]
        y, x = divmod(place, side)
        if cell.text:
            known = bool(_glyph(glyphs, int(given[place])).text)
            look: dict[str, Any] = {"color": WRONG if wrong else INK if known else ANSWERED, "fontweight": "bold" if known else "normal"}
            axis.text(x, y, cell.text, ha="center", va="center_baseline", fontsize=0.85 * points, **look)
        elif wrong:
            frame = Rectangle((x - 0.4, y - 0.4), 0.8, 0.8, fill=False, ec=WRONG, lw=min(0.9, 0.12 * points))
            frame.set_path_effects([withStroke(linewidth=min(1.8, 0.22 * points), foreground="white")])
            axis.add_patch(frame)
    _lines(axis, side, boxes.get(side))


def _glyph(glyphs: tuple[Glyph, ...], token: int) -> Glyph:
    """Return how a token is drawn: as its number if the task does not say."""
    return glyphs[token] if token < len(glyphs) else Glyph("#ffffff", str(token))


def _lines(axis: Axes, side: int, box: tuple[int, int] | None) -> None:
    """Draw the frame and, of a grid with boxes, lines between cells and darker ones between boxes."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=GREY if box else PALE, lw=0.6)
    for draw_line, every in ((axis.axhline, box[0]), (axis.axvline, box[1])) if box else ():
        for place in range(1, side):
            draw_line(place - 0.5, color=PALE if place % every else GREY, lw=0.3 if place % every else 0.6)
