"""The tables a reader sees: means and 95 % intervals over seeds, per network and point, as Markdown and as one HTML page."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable
from html import escape
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.evaluation.overlap import overlap_sentence
from pipeline.evaluation.progress import MARKS
from pipeline.evaluation.statistics import Summary, summarise_scores

Row = dict[str, Any]
NOTHING = "–"
ONE_SEED = "¹"
OVER_SEEDS = "Mean over seeds [95 % interval over seeds]"
UNBOUNDED = "The interval of {} assumes that seeds do not fall into some that solve the task and some that do not: nothing bounds its mean."
OVER_ROWS = " ¹ One seed: the interval is over its {}, and says nothing of other seeds."
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
    """A metadata value that stands for a name."""

    place: int
    name: str

    def __str__(self) -> str:
        return self.name


class Section(NamedTuple):
    """One table: a heading, how to read it, and cells of text. An interval follows its mean in square brackets."""

    title: str
    note: str
    header: list[str]
    body: list[list[str]]
    reference: list[str] | None = None
    """Last row: what needs no network (chance, the memoryless baseline)."""


def summary(results: pa.Table) -> list[Section]:
    """The tables of an experiment: accuracy at every point, all scores at the hardest point, learning and cost.

    Where networks ran freely, the accuracy is that of the answers they came to, and one more table says how. Where they played episodes, it
    is the share that they solved, and rows are episodes or, in training, steps of the environment.
    """
    note = json.loads(results.schema.metadata[b"recurlab"])
    points, rows = note["points"], _with_names(results.to_pylist(), note.get("named", {}))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    places = sorted({tuple(row[name] for name in points) for row in rows}, key=_missing_last)
    at = {label: {place: _select(rows, points, label, place) for place in places} for label in labels}
    last = {label: found[places[-1]] for label, found in at.items()}
    where = _where(points, places[-1], rows)
    free = [_free(last, where)] if _decoded(rows) else []
    hardest = _played_hardest if _played(rows) else _hardest
    each = [_each(at, points, places, rows)] if len({row["seed"] for row in rows}) > 1 else []
    first = _accuracy(at, points, places, rows, overlap_sentence(note, rows))
    return [first, *each, *free, hardest(last, where), _learning(rows)]


def _with_names(rows: list[Row], named: dict[str, list[str]]) -> list[Row]:
    """The rows with the names of those metadata values that have one."""
    return [
        row | {column: Name(row[column], names[row[column]]) for column, names in named.items() if row.get(column) is not None}
        for row in rows
    ]


def _decoded(rows: list[Row]) -> bool:
    return any(row.get("no_answer") is not None for row in rows)


def _played(rows: list[Row]) -> bool:
    return any(row.get("return") is not None for row in rows)


def _where(points: list[str], place: tuple[Any, ...], rows: list[Row]) -> str:
    return ", ".join(_said(name, value, rows) for name, value in zip(points, place, strict=True)) or "the only point"


def _said(name: str, value: Any, rows: list[Row]) -> str:
    """A metadata value with its name, and on which side it lies outside what every run was trained at, where it does."""
    ends = [(row[f"{name}_least_trained"], row[f"{name}_most_trained"]) for row in rows]
    known = value is not None and not isinstance(value, Name) and all(least is not None for least, _ in ends)
    above, below = known and all(value > most for _, most in ends), known and all(value < least for least, _ in ends)
    return f"{name} {value}{' (beyond training)' if above else ' (below training)' if below else ''}"


def _missing_last(place: tuple[Any, ...]) -> list[tuple[bool, Any]]:
    return [(value is None, value or 0) for value in place]


def _select(rows: list[Row], points: list[str], label: str, place: tuple[Any, ...]) -> list[Row]:
    return [row for row in rows if row["label"] == label and tuple(row[name] for name in points) == place]


def _each(at: dict[str, Any], points: list[str], places: list[tuple[Any, ...]], rows: list[Row]) -> Section:
    """The accuracy of every seed: what a mean of few of them hides."""
    heads, _ = _heads(points, places, rows)
    body = [[label, *(_values(found[place], "accuracy") for place in places)] for label, found in at.items()]
    title = _accuracy_title(rows)
    return Section(
        f"Every seed: {title[0].lower()}{title[1:]}", "One value per seed, in the order of the seeds.", ["network", *heads], body
    )


def _values(rows: list[Row], key: str) -> str:
    known = [row[key] for row in sorted(rows, key=lambda row: row["seed"]) if row[key] is not None]
    return " ".join(f"{100 * value:.1f}" for value in known) or NOTHING


def _heads(points: list[str], places: list[tuple[Any, ...]], rows: list[Row]) -> tuple[list[str], list[int]]:
    """A heading for every point, of the metadata that varies; and which that is."""
    varying = [index for index in range(len(points)) if len({place[index] for place in places}) > 1]
    return [", ".join(_said(points[index], place[index], rows) for index in varying) or "accuracy" for place in places], varying


def _accuracy_title(rows: list[Row]) -> str:
    if _played(rows):
        return "Episodes solved (%)"
    return "Final answers that are right, running freely (%)" if _decoded(rows) else "Symbol accuracy (%)"


def _accuracy(at: dict[str, Any], points: list[str], places: list[tuple[Any, ...]], rows: list[Row], overlap: str) -> Section:
    heads, varying = _heads(points, places, rows)
    body = [[label, *(_percent(found[place], "accuracy") for place in places), _seeds(found.values())] for label, found in at.items()]
    chance = [_span([100 * row["chance"] for found in at.values() for row in found[place]]) for place in places]
    fixed = [_said(points[index], places[0][index], rows) for index in range(len(points)) if index not in varying]
    examples = _span([row["rows"] for row in rows], "{:,.0f}")
    played = _played(rows)
    note = [OVER_SEEDS, *fixed, f"{examples} test {'episodes' if played else 'rows'} per point and seed"]
    text = f"{'; '.join(note)}." + (f" {overlap}" if overlap else "") + _one_seed(body, rows)
    reference = ["without memory", *(NOTHING if text == "0.0" else text for text in chance), ""] if played else ["chance", *chance, ""]
    return Section(_accuracy_title(rows), text, ["network", *heads, "seeds"], body, reference)


def _one_seed(body: list[list[str]], rows: Iterable[Row]) -> str:
    """What the mark of an interval over rows means, where a cell has it."""
    marked = any(ONE_SEED in cell for cells in body for cell in cells)
    return OVER_ROWS.format("episodes" if _played(list(rows)) else "rows") if marked else ""


def _free(chosen: dict[str, list[Row]], where: str) -> Section:
    header = ["network", "right (%)", "no answer (%)", "exact traces (%)", "first error (token)", "queries that are valid (%)"]
    body = [
        [
            label,
            _percent([row for row in rows if row["no_answer"] is not None], "accuracy"),
            _percent(rows, "no_answer"),
            _percent(rows, "exact"),
            _mean(rows, "first_error", "{:.0f}".format),
            _percent(rows, "valid_queries"),
            _percent(rows, "forced_accuracy"),
        ]
        for label, rows in chosen.items()
    ]
    note = (
        "What a network writes by itself, its likeliest token being its next input. Right: final answers; the rest is wrong or no answer. "
        "Exact: not one token differs from the true trace. First error: the median place, counted in tokens after the prompt, of the first "
        f"that differs, where one does. Teacher-forced: tokens that are right where all before them are given. {OVER_SEEDS}."
    ) + _one_seed(body, itertools.chain(*chosen.values()))
    return Section(f"Running freely: {where}", note, [*header, "teacher-forced tokens (%)"], body)


def _hardest(chosen: dict[str, list[Row]], where: str) -> Section:
    every = [row for rows in chosen.values() for row in rows]
    units, free = " or ".join(dict.fromkeys(row["unit"] for row in every)), _decoded(every)
    accuracies = ["tokens, teacher-forced (%)", "whole rows, teacher-forced (%)"] if free else ["symbols (%)", "whole rows (%)"]
    scores = [*accuracies, f"loss ({units})", "loss / memoryless baseline", "bits recalled per row"]
    body = [
        [
            label,
            _percent(rows, "forced_accuracy" if free else "accuracy"),
            _percent(rows, "sequence_accuracy"),
            _mean(rows, "loss", _significant),
            _mean(rows, "loss_over_baseline", _significant),
            _mean(rows, "bits", "{:.1f}".format),
            _span([row["state_bytes"] for row in rows], "{:,.0f}"),
        ]
        for label, rows in chosen.items()
    ]
    whole = [] if free else [100 * row["chance"] ** (row["scored"] / row["rows"]) for row in every]
    chance, loss = _span([] if free else [100 * row["chance"] for row in every]), _span([row["baseline"] for row in every], "{:.3f}")
    bits = "0.0" if any(row["bits"] is not None for row in every) else NOTHING
    baseline = ["memoryless baseline", chance, _span(whole, "{:.2g}"), loss, "1.00", bits, "0"]
    note = (
        f"{OVER_SEEDS}. The memoryless baseline is the best that is possible without memory; a network that remembers has a lower loss. "
        + UNBOUNDED.format("the loss")
        + _one_seed(body, every)
    )
    return Section(f"At the hardest point: {where}", note, ["network", *scores, "state (bytes)"], body, baseline)


def _played_hardest(chosen: dict[str, list[Row]], where: str) -> Section:
    body = [
        [
            label,
            _percent(rows, "accuracy"),
            _mean(rows, "return", "{:.2f}".format),
            _mean(rows, "episode_length", "{:.1f}".format),
            _span([row["state_bytes"] for row in rows], "{:,.0f}"),
        ]
        for label, rows in chosen.items()
    ]
    best = _span([row["best_return"] for rows in chosen.values() for row in rows], "{:.2f}")
    known = all(row.get("return_highest") is not None for rows in chosen.values() for row in rows)
    holds = "" if known else f" {UNBOUNDED.format('the return')} With evaluate.return_range it has one that holds."
    note = f"Return: the sum of an episode's rewards. {OVER_SEEDS}.{holds}" + _one_seed(body, itertools.chain(*chosen.values()))
    header = ["network", "solved (%)", "return", "steps per episode", "state (bytes)"]
    return Section(f"At the hardest point: {where}", note, header, body, ["best possible", NOTHING, best, NOTHING, NOTHING])


def _learning(rows: list[Row]) -> Section:
    runs = {(row["label"], row["run"]): row for row in rows}
    labels = dict.fromkeys(label for label, _ in runs)
    chosen = {label: [row for (owner, _), row in runs.items() if owner == label] for label in labels}
    played = _played(rows)
    unit, seen = ("steps", "environment steps taken") if played else ("rows", "training rows seen")
    header = ["network", "parameters", *(f"{unit} to {mark} %" for mark in MARKS), *([] if played else ["solved"])]
    body = [
        [label, _span([row["parameters"] for row in rows], "{:,.0f}"), *(_reached(rows, mark) for mark in MARKS)]
        + ([] if played else [_solved(rows)])
        for label, rows in chosen.items()
    ]
    note = f"Median of the {seen} at the first validation that reached each accuracy (how many of the seeds reached it)."
    return Section("Learning", note if played else f"{note} Solved: 99 % at two validations in a row.", header, body)


def _percent(rows: list[Row], key: str) -> str:
    return _mean(rows, key, lambda value: f"{100 * value:.1f}")


def _mean(rows: list[Row], key: str, write: Callable[[float], str]) -> str:
    found = summarise_scores(rows, key)
    return NOTHING if math.isnan(found.mean) else write(found.mean) + _interval(found, write)


def _interval(found: Summary, write: Callable[[float], str]) -> str:
    return "" if math.isnan(found.low) else f" [{write(found.low)}, {write(found.high)}]" + (ONE_SEED if found.n == 1 else "")


def _significant(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _span(values: Iterable[float | None], write: str = "{:.1f}") -> str:
    """One value where all are equal, else least–most."""
    known = [value for value in values if value is not None]
    ends = dict.fromkeys(write.format(end) for end in (min(known), max(known))) if known else [NOTHING]
    return "–".join(ends)


def _seeds(selections: Iterable[list[Row]]) -> str:
    return _span([len(rows) for rows in selections], "{:.0f}")


def _reached(rows: list[Row], mark: int) -> str:
    reached = sorted(row[f"rows_to_{mark}"] for row in rows if row[f"rows_to_{mark}"] is not None)
    if not reached:
        return f"{NOTHING} (0/{len(rows)})"
    middle = (reached[(len(reached) - 1) // 2] + reached[len(reached) // 2]) / 2
    return f"{middle:,.0f} ({len(reached)}/{len(rows)})"


def _solved(rows: list[Row]) -> str:
    return f"{sum(bool(row['solved']) for row in rows)}/{len(rows)}"


def as_markdown(sections: list[Section]) -> str:
    """The tables as GitHub-flavoured Markdown."""
    return "\n".join(_markdown(section) for section in sections)


def _markdown(section: Section) -> str:
    rows = [*section.body, *([section.reference] if section.reference else [])]
    lines = [_line(section.header), _line(["---", *["---:"] * (len(section.header) - 1)]), *map(_line, rows)]
    return "\n".join([f"## {section.title}", "", section.note, "", *lines, ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_html(title: str, sections: list[Section]) -> str:
    """The tables as one page that needs nothing else."""
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>'
    body = "\n".join(_html(section) for section in sections)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n'


def _html(section: Section) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
    lines = [_html_row(cells) for cells in section.body]
    if section.reference:
        lines.append(_html_row(section.reference, ' class="reference"'))
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>"
    return f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.note)}</p>\n<div>{table}</div>"


def _html_row(cells: list[str], attributes: str = "") -> str:
    return f"<tr{attributes}>" + "".join(f"<td>{_quiet(escape(cell))}</td>" for cell in cells) + "</tr>"


def _quiet(cell: str) -> str:
    """Intervals in small print."""
    mean, bracket, rest = cell.partition(" [")
    return f"{mean} <small>[{rest}</small>" if bracket else cell
