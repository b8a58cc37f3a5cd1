"""Choose among the candidates of a tuned experiment, by validation only. Never imports torch, never reads test data.

experiment.yaml + history.parquet of every trial  ->  tuning.parquet   a row per trial: a candidate on one seed
                                                      choices.json     the chosen values of every label
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config.choices import CHOICES, trial_entries
from pipeline.config.learners import LEARNERS
from pipeline.config.spec_files import read_spec
from pipeline.evaluation.candidates import Candidate, group_trials, is_number, ranked
from pipeline.evaluation.schemas import read_history
from pipeline.storage.errors import UserError
from pipeline.storage.paths import safe_join
from pipeline.storage.seals import write_sealed
from pipeline.storage.tables import write_table
from pipeline.training.diverged import recorded_divergence

Row = dict[str, Any]


def choose(experiment_yaml: Path, results: Path, out: Path) -> None:
    """Choose each label's values: those with the best mean validation result over the seeds tried; of equal ones the smaller.

    A candidate of which a training diverged is worse than all others. Raises MissingFileError or CorruptFileError, naming the file, and
    UserError if nothing is tuned.
    """
    spec = read_spec(experiment_yaml, "experiment")
    if "tune" not in spec:
        raise UserError(f"{experiment_yaml}: no tune; expected an experiment with a section 'tune'")
    trials = [_trial(entry, results) for entry in trial_entries(spec)]
    groups = group_trials(trials, spec["tune"]["keys"], spec["tune"]["objective"][1])
    choices = {label: _choice([each for each in groups if each.label == label]) for label in dict.fromkeys(each.label for each in groups)}
    write_table(out / "tuning.parquet", _table(spec, trials, choices))
    write_sealed(out / CHOICES, json.dumps(choices, ensure_ascii=False, indent=1) + "\n")


def expected_best(values: Sequence[float], higher: bool) -> list[float]:
    """Return the expected best of k = 1, 2, ... trials drawn from these with replacement (Dodge et al. 2019, equation 1).

    With n values in ascending order of merit v_1 .. v_n it is sum_i v_i ((i / n)^k - ((i - 1) / n)^k).
    """
    ranked, n = sorted(values, reverse=not higher), len(values)
    return [sum(value * ((i / n) ** k - ((i - 1) / n) ** k) for i, value in enumerate(ranked, 1)) for k in range(1, n + 1)]


def _trial(entry: Row, results: Path) -> Row:
    """Return one trial: its values, and the validation that it is judged by."""
    run = safe_join(results, "runs", entry["run"])
    history, learner = read_history(run / "history.parquet"), read_spec(run / "run.yaml")["learner"]
    column, better = LEARNERS[learner["name"]].objective  # pyright: ignore[reportAttributeAccessIssue]
    found = [row for row in history.to_pylist() if row[column] is not None]
    sign = 1 if better == "higher" else -1
    best = max(found, key=lambda row: sign * row[column]) if learner["select"] == "best" else found[-1]
    return {
        **{key: entry[key] for key in ("run", "label", "seed")},
        **entry["tuned"],
        "objective": best[column],
        "accuracy": best.get("validation_accuracy"),
        "rows": history.column("rows")[-1].as_py(),
        "diverged_at": recorded_divergence(history),
        "chosen": False,
    }


def _choice(candidates: list[Candidate]) -> Row:
    """Return the values chosen for one label, among how many candidates and which trials, and the keys at an edge of what was tried."""
    best, *_ = ranked(candidates)
    for trial in best.trials:
        trial["chosen"] = True
    trials = sorted(trial["run"] for each in candidates for trial in each.trials)
    edges = _edges(best.values, [each.values for each in candidates])
    return {"values": best.values, "candidates": len(candidates), "edge": edges, "trials": trials}


def _edges(values: Row, tried: list[Row]) -> dict[str, str]:
    """Return the tuned keys whose chosen number is the smallest or largest of several that were tried."""
    edges = {}
    for key, value in values.items():
        numbers = {other[key] for other in tried}
        if len(numbers) > 1 and all(map(is_number, numbers)):
            edges |= {key: "smallest"} if value == min(numbers) else {key: "largest"} if value == max(numbers) else {}
    return edges


def _table(spec: Row, trials: list[Row], choices: dict[str, Row]) -> pa.Table:
    """Return tuning.parquet; its metadata names the objective and the tuned keys."""
    from pipeline.evaluation.collect import uniform

    keys = spec["tune"]["keys"]
    columns = {
        "experiment": pa.array([spec["name"]] * len(trials), pa.string()),
        "run": pa.array([row["run"] for row in trials], pa.string()),
        "label": pa.array([row["label"] for row in trials], pa.string()),
        "seed": pa.array([row["seed"] for row in trials], pa.int64()),
        **{key: uniform([row[key] for row in trials]) for key in keys},
        **{name: pa.array([row[name] for row in trials], pa.float64()) for name in ("objective", "accuracy")},
        **{name: pa.array([row[name] for row in trials], pa.int64()) for name in ("rows", "diverged_at")},
        "chosen": pa.array([row["chosen"] for row in trials], pa.bool_()),
    }
    labels = {entry["label"]: entry["parts"] for entry in spec["runs"]}
    note = {"keys": keys, "seeds": spec["tune"]["seeds"], "objective": spec["tune"]["objective"], "labels": labels, "choices": choices}
    return pa.table(columns).replace_schema_metadata({"recurlab": json.dumps(note, ensure_ascii=False)})
