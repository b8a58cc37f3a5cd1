"""A plugged-in mixer with dropout resumes bit by bit under every learner, wherever it was stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.learners import LEARNERS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = '''
from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Mixer


class Dropping(Mixer):
    """A leaky integrator whose outputs are dropped at random."""

    implementation: ClassVar[str] = "plugin_dropping.code:Dropping"
    name: Literal["dropping"] = "dropping"
    dropout: float = Field(default=0.4, ge=0, lt=1, description="share of outputs dropped in training")
'''
CODE = """
import torch
from torch import nn

from pipeline.mixers.base import Mixer


class Dropping(Mixer):
    def __init__(self, config, width):
        super().__init__(width)
        self.into = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)

    def initial_state(self, batch):
        return self.into.weight.new_zeros(batch, self.width)

    def forward(self, x_BTD, state=None, reset_BT=None, length_B=None):
        state = self.initial_state(len(x_BTD)) if state is None else state
        found = []
        for t, x_BD in enumerate(self.into(x_BTD).unbind(1)):
            kept = state if reset_BT is None else torch.where(reset_BT[:, t, None], 0.0, state)
            after = 0.5 * kept + 0.5 * x_BD
            found.append(after)
            state = after if length_B is None else torch.where((t < length_B)[:, None], after, state)
        return self.dropout(torch.stack(found, 1)), state

    def step(self, x_BD, state, active_B=None):
        after = 0.5 * state + 0.5 * self.into(x_BD)
        return self.dropout(after), after if active_B is None else torch.where(active_B[:, None], after, state)

    def state_bytes(self, context):
        return self.width * self.into.weight.element_size()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pip install` of a package with such a mixer leaves it."""
    site = tmp_path_factory.mktemp("site")
    package, info = site / "plugin_dropping", site / "plugin_dropping-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "page.py").write_text(PAGE, encoding="utf-8")
    (package / "code.py").write_text(CODE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-dropping\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[recurlab.mixers]\ndropping = plugin_dropping.page:Dropping\n", encoding="utf-8")
    return site


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_dropout_resumes_bit_by_bit(learner: str, site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{REPOSITORY}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tests.training.dropout", learner, str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = found.pop("undisturbed")
    weights = "model/model.safetensors"
    assert found.pop("no dropout")[weights] != expected[weights], "dropout is on while learning"
    assert set(found) == {"before a validation", "after a validation", "at every step"}
    for case, digests in found.items():
        assert digests == expected, case
