"""The suites that ran in a results folder: their saved plans and their reports.

`pipeline prune` keeps what the saved plans list. A suite that would overwrite another suite's results is refused.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from pipeline.plan import Plan
from pipeline.storage.errors import CorruptFileError, UserError
from pipeline.storage.files import delete
from pipeline.storage.paths import safe_join
from pipeline.storage.seals import read_sealed, seal_path, write_sealed

FOLDER = Path(".pipeline", "suites")


def suite_name(file: str) -> str:
    """Return the name of a suite: its file name without the suffix, reduced to characters that are safe in a path."""
    plain = unicodedata.normalize("NFKD", Path(file).stem.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")[:100] or "suite"


def report_path(results: Path, suite: str) -> Path:
    """Return the path of a suite's report."""
    return results / "reports" / f"{suite}.html"


def saved_plans(results: Path) -> dict[str, Plan]:
    """Read each suite's plan as of its last start in this folder, by suite name."""
    plans = {}
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            plans[path.stem] = Plan.from_json(read_sealed(path).decode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CorruptFileError(f"{path}: not the plan of a suite; delete it and run that suite again") from None
    return plans


def save_plan(results: Path, plan: Plan) -> None:
    """Save the plan of a suite, so that `pipeline prune` keeps its results."""
    write_sealed(safe_join(results / FOLDER, f"{suite_name(plan.suite['file'])}.json"), plan.to_json())


def delete_plan(results: Path, suite: str) -> None:
    """Delete a suite's saved plan."""
    path = results / FOLDER / f"{suite}.json"
    for file in (path, seal_path(path)):
        delete(file)


def check_suite_conflicts(results: Path, plan: Plan) -> None:
    """Raise UserError if another suite here has the same name, or an experiment of the same name with other runs."""
    name, file = suite_name(plan.suite["file"]), plan.suite["file"]
    for other, saved in saved_plans(results).items():
        other_file = saved.suite["file"]
        if other == name and Path(other_file).exists() and Path(other_file).resolve() != Path(file).resolve():
            raise UserError(f"{file}: {other_file} already uses the suite name {name} in {results}; rename this file, {_or_forget(other)}")
        for experiment in plan.experiments.keys() & saved.experiments.keys() if other != name else ():
            if plan.experiments[experiment].spec != saved.experiments[experiment].spec:
                raise UserError(
                    f"{file}: experiments.{experiment}: suite {other} ({other_file}) has other runs in {results}/experiments/{experiment}; "
                    f"rename this experiment, {_or_forget(other)}"
                )


def _or_forget(suite: str) -> str:
    return f"or run 'pipeline prune --forget {suite} --yes' first"
