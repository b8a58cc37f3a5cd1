"""The candidates of a section `tune`: a grid of values, or draws from ranges and lists.

    tune: {learner.learning_rate: [1e-3, 3e-3], network.dropout: [0, 0.1]}                   4 candidates
    tune: {random: 20, learner.learning_rate: {log_uniform: [1e-4, 1e-2]}}                   20 draws

The k-th draw of a key depends on the key and k only: raising `random` adds candidates and keeps those that there are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

from pipeline.config.document import Location, YamlList, YamlMapping, check_values, combinations, shown
from pipeline.config.validation import validate

RANDOM = "random"
DIGITS = 3
"""Significant digits of a draw: more would not tell two candidates apart."""
RANGES = ("uniform", "log_uniform")
LIST = "a list of values to try"


def count_candidates(tune: Any) -> int:
    """How many candidates a section makes, at most, before it is checked; 1 if nothing is tuned."""
    if not isinstance(tune, YamlMapping) or not tune:
        return 1
    if isinstance(count := tune.get(RANDOM), int):
        return count
    return math.prod(len(values) for values in tune.values() if isinstance(values, YamlList))


def candidates(tune: YamlMapping) -> list[YamlMapping]:
    """Every candidate as tuned key -> value; none if nothing is tuned."""
    if RANDOM not in tune:
        return _grid(tune) if tune else []
    count = validate(int, tune[RANDOM], tune.locations[RANDOM])
    keys = [key for key in tune if key != RANDOM]
    if count < 1 or not keys:
        expected = "at least 1" if keys else "a key to draw values for"
        raise tune.locations[RANDOM].error(f"got {count} draws; expected {expected}")
    found: dict[str, YamlMapping] = {}
    for index in range(count):
        candidate = YamlMapping(tune.location)
        for key in keys:
            candidate.put(key, _draw(tune[key], key, index, tune.locations[key]), tune.locations[key])
        found.setdefault(repr(sorted(candidate.items())), candidate)
    if len(found) < count and all(isinstance(tune[key], YamlList) for key in keys):
        raise tune.locations[RANDOM].error(
            f"got {count} draws, of which {len(found)} differ; expected a grid, without random, or fewer draws"
        )
    return list(found.values())


def range_ends(tune: YamlMapping) -> Iterator[tuple[str, Any, Location]]:
    """Both ends of every range, with its key and location: whatever is drawn lies between them."""
    for key, values in tune.items():
        for ends in values.values() if isinstance(values, YamlMapping) else ():
            yield from ((key, end, tune.locations[key]) for end in ends)


def _grid(tune: YamlMapping) -> list[YamlMapping]:
    for key, values in tune.items():
        ranged = isinstance(values, YamlMapping) and set(values) & set(RANGES)
        check_values(values, tune.locations[key], "random: N beside a range" if ranged else LIST)
    return list(combinations(tune, tune.location))


def _draw(values: Any, key: str, index: int, location: Location) -> Any:
    share = int.from_bytes(hashlib.sha256(f"{key} {index}".encode()).digest()[:6], "big") / 2**48
    if isinstance(values, YamlList):
        check_values(values, location, LIST)
        return values[int(share * len(values))]
    if not isinstance(values, YamlMapping) or len(values) != 1 or not set(values) <= set(RANGES):
        raise location.error(f"got {shown(values)}; expected a list, {{uniform: [low, high]}} or {{log_uniform: [low, high]}}")
    ((kind, ends),) = values.items()
    low, high = validate(tuple[float, float], ends, location)
    if not low < high or (kind == "log_uniform" and low <= 0):
        raise location.error(f"got {shown(ends)}; expected low < high{', above zero' if kind == 'log_uniform' else ''}")
    whole = all(isinstance(end, int) for end in ends)
    value = low * (high / low) ** share if kind == "log_uniform" else low + (high - low) * share
    return round(value) if whole else float(f"{value:.{DIGITS}g}")
