"""How Snakemake runs the jobs: SLURM partitions, container image, `pipeline` command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.apptainer import check_image, export_image_digest, keep_image_open
from pipeline.slurm import check_partitions


@dataclass(frozen=True)
class JobSettings:
    """SLURM partitions (empty without SLURM) and container image (None without Apptainer).

    image_holders: processes that hold the image open, each until its standard input is closed.
    """

    partitions: list[str] = field(default_factory=list)
    image: str | None = None
    image_holders: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False)

    @property
    def shell_prefix(self) -> str:
        """Shell code that every job runs first, so that `pipeline` is this package, or in a container the image's.

        Neither depends on PATH, the working directory or, in a container, the host's PYTHONPATH. Braces are doubled: Snakemake formats it.
        """
        if self.image is not None:
            return "unset PYTHONPATH PYTHONHOME"
        command = shlex.join(pipeline_command()).replace("{", "{{").replace("}", "}}")
        return f'pipeline() ( exec {command} "$@" )'

    @classmethod
    def from_workflow(cls, workflow: Any, container: str) -> JobSettings:
        """Read the settings from Snakemake's workflow object. `container` is runtime.container."""
        settings = workflow.resource_settings
        blocks: list[Mapping[str, Any]] = [settings.default_resources or {}, *settings.overwrite_resources.values()]
        names = [str(block["slurm_partition"].raw) for block in blocks if "slurm_partition" in block]
        methods = {method.name for method in workflow.deployment_settings.deployment_method}
        return cls(list(dict.fromkeys(name.strip("'\"") for name in names)), container if "APPTAINER" in methods else None)

    def check(self) -> None:
        """Raise UserError if no job could start: an unknown partition, no controller, no image."""
        if self.partitions:
            check_partitions(self.partitions)
        if self.image is not None:
            check_image(self.image)

    def prepare_image(self, results: Path) -> None:
        """Export the image's digest to the jobs and, for jobs on this host, keep the image open until this process exits."""
        if self.image is None:
            return
        export_image_digest(self.image, results)
        if not self.partitions and (holder := keep_image_open(self.image)):
            self.image_holders.append(holder)


def pipeline_command() -> list[str]:
    """Return the command line that runs the `pipeline` package loaded here with this Python; arguments are appended to it."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pipeline.__main__ import main; main()"
    return [sys.executable, "-P", "-c", code, str(Path(__file__).resolve().parents[1])]
