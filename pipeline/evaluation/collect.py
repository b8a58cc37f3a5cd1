"""Collect an experiment's tables from the files of its runs. Never imports torch.

experiment.yaml + evaluations, histories, profiles  ->  results.parquet    a row per run and point of its evaluation
                                                        curves.parquet     validation and training curves
                                                        details.parquet    further results of its measurement: accuracy by position of the
                                                                           answer, pictures of episodes
                                                        table.md, .html    means and 95 % intervals over seeds
                                                        settings.html      every setting of every label, differences first
timing.parquet of every run                         ->  timing.parquet     seconds; they differ between runs of the same config
profiles                                            ->  costs.parquet      cost of a step by context; likewise
tuning.parquet, if the experiment is tuned          ->  table.md, .html    the section on tuning, and a sentence in every note
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.base import filled
from pipeline.config.choices import chosen_entries
from pipeline.config.spec_files import read_spec
from pipeline.config.tasks import TASKS
from pipeline.config.tasks.base import NATS, Column
from pipeline.evaluation.candidates import candidates_of, tuned_sentence
from pipeline.evaluation.measurements.base import Measurement
from pipeline.evaluation.milestones import MARKS, milestones
from pipeline.evaluation.overlap import Overlaps
from pipeline.evaluation.points import metadata_columns, score_points
from pipeline.evaluation.schemas import Note, read_evaluation, read_history, read_profile, read_timing, read_tuning
from pipeline.evaluation.settings import settings_page
from pipeline.evaluation.summary import as_html, as_markdown, summary
from pipeline.evaluation.tuning_table import tuning_section
from pipeline.storage.console import ProgressLine
from pipeline.storage.digest import canonical_json
from pipeline.storage.errors import UserError
from pipeline.storage.paths import safe_join
from pipeline.storage.seals import write_sealed
from pipeline.storage.stage_outputs import TABLES
from pipeline.storage.tables import write_table
from pipeline.training.diverged import recorded_divergence, refuse_diverged

Row = dict[str, Any]
TYPES = {"number": pa.float64(), "whole": pa.int64(), "list": pa.list_(pa.int64())}
"""Type of a score -> its Arrow type."""
IDENTITY = (("experiment", pa.string()), ("run", pa.string()), ("label", pa.string()), ("variant", pa.string()), ("seed", pa.int64()))
FIXED = (
    ("unit", pa.string()),
    ("parameters", pa.int64()),
    ("state_bytes", pa.int64()),
    *((f"{unit}_to_{mark}", pa.int64()) for unit in ("steps", "rows") for mark in MARKS),
    ("solved", pa.bool_()),
)
OPTIONAL = (("in_training", pa.float64()), ("memory_bits", pa.float64()))
"""Columns that only the tables of some tasks have."""


class Member(NamedTuple):
    """One run of an experiment, with its files as read."""

    entry: Row
    spec: Row
    evaluation: pa.Table
    measurement: Measurement
    history: pa.Table
    timing: pa.Table
    profile: pa.Table

    def identity(self, experiment: str) -> Row:
        """Return the columns that say which run a row belongs to."""
        return {"experiment": experiment, **{key: self.entry[key] for key in ("run", "label", "variant", "seed")}}


def collect(experiment_yaml: Path, results: Path, out: Path) -> None:
    """Write the tables of an experiment into the folder `out`.

    All but timing.parquet and costs.parquet are functions of the runs' digested files: the same inputs give the same bytes. Raises
    MissingFileError or CorruptFileError, naming the file, if an input is missing or damaged.
    """
    spec = read_spec(experiment_yaml, "experiment")
    entries = chosen_entries(spec, out)
    members, progress = [], ProgressLine(spec["name"], len(entries), "runs read")
    for entry in entries:
        members.append(_read(entry, results))
        progress(len(members))
    if not members:
        raise UserError(f"{experiment_yaml}: runs: expected at least one run, got none")
    if len(ways := dict.fromkeys(canonical_json(filled(member.measurement)) for member in members)) > 1:
        raise UserError(f"{experiment_yaml}: measured in {len(ways)} ways; expected one kind of measurement, with the same settings")
    tuning = read_tuning(out / "tuning.parquet") if "tune" in spec else None
    if not tuning:
        _refuse_diverged(members)
    tuned = " ".join([tuned_sentence(tuning[1]), *_diverged_sentence(members)]) if tuning else ""
    table = _results(spec, members, Overlaps(results), tuned)
    name = spec["name"]
    parts = (table, _curves(name, members), _details(name, members), _timing(name, members), _costs(members))
    for file, part in zip(TABLES, parts, strict=True):
        write_table(out / f"{file}.parquet", part)
    sections = summary(table, Note.of(table.schema.metadata))
    sections += [tuning_section(candidates_of(*tuning), tuning[1])] if tuning else []
    write_sealed(out / "table.md", as_markdown(sections))
    write_sealed(out / "table.html", as_html(name, sections))
    write_sealed(out / "settings.html", settings_page({**spec, "runs": entries}, [member.spec for member in members]))


def _read(entry: Row, results: Path) -> Member:
    run = safe_join(results, "runs", entry["run"])
    history = read_history(run / "history.parquet")
    evaluation = safe_join(results, "evaluations", entry["run"], f"{entry['evaluation']}.parquet")
    table, measurement = read_evaluation(evaluation, entry.get("rows"))
    return Member(
        entry=entry,
        spec=read_spec(run / "run.yaml"),
        evaluation=table,
        measurement=measurement,
        history=history,
        timing=read_timing(run / "timing.parquet", history),
        profile=read_profile(safe_join(results, "profiles", f"{entry['network']}.parquet")),
    )


def _refuse_diverged(members: list[Member]) -> None:
    """Raise UserError if a run diverged: without tune it is no result, even if it was evaluated as a candidate of another experiment."""
    for member in members:
        if (step := recorded_divergence(member.history)) is not None:
            refuse_diverged(Path(member.entry["run"]), step)


def _diverged_sentence(members: list[Member]) -> list[str]:
    """Name the chosen runs that diverged: their scores are those of initial weights."""
    entries = [member.entry for member in members if recorded_divergence(member.history) is not None]
    runs = ", ".join(f"{entry['label']} seed {entry['seed']}" for entry in entries)
    return [f"Diverged, so measured with initial weights: {runs}."] if runs else []


def _results(spec: Row, members: list[Member], overlaps: Overlaps, tuned: str) -> pa.Table:
    measurement, points = members[0].measurement, _point_columns(members)
    scores = [(name, TYPES[score.type]) for name, score in measurement.scores.items()]
    assert not {name for name, _ in (*scores, *FIXED, *OPTIONAL)} & set(points), "a metadata column has the name of a score"
    trained = [f"{column}_{end}_trained" for column in points for end in ("least", "most")]
    coordinates = {key: uniform([member.entry["coordinates"].get(key) for member in members]) for key in spec["columns"]}
    rows = []
    for index, member in enumerate(members):
        run = {**member.entry, "unit": member.entry.get("unit", NATS)}
        shared = member.identity(spec["name"]) | {key: values[index] for key, values in coordinates.items()} | {"unit": run["unit"]}
        shared |= milestones(member.history) | _trained({**_trained_coordinates(member), **member.spec["task"]}, points, _columns(member))
        shared["parameters"] = member.profile.column("parameters")[0].as_py()
        scored = score_points(member.evaluation, measurement, run)
        rows += [shared | point | overlap for point, overlap in zip(scored, _overlap(member, scored, overlaps), strict=True)]
    fields = [*IDENTITY, *((key, values.type) for key, values in coordinates.items()), *((name, pa.int64()) for name in points + trained)]
    known = {name for row in rows for name in row}
    fields += [*scores, *FIXED, *(field for field in OPTIONAL if field[0] in known)]
    return pa.Table.from_pylist(rows, pa.schema(fields)).replace_schema_metadata(
        {"recurlab": _note(spec, members, points, known, overlaps, tuned)}
    )


def _note(spec: Row, members: list[Member], points: list[str], known: set[str], overlaps: Overlaps, tuned: str) -> str:
    """Describe the columns of results.parquet, see `Note`."""
    columns = {name: column._asdict() for member in members for name, column in _columns(member).items() if name in points}
    further: Row = {"overlap": overlaps.sentences} if "in_training" in known else {}
    further |= {"tuned": tuned} if tuned else {}
    task: Any = TASKS.get(members[0].spec["task"].get("name"))
    further |= {"glyphs": task.glyphs} if task and task.glyphs else {}
    further |= {"boxes": [[side, *box] for side, box in task.boxes.items()]} if task and task.boxes else {}
    labels = {member.entry["label"]: member.entry["parts"] for member in members}
    fixed = {"coordinates": spec["columns"], "points": points, "labels": labels, "measurement": filled(members[0].measurement)}
    return json.dumps({**fixed, "columns": columns, **further}, ensure_ascii=False, allow_nan=False)


def _overlap(member: Member, points: list[Row], overlaps: Overlaps) -> list[Row]:
    """Return, for every point of a run's evaluation, the share of its rows that also occur in the run's training."""
    if "data" not in member.spec:
        return [{}] * len(points)
    shares = overlaps.shares(member.spec, member.evaluation, member.measurement)
    names = metadata_columns(member.evaluation, member.measurement)
    return [{"in_training": shares[tuple(point[name] for name in names)]} for point in points]


def _point_columns(members: list[Member]) -> list[str]:
    """Return the metadata columns of all evaluations, in order of first appearance."""
    return list(dict.fromkeys(column for member in members for column in metadata_columns(member.evaluation, member.measurement)))


def uniform(values: list[Any]) -> pa.Array:
    """Convert a swept key's values to one column: numbers, booleans or names as they are; mixed types, lists and mappings as JSON text."""
    types = {type(value) for value in values if value is not None}
    if types == {int, float}:
        return pa.array(values, pa.float64())
    if len(types) > 1 or types & {dict, list}:
        return pa.array([value if value is None or isinstance(value, str) else canonical_json(value) for value in values], pa.string())
    return pa.array(values) if types else pa.array(values, pa.string())


def _columns(member: Member) -> Mapping[str, Column]:
    """Return the descriptions of the metadata columns of a run's task, and of the coordinates of its measurement."""
    task: Any = TASKS.get(member.spec["task"].get("name"))
    return {**(task.columns if task else {}), **member.measurement.coordinates}


def _trained_coordinates(member: Member) -> Row:
    """Return what the learner covers of the coordinates of its measurement: training corrects rows after 1..`supervision` steps."""
    learner = member.spec["learner"] if member.measurement.coordinates else {}
    return {name: {"uniform": [1, learner[name]]} for name in member.measurement.coordinates if name in learner}


def _trained(task: Row, points: list[str], columns: Mapping[str, Column]) -> Row:
    """Return the least and most value of every metadata column in the run's training task, where the task has a field of that name.

    A category counts as its index; None when several categories are mixed.
    """
    ranges: Row = {}
    for column in points:
        value = task.get(column)
        if not isinstance(value, int | dict):
            names = columns[column].categories if column in columns else ()
            value = names.index(value) if value in names else None
        bounds = (value.get("uniform") or value.get("log_uniform")) if isinstance(value, dict) else [value, value]
        ranges |= dict(zip((f"{column}_least_trained", f"{column}_most_trained"), bounds or [None, None], strict=True))
    return ranges


def _curves(experiment: str, members: list[Member]) -> pa.Table:
    tables = []
    for member in members:
        names = member.history.column_names
        plotted = [name for name in names if name in ("step", "rows", "level") or name.startswith(("train_", "validation_"))]
        tables.append(_labelled(member.identity(experiment), member.history.select(plotted)))
    return _joined(tables)


def _details(experiment: str, members: list[Member]) -> pa.Table:
    """Return the details that the measurement keeps of every evaluation; an empty table if it keeps none."""
    details = [(member, member.measurement.details(member.evaluation)) for member in members]
    tables = [_labelled(member.identity(experiment), table) for member, table in details if table is not None]
    return _joined(tables) if tables else pa.schema(IDENTITY).empty_table()


def _costs(members: list[Member]) -> pa.Table:
    """Return the profile of every network, once for each of its labels."""
    networks = {(member.entry["label"], member.entry["network"]): member.profile for member in members}
    return _joined([profile.add_column(0, "label", pa.array([label] * len(profile))) for (label, _), profile in networks.items()])


def _timing(experiment: str, members: list[Member]) -> pa.Table:
    seconds = [(f"seconds_to_{mark}", pa.float64()) for mark in MARKS]
    schema = pa.schema([*IDENTITY, ("cpu_seconds", pa.float64()), ("wall_seconds", pa.float64()), *seconds])
    return pa.Table.from_pylist([member.identity(experiment) | _seconds(member) for member in members], schema)


def _seconds(member: Member) -> Row:
    """Return the seconds of the whole training, and CPU seconds until the validation that first reached each mark."""
    total: Row = {f"{clock}_seconds": max(member.timing.column(f"{clock}_seconds").to_pylist(), default=None) for clock in ("cpu", "wall")}
    seconds = dict(zip(member.timing.column("step").to_pylist(), member.timing.column("cpu_seconds").to_pylist(), strict=True))
    steps = milestones(member.history)
    return total | {f"seconds_to_{mark}": seconds.get(steps[f"steps_to_{mark}"]) for mark in MARKS}


def _labelled(identity: Row, table: pa.Table) -> pa.Table:
    """Prepend the columns that say which run the table's rows belong to."""
    fields = [(name, arrow_type) for name, arrow_type in IDENTITY if name not in table.column_names]
    front = [pa.repeat(pa.scalar(identity[name], arrow_type), table.num_rows) for name, arrow_type in fields]
    return pa.table([*front, *table.columns], names=[*(name for name, _ in fields), *table.column_names])


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
