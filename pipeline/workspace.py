"""One owner per results folder: the lock that a live pipeline holds, and the plan frozen for its jobs.

Snakemake's own lock names no process and does not keep two pipelines apart, so the owner is whoever holds an flock, which the kernel
lets go at the owner's death, however it died. The owner removes Snakemake's stale locks and freezes the plan; jobs that parse the
Snakefile again, on a cluster for example, read the frozen plan, so an edit of the config touches the next invocation only.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import sys
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.cluster import Launch, cancel_left, hear_apart, relay_signals
from pipeline.snakemake_state import mend_state, refuse_broken
from pipeline.storage.atomic import writable
from pipeline.storage.damage import find_damaged, forget_verified, make_room, remove
from pipeline.storage.errors import BusyError, CorruptFileError, MissingFileError, UserError
from pipeline.storage.names import below, inside
from pipeline.storage.seals import read_sealed, seal_of, write_sealed
from pipeline.variables import settle

if TYPE_CHECKING:
    from pipeline.plan import Plan

STATE = ".pipeline"
SNAKEMAKE = Path(".snakemake")
MEND = "start the workflow again, which writes it anew"
FROZEN = ("datasets", "networks", "runs", "evaluations", "experiments", "runtime", "tracking")
"""What a frozen plan holds, each by name."""
ATTEMPTS = 5
"""Tries to take the lock, since `pipeline status` holds it for a moment when it looks."""
READ_ONLY = {
    "--d3dag", "--dag", "--detailed-summary", "--dry-run", "--dryrun", "--filegraph", "--generate-unit-tests",
    "--lint", "--list", "--list-changes", "--list-input-changes", "--list-params-changes", "--list-rules",
    "--list-target-rules", "--print-compilation", "--rulegraph", "--summary", "--unlock", "-D", "-S", "-l", "-n",
}  # fmt: skip
"""Snakemake's words that start no job. At parse time Snakemake itself does not yet know that it only looks."""


def only_looks(words: list[str]) -> bool:
    """Whether Snakemake, called with these words, starts no job; `-np` is `-n -p`."""
    return any(word in READ_ONLY or re.fullmatch(r"-n[a-zA-Z]+", word) for word in words)


def frozen_plan(results: Path) -> Path:
    """Where the owner keeps the plan for its jobs."""
    return results / STATE / "plan.json"


def suite_name(file: str) -> str:
    """The name of a suite: that of its file without the ending, in letters that a path can have."""
    plain = unicodedata.normalize("NFKD", Path(file).stem.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")[:100] or "suite"


def report_of(results: Path, suite: str) -> Path:
    """Where the report of a suite lies."""
    return results / "reports" / f"{suite}.html"


def remembered(results: Path) -> dict[str, Plan]:
    """The plan of every suite that ran in this folder, as it was when it last started, by the suite's name."""
    from pipeline.plan import Plan

    found = {}
    for path in sorted((results / STATE / "suites").glob("*.json")):
        try:
            found[path.stem] = Plan.from_json(read_sealed(path).decode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CorruptFileError(f"{path}: no plan of a suite; delete it and run that suite again") from None
    return found


def check_suites(results: Path, plan: Plan) -> None:
    """Refuse a suite that would write over what another one keeps here: its name, or an experiment of the same name with other runs."""
    name, file = suite_name(plan.suite["file"]), plan.suite["file"]
    for other, kept in remembered(results).items():
        theirs = kept.suite["file"]
        if other == name and Path(theirs).exists() and Path(theirs).resolve() != Path(file).resolve():
            raise UserError(f"{file}: suite {name} in {results} is {theirs}; expected a file of another name, {_or_forget(other)}")
        for experiment in plan.experiments.keys() & kept.experiments.keys() if other != name else ():
            if plan.experiments[experiment].spec != kept.experiments[experiment].spec:
                raise UserError(
                    f"{file}: experiments.{experiment}: {results}/experiments/{experiment} belongs to suite {other} ({theirs}), which asks "
                    f"for other runs; expected another name, {_or_forget(other)}"
                )


def _or_forget(suite: str) -> str:
    return f"or 'pipeline prune --forget {suite} --yes' first"


def remember(results: Path, plan: Plan) -> None:
    """Keep the plan of a suite, so that `pipeline prune` keeps what it asks for."""
    write_sealed(below(results / STATE / "suites", f"{suite_name(plan.suite['file'])}.json"), plan.to_json())


def forget(results: Path, suite: str) -> None:
    """Forget a suite that ran here."""
    path = results / STATE / "suites" / f"{suite}.json"
    path.unlink()
    seal_of(path).unlink(missing_ok=True)


def hold(results: Path, snakemake: Path = SNAKEMAKE) -> IO[str]:
    """Become the owner of a results folder until this process ends; keep the returned file open.

    Raises BusyError naming the live owner, or UserError when the folder cannot be written.
    """
    path = inside(results, results / STATE / "owner")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    try:
        _lock(results, file)
    except UserError:
        file.close()
        raise
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    file.truncate(0)
    file.write(json.dumps(owner))
    file.flush()
    for stale in snakemake.glob("locks/*.lock"):
        remove(stale)
    return file


def _lock(results: Path, file: IO[str]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < ATTEMPTS - 1:
                time.sleep(0.05)
        except OSError as error:
            raise UserError(f"{file.name}: cannot be locked ({error.strerror}); expected a file system with flock") from None
    raise BusyError(f"{results}: another pipeline is running here ({_describe(file)}); wait for it or stop it")


def owner(results: Path) -> dict[str, Any] | None:
    """Who holds a results folder right now: pid, host, since; None when nobody does."""
    path = results / STATE / "owner"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(file.read())
    return None


def last_owner(results: Path) -> dict[str, Any] | None:
    """Who holds a results folder, or held it last."""
    try:
        return _named((results / STATE / "owner").read_bytes()) or None
    except OSError:
        return None


def _named(content: bytes) -> dict[str, Any]:
    """What an owner has written of itself; empty where it has not yet, or where that is damaged."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    whole = (
        isinstance(found, dict) and isinstance(found.get("pid"), int) and all(isinstance(found.get(key), str) for key in ("host", "since"))
    )
    return found if whole else {}


def _describe(file: IO[str]) -> str:
    found = _named(Path(file.name).read_bytes())
    return f"pid {found['pid']} on {found['host']} since {found['since']}" if found else "its name not yet written"


class Workspace:
    """What the Snakefile starts from: the plan, and the ownership that goes with it."""

    def __init__(self, config: Path, results: Path, main: bool, arguments: list[str] | None = None, workflow: Any = None) -> None:
        """Own `results` and plan `config`, or only look, or read the owner's frozen plan.

        main: this is the process the user started, not one of its jobs. workflow: Snakemake's object, which knows how jobs will be run.
        Raises UserError, one line.
        """
        from pipeline.plan import Plan, plan_file

        words = sys.argv[1:] if arguments is None else arguments
        self.results = results
        self.lock: IO[str] | None = None
        if not main:
            relay_signals()
        self.plan: Plan = plan_file(config) if main else Plan.of_frozen(read_frozen(results))
        # Kept as long as the process: it holds the image open.
        self.launch = Launch.of(workflow, self.plan.runtime["container"]) if workflow else Launch()
        if not main:
            return
        check_suites(results, self.plan)
        if only_looks(words):
            refuse_broken(SNAKEMAKE)
            for error in find_damaged(results, self.plan.declared).values():
                print(f"{error.rpartition('; ')[0]}; the next run makes it again", file=sys.stderr)
        else:
            self.launch.check()
            before = last_owner(results)
            self.lock = hold(results)
            cancel_left(results, before)
            self.launch.name_image(results)
            self.launch.keep_mounted()
            for line in (*mend_state(SNAKEMAKE), *make_room(results, self.plan.declared)):
                print(line, file=sys.stderr)
            write_sealed(frozen_plan(results), self.plan.to_json())
            remember(results, self.plan)
            print(f"{config}: {self.plan.size}", file=sys.stderr)

    def failed(self) -> None:
        """What the Snakefile calls when a job has failed, perhaps over damage that no time of a file told: the next start reads every byte."""
        forget_verified(self.results)

    @property
    def shell(self) -> str:
        """What the shell of every job does first."""
        return self.launch.shell

    @property
    def report(self) -> Path:
        """Where the report of this suite lies."""
        return report_of(self.results, suite_name(self.plan.suite["file"]))

    def write_report(self, workflow: Any) -> None:
        """Write the report of a suite that has just run to its end, unless Snakemake was asked for one."""
        from snakemake.report import auto_report
        from snakemake.report.html_reporter import ReportSettings
        from snakemake.settings.types import GlobalReportSettings
        from snakemake_interface_report_plugins.registry import ReportPluginRegistry

        if self.lock and not any(word.split("=")[0] == "--report" for word in sys.argv):
            self.report.parent.mkdir(exist_ok=True)
            plugin: Any = ReportPluginRegistry().get_plugin("html")
            settings = ReportSettings(path=self.report)
            workflow.async_run(auto_report(workflow.dag, plugin, settings, GlobalReportSettings()))
            print(f"Report: {self.report}", file=sys.stderr)

    @classmethod
    def open(cls, config: Path, results: Path, workflow: Any) -> Workspace:
        """What the Snakefile calls: a user's error is printed as its one line and ends the process with code 2."""
        settle()
        hear_apart()
        try:
            return cls(config, results, workflow.is_main_process, workflow=workflow)
        except UserError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None


def read_frozen(results: Path) -> dict[str, Any]:
    """The frozen plan as it was written. Raises MissingFileError where there is none, CorruptFileError where it is damaged or no plan."""
    path = frozen_plan(results)
    try:
        try:
            text = read_sealed(path)
        except CorruptFileError:
            time.sleep(0.05)  # the owner may just be writing it
            text = read_sealed(path)
        plan = json.loads(text)
    except MissingFileError:
        raise MissingFileError(f"{path}: no such file; expected the plan that snakemake freezes when it starts in this folder") from None
    except (ValueError, RecursionError):
        raise CorruptFileError(f"{path}: not readable as JSON; {MEND}") from None
    if not isinstance(plan, dict) or not all(isinstance(plan.get(key), dict) for key in FROZEN):
        raise CorruptFileError(f"{path}: not a frozen plan; {MEND}")
    return plan


def frozen_spec(results: Path, kind: str, name: str) -> dict[str, Any]:
    """One thing's spec out of the frozen plan. It reads JSON only: `describe` runs once for every file and must start fast."""
    things = read_frozen(results)[f"{kind}s"]
    if name not in things:
        raise UserError(f"{kind} {name}: not in the frozen plan {frozen_plan(results)}; expected an identifier that 'pipeline plan' shows")
    spec = things[name] if kind == "network" else things[name].get("spec") if isinstance(things[name], dict) else None
    if not isinstance(spec, dict):
        raise CorruptFileError(f"{frozen_plan(results)}: {kind} {name}: got no specification; {MEND}")
    return spec
