"""ARC's votes are those of a plain count, and an evaluation holds what a submission needs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.catalogue import implementation
from pipeline.config.tasks import Arc, Sudoku
from pipeline.evaluation.arc_votes import count_votes, pass_at, submission
from pipeline.evaluation.evaluate import measured
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.measurements.arc import ATTEMPTS, ArcVotes
from pipeline.learners.sampler import collate
from pipeline.storage.loader import DatasetRows, MemoryRows

CONFIG = Arc(training_sets=["arc1_training"], test_set="concept_minimal", side=10, votes=6)
RUN = {"run": "run", "chance": 0.0, "baseline": 1.0, "unit": "nats"}


class Guesser(nn.Module):
    """Without recursion: it answers with the label, or with one cell changed, by chance."""

    def __init__(self, task: Any, data: DatasetRows, share: float) -> None:
        super().__init__()
        rng = np.random.default_rng(5)
        batch = collate(data.gather(np.arange(len(data))), "rows", task.config.inputs)
        self.answers = {}
        for tokens, identifier, labels in zip(
            batch.tokens_BT.tolist(), batch.row_inputs["identifier"].tolist(), batch.labels_BT.numpy(), strict=True
        ):
            answer = np.maximum(labels, 0)
            if rng.random() > share:
                answer[0] = 2 + (answer[0] - 1) % 10 if rng.random() < 0.7 else 2 + (answer[0] + 3) % 10
            self.answers[(*tokens, identifier)] = answer

    def forward(self, tokens_BT: Tensor, identifier_B: Tensor) -> tuple[Tensor, None]:
        rows = zip(tokens_BT.tolist(), identifier_B.tolist(), strict=True)
        answers = np.stack([self.answers[(*tokens, identifier)] for tokens, identifier in rows])
        return nn.functional.one_hot(torch.from_numpy(answers), 12).float(), None

    def state_bytes(self, context: int) -> int:
        return 0


@functools.cache
def task_of() -> Any:
    return implementation(CONFIG)(CONFIG)


def found(share: float, rows: int = CONFIG.test_rows) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """The scores of a guesser, the rows of its evaluation, and the candidates by a plain count."""
    task = task_of()
    data = MemoryRows.of("test", task.generate(rows, (0,), split="test"))
    network = Guesser(task, data, share)
    table = measured(network, task, data, "data", ArcVotes(), torch.device("cpu"))
    group, pair, k = (np.asarray(data.column(name)) for name in ("group", "pair", "augmentation"))
    batch = collate(data.gather(np.arange(rows)), "rows", ("identifier",))
    keys = zip(batch.tokens_BT.tolist(), batch.row_inputs["identifier"].tolist(), strict=True)
    answers = np.stack([network.answers[(*tokens, identifier)] for tokens, identifier in keys])
    votes = count_votes(task.names, group, pair, k, answers, np.zeros(rows))
    examples = {name: table.column(name).to_numpy() for name in ArcVotes.columns if "list" not in str(table.schema.field(name).type)}
    return ArcVotes().score(examples, RUN), table.to_pylist(), votes


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_puzzles_solved_are_those_of_a_plain_count(share: float) -> None:
    scores, rows, votes = found(share)
    passed = pass_at(votes, task_of().solutions())
    for attempts in ATTEMPTS:
        assert scores[f"pass_{attempts}"] == pytest.approx(passed[attempts].mean)
        assert scores[f"pass_{attempts}_low"] <= scores[f"pass_{attempts}"] + 1e-9 <= scores[f"pass_{attempts}_high"] + 2e-9
    assert scores["pass_2_all"] == pytest.approx(passed[2].all)
    assert scores["puzzles"] == len(CONFIG.selection.measured)
    assert scores["accuracy"] == np.mean([row["exact"] for row in rows])
    assert scores["pass_1"] == 1.0 if share == 1 else share > 0.5 or scores["pass_1"] < 1.0


def test_the_first_two_grids_of_each_pair_are_kept() -> None:
    _, rows, votes = found(0.5)
    task = task_of()
    expected = submission(votes, task.names, list(votes))
    for row in rows:
        if row["augmentation"]:
            assert [row[name] for name in ("rank", "puzzle_rank", "weight", "candidates", "attempt_1", "attempt_2")] == [None] * 6
            continue
        answer = expected[task.names[row["group"]]][row["pair"]]
        assert row["attempt_1"] == answer["attempt_1"]
        assert row["attempt_2"] == (answer["attempt_2"] if row["candidates"] > 1 else None)


def test_a_quick_look_counts_the_pairs_it_has() -> None:
    """Of the first puzzle's pairs some are not asked: it counts by those that are."""
    scores, rows, _ = found(1.0, rows=9)
    assert scores["pass_1"] == 1.0 and scores["pass_2_all"] == 1.0
    assert scores["puzzles"] == len({row["group"] for row in rows})


def test_rows_without_a_test_pair_have_no_votes() -> None:
    data = MemoryRows.of("train", task_of().generate(5, (3,)))
    table = measured(Guesser(task_of(), data, 1.0), task_of(), data, "data", ArcVotes(), torch.device("cpu"))
    examples = {name: table.column(name).to_numpy() for name in ArcVotes.columns if name not in ("prompt", "target", "answer")}
    examples["weight"] = np.full(5, np.nan)
    assert ArcVotes().score(examples, RUN)["pass_2"] is None


def test_it_is_arcs_measurement_with_the_settings_of_puzzles() -> None:
    kind: Any = Arc.evaluation.model_validate({"votes": 2, "supervision": [1, 8], "chains": 2, "noise": 0.1}).measured_by(CONFIG)
    assert (kind.name, kind.supervision, kind.chains, kind.noise) == ("arc_votes", [1, 8], 2, 0.1)
    assert measurement_named("arc_votes").refusal(CONFIG) == ""
    assert measurement_named("arc_votes").refusal(Sudoku()) == "arc_votes measures votes on test pairs; sudoku has none"
