"""Mirror a run's history to Weights & Biases. Parquet is the record; failures here never stop a training.

An offline mirror is a folder, `results/wandb/offline-run-{time}-{run}`, which no later process can append to, and `wandb sync` of a second folder
of the same run overwrites the first one's data. So a resumed training logs its whole history again, into a folder that replaces the earlier
ones.
"""

from __future__ import annotations

import netrc
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pipeline.config.config_file import Tracking
from pipeline.storage.console import print0
from pipeline.storage.paths import check_inside

Spec = dict[str, Any]
Row = dict[str, Any]


class Tracker:
    """One run's mirror: off, offline (a folder that `wandb sync` can send later) or online. Safe to close twice."""

    def __init__(self, tracking: Tracking, run: str, spec: Spec, results: Path) -> None:
        self._run: Any = None
        self._name, self._folder = run, results / "wandb"
        if tracking.wandb != "off":
            self._run = self._attempt(lambda: _begin(tracking, run, spec, results))

    def resume(self, history: list[Row]) -> None:
        """Mirror the rows of earlier attempts that the server does not have, then delete the offline folders of these attempts."""
        if self._run is None:
            return
        first = self._run.step  # 0 offline; online, the step after the last one that the server has
        for row in history:
            if row["step"] >= first:
                self.log(row)
        if self._run is not None:
            self._attempt(self._delete_earlier)

    def log(self, row: Row) -> None:
        """Mirror one history row."""
        if self._run is not None:
            values = {name: value for name, value in row.items() if value is not None}
            self._attempt(lambda: self._run.log(values, step=row["step"], commit=True))

    def close(self, finished: bool) -> None:
        """Send the remaining rows and finish."""
        if self._run is not None:
            self._attempt(lambda: self._run.finish(exit_code=0 if finished else 1))
            self._run = None

    def _delete_earlier(self) -> None:
        mine = Path(self._run.dir).parent.name
        earlier = re.compile(rf"offline-run-\d+_\d+-{re.escape(self._name)}")
        for folder in self._folder.iterdir():
            if earlier.fullmatch(folder.name) and folder.name != mine:
                hidden = folder.rename(folder.with_name(f".{folder.name}"))  # a process that wandb left running may still write into it
                shutil.rmtree(hidden, ignore_errors=True)

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # whatever a third party's network code raises
            print0(f"wandb: {type(error).__name__}: {' '.join(str(error).split())[:200]}; tracking is off for the rest of this run")
            self._run = None
            return None


def _begin(tracking: Tracking, run: str, spec: Spec, results: Path) -> Any:
    import wandb

    online = tracking.wandb == "online"
    if online and not has_key():
        print0("wandb: online asked for, but there is no API key; offline instead: 'wandb sync' can send it after 'wandb login'")
        online = False
    check_inside(results, results / "wandb").mkdir(parents=True, exist_ok=True)  # else wandb falls back to a temporary folder
    return wandb.init(
        project=tracking.project,
        group=tracking.group or spec["task"]["name"],
        tags=tracking.tags,
        id=run,
        name=run,
        config=spec,
        dir=results,
        mode="online" if online else "offline",
        resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
    )


def has_key() -> bool:
    """Whether wandb can log in without asking: a key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
