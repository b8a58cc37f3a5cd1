"""The report's captions: every figure says how to read it, and all captions render without a complaint, whatever a question contains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from pipeline.config.figures import FIGURES
from pipeline.config.tasks import Copy, IsTree

REPORT = Path(__file__).resolve().parents[2] / "workflow" / "report"
QUESTION = "Does *this* gap_ matter, `really` | or not \\ at all?"
BLOCK = "base:\n  task: {name: copy, delay: 100}\nsweep:\n  seed: [0, 1]\n"
CONFIG = {"written": {"file": "mine.yaml", "text": BLOCK, "presets": {"small": "width: 8\n"}}}


class Params(dict[str, Any]):
    __getattr__ = dict.__getitem__


class Category(NamedTuple):
    name: str


def render(name: str, params: Params) -> str:
    """The caption as HTML, as Snakemake makes it; a complaint of the reStructuredText parser is an error."""
    from docutils.core import publish_parts
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    categories = {Category("copy"): {}}
    links = "\n\n.. _copy: javascript:app.showCategory('copy')\n"
    text = (REPORT / f"{name}.rst").read_text() + links
    text = environment.from_string(text).render(snakemake=SimpleNamespace(params=params, config=CONFIG), categories=categories, files=[])
    return str(publish_parts(text, writer="html", settings_overrides={"halt_level": 2}).get("html_body"))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figures_caption_says_how_to_read_it(name: str) -> None:
    columns = [{"column": column} for column in ("nodes", "family")] if name == "accuracy_by" else [{}]
    for options in columns:
        caption = FIGURES[name].model_validate({"name": name, **options}).caption(IsTree())  # pyright: ignore[reportAttributeAccessIssue]
        page = render("figure", Params(question=QUESTION, caption=caption, figure={"name": name}))
        assert len(caption) > 200 and "{" not in caption
        assert all(text in page for text in (QUESTION, caption[:60]))


def test_the_captions_of_tables_and_settings_say_what_they_show() -> None:
    assert "Cells are means over seeds" in render("table", Params())
    assert "as resolved" in render("settings", Params())


def test_the_description_links_to_every_experiment_and_shows_the_suite() -> None:
    page = render("workflow", Params())
    assert "app.showCategory(&#x27;copy&#x27;)" in page.replace("'", "&#x27;")
    assert all(text in page for text in (BLOCK.strip(), "mine.yaml", "workflow/presets/small.yaml", "width: 8"))


@pytest.mark.parametrize("name", ["figure", "table"])
def test_captions_say_what_the_card_says_of_overlap(name: str) -> None:
    few, many = Copy(symbols=3).overlap, Copy(symbols=10).overlap
    pages = [render(name, Params(question=QUESTION, caption="Read it.", overlap=overlap)) for overlap in (few, many)]
    said = [" ".join(page.split()) for page in pages]
    assert "except rows of fewer than 4 symbols" in said[0] and "No test row is in training" not in said[0]
    assert not many and "No test row is in training" in said[1]
