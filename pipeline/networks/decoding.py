"""Batched autoregressive decoding: a network continues prompts token by token, with one recurrent state per row.

    prompts          read in parallel, right-padded            logits and state after each row's last token
    then, per token  chosen from the logits, or injected; one step of the network for the rows that have not stopped

A row ends when its stop rule is met or its token budget is spent. Finished rows leave the batch, so the cost of a step is proportional to
the number of rows left.

A `Prefix` holds the logits and state after some tokens; its rows can be selected, forked and concatenated like those of any state
(`pipeline.ops.state`): several continuations of one prompt are `extend(network, fork(read(network, [prompt], device), copies), ...)`.

Notation: B = rows of the batch, T = tokens of the longest prompt, C = classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.networks.sampling import gumbel
from pipeline.ops.state import State, select
from pipeline.storage.console import ProgressLine
from pipeline.storage.rng import Key, derive_key, generator


class Injector(Protocol):
    """Injects tokens into a row in place of the network's own: search results, or replies of a language environment."""

    def feed(self, token: int) -> int | None:
        """Process the next token after the prompt, including injected ones; returns the token to inject next, or None."""
        ...


class Stop(Protocol):
    """A stop rule: decides whether a row ends, given the tokens after its prompt."""

    def __call__(self, tokens: Sequence[int], /) -> bool:
        """Return whether the last token ends the row."""
        ...


class Chooser(Protocol):
    """Chooses the next tokens. `rows`: indices of the rows in the call to `decode` or `extend`; `place`: tokens written so far."""

    def __call__(self, logits_BC: Tensor, rows: Sequence[int], place: int) -> Tensor:
        """Return token indices (B,), on the device of the logits."""
        ...


def after_first(tokens: Sequence[int]) -> bool:
    """Stop rule: end after the first token, the answer."""
    return True


class AfterToken:
    """Stop rule: end `further` tokens after the first `token`."""

    def __init__(self, token: int, further: int = 0) -> None:
        self.token, self.further = token, further

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Return whether the token `further` before the last is `token`."""
        return len(tokens) > self.further and tokens[-1 - self.further] == self.token


def greedy(logits_BC: Tensor, rows: Sequence[int], place: int) -> Tensor:
    """Choose the most likely token of every row."""
    return logits_BC.argmax(-1)


class TemperatureSampler:
    """Samples from softmax(logits / temperature).

    Every row has its own random generator, keyed by `key` and the row's index, so its samples do not depend on the rest of the batch.
    """

    def __init__(self, key: Key, temperature: float = 1.0) -> None:
        assert temperature > 0, "temperature 0 is greedy"
        self.key, self.temperature = key, temperature
        self._generators: dict[int, np.random.Generator] = {}

    def __call__(self, logits_BC: Tensor, rows: Sequence[int], place: int) -> Tensor:
        """Sample by the Gumbel-max trick: argmax(logits / temperature + Gumbel noise)."""
        if place == 0:
            self._generators |= {row: generator(derive_key("decode", *self.key, row)) for row in rows}
        noise_BC = torch.stack([gumbel(self._generators[row], (logits_BC.shape[-1],)) for row in rows]).to(logits_BC)
        return (logits_BC / self.temperature + noise_BC).argmax(-1)


@dataclass
class Continuation:
    """The continuation of a prompt."""

    tokens: list[int] = field(default_factory=list)
    """All tokens in order, including injected ones."""
    injected: list[int] = field(default_factory=list)
    """Indices of the injected tokens in `tokens`."""
    stopped: bool = False
    """Whether the stop rule ended the row; False if its budget was spent first."""


class Prefix(NamedTuple):
    """Logits (B, C) of the next token and the network's state after some tokens of each row; itself a state, batch first."""

    logits_BC: Tensor
    state: State


@torch.inference_mode()
def read(network: Any, prompts: Sequence[np.ndarray], device: torch.device) -> Prefix:
    """Run whole prompts through the network in one parallel pass."""
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.zeros((len(prompts), lengths.max()), np.int64)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    last_B = torch.from_numpy(np.arange(len(prompts)) * tokens.shape[1] + lengths - 1).to(device)
    return Prefix(*network(torch.from_numpy(tokens).to(device), length_B=torch.from_numpy(lengths).to(device), at_N=last_B))


@torch.inference_mode()
def extend(
    network: Any,
    prefix: Prefix,
    budgets: Sequence[int],
    stop: Stop,
    injectors: Sequence[Injector | None] | None = None,
    choose: Chooser = greedy,
    numbers: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[Continuation]:
    """Continue every row of a prefix, which is left unchanged.

    budgets: maximum number of tokens per row. injectors: a new one per row; None: no injection. numbers: row indices for `choose`, by
    default 0, 1, ... progress: called with the number of tokens written so far.
    """
    none = [None] * len(budgets)
    given = zip(numbers or range(len(budgets)), budgets, injectors or none, strict=True)
    rows = every = [_Row(number, budget, injector, stop) for number, budget, injector in given]
    logits_BC, state = prefix
    place = 0
    while True:
        chosen = choose(logits_BC, [row.number for row in rows], place).tolist()
        left = [index for index, (row, token) in enumerate(zip(rows, chosen, strict=True)) if row.append(token)]
        if not left:
            return [row.written for row in every]
        if len(left) < len(rows):
            rows, state = [rows[index] for index in left], select(state, torch.tensor(left, device=logits_BC.device))
        place += 1
        progress(place)
        tokens_B = torch.tensor([row.written.tokens[-1] for row in rows], device=logits_BC.device)
        logits_BC, state = network.step(tokens_B, state)


def decode(
    network: Any,
    prompts: Sequence[np.ndarray],
    budgets: Sequence[int],
    stop: Stop,
    device: torch.device,
    batch: int,
    injectors: Sequence[Injector | None] | None = None,
    choose: Chooser = greedy,
) -> list[Continuation]:
    """Continue each prompt with a network in evaluation mode, in batches of at most `batch` rows; results in the order of the prompts.

    See `extend` for the other arguments. Prompts of similar length are batched together.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    progress = ProgressLine("decoding", len(prompts), "rows")
    written: dict[int, Continuation] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        prefix = read(network, [prompts[row] for row in rows], device)
        mine = None if injectors is None else [injectors[row] for row in rows]
        report = lambda token, start=start: progress(start, f"token {token}")  # noqa: E731
        found = extend(network, prefix, [budgets[row] for row in rows], stop, mine, choose, rows, report)
        written |= dict(zip(rows, found, strict=True))
    return [written[row] for row in range(len(prompts))]


@dataclass
class _Row:
    number: int
    budget: int
    injector: Injector | None
    stop: Stop
    forced: int | None = None
    """The token to inject next."""
    written: Continuation = field(default_factory=Continuation)

    def append(self, chosen: int) -> bool:
        """Append the next token; return whether the row continues."""
        written, token = self.written, chosen if self.forced is None else self.forced
        if self.forced is not None:
            written.injected.append(len(written.tokens))
        written.tokens.append(token)
        if self.stop(written.tokens):
            written.stopped = True
            return False
        self.forced = None if self.injector is None else self.injector.feed(token)
        return len(written.tokens) < self.budget
