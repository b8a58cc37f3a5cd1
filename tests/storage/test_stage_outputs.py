"""The files of each stage, with wildcards and without."""

from __future__ import annotations

import pytest

from pipeline.storage.stage_outputs import OUTPUTS, TABLES, patterns, written


def test_the_files_of_a_stage_are_the_patterns_filled() -> None:
    assert written("generate", [("copy-1", "00000"), ("copy-1", "00001")]) == [f"datasets/copy-1/0000{shard}.parquet" for shard in range(2)]
    assert written("seal", ["copy-1"]) == ["datasets/copy-1/manifest.json", "datasets/copy-1/card.md"]
    assert written("train", ["r"], ["model/critic.safetensors"])[-1] == "runs/r/model/critic.safetensors"
    assert {f"experiments/e/{table}.parquet" for table in TABLES} < set(written("collect", ["e"]))


@pytest.mark.parametrize("stage", OUTPUTS)
def test_no_two_files_of_a_stage_are_the_same(stage: str) -> None:
    found = patterns(stage)
    assert len(set(found)) == len(found) and all("{" in pattern for pattern in found)
