"""An undisturbed run to compare with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workflow.suite import Suite, made_once, tiny


def suite_config() -> dict[str, Any]:
    """Two runs that train for some seconds with dropout, averaged weights and a curriculum, on two shards, saving often."""
    config = tiny()
    base = config["experiments"]["first"]["base"]
    base["network"] |= {"dropout": 0.1, "width": 16}
    curriculum = {"column": "delay", "start": 2, "threshold": 0.3}
    base["learner"] |= {"steps": 700, "ema_decay": 0.9, "lr_schedule": "cosine", "curriculum": curriculum, "evaluate_every": 100}
    config["experiments"]["first"]["sweep"]["network.mixer"] = ["gru", "attention"]
    config["runtime"] = {"checkpoint_seconds": 0.2}
    return config


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The suite run once without disturbance, for all workers."""
    return made_once(tmp_path_factory, "undisturbed", suite_config())[0]
