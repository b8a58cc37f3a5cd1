"""Mirroring of a run's history to Weights & Biases. Parquet is the record; nothing that fails here stops a training."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pipeline.config.experiment import Tracking
from pipeline.training.notice import notice

Spec = dict[str, Any]


class Tracker:
    """One run's mirror: off, offline (a folder that `wandb sync` can send later) or online. Closing it more than once does no harm."""

    def __init__(self, tracking: Tracking, run: str, spec: Spec, results: Path) -> None:
        self._run: Any = None
        if tracking.wandb != "off":
            self._run = self._attempt(lambda: _begin(tracking, run, spec, results))

    def log(self, row: dict[str, Any]) -> None:
        """Mirror one history row."""
        if self._run is not None:
            values = {name: value for name, value in row.items() if value is not None}
            self._attempt(lambda: self._run.log(values, step=row["step"]))

    def close(self, finished: bool) -> None:
        """Send what is left."""
        if self._run is not None:
            self._attempt(lambda: self._run.finish(exit_code=0 if finished else 1))
            self._run = None

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # whatever a third party's network code raises
            notice(f"wandb: {type(error).__name__}: {' '.join(str(error).split())[:200]}; tracking is off for the rest of this run")
            self._run = None
            return None


def _begin(tracking: Tracking, run: str, spec: Spec, results: Path) -> Any:
    import wandb

    online = tracking.wandb == "online"
    if online and not has_key():
        notice("wandb: online asked for, but there is no API key; offline instead: 'wandb sync' can send it after 'wandb login'")
        online = False
    (results / "wandb").mkdir(parents=True, exist_ok=True)  # else wandb falls back to a temporary folder
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
