"""Every field of the catalogue says what it is, in its unit, and when one would change it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pipeline.config.base import Section
from pipeline.config.config_file import Config, Experiment, Point, Runtime, Tracking
from pipeline.config.schema import KINDS, field_rows, sections_of
from pipeline.config.tasks import Task

WHEN = re.compile(r"[.;:] (Add|Change|Choose|Leave|Lower|Put|Raise|Set|Sweep|Tune|Turn|Use)\b([^.]|\.\w)*\.$")
"""The last sentence: what a user would do, and when."""
EXEMPT = ("pipeline.config.mixers", "pipeline.config.networks")
"""Pages whose descriptions have another form."""


def sections() -> Iterator[type[Section]]:
    """Every section a user can write fields in."""
    yield from (Config, Experiment, Point, Runtime, Tracking)
    for components in KINDS.values():
        for component in components.values():
            if not component.__module__.startswith("pipeline.") or component.__module__.startswith(EXEMPT):
                continue
            yield component
            if issubclass(component, Task):
                yield component.evaluation
            for field in component.model_fields.values():
                yield from sections_of(field.annotation)


FIELDS = {
    f"{section.__name__}.{key}": meaning
    for section in sections()
    for key, _, _, meaning in field_rows(section)
    if not section.__module__.startswith(EXEMPT)
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_description_says_what_the_field_is_and_when_to_change_it(field: str) -> None:
    meaning = FIELDS[field]
    assert re.match(r"[A-Z]|[a-z_]+: ", meaning), "begins with a capital, or with a choice and what it means"
    assert WHEN.search(meaning), meaning
    assert len(meaning) <= 240, f"{len(meaning)} characters: shorter, please"
