"""Which code computes an operation: plain torch, or something faster where it is there and fits. Parameters are the same either way.

The choice: an explicit argument, else the environment variable RECURLAB_BACKEND, else `auto`, the first that can serve.
The variable concerns the operations that have such a backend; an explicit argument must name one that the operation has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pipeline.storage.errors import UserError

VARIABLE = "RECURLAB_BACKEND"
KNOWN = ("auto", "torch", "c", "onednn", "fla", "triton", "mamba_ssm")

_used: dict[str, set[str]] = {}

Refusal = Callable[[], str | None]
"""Why a backend cannot serve a call, in a few words; None where it can."""


class BackendUnavailable(UserError):
    """The backend asked for cannot serve, with the reason."""

    def __init__(self, operation: str, backend: str, reason: str) -> None:
        super().__init__(f"{operation}: backend {backend} is not available: {reason}; install it, or use backend: auto or torch")
        self.reason = reason


def choose(operation: str, candidates: Mapping[str, Refusal], explicit: str | None = None) -> str:
    """The backend for one call of `operation`, recorded for `used()`. Candidates come in order of preference.

    Raises UserError where the backend asked for is unknown, or cannot serve.
    """
    variable = os.environ.get(VARIABLE) or "auto"
    wanted = explicit or variable
    if wanted not in KNOWN:
        raise UserError(f"{VARIABLE if explicit is None else 'backend'}: got {wanted}; expected one of {', '.join(KNOWN)}")
    if explicit is None and wanted not in candidates:
        wanted = "auto"
    name = _first_able(candidates) if wanted == "auto" else _insist(operation, candidates, wanted)
    _used.setdefault(operation, set()).add(name)
    return name


def used() -> dict[str, list[str]]:
    """The backends that this process has used so far, by operation: part of a run's environment."""
    return {operation: sorted(names) for operation, names in sorted(_used.items())}


def forget(instead: Mapping[str, list[str]] | None = None) -> None:
    """Forget which backends were used, or put an earlier answer of `used()` in their place: for trials that are no part of a run."""
    _used.clear()
    _used.update({operation: set(names) for operation, names in (instead or {}).items()})


def _first_able(candidates: Mapping[str, Refusal]) -> str:
    return next(name for name, refusal in candidates.items() if refusal() is None)


def _insist(operation: str, candidates: Mapping[str, Refusal], wanted: str) -> str:
    if wanted not in candidates:
        raise UserError(f"{operation}: has no backend {wanted}; expected one of auto, {', '.join(candidates)}")
    reason = candidates[wanted]()
    if reason is not None:
        raise BackendUnavailable(operation, wanted, reason)
    return wanted
