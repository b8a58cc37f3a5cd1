"""The one style of all figures: page, type, colours, the key beneath the panels, and files whose bytes depend on the data only.

A figure is as wide as a column or the text of a paper, and drawn at its final size: no text is smaller than 7 points. Lengths are inches,
text sizes points. Colours tell apart under all common forms of colour blindness (after Okabe & Ito 2008); dashes and markers repeat what
they say. Nothing is taken from a user's matplotlib settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
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
"""Sizes of ticks and keys, of axes' names, and of titles."""
LINE, TITLE_LINE = 1.32 * SMALL / 72, 1.3 * TITLE / 72
"""Height of a line of the key, and of the title."""
SAMPLE, GAP = 0.24, 0.14
"""Length of a key's piece of line, and the distance between its entries."""
MANY_ROWS = 5
"""Rows of a key from which on a figure is as wide as the text."""
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


class Look(NamedTuple):
    """How one label is drawn, in every figure of its suite."""

    colour: str
    dash: Any
    marker: str


class Key(NamedTuple):
    """An entry of the key: a name beside a piece of its line."""

    text: str
    look: Look
    width: float = 1.2


@contextmanager
def page() -> Iterator[None]:
    """Draw inside this: the style holds there and nowhere else, on top of matplotlib's own defaults, whatever a user has set."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for key, value in RC.items():
            matplotlib.rcParams[key] = value  # pyright: ignore[reportArgumentType]
        yield


@contextmanager
def suite(slots: Mapping[str, int]) -> Iterator[None]:
    """Labels that are drawn inside this have the looks that their suite's plan gives them."""
    token = _SUITE.set(slots)
    try:
        yield
    finally:
        _SUITE.reset(token)


def looks(labels: Sequence[str], memoryless: Iterable[str] = ()) -> dict[str, Look]:
    """The look of every label: that of the suite, and without one that among these labels; networks without memory are grey."""
    slots = _SUITE.get() or {}
    if not set(labels) <= set(slots):
        slots = assign_slots(labels, memoryless)
    return {label: look_of(slots[label]) for label in labels}


def look_of(slot: int) -> Look:
    """The look of a slot; those below zero are grey."""
    if slot < 0:
        return Look(GREY, DASHES[(-1 - slot) % len(DASHES)], MARKERS[(-1 - slot) % len(MARKERS)])
    return Look(COLOURS[slot % len(COLOURS)], DASHES[slot // len(COLOURS) % len(DASHES)], MARKERS[slot % len(MARKERS)])


def width_of(wanted: str | None, panels: int = 1, beside: float = 0.0, key: Sequence[Key] = ()) -> float:
    """The width of a figure: as wanted, else a column where one panel, what stands beside it and a short key leave room for the data."""
    large = panels > 1 or beside > 0.62 * COLUMN or len(_rows(key, 0.97 * (COLUMN - 0.16))) > MANY_ROWS
    return {"column": COLUMN, "text": TEXT}.get(wanted or "", TEXT if large else COLUMN)


def canvas(title: str, width: float, height: float, shape: tuple[int, int] = (1, 1), **options: Any) -> tuple[Figure, Any]:
    """A figure `width` inches wide, and its grid of panels, together `height` inches high.

    shape: rows and columns of panels. Options: `left`, `right`, `head` (above the panels), `bottom` (below them, for the names of their
    axes): room in inches; `key`: entries that stand beneath everything, see `Key`; `note`: a sentence below them; `wspace` and `hspace` as
    in matplotlib; what is left goes to `subplots`.
    """
    room = {side: options.pop(side, inches) for side, inches in (("left", 0.5), ("right", 0.1), ("head", 0.08), ("bottom", 0.4))}
    key, note = options.pop("key", []), wrap(options.pop("note", ""), 0.97 * (width - 0.16), SMALL)
    spaces = {space: options.pop(space, 0.25) for space in ("wspace", "hspace")}
    lines, rows = wrap(title, 0.97 * (width - 0.16), TITLE, bold=True), _rows(key, 0.97 * (width - 0.16))
    foot = 0.06 + LINE * (len(rows) + len(note)) + (0.04 if note else 0)
    top = room["head"] + (0.1 + TITLE_LINE * len(lines) if lines else 0.02)
    total = foot + room["bottom"] + height + top
    figure = Figure(figsize=(width, total))
    sides = {"left": room["left"] / width, "right": 1 - room["right"] / width}
    grid = {**sides, "bottom": (foot + room["bottom"]) / total, "top": 1 - top / total, **spaces}
    axes = figure.subplots(*shape, squeeze=False, gridspec_kw=grid, **options)
    title_style = {"fontsize": TITLE, "fontweight": "bold", "linespacing": 1.3}
    figure.text(0.08 / width, 1 - 0.07 / total, "\n".join(lines), va="top", ha="left", **title_style)
    _draw_key(figure, rows, foot - 0.03)
    for index, line in enumerate(reversed(note)):
        figure.text(0.08 / width, (0.04 + LINE * index) / total, line, va="bottom", ha="left", color=GREY)
    return figure, axes


def _rows(key: Sequence[Key], width: float) -> list[list[Key]]:
    """The entries of a key in rows of at most that width."""
    rows: list[list[Key]] = []
    for entry in key:
        fits = rows and sum(map(_entry_width, [*rows[-1], entry])) - GAP <= width
        rows[-1:] = [[*rows[-1], entry]] if fits else [*rows[-1:], [entry]]
    return rows


def _entry_width(entry: Key) -> float:
    return SAMPLE + 0.06 + text_width(entry.text) + GAP


def _draw_key(figure: Figure, rows: list[list[Key]], top: float) -> None:
    """Write the rows of a key, the first one `top` inches above the foot of the page."""
    width, height = figure.get_size_inches()
    for number, row in enumerate(rows):
        x, y = 0.08, (top - LINE * (number + 0.5)) / height
        for entry in row:
            look, places = entry.look, [x / width, (x + SAMPLE / 2) / width, (x + SAMPLE) / width]
            shape = {"color": look.colour, "ls": look.dash, "lw": entry.width, "marker": look.marker, "markevery": [1]}
            figure.add_artist(Line2D(places, [y] * 3, mec="white", mew=0.4, **shape))
            figure.text((x + SAMPLE + 0.06) / width, y, entry.text, va="center_baseline", ha="left", fontsize=SMALL)
            x += _entry_width(entry)


def keys(known: Mapping[str, Look], names: Mapping[str, str]) -> list[Key]:
    """The entries of networks."""
    return [Key(names[label], look) for label, look in known.items()]


def reference(axes: Iterable[Axes] | Axes, values: Iterable[float], name: str, dash: Any = DASHED, upright: bool = False) -> list[Key]:
    """Draw lines across panels at what needs no network, such as chance, and return their entry for the key.

    name: a form such as `chance {} %` for the values. Values that are not known (NaN) have no line; without any there is no entry.
    """
    known = sorted({float(value) for value in values if math.isfinite(value)})
    for axis in [axes] if isinstance(axes, Axes) else axes:
        for value in known:
            (axis.axvline if upright else axis.axhline)(value, color=GREY, lw=0.9, ls=dash, zorder=1.5, gid="reference")
    return reference_key(known, name, dash)


def reference_key(values: Iterable[float], name: str, dash: Any = DASHED) -> list[Key]:
    """The entry that `reference` gives, before there are panels to draw on."""
    known = sorted({float(value) for value in values if math.isfinite(value)})
    text = name.replace("{}", ", ".join(f"{value:.3g}" for value in known[:3]) + (", …" if len(known) > 3 else ""))
    return [Key(text, Look(GREY, dash, ""), 0.9)] if known else []


def text_width(text: str, size: float = SMALL, bold: bool = False) -> float:
    """Width of a line of text in inches."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    font.set_size(size, 72)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64 / 72


def wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """The text in lines of at most `width` inches, broken between words."""
    lines: list[str] = []
    for word in filter(None, text.replace("\n", " ").split(" ")):
        longer = f"{lines[-1]} {word}" if lines else word
        lines[-1:] = [longer] if not lines or text_width(longer, size, bold) <= width else [lines[-1], word]
    return lines


def wrapped(text: str, width: float, size: float = NAME) -> str:
    """The text with line breaks, for the name of an axis that is `width` inches long."""
    return "\n".join(wrap(text, width, size))


def panel_size(axis: Axes) -> Any:
    """Width and height of a panel, inches."""
    figure, box = axis.get_figure(root=True), axis.get_position()
    assert figure is not None
    return figure.get_size_inches() * (box.width, box.height)


def save(figure: Figure, out: Path, shown: pd.DataFrame) -> None:
    """Write `out`.svg, .pdf, .png and `out`.csv, the numbers that the picture shows; nothing in them depends on the day."""
    write_sealed(Path(f"{out}.csv"), shown.to_csv(index=False, lineterminator="\n"))
    save_picture(figure, out, ("svg", "pdf", "png"))


def save_picture(figure: Figure, out: Path, kinds: Sequence[str] = ("svg", "png")) -> None:
    """Write `out` as files of these kinds: vectors, with text as paths (SVG) or embedded fonts (PDF), or 300 dpi."""
    metadata = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    for kind in kinds:
        with sealed(Path(f"{out}.{kind}")) as temporary:
            figure.savefig(temporary, format=kind, dpi=300, metadata=metadata[kind])
