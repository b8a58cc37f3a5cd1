"""Choice of the backend that computes an operation: plain torch, or a faster one if it is available. Parameters are the same for all.

Precedence: explicit argument, then the environment variable RECURLAB_BACKEND, then `auto`: the first available backend.
The variable is ignored by operations without that backend; an explicit argument must name a backend of the operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pipeline.storage.errors import UserError

VARIABLE = "RECURLAB_BACKEND"
KNOWN = ("auto", "torch", "c", "onednn", "fla", "triton", "mamba_ssm")

_used: dict[str, set[str]] = {}

UnavailableReason = Callable[[], str | None]
"""Return why a backend cannot run a call, in a few words; None if it can."""


class BackendUnavailable(UserError):
    """The requested backend is not available; the message gives the reason."""

    def __init__(self, operation: str, backend: str, reason: str) -> None:
        super().__init__(f"{operation}: backend {backend} is not available: {reason}; install it, or use backend: auto or torch")
        self.reason = reason


def choose(operation: str, candidates: Mapping[str, UnavailableReason], explicit: str | None = None) -> str:
    """Choose the backend for one call of `operation` and record it for `used()`. `candidates` are in order of preference.

    Raises UserError if the requested backend is unknown or not available.
    """
    variable = os.environ.get(VARIABLE) or "auto"
    wanted = explicit or variable
    if wanted not in KNOWN:
        raise UserError(f"{VARIABLE if explicit is None else 'backend'}: got {wanted}; expected one of {', '.join(KNOWN)}")
    if explicit is None and wanted not in candidates:
        wanted = "auto"
    name = _first_available(candidates) if wanted == "auto" else _require(operation, candidates, wanted)
    _used.setdefault(operation, set()).add(name)
    return name


def used() -> dict[str, list[str]]:
    """Return the backends used so far by this process, per operation: part of a run's recorded environment."""
    return {operation: sorted(names) for operation, names in sorted(_used.items())}


def forget(instead: Mapping[str, list[str]] | None = None) -> None:
    """Clear the record of used backends, or restore an earlier result of `used()`: for trials that do not belong to a run."""
    _used.clear()
    _used.update({operation: set(names) for operation, names in (instead or {}).items()})


def _first_available(candidates: Mapping[str, UnavailableReason]) -> str:
    return next(name for name, unavailable_reason in candidates.items() if unavailable_reason() is None)


def _require(operation: str, candidates: Mapping[str, UnavailableReason], wanted: str) -> str:
    if wanted not in candidates:
        raise UserError(f"{operation}: has no backend {wanted}; expected one of auto, {', '.join(candidates)}")
    reason = candidates[wanted]()
    if reason is not None:
        raise BackendUnavailable(operation, wanted, reason)
    return wanted
