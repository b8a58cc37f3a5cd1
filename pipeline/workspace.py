"""The Snakefile's entry point: lock the results folder, plan the config and freeze the plan for the jobs.

Jobs that parse the Snakefile again, for example on a cluster, read the frozen plan instead of the config.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import IO, Any

from pipeline.environment_variables import clean_environment
from pipeline.frozen_plan import frozen_plan_path, read_frozen_plan
from pipeline.job_settings import JobSettings
from pipeline.plan import Plan, plan_file
from pipeline.results_lock import SNAKEMAKE, acquire_lock, last_owner
from pipeline.slurm import cancel_leftover_jobs, forward_signals
from pipeline.snakemake_patches import patch_snakemake_ancient_masking, patch_snakemake_sigterm_deadlock
from pipeline.snakemake_state import check_records, repair_state
from pipeline.storage.errors import UserError
from pipeline.storage.integrity import find_damaged, forget_verified, set_aside_damaged
from pipeline.storage.seals import write_sealed
from pipeline.suites import check_suite_conflicts, report_path, save_plan, suite_name

READ_ONLY = {
    "--d3dag", "--dag", "--detailed-summary", "--dry-run", "--dryrun", "--filegraph", "--generate-unit-tests",
    "--lint", "--list", "--list-changes", "--list-input-changes", "--list-params-changes", "--list-rules",
    "--list-target-rules", "--print-compilation", "--rulegraph", "--summary", "--unlock", "-D", "-S", "-l", "-n",
}  # fmt: skip
"""Snakemake's options that start no job. While the Snakefile is parsed, Snakemake does not yet know whether it will start any."""


def is_read_only(arguments: list[str]) -> bool:
    """Whether Snakemake, called with these arguments, starts no job; `-np` is `-n -p`."""
    return any(argument in READ_ONLY or re.fullmatch(r"-n[a-zA-Z]+", argument) for argument in arguments)


class Workspace:
    """The plan, the lock on the results folder, and how jobs are run."""

    def __init__(self, config: Path, results: Path, main: bool, arguments: list[str] | None = None, workflow: Any = None) -> None:
        """Plan `config` and own `results`; with a read-only option only plan; in a job read the frozen plan.

        main: this is the process the user started, not one of its jobs. workflow: Snakemake's workflow object. Raises UserError, one line.
        """
        self.results = results
        self.lock: IO[str] | None = None
        if not main:
            forward_signals()
        self.plan: Plan = plan_file(config) if main else Plan.from_dict(read_frozen_plan(results))
        # Kept for as long as the process runs: it holds the image open.
        self.jobs = JobSettings.from_workflow(workflow, self.plan.runtime["container"]) if workflow else JobSettings()
        if not main:
            return
        check_suite_conflicts(results, self.plan)
        if is_read_only(sys.argv[1:] if arguments is None else arguments):
            check_records(SNAKEMAKE)
            for error in find_damaged(results, self.plan.declared_and_chosen(results)).values():
                print(f"{error.rpartition('; ')[0]}; the next run regenerates it", file=sys.stderr)
        else:
            self._own(config)

    def _own(self, config: Path) -> None:
        self.jobs.check()
        previous_owner = last_owner(self.results)
        self.lock = acquire_lock(self.results)
        cancel_leftover_jobs(self.results, previous_owner)
        self.jobs.prepare_image(self.results)
        for line in (*repair_state(SNAKEMAKE), *set_aside_damaged(self.results, self.plan.declared_and_chosen(self.results))):
            print(line, file=sys.stderr)
        write_sealed(frozen_plan_path(self.results), self.plan.to_json())
        save_plan(self.results, self.plan)
        print(f"{config}: {self.plan.size}", file=sys.stderr)

    def chosen(self, experiment: str, checkpoints: Any) -> Path:
        """Return the results folder once the experiment has chosen; before, Snakemake runs its checkpoint `choose` first."""
        if self.plan.is_tuned(experiment):
            checkpoints.choose.get(experiment=experiment)
        return self.results

    def on_error(self) -> None:
        """Verify every byte at the next start: a job failed, perhaps because of damage that no file's times show."""
        forget_verified(self.results)

    @property
    def shell_prefix(self) -> str:
        """Shell code that every job runs first."""
        return self.jobs.shell_prefix

    @property
    def report(self) -> Path:
        """Path of this suite's report."""
        return report_path(self.results, suite_name(self.plan.suite["file"]))

    def write_report(self, workflow: Any) -> None:
        """Write the report of a suite that has just finished, unless Snakemake was called with --report."""
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
        """Open the workspace for the Snakefile. On invalid input, print the error in one line and exit with code 2."""
        clean_environment()
        patch_snakemake_sigterm_deadlock()
        patch_snakemake_ancient_masking()
        try:
            return cls(config, results, workflow.is_main_process, workflow=workflow)
        except UserError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
