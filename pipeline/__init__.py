"""Recurlab: what recurrent networks can remember, and what it costs. In Python: `from pipeline import load_run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.evaluation.runs import Run, load_run

__all__ = ["Run", "load_run"]


def __getattr__(name: str) -> Any:
    """Import lazily, so that commands that do not need it start fast."""
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from pipeline.evaluation import runs

    return getattr(runs, name)
