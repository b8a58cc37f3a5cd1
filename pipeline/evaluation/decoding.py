"""A network running freely: its likeliest token is its next input, many rows at once, each with the state it carries.

    prompts          read in parallel, right-padded            logits and state after each row's last token
    then, per token  the likeliest, or what the retriever forces; one step of the network for the rows that are left

A row ends at its answer, which is the token after EOS where a trace stands before it and the first token otherwise, or at its budget.
Rows that have ended leave the batch, so that what a step costs follows what is left.

Letters: B rows of the batch, T tokens of its longest prompt, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.mixers.state import State, select
from pipeline.storage.progress import ProgressLine
from pipeline.tasks.retriever import Retriever
from pipeline.tasks.vocabulary import EOS


@dataclass
class Continuation:
    """What followed a prompt."""

    tokens: list[int] = field(default_factory=list)
    """In order, forced ones and the answer included."""
    forced: list[int] = field(default_factory=list)
    """Places in `tokens` of those that the retriever supplied."""
    answer: int | None = None
    """None where the budget was spent first."""


@torch.inference_mode()
def decode(
    network: Any,
    prompts: Sequence[np.ndarray],
    retrievers: Sequence[Retriever | None],
    traced: bool,
    budgets: Sequence[int],
    device: torch.device,
    batch: int,
    eos: int = EOS,
) -> list[Continuation]:
    """What a network in evaluation mode continues each prompt with, in the order of the prompts.

    retrievers: one per row, fresh; each is fed every token of its row but the answer, and what it returns is the next input in place of
    the network's own choice. It may go on forcing tokens for as long as it returns any, as an environment does that replies in sentences.
    traced: whether a trace stands before the answer, and `eos` between the two. budgets: tokens after the prompt at most.
    batch: rows that run side by side at most.
    """
    rows = [
        _Row(prompt, retriever, budget, not traced, eos) for prompt, retriever, budget in zip(prompts, retrievers, budgets, strict=True)
    ]
    order, progress = sorted(rows, key=lambda row: len(row.prompt)), ProgressLine("running freely", len(rows), "rows")
    for start in range(0, len(order), batch):
        _run(network, order[start : start + batch], device, lambda token, start=start: progress(start, f"token {token}"))
    return [row.found for row in rows]


@dataclass
class _Row:
    prompt: np.ndarray
    retriever: Retriever | None
    budget: int
    answers: bool
    """The next token is the answer."""
    eos: int
    force: int | None = None
    found: Continuation = field(default_factory=Continuation)

    def take(self, likeliest: int) -> bool:
        """Add the next token; whether the row goes on."""
        found, token = self.found, likeliest if self.force is None else self.force
        if self.force is not None:
            found.forced.append(len(found.tokens))
        found.tokens.append(token)
        if self.answers:
            found.answer = token
            return False
        self.answers = token == self.eos
        self.force = None if self.retriever is None else self.retriever.feed(token)
        return len(found.tokens) < self.budget


def _run(network: Any, rows: list[_Row], device: torch.device, progress: Callable[[int], None]) -> None:
    logits_BC, state = _read(network, [row.prompt for row in rows], device)
    while True:
        going = [place for place, (row, token) in enumerate(zip(rows, logits_BC.argmax(-1).tolist(), strict=True)) if row.take(token)]
        if not going:
            return
        if len(going) < len(rows):
            rows, state = [rows[place] for place in going], select(state, torch.tensor(going, device=device))
        progress(len(rows[0].found.tokens))
        tokens_B = torch.tensor([row.found.tokens[-1] for row in rows], device=device)
        logits_BC, state = network.step(tokens_B, state)


def _read(network: Any, prompts: list[np.ndarray], device: torch.device) -> tuple[Tensor, State]:
    """Logits and state after the last token of each prompt."""
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.zeros((len(prompts), lengths.max()), np.int64)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    last_B = torch.from_numpy(np.arange(len(prompts)) * tokens.shape[1] + lengths - 1).to(device)
    return network(torch.from_numpy(tokens).to(device), length_B=torch.from_numpy(lengths).to(device), at_N=last_B)
