"""Puzzles are measured as a plain count would: a scripted network, whose answers and q of every step and attempt are written down."""

from __future__ import annotations

import collections
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.config.catalogue import implementation
from pipeline.config.networks import RecursiveNetwork as Config
from pipeline.config.tasks import Arc, Maze, Sudoku
from pipeline.evaluation import solving as solving_module
from pipeline.evaluation.evaluate import measured
from pipeline.evaluation.measurements import puzzles as puzzles_module
from pipeline.evaluation.measurements.puzzles import Puzzles
from pipeline.evaluation.points import metadata_columns, score_points
from pipeline.evaluation.schemas import read_evaluation, with_kind
from pipeline.evaluation.solving import solve_batch, solve_steps
from pipeline.learners.sampler import collate
from pipeline.networks.build import build
from pipeline.networks.recursive import Carry, RecursiveNetwork
from pipeline.storage.loader import DatasetRows, MemoryRows
from pipeline.storage.tables import write_table
from pipeline.tasks.maze import solve as solve_maze

CPU = torch.device("cpu")
RUN = {"run": "run", "chance": 0.0, "baseline": 1.0, "unit": "nats"}
Settings: Any = Puzzles
Act = tuple[int, float]
"""Which of a puzzle's answers an attempt gives after a step, and its q."""


class Scripted(RecursiveNetwork):
    """Plays acts[puzzle][attempt][step]. Its latents are the number of steps taken and of the attempt."""

    def __init__(
        self, answers: dict[tuple[int, ...], list[np.ndarray]], acts: dict[tuple[int, ...], list[list[Act]]], classes: int
    ) -> None:
        nn.Module.__init__(self)
        self.settings: Any = SimpleNamespace(start="fixed", starts=64, registers=0)
        self.answers, self.acts, self.classes = answers, acts, classes

    def fresh(self, rows: int, cells: int, attempt: int = 0, generator: Any = None) -> Carry:
        return Carry((torch.tensor([[[0.0, attempt]]]).expand(rows, 1, 2),), torch.full((rows, 2), -5.0))

    def forward(self, tokens_BT: Tensor, state: Carry, **_: Any) -> tuple[Tensor, Carry]:  # pyright: ignore[reportIncompatibleMethodOverride]
        chosen, qs = [], []
        for row, (step, attempt) in zip(tokens_BT.tolist(), state.latents[0][:, 0].tolist(), strict=True):
            answer, q = self.acts[tuple(row)][int(attempt)][int(step)]
            chosen.append(self.answers[tuple(row)][answer])
            qs.append([q, 0.0])
        logits = 50.0 * nn.functional.one_hot(torch.from_numpy(np.stack(chosen).astype(np.int64)), self.classes).float()
        return logits, Carry((state.latents[0] + torch.tensor([1.0, 0.0]),), torch.tensor(qs))

    def state_bytes(self, context: int) -> int:
        return 8


def rows_of(config: Any, rows: int, split: Any = "test") -> tuple[Any, DatasetRows]:
    task = implementation(config)(config)
    return task, MemoryRows.of(split, task.generate(rows, (1, 2), split=split))


def batch_of(task: Any, data: DatasetRows) -> Any:
    return collate(data.gather(np.arange(len(data))), "rows", task.config.inputs)


def scripted(task: Any, data: DatasetRows, acts: list[list[list[Act]]]) -> Scripted:
    """Each puzzle has three answers: 0 the right one, 1 with one cell wrong, 2 with two."""
    batch, answers, scripts = batch_of(task, data), {}, {}
    for row, (tokens, labels) in enumerate(zip(batch.tokens_BT.tolist(), batch.labels_BT.numpy(), strict=True)):
        variants = []
        for wrong in range(3):
            answer = np.maximum(labels, 0)
            answer[:wrong] = (answer[:wrong] + 1) % task.config.classes
            variants.append(answer)
        answers[tuple(tokens)], scripts[tuple(tokens)] = variants, acts[row]
    return Scripted(answers, scripts, task.config.classes)


def measure(network: Any, task: Any, data: DatasetRows, **settings: Any) -> list[dict[str, Any]]:
    table = measured(network, task, data, "data", Settings(**settings), CPU)
    return [{name: value for name, value in row.items() if name not in ("prompt", "target")} for row in table.to_pylist()]


def noted(table: pa.Table, config: Any, kind: Any) -> pa.Table:
    """The table with the notes that an evaluation has."""
    describing = [name for name, column in config.columns.items() if not column.point]
    return with_kind(table, kind, {"describing": json.dumps(describing)})


@pytest.fixture(scope="module")
def sudoku() -> tuple[Any, DatasetRows]:
    return rows_of(Sudoku(side=4), 12)


def trained(task: Any, seed: int = 0, **fields: Any) -> Any:
    """A network with random weights whose q differs between puzzles and steps."""
    torch.manual_seed(seed)
    block = {"mixer": "full_attention", "width": 16, "depth": 1, "outer": 1, "inner": 1, **fields}
    network: Any = build(Config.model_validate({"name": "recursive", **block}), task.config.sizes).eval()
    nn.init.normal_(network.q_head.weight)
    nn.init.zeros_(network.q_head.bias)
    return network


def test_answers_are_judged_cell_by_cell_and_as_a_whole(sudoku: tuple[Any, DatasetRows]) -> None:
    """Puzzle r gives answer min(r, 2) at the first step, and the right one from the second on."""
    task, data = sudoku
    network = scripted(task, data, [[[(min(row, 2), -1.0), (0, 1.0), (0, 2.0)]] for row in range(12)])
    found = measure(network, task, data, supervision=[1, 3])
    assert [row["supervision"] for row in found] == [1, 3] * 12 and [row["row"] for row in found] == sorted([*range(12)] * 2)
    for row in found:
        wrong = min(row["row"], 2) if row["supervision"] == 1 else 0
        assert (row["scored"], row["correct"], row["exact"], row["valid"]) == (16, 16 - wrong, not wrong, not wrong)
        assert row["loss"] == pytest.approx(50.0 * wrong, rel=1e-4, abs=1e-4)
        assert (row["q"], row["halting_step"]) == ((-1.0, None) if row["supervision"] == 1 else (2.0, 2))
        assert row["residual"] == pytest.approx(math.sqrt(0.5)) and row["attempt"] == 0
        assert (row["answer"] is None) == (row["row"] >= puzzles_module.STRIPS)


def test_any_solution_of_a_maze_is_valid_but_only_the_label_is_exact() -> None:
    """Every shortest path is traced by another rule than the label's: a maze with several has a valid answer that is not exact."""
    config = Maze(side=9, walls="percolation", min_path=6)
    task, data = rows_of(config, 60)
    batch, answers = batch_of(task, data), {}
    for tokens in batch.tokens_BT.numpy().astype(np.uint8):
        turned, _ = solve_maze(9, np.ascontiguousarray(tokens.reshape(9, 9).T).reshape(1, -1), True)
        answers[tuple(tokens.tolist())] = [turned.reshape(9, 9).T.reshape(-1)]
    network = Scripted(answers, {key: [[(0, 1.0)]] for key in answers}, config.classes)
    found = measure(network, task, data, supervision=[1])
    assert all(row["valid"] for row in found)
    assert {row["exact"] for row in found} == {0, 1}
    for row in found:
        assert row["exact"] == (row["correct"] == row["scored"])


ACTS = st.lists(st.lists(st.tuples(st.integers(0, 2), st.floats(-2, 2, width=16)), min_size=3, max_size=3), min_size=1, max_size=6)


@given(acts=ACTS, choose=st.sampled_from(["q", "vote", "first_to_halt"]), halt=st.booleans())
def test_the_choice_among_attempts_is_that_of_a_plain_count(acts: list[list[Act]], choose: Any, halt: bool) -> None:
    task, data = rows_of(Sudoku(side=4), 1)
    network = scripted(task, data, [acts])
    found = measure(network, task, data, supervision=[1, 2, 3], chains=len(acts), choose=choose, halt=halt)
    for row in found:
        taken = []
        for attempt in acts:
            halted = next((step for step in range(row["supervision"]) if attempt[step][1] > 0), None)
            at = halted if halt and halted is not None else row["supervision"] - 1
            taken.append((*attempt[at], math.inf if halted is None else halted + 1))
        count = collections.Counter(answer for answer, _, _ in taken)
        first = {
            "q": [0] * len(acts),
            "vote": [-count[answer] for answer, _, _ in taken],
            "first_to_halt": [halted for _, _, halted in taken],
        }
        best = min((key, -taken[place][1], place) for place, key in enumerate(first[choose]))[2]
        answer, q, halted = taken[best]
        assert (row["attempt"], row["q"], 16 - row["correct"]) == (best, q, answer)
        assert row["halting_step"] == (None if halted == math.inf else halted)


@given(acts=st.lists(st.lists(st.tuples(st.integers(0, 2), st.floats(-1, 2, width=16)), min_size=4, max_size=4), min_size=12, max_size=12))
def test_a_halted_puzzle_keeps_the_answer_it_had_then(sudoku: tuple[Any, DatasetRows], acts: list[list[Act]]) -> None:
    task, data = sudoku
    network = scripted(task, data, [[puzzle] for puzzle in acts])
    plain, halted = (measure(network, task, data, supervision=[1, 2, 3, 4], halt=halt) for halt in (False, True))
    by_step = {(row["row"], row["supervision"]): row for row in plain}
    for row in halted:
        same = by_step[row["row"], min(row["supervision"], row["halting_step"] or math.inf)]
        assert {**row, "supervision": 0} == {**same, "supervision": 0}


def test_without_noise_attempts_are_the_same_and_the_first_is_chosen(sudoku: tuple[Any, DatasetRows]) -> None:
    task, data = sudoku
    network = trained(task)
    plain = solve_batch(network, batch_of(task, data), Settings(supervision=[1, 4]), CPU)
    for choose in ("q", "vote", "first_to_halt"):
        several = solve_batch(network, batch_of(task, data), Settings(supervision=[1, 4], chains=3, choose=choose), CPU)
        assert (several.answer_BKT == plain.answer_BKT).all()
        np.testing.assert_allclose(several.q_BK, plain.q_BK, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", ["zeros", "random"])
def test_an_attempt_does_not_depend_on_how_many_there_are(start: str, sudoku: tuple[Any, DatasetRows]) -> None:
    """Of several attempts the highest q is at least that of the first one alone; where it is the same, so is the answer."""
    task, data = sudoku
    network, noise = trained(task, start=start), {"noise": 0.5, "supervision": [1, 5]}
    one, three = (solve_batch(network, batch_of(task, data), Settings(**noise, chains=chains), CPU) for chains in (1, 3))
    assert (three.q_BK >= one.q_BK - 1e-5).all() and (three.attempt_BK > 0).any() and (three.attempt_BK == 0).any()
    first_BK = three.attempt_BK == 0
    assert (three.answer_BKT == one.answer_BKT)[first_BK].all()
    np.testing.assert_allclose(three.q_BK[first_BK], one.q_BK[first_BK], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"chains": 3, "noise": 0.3, "halt": True}, {"chains": 4, "noise": 0.3, "choose": "vote"}])
def test_answers_depend_neither_on_batches_nor_on_the_order_of_rows(
    settings: dict[str, Any], sudoku: tuple[Any, DatasetRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, data = sudoku
    network = trained(task, start="random")
    whole = measure(network, task, data, supervision=[2, 4], **settings)
    monkeypatch.setattr(puzzles_module, "BATCH_CELLS", 100)
    monkeypatch.setattr(solving_module, "PART_CELLS", 35)
    parts = measure(network, task, data, supervision=[2, 4], **settings)
    order = np.random.default_rng(3).permutation(len(data))
    batch = batch_of(task, data)
    turned = collate(data.gather(order), "rows", task.config.inputs)
    found, again = (solve_batch(network, item, Settings(supervision=[2, 4], **settings), CPU) for item in (batch, turned))
    assert (found.answer_BKT[order] == again.answer_BKT).all() and (found.attempt_BK[order] == again.attempt_BK).all()
    for one, other in zip(whole, parts, strict=True):
        for name, value in one.items():
            assert other[name] == (pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value), name


def test_steps_are_those_of_the_measurement(sudoku: tuple[Any, DatasetRows]) -> None:
    task, data = sudoku
    network, settings = trained(task), Settings(supervision=[1, 2, 3], chains=3, noise=0.4, choose="vote")
    solved = solve_batch(network, batch_of(task, data), settings, CPU)
    steps = list(solve_steps(network, batch_of(task, data), settings, CPU))
    assert len(steps) == 3
    for place, answers in enumerate(steps):
        for whole, part in zip(solved, answers, strict=True):
            np.testing.assert_array_equal(whole[:, place], part)


class OnePass(nn.Module):
    """A network without recursion that answers with class 1 everywhere."""

    context = 1_000

    def forward(self, tokens_BT: Tensor, **_: Any) -> tuple[Tensor, None]:
        return nn.functional.one_hot(torch.ones_like(tokens_BT), 6).float(), None

    def state_bytes(self, context: int) -> int:
        return 0


def test_a_network_without_recursion_answers_alike_after_any_number_of_steps(sudoku: tuple[Any, DatasetRows], tmp_path: Path) -> None:
    task, data = sudoku
    kind = Settings(supervision=[1, 16], chains=4, choose="vote")
    table = measured(OnePass(), task, data, "data", kind, CPU)
    write_table(tmp_path / "evaluation.parquet", noted(table, task.config, kind))
    read, again = read_evaluation(tmp_path / "evaluation.parquet", {"data": 12})
    assert again == kind
    rows = read.drop_columns(["supervision"]).to_pylist()
    assert rows[::2] == rows[1::2]
    assert all((row["q"], row["halting_step"], row["residual"], row["attempt"]) == (None, None, None, 0) for row in rows)
    points = score_points(read, kind, RUN)
    assert [point["supervision"] for point in points] == [1, 16]
    for point in points:
        assert [point[name] for name in ("q_accuracy", "halted", "halting_step", "residual", "residual_solved")] == [None] * 5
        assert point["accuracy"] == 0.0 and point["valid"] == 0.0 and point["rows"] == 12


@pytest.mark.parametrize(
    "config", [Sudoku(side=4), Maze(side=5), Arc(training_sets=["arc1_training"], test_set="concept_minimal", side=10, votes=2)]
)
def test_an_evaluation_is_read_back_and_its_points_are_sizes_and_steps(config: Any, tmp_path: Path) -> None:
    task, data = rows_of(config, 8)
    kind: Any = config.evaluation(supervision=[1, 3]).measured_by(config)
    table = measured(trained(task), task, data, "data", kind, CPU)
    write_table(tmp_path / "evaluation.parquet", noted(table, config, kind))
    read, again = read_evaluation(tmp_path / "evaluation.parquet", {"data": 8})
    assert again == kind and read.num_rows == 16
    assert set(metadata_columns(read, again)) == {"supervision", *({"origin", "side"} & set(config.columns))}
    points = score_points(read, again, RUN)
    assert [point["supervision"] for point in points] == [1, 3]
    details = kind.details(read)
    assert details is not None and details.column("row").to_pylist() == [0, 0, 1, 1, 2, 2]
    cells = {len(value) for name in puzzles_module.LISTS for value in details.column(name).to_pylist()}
    assert cells == {config.longest}


def test_a_measurement_needs_a_number_of_steps() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        Settings(supervision=[])
    with pytest.raises(ValueError, match="expected values of at least 1"):
        Settings(supervision=[0])


def test_scores_of_a_point_are_plain_means() -> None:
    examples = {
        "exact": np.array([1, 0, 0, 1]), "valid": np.array([1, 1, 0, 1]), "scored": np.array([16, 16, 16, 16]),
        "correct": np.array([16, 14, 0, 16]), "loss": np.array([0.0, 16.0, 48.0, 0.0], np.float32), "q": np.array([1.0, 1.0, -1.0, -1.0]),
        "halting_step": np.array([2.0, 4.0, np.nan, np.nan]), "residual": np.array([1.0, 2.0, 4.0, 3.0]), "tokens": np.array([16] * 4),
    }  # fmt: skip
    point = Puzzles().score(examples, RUN)
    expected = {
        "rows": 4, "accuracy": 0.5, "valid": 0.75, "cell_accuracy": 46 / 64, "loss": 1.0, "halted": 0.5, "halting_step": 3.0,
        "q_accuracy": 0.5, "residual": 2.5, "residual_solved": 2.0, "residual_unsolved": 3.0, "tokens": 16.0,
    }  # fmt: skip
    assert {name: point[name] for name in expected} == expected


def test_pictures_are_of_the_first_puzzles_in_any_batch(sudoku: tuple[Any, DatasetRows], monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = sudoku
    monkeypatch.setattr(puzzles_module, "BATCH_CELLS", 1)
    table = measured(OnePass(), task, data, "data", Settings(), CPU)
    kept = table.filter(pa.array(table.column("row").to_numpy() < puzzles_module.STRIPS))
    batch = batch_of(task, data)
    assert kept.column("prompt").to_pylist() == batch.tokens_BT[:3].tolist()
    assert kept.column("target").to_pylist() == batch.labels_BT[:3].tolist()
    assert kept.column("answer").to_pylist() == [[1] * 16] * 3
    assert table.column("answer").null_count == 9
