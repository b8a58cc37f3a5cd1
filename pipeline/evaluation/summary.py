"""The tables of the report: means and 95 % intervals over seeds, per network and point, as Markdown and as an HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.labels import display_names
from pipeline.evaluation.measurements.base import Cell, Measurement, Score, Table, Write, percent
from pipeline.evaluation.milestones import MARKS
from pipeline.evaluation.overlap import overlap_sentence
from pipeline.evaluation.schemas import Note
from pipeline.evaluation.statistics import Summary, summarise_scores

Row = dict[str, Any]
Place = tuple[Any, ...]
"""The metadata values of a point."""
RowsByLabel = dict[str, list[Row]]
"""Label of a network -> its rows at one point."""
NOTHING = "–"
WIDEST = 8
"""Points of a table; with more of them, every value of the first column has a table of its own."""
ONE_SEED = "¹"
OVER_SEEDS = "Mean over seeds [95 % interval over seeds]"
UNBOUNDED = "Intervals of {} assume that the seeds do not split into some that solve the task and some that do not."
OVER_EXAMPLES = " ¹ One seed: the interval is over its {}s and does not reflect variation between seeds."
STYLE = """
body { font: 15px/1.5 ui-sans-serif, system-ui, sans-serif; color: #1f2937; background: #fff; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.35rem; font-weight: 600; margin: 0 0 1.5rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 2rem 0 0.2rem; }
p { margin: 0 0 0.7rem; color: #6b7280; font-size: 0.87rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.9rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0.2rem; }
thead th { border-top: 1.5px solid #1f2937; border-bottom: 1px solid #1f2937; font-weight: 600; }
tbody tr:last-child td { border-bottom: 1.5px solid #1f2937; }
tbody tr.reference td { border-top: 1px solid #d1d5db; color: #6b7280; font-style: italic; }
small { color: #6b7280; font-size: 0.8rem; }
""".strip()


class Name(NamedTuple):
    """A category: its code, which orders it, and its name."""

    code: int
    name: str

    def __str__(self) -> str:
        return self.name


class Section(NamedTuple):
    """One table: title, note on how to read it, and cells of text. An interval follows its mean in square brackets."""

    title: str
    note: str
    header: list[str]
    body: list[list[str]]
    reference: list[str] | None = None
    """Last row: values that need no network (chance, the memoryless baseline)."""
    warnings: Sequence[str] = ()
    """Lines below the note, each on its own."""


class Part(NamedTuple):
    """Points that share a table: what they have in common, as the end of its title, and their headings."""

    common: str
    places: list[Place]
    headings: list[str]


class Report(NamedTuple):
    """The data of the tables: the rows of results.parquet, and those at every point by network."""

    measurement: Measurement
    points: list[str]
    rows: list[Row]
    at: dict[Place, RowsByLabel]

    @property
    def places(self) -> list[Place]:
        """The points in order, the hardest last."""
        return list(self.at)

    @property
    def varying(self) -> list[int]:
        """Indices of the metadata columns that differ between points."""
        return [index for index in range(len(self.points)) if len({place[index] for place in self.places}) > 1]

    def value(self, index: int, place: Place) -> str:
        """Describe one metadata value of a point, and whether it lies above or below what every run was trained at."""
        name, value = self.points[index], place[index]
        ends = [(row[f"{name}_least_trained"], row[f"{name}_most_trained"]) for row in self.rows]
        known = value is not None and not isinstance(value, Name) and all(least is not None for least, _ in ends)
        above, below = known and all(value > most for _, most in ends), known and all(value < least for least, _ in ends)
        return f"{name} {value}{' (beyond training)' if above else ' (below training)' if below else ''}"

    def parts(self) -> list[Part]:
        """Split many points into tables, of which only the last metadata column varies within one."""
        *outer, inner = self.varying or [0]
        if len(self.places) <= WIDEST or not outer:
            names = (", ".join(self.value(index, place) for index in self.varying) for place in self.places)
            return [Part("", self.places, [name or self.measurement.primary for name in names])]
        groups: dict[Place, list[Place]] = {}
        for place in self.places:
            groups.setdefault(tuple(place[index] for index in outer), []).append(place)
        return [
            Part(": " + ", ".join(self.value(index, places[0]) for index in outer), places, [self.value(inner, place) for place in places])
            for places in groups.values()
        ]


def summary(results: pa.Table, note: Note) -> list[Section]:
    """Return the tables of an experiment: primary score at every point and of every seed, those of its measurement, learning."""
    names = display_names(note.labels)
    rows = [row | {"label": names[row["label"]]} for row in _with_names(results.to_pylist(), note)]
    places = sorted({tuple(row[name] for name in note.points) for row in rows}, key=_missing_last)
    labels = list(dict.fromkeys(row["label"] for row in rows))
    at = {place: {label: _select(rows, note.points, label, place) for label in labels} for place in places}
    report = Report(note.measurement, note.points, rows, at)
    per_seed = _per_seed(report) if len({row["seed"] for row in rows}) > 1 else []
    tables = [_table(table, report) for table in note.measurement.tables]
    sections = [*_primary(report, overlap_sentence(note, rows)), *per_seed, *tables, _learning(report)]
    return [section._replace(note=f"{section.note} {note.tuned}".strip()) for section in sections] if note.tuned else sections


def _with_names(rows: list[Row], note: Note) -> list[Row]:
    """Replace category indices in the rows by names."""
    named = {name: column.categories for name, column in note.columns.items() if column.categories}
    return [
        row | {column: Name(row[column], names[row[column]]) for column, names in named.items() if row.get(column) is not None}
        for row in rows
    ]


def _missing_last(place: Place) -> list[tuple[bool, Any]]:
    return [(value is None, value or 0) for value in place]


def _select(rows: list[Row], points: list[str], label: str, place: Place) -> list[Row]:
    return [row for row in rows if row["label"] == label and tuple(row[name] for name in points) == place]


def _labels(report: Report) -> list[str]:
    return list(report.at[report.places[0]])


def _write(score: Score) -> Write:
    return percent if score.is_share else "{:.2f}".format


def _primary(report: Report, overlap: str) -> list[Section]:
    """Return the tables of the primary score at every point; what holds for all is said above the first one."""
    measurement, score = report.measurement, report.measurement.scores[report.measurement.primary]
    write = _write(score)
    fixed = [report.value(index, report.places[0]) for index in range(len(report.points)) if index not in report.varying]
    examples = _range([row["rows"] for row in report.rows], "{:,.0f}".format)
    note = f"{'; '.join([OVER_SEEDS, *fixed, f'{examples} test {measurement.example}s per point and seed'])}." + (
        f" {overlap}" if overlap else ""
    )
    sections = []
    for part in report.parts():
        body = []
        for label in _labels(report):
            means = [_mean(report.at[place][label], measurement, measurement.primary, write) for place in part.places]
            seeds = _range([len(report.at[place][label]) for place in part.places], "{:.0f}".format)
            body.append([label, *means, seeds])
        rows = ([row for found in report.at[place].values() for row in found] for place in part.places)
        known = [_range([row.get(score.reference) for row in found], write) for found in rows]
        reference = [measurement.reference, *known, ""] if score.reference else None
        header, text = ["network", *part.headings, "seeds"], ("" if sections else note) + _one_seed(body, measurement)
        sections.append(Section(measurement.title + part.common, text, header, body, reference))
    return sections


def _per_seed(report: Report) -> list[Section]:
    """Return the tables of the primary score of every seed, which a mean over few seeds hides."""
    key, title = report.measurement.primary, report.measurement.title
    write, sections = _write(report.measurement.scores[key]), []
    for part in report.parts():
        body = [[label, *(_values(report.at[place][label], key, write) for place in part.places)] for label in _labels(report)]
        note = "" if sections else "One value per seed, in the order of the seeds."
        heading = f"Every seed: {title[0].lower()}{title[1:]}{part.common}"
        sections.append(Section(heading, note, ["network", *part.headings], body))
    return sections


def _values(rows: list[Row], key: str, write: Write) -> str:
    known = [row[key] for row in sorted(rows, key=lambda row: row["seed"]) if row[key] is not None]
    return " ".join(map(write, known)) or NOTHING


def _one_seed(body: list[list[str]], measurement: Measurement) -> str:
    """Return the footnote on intervals over examples, if a cell refers to it."""
    return OVER_EXAMPLES.format(measurement.example) if any(ONE_SEED in cell for cells in body for cell in cells) else ""


def _table(table: Table, report: Report) -> Section:
    """Return a table of the measurement, at the hardest point."""
    place = report.places[-1]
    chosen, measurement = report.at[place], report.measurement
    every = [row for rows in chosen.values() for row in rows]
    unit = " or ".join(dict.fromkeys(row["unit"] for row in every))
    body = [[label, *(_cell(cell, rows, measurement) for cell in table.cells)] for label, rows in chosen.items()]
    where = ", ".join(report.value(index, place) for index in range(len(report.points))) or "the only point"
    reference = [table.reference, *(_reference(cell, every) for cell in table.cells)] if table.reference else None
    note = f"{OVER_SEEDS}. {table.note}{_unbounded(table, measurement, every)}{_one_seed(body, measurement)}"
    header = ["network", *(cell.heading.format(unit=unit) for cell in table.cells)]
    return Section(f"{table.title}: {where}", note, header, body, reference)


def _unbounded(table: Table, measurement: Measurement, rows: list[Row]) -> str:
    """Return a note on the intervals of a table that do not hold if only some seeds solve the task."""
    scores = {cell.score: measurement.scores[cell.score] for cell in table.cells if not cell.across}
    unbounded = [score for name, score in scores.items() if any(row[name] is not None for row in rows) and not _is_bounded(score, rows)]
    if not unbounded:
        return ""
    names = " and ".join(f"the {score.label}" for score in unbounded)
    return " ".join(["", UNBOUNDED.format(names), *(score.bounds_hint for score in unbounded if score.bounds_hint)])


def _is_bounded(score: Score, rows: list[Row]) -> bool:
    low, high = score.bounds_at(rows)
    return math.isfinite(high - low)


def _cell(cell: Cell, rows: list[Row], measurement: Measurement) -> str:
    return _range([row[cell.score] for row in rows], cell.write) if cell.across else _mean(rows, measurement, cell.score, cell.write)


def _reference(cell: Cell, rows: list[Row]) -> str:
    """Return a cell of the table's last row, the reference."""
    write = cell.write_reference or cell.write
    if isinstance(cell.reference, str):
        return _range([row[cell.reference] for row in rows], write)
    known = cell.reference is not None and any(row[cell.score] is not None for row in rows)
    return write(cell.reference) if known and cell.reference is not None else NOTHING


def _learning(report: Report) -> Section:
    training = report.measurement.training
    runs = {(row["label"], row["run"]): row for row in report.rows}
    chosen = {label: [row for (owner, _), row in runs.items() if owner == label] for label in _labels(report)}
    header = ["network", "parameters", *(f"{training.unit} to {mark} %" for mark in MARKS), *(["solved"] if training.solved else [])]
    body = [
        [label, _range([row["parameters"] for row in rows], "{:,.0f}".format), *(_reached(rows, mark) for mark in MARKS)]
        + ([_solved(rows)] if training.solved else [])
        for label, rows in chosen.items()
    ]
    note = f"Median of the {training.seen} at the first validation that reached each accuracy (how many of the seeds reached it)."
    return Section("Learning", f"{note} Solved: 99 % at two validations in a row." if training.solved else note, header, body)


def _mean(rows: list[Row], measurement: Measurement, key: str, write: Write) -> str:
    seeds = summarise_scores(rows, key, measurement.scores[key])
    return NOTHING if math.isnan(seeds.mean) else write(seeds.mean) + _interval(seeds, write)


def _interval(seeds: Summary, write: Write) -> str:
    return "" if math.isnan(seeds.low) else f" [{write(seeds.low)}, {write(seeds.high)}]" + (ONE_SEED if seeds.n == 1 else "")


def _range(values: Iterable[float | None], write: Write) -> str:
    """Format the range least–most, or one value if all are equal."""
    known = [value for value in values if value is not None]
    ends = dict.fromkeys(write(end) for end in (min(known), max(known))) if known else [NOTHING]
    return "–".join(ends)


def _reached(rows: list[Row], mark: int) -> str:
    reached = sorted(row[f"rows_to_{mark}"] for row in rows if row[f"rows_to_{mark}"] is not None)
    if not reached:
        return f"{NOTHING} (0/{len(rows)})"
    middle = (reached[(len(reached) - 1) // 2] + reached[len(reached) // 2]) / 2
    return f"{middle:,.0f} ({len(reached)}/{len(rows)})"


def _solved(rows: list[Row]) -> str:
    return f"{sum(bool(row['solved']) for row in rows)}/{len(rows)}"


def as_markdown(sections: list[Section]) -> str:
    """Render the tables as GitHub-flavoured Markdown."""
    return "\n".join(_markdown(section) for section in sections)


def _markdown(section: Section) -> str:
    rows = [*section.body, *([section.reference] if section.reference else [])]
    lines = [_line(section.header), _line(["---", *["---:"] * (len(section.header) - 1)]), *map(_line, rows)]
    paragraphs = [line for text in (section.note, *section.warnings) if text for line in (text, "")]
    return "\n".join([f"## {section.title}", "", *paragraphs, *lines, ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_html(title: str, sections: list[Section]) -> str:
    """Render the tables as a self-contained HTML page."""
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>'
    body = "\n".join(_html(section) for section in sections)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n'


def _html(section: Section) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
    lines = [_html_row(cells) for cells in section.body]
    if section.reference:
        lines.append(_html_row(section.reference, ' class="reference"'))
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>"
    paragraphs = "\n".join(f"<p>{escape(text)}</p>" for text in (section.note, *section.warnings) if text)
    return f"<h2>{escape(section.title)}</h2>\n{paragraphs}\n<div>{table}</div>"


def _html_row(cells: list[str], attributes: str = "") -> str:
    return f"<tr{attributes}>" + "".join(f"<td>{_small_intervals(escape(cell))}</td>" for cell in cells) + "</tr>"


def _small_intervals(cell: str) -> str:
    """Set intervals in small print."""
    mean, bracket, rest = cell.partition(" [")
    return f"{mean} <small>[{rest}</small>" if bracket else cell
