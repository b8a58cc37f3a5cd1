"""The page of an experiment's settings, against the specifications it is made from."""

from __future__ import annotations

import re
from html import unescape

from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.evaluation.settings import settings_page
from pipeline.plan import make_plan

TEXT = """\
experiments:
  only:
    base:
      task: {name: copy, symbols: 3, delay: 20}
      network: {name: sequence, mixer: {name: lstm, init: chrono, horizon: 20}, width: 16}
      learner: {preset: copy_curriculum, rows: 64k}
      evaluate: {rows: 50, delays: [10, 20]}
    sweep: {network.mixer: [lstm, gru], seed: [0, 1]}
    variants: {slow: {learner.learning_rate: 1e-4}}
"""


def tables(page: str) -> dict[str, list[list[str]]]:
    """The rows of each table by its heading, the header first."""
    found = {}
    for title, text in re.findall(r"<h2>(.*?)</h2>(.*?)(?=<h2>|</body>)", page, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
        found[unescape(title)] = [
            [unescape(re.sub(r"<.*?>", "", cell)) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in rows
        ]
    return found


def test_differences_come_first_and_nothing_is_left_out() -> None:
    plan = make_plan(expand(read_text(TEXT, "c.yaml")))
    spec = plan.experiments["only"].spec
    found = tables(settings_page(spec, [plan.runs[run["run"]].spec for run in spec["runs"]]))
    assert list(found) == ["Settings that differ", "Shared settings", "Runs"]
    header, *rows = found["Settings that differ"]
    assert header == ["setting", "gru", "lstm", "slow"]
    differing = {key: cells for key, *cells in rows}
    assert differing["network.mixer.name"] == ["gru", "lstm", "lstm"]
    assert differing["learner.learning_rate"] == ["0.007", "0.007", "0.0001"]
    assert {key for key in differing if not key.startswith("network.mixer.")} == {"learner.learning_rate"}
    shared = dict(found["Shared settings"][1:])
    assert shared["learner.rows"] == "64000"
    assert shared["learner.curriculum.factor"] == "3.0", "from the preset"
    assert shared["network.depth"] == "1", "a default"
    assert shared["evaluate.delays"] == "[10, 20]"
    assert {name for _, names in found["Runs"][1:] for name in names.split(", ")} == set(plan.runs)
    keys = set(differing) | set(shared)
    assert not differing.keys() & shared.keys()
    for key, value in plan.runs[spec["runs"][0]["run"]].spec["learner"].items():
        assert any(name == f"learner.{key}" or name.startswith(f"learner.{key}.") for name in keys), (key, value)
