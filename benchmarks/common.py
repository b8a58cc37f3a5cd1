"""The output of every benchmark: a table, then one line of JSON for the tests of the goals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Literal, TypedDict


class Row(TypedDict):
    """One comparison of this project with a peer, both measured in the same run."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    better: Literal["higher", "lower"]


def compare(name: str, ours: float, peer: float, unit: str, better: Literal["higher", "lower"] = "higher") -> Row:
    """A row; its ratio is always ours / peer, and `better` says which way is good."""
    return {"name": name, "ours": round(ours, 4), "peer": round(peer, 4), "unit": unit, "ratio": round(ours / peer, 3), "better": better}


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Process CPU seconds, user and system, that one call of `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def report(rows: list[Row], **details: Any) -> None:
    """Print the rows as a table; the last line is the JSON object {"rows": [...], ...details}."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':<{width}}  {'ours':>12}  {'peer':>12}  {'ratio':>7}  unit (better)")
    for row in rows:
        print(f"{row['name']:<{width}}  {row['ours']:>12.4g}  {row['peer']:>12.4g}  {row['ratio']:>7.2f}  {row['unit']} ({row['better']})")
    print(json.dumps({"rows": rows, **details}, sort_keys=True))
