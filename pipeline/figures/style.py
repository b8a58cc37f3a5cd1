"""The style of all figures: page, fonts, colours, the legend beneath the panels, and files whose bytes depend on the data only.

A figure is as wide as a column or the text of a paper, and drawn at its final size: no text is smaller than 7 points. Lengths are in inches,
font sizes in points. Colours are distinguishable under all common forms of colour blindness (after Okabe & Ito 2008), and redundant with
dashes and markers. A user's matplotlib settings are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags
from matplotlib.lines import Line2D

from pipeline.config.figures import COLUMN, TEXT
from pipeline.config.labels import assign_slots
from pipeline.storage.seals import sealed, write_sealed

if TYPE_CHECKING:
    import pandas as pd

SMALL, NAME, TITLE = 7.2, 7.6, 8.4
"""Font sizes of tick labels and legends, of axis labels, and of titles."""
LINE, TITLE_LINE = 1.32 * SMALL / 72, 1.3 * TITLE / 72
"""Line height of the legend and of the title."""
SAMPLE, GAP = 0.24, 0.14
"""Length of a legend handle, and space between legend entries."""
OUTLINE = 0.9
"""Line width of markers that are drawn as outlines, points."""
MANY_ROWS = 5
"""A figure whose legend has more rows is as wide as the text."""
INK, GREY, PALE = "#1f2937", "#6b7280", "#d1d5db"
SHADES = ("#9ecae1", "#3182bd", "#08306b")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0589a", "#e69f00", "#5a3c00", "#5b3a9d", "#8c2d4b")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.4)), (0, (1.2, 1.1)), (0, (5, 1.3, 1, 1.3)))
DASHED, DOTTED = (0, (2, 2)), (0, (1, 1.5))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
RC: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": SMALL,
    "axes.labelsize": NAME,
    "axes.titlesize": NAME,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelpad": 3,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.5,
    "ytick.major.pad": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "recurlab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "axes.formatter.use_mathtext": False,
    "text.parse_math": False,
    "path.simplify": False,
}
_SUITE: ContextVar[Mapping[str, int] | None] = ContextVar("slots of the suite", default=None)


class LineStyle(NamedTuple):
    """Colour, dash pattern and marker of a label in every figure of its suite."""

    colour: str
    dash: Any
    marker: str


class LegendEntry(NamedTuple):
    """An entry of the legend: a name beside a sample of its line."""

    text: str
    line_style: LineStyle
    width: float = 1.2
    outline: float = 0.0
    """Size of a marker that is drawn as an outline, points; 0: a filled marker."""


@contextmanager
def page() -> Iterator[None]:
    """Apply the style inside the block, on top of matplotlib's own defaults, whatever a user has set."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for key, value in RC.items():
            matplotlib.rcParams[key] = value  # pyright: ignore[reportArgumentType]
        yield


@contextmanager
def suite(slots: Mapping[str, int]) -> Iterator[None]:
    """Use the line styles from the suite's plan inside the block."""
    token = _SUITE.set(slots)
    try:
        yield
    finally:
        _SUITE.reset(token)


def line_styles(labels: Sequence[str], memoryless: Iterable[str] = ()) -> dict[str, LineStyle]:
    """Return the line style of every label: from the suite if it has all of them, else assigned here; networks without memory are grey."""
    slots = _SUITE.get() or {}
    if not set(labels) <= set(slots):
        slots = assign_slots(labels, memoryless)
    return {label: line_style_of(slots[label]) for label in labels}


def line_style_of(slot: int) -> LineStyle:
    """Return the line style of a slot; negative slots are grey."""
    if slot < 0:
        return LineStyle(GREY, DASHES[(-1 - slot) % len(DASHES)], MARKERS[(-1 - slot) % len(MARKERS)])
    return LineStyle(COLOURS[slot % len(COLOURS)], DASHES[slot // len(COLOURS) % len(DASHES)], MARKERS[slot % len(MARKERS)])


def shades(count: int) -> list[str]:
    """Return colours for the values of one ordered quantity, from dark to light."""
    ends = [to_rgb(shade) for shade in reversed(SHADES)]
    places, known = np.linspace(0, 1, count), np.linspace(0, 1, len(ends))
    parts = [np.interp(places, known, part).tolist() for part in zip(*ends, strict=True)]
    return [to_hex((red, green, blue)) for red, green, blue in zip(*parts, strict=True)]


def width_of(wanted: str | None, panels: int = 1, beside: float = 0.0, legend: Sequence[LegendEntry] = ()) -> float:
    """Return the width of a figure: as wanted, else a column if it has one panel, little beside it and a short legend."""
    large = panels > 1 or beside > 0.62 * COLUMN or len(_rows(legend, 0.97 * (COLUMN - 0.16))) > MANY_ROWS
    return {"column": COLUMN, "text": TEXT}.get(wanted or "", TEXT if large else COLUMN)


def canvas(title: str, width: float, height: float, shape: tuple[int, int] = (1, 1), **options: Any) -> tuple[Figure, Any]:
    """Create a figure `width` inches wide, and its grid of panels, together `height` inches high.

    shape: rows and columns of panels. Options: `left`, `right`, `head` (above the panels), `bottom` (below them, for axis labels):
    margins in inches; `legend`: entries below the panels; `note`: a sentence below the legend; `wspace` and `hspace` as in matplotlib; others
    are passed to `subplots`.
    """
    room = {side: options.pop(side, inches) for side, inches in (("left", 0.5), ("right", 0.1), ("head", 0.08), ("bottom", 0.4))}
    legend, note = options.pop("legend", []), wrap(options.pop("note", ""), 0.97 * (width - 0.16), SMALL)
    spaces = {space: options.pop(space, 0.25) for space in ("wspace", "hspace")}
    lines, rows = wrap(title, 0.97 * (width - 0.16), TITLE, bold=True), _rows(legend, 0.97 * (width - 0.16))
    foot = 0.06 + LINE * (len(rows) + len(note)) + (0.04 if note else 0)
    top = room["head"] + (0.1 + TITLE_LINE * len(lines) if lines else 0.02)
    total = foot + room["bottom"] + height + top
    figure = Figure(figsize=(width, total))
    sides = {"left": room["left"] / width, "right": 1 - room["right"] / width}
    grid = {**sides, "bottom": (foot + room["bottom"]) / total, "top": 1 - top / total, **spaces}
    axes = figure.subplots(*shape, squeeze=False, gridspec_kw=grid, **options)
    title_style = {"fontsize": TITLE, "fontweight": "bold", "linespacing": 1.3}
    figure.text(0.08 / width, 1 - 0.07 / total, "\n".join(lines), va="top", ha="left", **title_style)
    _draw_legend(figure, rows, foot - 0.03)
    for index, line in enumerate(reversed(note)):
        figure.text(0.08 / width, (0.04 + LINE * index) / total, line, va="bottom", ha="left", color=GREY)
    return figure, axes


def _rows(legend: Sequence[LegendEntry], width: float) -> list[list[LegendEntry]]:
    """Split the entries of a legend into rows of at most that width."""
    rows: list[list[LegendEntry]] = []
    for entry in legend:
        fits = rows and sum(map(_entry_width, [*rows[-1], entry])) - GAP <= width
        rows[-1:] = [[*rows[-1], entry]] if fits else [*rows[-1:], [entry]]
    return rows


def _entry_width(entry: LegendEntry) -> float:
    return SAMPLE + 0.06 + text_width(entry.text) + GAP


def _draw_legend(figure: Figure, rows: list[list[LegendEntry]], top: float) -> None:
    """Draw the rows of a legend, the first one `top` inches above the bottom of the page."""
    width, height = figure.get_size_inches()
    for number, row in enumerate(rows):
        x, y = 0.08, (top - LINE * (number + 0.5)) / height
        for entry in row:
            line_style, places = entry.line_style, [x / width, (x + SAMPLE / 2) / width, (x + SAMPLE) / width]
            shape = {"color": line_style.colour, "ls": line_style.dash, "lw": entry.width, "marker": line_style.marker, "markevery": [1]}
            outline: dict[str, Any] = {"mec": line_style.colour, "mfc": "none", "mew": OUTLINE, "ms": entry.outline}
            figure.add_artist(Line2D(places, [y] * 3, **(outline if entry.outline else {"mec": "white", "mew": 0.4}), **shape))
            figure.text((x + SAMPLE + 0.06) / width, y, entry.text, va="center_baseline", ha="left", fontsize=SMALL)
            x += _entry_width(entry)


def legend_entries(known: Mapping[str, LineStyle], names: Mapping[str, str]) -> list[LegendEntry]:
    """Return the legend entries of networks."""
    return [LegendEntry(names[label], line_style) for label, line_style in known.items()]


def reference(
    axes: Iterable[Axes] | Axes, values: Iterable[float], name: str, dash: Any = DASHED, upright: bool = False
) -> list[LegendEntry]:
    """Draw reference lines across panels, such as chance, and return their legend entry.

    name: a template for the values such as `chance {} %`. Unknown values (NaN) have no line; without any line there is no entry.
    """
    known = sorted({float(value) for value in values if math.isfinite(value)})
    for axis in [axes] if isinstance(axes, Axes) else axes:
        for value in known:
            (axis.axvline if upright else axis.axhline)(value, color=GREY, lw=0.9, ls=dash, zorder=1.5, gid="reference")
    return reference_entry(known, name, dash)


def reference_entry(values: Iterable[float], name: str, dash: Any = DASHED) -> list[LegendEntry]:
    """Return the legend entry of `reference`, without drawing."""
    known = sorted({float(value) for value in values if math.isfinite(value)})
    text = name.replace("{}", ", ".join(f"{value:.3g}" for value in known[:3]) + (", …" if len(known) > 3 else ""))
    return [LegendEntry(text, LineStyle(GREY, dash, ""), 0.9)] if known else []


def text_width(text: str, size: float = SMALL, bold: bool = False) -> float:
    """Return the width of a line of text in inches."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    font.set_size(size, 72)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64 / 72


def wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Break text between words into lines of at most `width` inches."""
    lines: list[str] = []
    for word in filter(None, text.replace("\n", " ").split(" ")):
        longer = f"{lines[-1]} {word}" if lines else word
        lines[-1:] = [longer] if not lines or text_width(longer, size, bold) <= width else [lines[-1], word]
    return lines


def wrapped(text: str, width: float, size: float = NAME) -> str:
    """Insert line breaks into the label of an axis that is `width` inches long."""
    return "\n".join(wrap(text, width, size))


def panel_size(axis: Axes) -> Any:
    """Return width and height of a panel, inches."""
    figure, box = axis.get_figure(root=True), axis.get_position()
    assert figure is not None
    return figure.get_size_inches() * (box.width, box.height)


def save(figure: Figure, out: Path, data: pd.DataFrame) -> None:
    """Write `out`.svg, .pdf, .png and `out`.csv, the plotted numbers, all without timestamps."""
    write_sealed(Path(f"{out}.csv"), data.to_csv(index=False, lineterminator="\n"))
    save_picture(figure, out, ("svg", "pdf", "png"))


def save_picture(figure: Figure, out: Path, formats: Sequence[str] = ("svg", "png")) -> None:
    """Write `out` in these formats: vector graphics, with text as paths (SVG) or embedded fonts (PDF), or 300 dpi (PNG)."""
    metadata = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    for file_format in formats:
        with sealed(Path(f"{out}.{file_format}")) as temporary:
            figure.savefig(temporary, format=file_format, dpi=300, metadata=metadata[file_format])
