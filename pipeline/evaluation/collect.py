"""An experiment's tables, from what its runs left behind. Never imports torch.

experiment.yaml + evaluations, histories, profiles  ->  results.parquet    a row per run and point of its evaluation
                                                        curves.parquet     validation and training curves
                                                        positions.parquet  accuracy by position of the answer
                                                        episodes.parquet   pictures of the first episodes that were played
                                                        table.md, .html    means and 95 % intervals over seeds
                                                        settings.html      every setting of every label, differences first
timing.parquet of every run                         ->  timing.parquet     seconds; these differ from run to run of the same config
profiles                                            ->  costs.parquet      what a step costs by context; likewise
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.config.frozen import read_spec
from pipeline.config.tasks import TASKS
from pipeline.config.tasks.base import NATS
from pipeline.evaluation.overlap import Overlaps
from pipeline.evaluation.progress import MARKS, milestones
from pipeline.evaluation.schemas import read_evaluation, read_history, read_profile, read_timing
from pipeline.evaluation.scores import PLAYED, metadata_columns, score_points, score_positions
from pipeline.evaluation.settings import settings_page
from pipeline.evaluation.summary import as_html, as_markdown, summary
from pipeline.storage.console import ProgressLine
from pipeline.storage.digest import canonical_json
from pipeline.storage.errors import UserError
from pipeline.storage.paths import safe_join
from pipeline.storage.seals import write_sealed
from pipeline.storage.tables import write_table

Row = dict[str, Any]
IDENTITY = (("experiment", pa.string()), ("run", pa.string()), ("label", pa.string()), ("variant", pa.string()), ("seed", pa.int64()))
SCORES = (
    ("rows", pa.int64()),
    ("scored", pa.int64()),
    ("tokens", pa.float64()),
    ("accuracy", pa.float64()),
    ("accuracy_low", pa.float64()),
    ("accuracy_high", pa.float64()),
    ("sequence_accuracy", pa.float64()),
    ("loss", pa.float64()),
    ("baseline", pa.float64()),
    ("unit", pa.string()),
    ("loss_over_baseline", pa.float64()),
    ("bits", pa.float64()),
    ("chance", pa.float64()),
    ("parameters", pa.int64()),
    ("state_bytes", pa.int64()),
    *((f"{unit}_to_{mark}", pa.int64()) for unit in ("steps", "rows") for mark in MARKS),
    ("solved", pa.bool_()),
)
OPTIONAL = (
    ("in_training", pa.float64()),
    ("memory_bits", pa.float64()),
    ("return", pa.float64()),
    ("return_low", pa.float64()),
    ("return_high", pa.float64()),
    ("return_lowest", pa.float64()),
    ("return_highest", pa.float64()),
    ("best_return", pa.float64()),
    ("episode_length", pa.float64()),
    ("episode_limit", pa.int64()),
    ("forced_accuracy", pa.float64()),
    ("forced_accuracy_low", pa.float64()),
    ("forced_accuracy_high", pa.float64()),
    ("no_answer", pa.float64()),
    ("exact", pa.float64()),
    ("first_error", pa.float64()),
    ("first_errors", pa.list_(pa.int64())),
    ("queries", pa.int64()),
    ("valid_queries", pa.float64()),
)
"""Scores that only some tasks have, and only their experiments' tables."""


TOLERANCE = 1e-6
"""By how much a mean return may leave its range: rewards are summed in floating point."""


class Member(NamedTuple):
    """One run of an experiment with everything it left behind."""

    entry: Row
    spec: Row
    evaluation: pa.Table
    history: pa.Table
    timing: pa.Table
    profile: pa.Table

    def identity(self, experiment: str) -> Row:
        """The columns that say which run a row belongs to."""
        return {"experiment": experiment, **{key: self.entry[key] for key in ("run", "label", "variant", "seed")}}


def collect(experiment_yaml: Path, results: Path, out: Path) -> None:
    """Write the tables of an experiment into the folder `out`.

    All but timing.parquet and costs.parquet are functions of the run's digested files: the same inputs give the same bytes. Raises
    MissingFileError or CorruptFileError, naming the file, for an input that is not there or not readable.
    """
    spec = read_spec(experiment_yaml, "experiment")
    members, progress = [], ProgressLine(spec["name"], len(spec["runs"]), "runs read")
    for entry in spec["runs"]:
        members.append(_read(entry, results))
        progress(len(members))
    if not members:
        raise UserError(f"{experiment_yaml}: runs: expected at least one run, got none")
    table = _results(spec, members, Overlaps(results))
    write_table(out / "results.parquet", table)
    write_table(out / "curves.parquet", _curves(spec["name"], members))
    write_table(out / "positions.parquet", _positions(spec["name"], members))
    write_table(out / "episodes.parquet", _episodes(spec["name"], members))
    write_table(out / "timing.parquet", _timing(spec["name"], members))
    write_table(out / "costs.parquet", _costs(members))
    sections = summary(table)
    write_sealed(out / "table.md", as_markdown(sections))
    write_sealed(out / "table.html", as_html(spec["name"], sections))
    write_sealed(out / "settings.html", settings_page(spec, [member.spec for member in members]))


def _read(entry: Row, results: Path) -> Member:
    run = safe_join(results, "runs", entry["run"])
    history = read_history(run / "history.parquet")
    evaluation = safe_join(results, "evaluations", entry["run"], f"{entry['evaluation']}.parquet")
    return Member(
        entry=entry,
        spec=read_spec(run / "run.yaml"),
        evaluation=read_evaluation(evaluation, entry.get("rows")),
        history=history,
        timing=read_timing(run / "timing.parquet", history),
        profile=read_profile(safe_join(results, "profiles", f"{entry['network']}.parquet")),
    )


def _results(spec: Row, members: list[Member], overlaps: Overlaps) -> pa.Table:
    points = _point_columns(members)
    assert not {name for name, _ in SCORES + OPTIONAL} & set(points), "a metadata column has the name of a score"
    trained = [f"{column}_{end}_trained" for column in points for end in ("least", "most")]
    coordinates = {key: _uniform([member.entry["coordinates"].get(key) for member in members]) for key in spec["columns"]}
    rows = []
    for index, member in enumerate(members):
        shared = member.identity(spec["name"]) | {key: values[index] for key, values in coordinates.items()}
        unit = member.entry.get("unit", NATS)
        shared |= {"baseline": member.entry["baseline"], "unit": unit, "chance": member.entry["chance"]}
        shared |= milestones(member.history) | _trained(member.spec["task"], points, _named(member))
        shared["parameters"] = member.profile.column("parameters")[0].as_py()
        found = [point | _ranges(member, point) for point in score_points(member.evaluation, member.entry["baseline"], unit == NATS)]
        rows += [shared | point | shared_rows for point, shared_rows in zip(found, _overlap(member, found, overlaps), strict=True)]
    fields = [*IDENTITY, *((key, values.type) for key, values in coordinates.items())]
    known = {name for row in rows for name in row}
    fields += [*((column, pa.int64()) for column in points + trained), *SCORES, *(field for field in OPTIONAL if field[0] in known)]
    named = {column: names for member in members for column, names in _named(member).items()}
    further = {**({"named": named} if named else {}), **({"overlap": overlaps.sentences} if "in_training" in known else {})}
    note = canonical_json({"coordinates": spec["columns"], "points": points, **further})
    return pa.Table.from_pylist(rows, pa.schema(fields)).replace_schema_metadata({"recurlab": note})


def _ranges(member: Member, point: Row) -> Row:
    """Between which ends the scores of a point of episodes can lie; nothing where that is unknown.

    Raises UserError for a return outside of the range that the config gives.
    """
    limit = member.entry.get("limit")
    found: Row = {"episode_limit": limit} if limit and limit >= point["episode_length"] else {}
    if member.entry.get("returns") is None:
        return found
    lowest, highest = member.entry["returns"]
    highest = point["best_return"] if highest is None else highest
    if not lowest - TOLERANCE <= point["return"] <= highest + TOLERANCE:
        told = f"mean return {point['return']:.6g}; expected one from {lowest:g} to {highest:g}, as evaluate.return_range or the task says"
        raise UserError(f"evaluation of {member.entry['run']}: {told}")
    return found | {"return_lowest": lowest, "return_highest": highest}


def _overlap(member: Member, points: list[Row], overlaps: Overlaps) -> list[Row]:
    """For every point of a run's evaluation the share of its rows that also occur in the run's training."""
    if "data" not in member.spec:
        return [{}] * len(points)
    shares = overlaps.shares(member.spec, member.evaluation)
    names = metadata_columns(member.evaluation)
    return [{"in_training": shares[tuple(point[name] for name in names)]} for point in points]


def _point_columns(members: list[Member]) -> list[str]:
    """The metadata columns of all evaluations, in order of first appearance."""
    return list(dict.fromkeys(column for member in members for column in metadata_columns(member.evaluation)))


def _uniform(values: list[Any]) -> pa.Array:
    """A swept key's values as one column: numbers, booleans or names as they are; a mixture, a list or a mapping as JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array(values, pa.float64())
    if len(kinds) > 1 or kinds & {dict, list}:
        return pa.array([value if value is None or isinstance(value, str) else canonical_json(value) for value in values], pa.string())
    return pa.array(values) if kinds else pa.array(values, pa.string())


def _named(member: Member) -> dict[str, list[str]]:
    """The names of the values of those metadata columns of a run's task that are not numbers."""
    task = TASKS.get(member.spec["task"].get("name"))
    columns = task.columns if task else {}
    return {name: list(column.categories) for name, column in columns.items() if column.categories}


def _trained(task: Row, points: list[str], named: dict[str, list[str]]) -> Row:
    """The least and most of every metadata column in the run's own training task, where the task has a field of that name.

    A name counts as its number; of several names there is neither.
    """
    found: Row = {}
    for column in points:
        value = task.get(column)
        if not isinstance(value, int | dict):
            value = named[column].index(value) if value in named.get(column, []) else None
        bounds = (value.get("uniform") or value.get("log_uniform")) if isinstance(value, dict) else [value, value]
        found |= dict(zip((f"{column}_least_trained", f"{column}_most_trained"), bounds or [None, None], strict=True))
    return found


def _curves(experiment: str, members: list[Member]) -> pa.Table:
    tables = []
    for member in members:
        names = member.history.column_names
        drawn = [name for name in names if name in ("step", "rows", "level") or name.startswith(("train_", "validation_"))]
        tables.append(_labelled(member.identity(experiment), member.history.select(drawn)))
    return _joined(tables)


def _positions(experiment: str, members: list[Member]) -> pa.Table:
    tables = []
    for member in members:
        fields = [*((name, pa.int64()) for name in metadata_columns(member.evaluation)), ("position", pa.int64()), ("rows", pa.int64())]
        schema = pa.schema([*fields, *((name, pa.float64()) for name in ("accuracy", "accuracy_low", "accuracy_high"))])
        tables.append(_labelled(member.identity(experiment), pa.Table.from_pylist(score_positions(member.evaluation), schema)))
    return _joined(tables)


def _episodes(experiment: str, members: list[Member]) -> pa.Table:
    """The episodes of which there are pictures, with their points; none where the task is no environment, or draws none."""
    tables = []
    for member in members:
        names = [*metadata_columns(member.evaluation), *(name for name in PLAYED if name in member.evaluation.column_names)]
        if "frames" in names:
            chosen = member.evaluation.filter(member.evaluation.column("frames").is_valid())
            tables.append(_labelled(member.identity(experiment), chosen.select(["row", *names])))
    return _joined(tables) if tables else pa.schema(IDENTITY).empty_table()


def _costs(members: list[Member]) -> pa.Table:
    """The profile of every network, once for each label it has."""
    networks = {(member.entry["label"], member.entry["network"]): member.profile for member in members}
    return _joined([profile.add_column(0, "label", pa.array([label] * len(profile))) for (label, _), profile in networks.items()])


def _timing(experiment: str, members: list[Member]) -> pa.Table:
    seconds = [(f"seconds_to_{mark}", pa.float64()) for mark in MARKS]
    schema = pa.schema([*IDENTITY, ("cpu_seconds", pa.float64()), ("wall_seconds", pa.float64()), *seconds])
    return pa.Table.from_pylist([member.identity(experiment) | _seconds(member) for member in members], schema)


def _seconds(member: Member) -> Row:
    """Seconds of the whole training, and CPU seconds until the validation that first reached each mark."""
    found: Row = {f"{clock}_seconds": max(member.timing.column(f"{clock}_seconds").to_pylist(), default=None) for clock in ("cpu", "wall")}
    seconds = dict(zip(member.timing.column("step").to_pylist(), member.timing.column("cpu_seconds").to_pylist(), strict=True))
    steps = milestones(member.history)
    return found | {f"seconds_to_{mark}": seconds.get(steps[f"steps_to_{mark}"]) for mark in MARKS}


def _labelled(identity: Row, table: pa.Table) -> pa.Table:
    """The table with the columns that say which run its rows belong to."""
    fields = [(name, kind) for name, kind in IDENTITY if name not in table.column_names]
    front = [pa.repeat(pa.scalar(identity[name], kind), table.num_rows) for name, kind in fields]
    return pa.table([*front, *table.columns], names=[*(name for name, _ in fields), *table.column_names])


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
