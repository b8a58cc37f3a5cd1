"""Suites that share a results folder: each has its saved plan and its report, and none overwrites another's experiments."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from docutils.core import publish_parts
from jinja2 import Environment

from pipeline.config.document import read_text
from pipeline.config.expand import PRESETS, expand
from pipeline.plan import Plan, make_plan, plan_file
from pipeline.storage.errors import UserError
from pipeline.suites import report_path, saved_plans, suite_name
from pipeline.workspace import Workspace
from tests.cli.conftest import TINY, Call

REPOSITORY = Path(__file__).resolve().parents[2]
SUITES = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "workflow" / "suites").glob("*.yaml"))]
OTHER = TINY.replace("  tiny:", "  other:").replace("width: 8", "width: 12")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two suites."""
    (tmp_path / "config.yaml").write_text(TINY)
    (tmp_path / "other.yaml").write_text(OTHER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(file: str, *words: str) -> Workspace:
    """A suite as Snakemake starts it; it lets go of the folder at once."""
    found = Workspace(Path(file), Path("results"), main=True, arguments=list(words))
    if found.lock:
        found.lock.close()
    return found


def made(plan: Plan, results: Path) -> set[Path]:
    """An empty file in the place of every run, dataset and experiment of a plan."""
    folders = [results / "runs" / name for name in plan.runs] + [results / "datasets" / name for name in plan.datasets]
    for path in [*folders, *(results / "experiments" / name for name in plan.experiments)]:
        path.mkdir(parents=True, exist_ok=True)
    return {results / "runs" / name for name in plan.runs}


def test_prune_keeps_what_any_suite_lists_until_it_is_forgotten(folder: Path, call: Call) -> None:
    results = Path("results")
    (first,), (second,) = (made(started(file).plan, results) for file in ("config.yaml", "other.yaml"))
    report = report_path(results, "other")
    report.parent.mkdir()
    report.touch()
    assert call("prune").out == "nothing to delete\n"
    (folder / "other.yaml").unlink()
    assert call("prune").out == "nothing to delete\n", "a suite is remembered without its file"
    listed = call("prune", "--forget", "other").out
    assert str(second) in listed
    assert str(report) in listed
    assert str(first) not in listed
    assert listed.endswith("kept: everything that these suites list: config; run with --yes to delete\n")
    assert second.exists() and set(saved_plans(results)) == {"config", "other"}
    assert call("prune", "--forget", "other", "--yes").code == 0
    assert first.exists() and not second.exists() and not report.exists()
    assert set(saved_plans(results)) == {"config"}
    assert call("prune", "--forget", "other").err == "--forget other: no suite of that name ran here; expected one of config\n"


def test_of_an_edited_config_only_the_present_runs_are_kept(folder: Path, call: Call) -> None:
    (run,) = made(started("config.yaml").plan, Path("results"))
    (folder / "config.yaml").write_text(TINY.replace("width: 8", "width: 16"))
    assert str(run) in call("prune").out


def test_an_experiment_of_another_suite_is_not_overwritten(folder: Path) -> None:
    started("config.yaml")
    (folder / "other.yaml").write_text(OTHER.replace("  other:", "  tiny:"))
    for words in ([], ["-n"]):
        with pytest.raises(UserError) as caught:
            started("other.yaml", *words)
        said = str(caught.value)
        assert said.startswith(
            "other.yaml: experiments.tiny: suite config (config.yaml) has other runs in results/experiments/tiny; rename "
        )
        assert "\n" not in said and "'pipeline prune --forget config --yes'" in said
    assert set(saved_plans(Path("results"))) == {"config"}
    (folder / "other.yaml").write_text(TINY)
    started("other.yaml")
    assert set(saved_plans(Path("results"))) == {"config", "other"}, "the same experiment is shared"


def test_two_suites_cannot_have_one_name(folder: Path) -> None:
    started("config.yaml")
    (folder / "below").mkdir()
    (folder / "below" / "config.yaml").write_text(OTHER)
    with pytest.raises(
        UserError, match=r"^below/config\.yaml: config\.yaml already uses the suite name config in results; rename this file"
    ):
        started("below/config.yaml")
    (folder / "config.yaml").unlink()
    started("below/config.yaml")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("config.yaml", "config"),
        ("a/My Suite é.yaml", "my-suite-e"),
        ("süß.yaml", "su"),
        ("../../x.yaml", "x"),
        ("....", "suite"),
        ("x" * 300, "x" * 100),
    ],
)
def test_suite_names_are_safe_file_names(file: str, name: str) -> None:
    assert suite_name(file) == name


class Category(NamedTuple):
    """A category of the report: an experiment."""

    name: str


def rendered(plan: Plan) -> list[str]:
    """The blocks of the report's first page, as a reader would copy them; rendered as Snakemake does."""
    text = (REPOSITORY / "workflow" / "report" / "workflow.rst").read_text(encoding="utf-8")
    links = "".join(f"\n.. _{name}: #{name}\n" for name in plan.experiments)
    categories = {Category(name): {} for name in plan.experiments}
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        text.replace("categories | dictsort", "categories.items()") + links
    )
    html = str(
        publish_parts(
            template.render(snakemake=SimpleNamespace(config={"written": plan.suite}), categories=categories, files=[]),
            writer="html",
            settings_overrides={"report_level": 2, "halt_level": 2},
        ).get("html_body")
    )
    return [unescape(block) for block in re.findall(r'<pre class="literal-block">\n(.*?)</pre>', html, re.DOTALL)]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_suite_in_the_report_asks_for_the_same_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted back, with the presets shown in place of ours, it comes to the same identifiers."""
    plan = plan_file(path)
    suite, *presets = rendered(plan)
    assert suite.rstrip() == path.read_text(encoding="utf-8").rstrip()
    assert len(presets) == len(plan.suite["presets"])
    for name, text in zip(plan.suite["presets"], presets, strict=True):
        (tmp_path / f"{name}.yaml").write_text(text)
        assert text.rstrip() == (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
    monkeypatch.setattr("pipeline.config.expand.PRESETS", tmp_path)
    again = make_plan(expand(read_text(suite, "pasted.yaml")))
    for kind in ("runs", "datasets", "networks", "evaluations", "experiments"):
        assert list(getattr(again, kind)) == list(getattr(plan, kind))
