"""The one style of all figures: size, type, colours, labels beside lines, and files whose bytes depend on the data only.

Lengths are inches, text sizes points. Colours tell apart under all common forms of colour blindness (after Okabe & Ito 2008); dashes and
markers repeat what they say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Transform

from pipeline.storage.seals import sealed, write_sealed

if TYPE_CHECKING:
    import pandas as pd

PLOT_WIDTH = 5.4
LEFT, BOTTOM = 0.85, 0.55
SMALL, TITLE = 8.5, 10.5
TAG = 1.32 * SMALL / 72
"""Distance between two labels beside a panel."""
SHADES = ("#9ecae1", "#3182bd", "#08306b")
INK, GREY, PALE = "#1f2937", "#6b7280", "#d1d5db"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0589a", "#e69f00", "#4aa3df", "#5b3a9d", "#8c2d4b")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.4, 1.3)), (0, (6, 1.5, 1.2, 1.5)))
DASHED = (0, (2, 2))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
RC = {
    "font.family": ["DejaVu Sans"],
    "font.size": SMALL,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.hashsalt": "recurlab",
    "svg.fonttype": "path",
    "axes.formatter.use_mathtext": False,
    "path.simplify": False,
}


class Look(NamedTuple):
    """How one label is drawn, in every figure of its experiment."""

    colour: str
    dash: Any
    marker: str


class Tag(NamedTuple):
    """A label to stand beside the end of a line, at the height `y` in data units."""

    text: str
    y: float
    colour: str
    marker: str | None = None


@contextmanager
def page(light: bool = False) -> Iterator[None]:
    """Draw inside this: the style holds there and nowhere else. light: without seaborn, whose import costs a second of every training job."""
    rc: Any = {**({} if light else _seaborn_paper()), **RC}
    with matplotlib.rc_context(rc):
        yield


def _seaborn_paper() -> dict[str, Any]:
    import seaborn as sns

    return {**sns.axes_style("ticks"), **sns.plotting_context("paper")}


def looks(labels: Sequence[str], memoryless: Iterable[str] = ()) -> dict[str, Look]:
    """The look of every label, by its place in the experiment; networks without memory are grey wherever they stand."""
    quiet = set(memoryless)
    found: dict[str, Look] = {label: Look(GREY, "-", "o") for label in labels if label in quiet}
    for index, label in enumerate(label for label in labels if label not in quiet):
        dash = DASHES[index // len(COLOURS) % len(DASHES)]
        found[label] = Look(COLOURS[index % len(COLOURS)], dash, MARKERS[index % len(MARKERS)])
    return {label: found[label] for label in labels}


def tag(label: str, y: float, known: dict[str, Look]) -> Tag:
    """The tag of a label's line that ends at height `y`."""
    return Tag(label, y, known[label].colour, known[label].marker)


def canvas(title: str, size: tuple[float, float], shape: tuple[int, int] = (1, 1), right: float = 0.2, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure and its grid of panels, which fill `size` = (width, height); `right` is left free beside them, the title stands above.

    shape: rows and columns of panels. `left`, `head` (room above the panels), `bottom`, `wspace` and `hspace` may be given; what is left of
    the keyword arguments goes to `subplots`.
    """
    left, head, bottom = kwargs.pop("left", LEFT), kwargs.pop("head", 0.12), kwargs.pop("bottom", BOTTOM)
    spaces = {key: kwargs.pop(key, 0.25) for key in ("wspace", "hspace")}
    width = left + size[0] + right
    lines = wrap(title, width - 0.5, TITLE, bold=True)
    top = head + 0.12 + 0.2 * len(lines)
    height = bottom + size[1] + top
    figure = Figure(figsize=(width, height))
    grid = {"left": left / width, "right": 1 - right / width, "bottom": bottom / height, "top": 1 - top / height, **spaces}
    axes = figure.subplots(*shape, squeeze=False, gridspec_kw=grid, **kwargs)
    figure.text(0.1 / width, 1 - 0.09 / height, "\n".join(lines), va="top", ha="left", fontsize=TITLE, fontweight="bold", linespacing=1.3)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def text_width(text: str, size: float = SMALL, bold: bool = False) -> float:
    """Width of a line of text in inches."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    font.set_size(size, 72)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64 / 72


def wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """The text in lines of at most `width` inches, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        lines[-1:] = [longer] if not lines or text_width(longer, size, bold) <= width else [lines[-1], word]
    return lines


def margin(labels: Iterable[str]) -> float:
    """Room that labels beside a panel need."""
    return max((text_width(label) for label in labels), default=0.0) + 0.5


def tall_enough(height: float, tags: int) -> float:
    """The height of a panel, inches, or what so many tags beside it need if that is more."""
    return max(height, TAG * (tags - 1))


def tag_ends(axis: Axes, tags: Sequence[Tag]) -> None:
    """Write labels to the right of a panel at the heights of their lines, with a hair line to each; they move apart rather than overlap."""
    width, height = panel_size(axis)
    known = sorted((tag for tag in tags if math.isfinite(tag.y)), key=lambda tag: tag.y)
    wanted = [float(_fraction(axis, tag.y)) for tag in known]
    for tag, start, place in zip(known, wanted, spread(wanted, gap=TAG / height), strict=True):
        beside = {"color": tag.colour, "transform": axis.transAxes, "clip_on": False}
        axis.plot([1.0, 1 + 0.1 / width, 1 + 0.2 / width], [start, place, place], lw=0.7, **beside)
        if tag.marker:
            axis.plot([1 + 0.26 / width], [place], marker=tag.marker, ms=4.5, **beside)
        indent = 0.36 if tag.marker else 0.24
        axis.text(1 + indent / width, place, tag.text, va="center_baseline", ha="left", fontsize=SMALL, transform=axis.transAxes)


def panel_size(axis: Axes) -> np.ndarray:
    """Width and height of a panel, inches."""
    figure, box = axis.get_figure(root=True), axis.get_position()
    assert figure is not None
    return figure.get_size_inches() * (box.width, box.height)


def _fraction(axis: Axes, y: float) -> float:
    """A data height as a fraction of the panel's height."""
    low, high = axis.get_ylim()
    scale = axis.yaxis.get_transform().transform
    low, value, high = (float(scale(np.array([item], dtype=float))[0]) for item in (low, y, high))
    return min(1.0, max(0.0, (value - low) / (high - low)))


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places in 0..1 nearest to the wanted ones (ascending) that keep `gap` apart: isotonic regression, pooling neighbours that collide.

    When there is no room for all, they are evenly spaced over the whole.
    """
    count = len(wanted)
    gap = min(gap, 1 / max(1, count - 1))
    blocks: list[tuple[float, int]] = []
    for index, place in enumerate(wanted):
        mean, size = place - index * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, members = blocks.pop()
            mean, size = (before * members + mean * size) / (members + size), members + size
        blocks.append((mean, size))
    room = max(0.0, 1 - (count - 1) * gap)
    flat = [min(room, max(0.0, mean)) for mean, size in blocks for _ in range(size)]
    return [place + index * gap for index, place in enumerate(flat)]


def label_spots(axis: Axes, spots: Sequence[tuple[float, float, str]], line: Sequence[tuple[float, float]] = ()) -> None:
    """Write a label beside each marker (x, y, text) of a panel, on the side where it covers least of markers, labels and the line."""
    panel = panel_size(axis)
    to_inches = axis.transData - axis.transAxes
    centres = to_inches.transform([spot[:2] for spot in spots]) * panel
    taken = [(x - 0.06, y - 0.06, x + 0.06, y + 0.06) for x, y in centres]
    corners = to_inches.transform(line) * panel if len(line) else []
    taken += [(*np.minimum(one, other) - 0.02, *np.maximum(one, other) + 0.02) for one, other in pairwise(corners)]
    for (x, y), (_, _, text) in zip(centres, spots, strict=True):
        wide, high = text_width(text), SMALL * 1.15 / 72
        sides = [(0.1, -high / 2), (0.07, 0.06), (0.07, -0.06 - high), (-0.1 - wide, -high / 2), (-wide / 2, 0.1), (-wide / 2, -0.1 - high)]
        sides += [(-wide - 0.07, 0.06), (-wide - 0.07, -0.06 - high), (-wide / 2, 0.25), (-wide / 2, -0.25 - high)]
        places = [(x + right, y + up, x + right + wide, y + up + high) for right, up in sides]
        best = min(places, key=lambda place: sum(_covered(place, other) for other in taken) + 3 * _outside(place, panel))
        taken.append(best)
        x, y = best[0] / panel[0], (best[1] + high / 2) / panel[1]
        halo = [withStroke(linewidth=2.5, foreground="white")]
        axis.text(x, y, text, va="center_baseline", fontsize=SMALL, transform=axis.transAxes, zorder=5, path_effects=halo)


def _covered(one: Sequence[float], other: Sequence[float]) -> float:
    """Area that two boxes (left, low, right, high) share."""
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def _outside(box: Sequence[float], panel: np.ndarray) -> float:
    """How far a box sticks out of a panel, in inches."""
    return max(0.0, -box[0]) + max(0.0, -box[1]) + max(0.0, box[2] - panel[0] - 0.9) + max(0.0, box[3] - panel[1] - 0.1)


def axis_name(column: str) -> str:
    """A metadata column as the name of an axis, with its unit."""
    units = {
        "delay": "tokens",
        "length": "tokens",
        "symbols": "per row",
        "pairs": "per row",
        "nodes": "of the graph",
        "corridor": "positions",
    }
    return f"{column} ({units[column]})" if column in units else column


def value_axis(axis: Axes, values: Sequence[float], crowd: int = 1) -> None:
    """An x axis over ascending values: logarithmic when they span more than a factor of five, ticks at the values themselves.

    crowd: how many markers will stand side by side at a value, see `aside`; the ends of the axis leave room for them.
    """
    logarithmic, pad = values[-1] > 5 * values[0], 0.04 + 0.5 * _room(crowd)
    if logarithmic:
        axis.set_xscale("log")
        ratio = (values[-1] / values[0]) ** pad
        axis.set_xlim(values[0] / ratio, values[-1] * ratio)
    else:
        beyond = pad * (values[-1] - values[0]) or 1
        axis.set_xlim(values[0] - beyond, values[-1] + beyond)
    ticks = sparse(values, logarithmic)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FixedFormatter([f"{value:,.0f}" for value in ticks]))
    axis.xaxis.set_minor_locator(NullLocator())


def _room(crowd: int) -> float:
    """The share of an axis that so many markers side by side take."""
    return min(0.24, 0.02 * (crowd - 1))


def aside(axis: Axes, values: Sequence[float], place: int, crowd: int) -> np.ndarray:
    """The values of a value axis, moved a little to the side: to the `place` of one of so many that must not hide each other."""
    to_axis = axis.get_xaxis_transform() - axis.transAxes
    ticks = _across(to_axis, axis.get_xticks())
    room = min(_room(crowd), *(0.6 * np.diff(ticks))) if len(ticks) > 1 else 0.8 * (1 - 1 / crowd)
    shift = room * (place / max(1, crowd - 1) - 0.5)
    return _across(to_axis.inverted(), _across(to_axis, values) + shift)


def _across(transform: Transform, values: Any) -> np.ndarray:
    """The x coordinates of values under a transform."""
    return transform.transform(np.stack([np.asarray(values, dtype=float), np.zeros(len(values))], axis=1))[:, 0]


def means(axis: Axes, x: Any, line: pd.DataFrame, look: Look) -> None:
    """A line through the means of a frame, each with its interval as a vertical bar."""
    axis.vlines(x, line["low"], line["high"], color=look.colour, lw=1.6, alpha=0.6, zorder=3)
    axis.plot(x, line["mean"], color=look.colour, ls=look.dash, marker=look.marker, mec="white", mew=0.6, zorder=4)


def bars(axis: Axes, shown: Any, seeds: pd.DataFrame, value: str, known: dict[str, Look]) -> None:
    """A horizontal bar per label, in order from the top: the mean with its interval, and a dot per seed's `value`."""
    for place, (label, look) in enumerate(known.items()):
        for found in shown[shown["label"] == label].itertuples():
            axis.barh(place, found.mean, height=0.56, color=look.colour, alpha=0.35, lw=0)
            axis.plot([found.low, found.high], [place, place], color=INK, lw=1.3, zorder=3)
        dots = seeds.loc[seeds["label"] == label, value]
        axis.plot(dots, [place] * len(dots), ls="", marker="o", ms=4.2, color=look.colour, mec="white", mew=0.6, zorder=4)
    axis.set_yticks(range(len(known)), list(known))
    axis.set_ylim(len(known) - 0.45, -0.55)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")


def milestones(axis: Axes, runs: Any, labels: Sequence[str], cost: str, marks: Sequence[int]) -> None:
    """What it took each label to come to accuracies of so many %: `runs` has a row per run, with columns such as `seconds_to_50` of that
    `cost`. Large markers are medians of the seeds that got there; how many got to the last mark stands at the right.
    """
    shapes: dict[int, Any] = {mark: {"marker": shape, "color": shade} for mark, shape, shade in zip(marks, "osD", SHADES, strict=True)}
    for place, label in enumerate(labels):
        own = runs[runs["label"] == label]
        medians = [own[f"{cost}_{mark}"].median() for mark in marks]
        axis.plot(medians, [place] * len(marks), color=PALE, lw=3, zorder=1, solid_capstyle="round")
        for mark, median in zip(marks, medians, strict=True):
            seeds = own[f"{cost}_{mark}"].dropna()
            axis.plot(seeds, [place] * len(seeds), ls="", ms=3, alpha=0.5, zorder=2, **shapes[mark])
            axis.plot([median], [place], ms=6.5, mec="white", mew=0.7, zorder=3, ls="", **shapes[mark])
        reached = int(own[f"{cost}_{marks[-1]}"].notna().sum())
        axis.text(1.03, place, f"{reached}/{len(own)}", transform=axis.get_yaxis_transform(), va="center", color=INK if reached else GREY)
    head = {"transform": axis.transAxes, "va": "bottom", "fontsize": SMALL - 0.5, "color": GREY, "linespacing": 1.1}
    axis.text(1.03, 1.01, f"reached\n{marks[-1]} %", **head)
    for mark in marks:
        axis.plot([], [], ls="", ms=6, label=f"{mark} %", **shapes[mark])
    spacing = {"handletextpad": 0.1, "columnspacing": 1.2, "borderaxespad": 0.1}
    axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, frameon=False, **spacing)
    axis.grid(visible=False, axis="y")


def references(axis: Axes, heights: Sequence[float], text: str) -> list[Tag]:
    """Dashed lines across a panel at what needs no network, such as chance, and their tags; `text` says how a height is written.

    Unknown heights (NaN) have neither.
    """
    known = [height for height in heights if math.isfinite(height)]
    for height in known:
        axis.axhline(height, color=GREY, lw=1, ls=DASHED, zorder=1)
    return [Tag(text.format(height), height, GREY) for height in known]


def cost_axis(axis: Axes, values: Sequence[float]) -> None:
    """A y axis for what is spent: from zero, or logarithmic when the values span more than a factor of twenty."""
    known = [value for value in values if value > 0] or [1.0]
    if max(known) > 20 * min(known):
        axis.set_yscale("log")
        axis.set_ylim(min(known) / 1.3, max(known) * 1.3)
        plain_log(axis)
    else:
        axis.set_ylim(0, 1.06 * max(known))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def plain_log(axis: Axes) -> None:
    """Plain numbers on a logarithmic y axis: at 1, 2 and 5 where it spans little, at the decades otherwise."""
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def sparse(values: Sequence[float], logarithmic: bool, least: float = 0.09) -> list[float]:
    """Those of the ascending values that can be tick labels without touching: `least` of the axis apart, both ends kept."""
    places = np.log(values) if logarithmic else np.asarray(values, dtype=float)
    places = (places - places[0]) / ((places[-1] - places[0]) or 1)
    kept = [0]
    for index in range(1, len(values)):
        if places[index] - places[kept[-1]] >= least:
            kept.append(index)
    if kept[-1] != len(values) - 1:
        kept[-1 if len(kept) > 1 else len(kept) :] = [len(values) - 1]
    return [values[index] for index in kept]


def save(figure: Figure, out: Path, shown: pd.DataFrame) -> None:
    """Write `out`.svg, `out`.png (150 dpi) and `out`.csv, the numbers that the picture shows; nothing in them depends on the day."""
    write_sealed(Path(f"{out}.csv"), shown.to_csv(index=False, lineterminator="\n"))
    save_picture(figure, out)


def save_picture(figure: Figure, out: Path) -> None:
    """Write `out`.svg and `out`.png."""
    with sealed(Path(f"{out}.svg")) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    with sealed(Path(f"{out}.png")) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
