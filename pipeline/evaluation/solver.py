"""Solve a person's puzzle with the network of a finished run, step by step: `pipeline solve`. Answers are those of `pipeline evaluate`.

solver = Solver(load_run("sudoku-recursive-s0-7f3a9c2e"))
for question in read_questions(solver.config, "53..7....6..195..."):
    for step in solver.steps(question, Puzzles(supervision=[16])): ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.config.spec_files import load_component
from pipeline.evaluation.arc_votes import Candidate, Votes
from pipeline.evaluation.evaluate import check_fits
from pipeline.evaluation.measurements.puzzles import BATCH_CELLS, Puzzles
from pipeline.evaluation.model import load_model
from pipeline.evaluation.questions import Question
from pipeline.evaluation.runs import Run
from pipeline.evaluation.solving import solve_batch, solve_steps
from pipeline.learners.sampler import IGNORED, Batch
from pipeline.networks.recursive import RecursiveNetwork
from pipeline.storage.errors import UserError
from pipeline.tasks.arc_grids import augment, crop, encode
from pipeline.training.device import prepare
from pipeline.training.diverged import diverged_at, refuse_diverged


class Step(NamedTuple):
    """The answer after some supervision steps. q: probability that it is right, in the network's opinion; None without recursion."""

    answer_T: np.ndarray
    q: float | None
    attempt: int
    valid: bool | None


class Solver:
    """A finished run's network and task."""

    def __init__(
        self, run: Run, checkpoint: str = "model", threads: int = 1, device: str = "auto", allow_changed_code: bool = False
    ) -> None:
        """Raises UserError, one line, for a run of another task than puzzles, or one that is not finished."""
        self.config: Any = load_component("task", run.spec["task"])
        if not self.config.grid:
            raise UserError(f"{run.id}: its task is {self.config.name}; expected a run of a task of puzzles, such as sudoku, maze or arc")
        if (step := diverged_at(run.folder)) is not None:
            refuse_diverged(run.folder, step)
        self.device = prepare(threads, device)
        network, self._described = load_model(run.folder, checkpoint, allow_changed_code, self.config)
        self.network: Any = network.to(self.device)

    @property
    def recursive(self) -> bool:
        """Whether more steps change the answer."""
        return isinstance(self.network, RecursiveNetwork)

    def check(self, question: Question, votes: int = 1) -> None:
        """Raise UserError if the network cannot read a puzzle, or has not been trained on so many symmetries of it."""
        known = 1 + (question.task.config.augmentations if question.known_as else votes)
        if votes > known:
            raise UserError(f"{question.where}: got {votes} votes; expected at most {known}, the symmetries that were trained on")
        check_fits(self._described, question.task.config, question.where, len(question.tokens_T))

    def steps(self, question: Question, settings: Puzzles) -> Iterator[Step]:
        """Yield the answer after every step, up to the largest number in `settings.supervision`."""
        self.check(question)
        batch = self._batch(question, question.tokens_T[None], np.array([question.identifier]))
        for answers in solve_steps(self.network, batch, settings, self.device):
            answer_T, q = answers.answer_BT[0], float(answers.q_B[0])
            yield Step(answer_T, None if math.isnan(q) else _probability(q), int(answers.attempt_B[0]), question.valid(answer_T))

    def votes(self, question: Question, count: int, settings: Puzzles) -> list[Candidate]:
        """Return the candidates among the answers to symmetries 0..count-1 of a question of ARC, after the last of the steps."""
        self.check(question, count)
        task = question.task
        name = question.known_as or question.where
        grid, votes = crop(question.tokens_T), Votes([name])
        last = settings.model_copy(update={"supervision": settings.supervision[-1:]})
        size = max(1, BATCH_CELLS // (len(question.tokens_T) * settings.chains))
        for first in range(0, count, size):
            k_B = np.arange(first, min(first + size, count))
            tokens_BT = np.stack([encode(augment(grid, name, k), task.side) for k in k_B.tolist()])
            identifier_B = question.identifier + (k_B if question.identifier else 0 * k_B)
            found = solve_batch(self.network, self._batch(question, tokens_BT, identifier_B), last, self.device)
            q_B = np.nan_to_num([_probability(q) for q in found.q_BK[:, 0].tolist()])
            votes.add(0 * k_B, 0 * k_B, k_B, found.answer_BKT[:, 0], q_B)
        return votes.candidates((0, 0))

    def _batch(self, question: Question, tokens_BT: np.ndarray, identifier_B: np.ndarray) -> Batch:
        rows, cells = tokens_BT.shape
        inputs = {"identifier": torch.from_numpy(identifier_B.astype(np.int32))}
        tokens, labels = torch.from_numpy(tokens_BT.astype(np.int64)), torch.full((rows, cells), IGNORED)
        return Batch(tokens, labels, torch.full((rows,), cells), {}, None, {name: inputs[name] for name in question.task.config.inputs})


def _probability(q: float) -> float:
    return 1 / (1 + math.exp(-q)) if q > -700 else 0.0
