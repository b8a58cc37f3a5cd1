"""A small task with searches, a network that plays its traces by rule, and decoding as one would write it first.

A row lists links between names; its trace follows them from the first, asking where each leads, and the answer tells whether the name at
which the chain ends is even:

    BOS 5 2  2 7  9 4 SEP   5 SEARCH 5 END 2   2 SEARCH 2 END 7   7 SEARCH 7 END FAIL   EOS FALSE
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from pipeline.config.tasks.base import Column
from pipeline.config.tasks.retrieval import RetrievalTask
from pipeline.networks.decoding import Continuation
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, INJECTED, PROMPT, TARGET, Ragged, Split, TokenTask, rows_of
from pipeline.tasks.retriever import Query, Retriever, Searches
from pipeline.tasks.vocabulary import BOS, END, EOS, FAIL, FALSE, NODES, PAD, SEARCH, SEP, TRUE

NAMES = 12
Policy = Callable[[list[int]], int]


class Links(Searches):
    """Where each name of a prompt leads."""

    def __init__(self, prompt: Sequence[int]) -> None:
        super().__init__()
        self.next = dict(zip(prompt[1:-1:2], prompt[2:-1:2], strict=True))

    def look_up(self, query: Query) -> int | None:
        return self.next.get(query[0]) if len(query) == 1 else None


def trace_of(prompt: list[int]) -> tuple[list[int], list[int]]:
    """The continuation of a prompt and its roles."""
    links, here, tokens, roles = Links(prompt).next, prompt[1], [], []
    while True:
        there = links.get(here, FAIL)
        tokens += [here, SEARCH, here, END, there]
        roles += [TARGET] * 4 + [INJECTED]
        if there == FAIL:
            return [*tokens, EOS, TRUE if here % 2 == 0 else FALSE], [*roles, TARGET, ANSWER]
        here = there


def play(tokens: list[int]) -> int:
    """The next token of a row by rule, from everything so far; results are read, never looked up."""
    prompt = tokens[: tokens.index(SEP) + 1]
    after = tokens[len(prompt) :]
    if not after:
        return prompt[1]
    if after[-1] == EOS:
        return TRUE if after[-4] % 2 == 0 else FALSE
    if len(after) % 5 == 0:
        return EOS if after[-1] == FAIL else after[-1]
    return (SEARCH, after[-2:][0], END, FAIL)[len(after) % 5 - 1]


class ChainsConfig(RetrievalTask):
    """The configuration of the small task."""

    columns: ClassVar[Mapping[str, Column]] = {"length": Column("length", "links of the chain", "links")}

    name: Literal["chains"] = "chains"
    names: int = NAMES


class Chains(TokenTask):
    """Generator of such rows; `length` is the number of links."""

    def __init__(self) -> None:
        super().__init__(ChainsConfig())

    @property
    def traced(self) -> bool:
        return True

    def retriever(self, prompt_T: np.ndarray) -> Retriever:
        return Links(prompt_T.tolist())

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        rng, tokens, layouts, lengths = generator(key), [], [], []
        for _ in range(rows):
            links = int(rng.integers(2, 5))
            names = (NODES + rng.permutation(NAMES)[: links + 1]).tolist()
            pairs = [[names[0], names[1]], *([names[step], names[step + 1]] for step in rng.permutation(links)[: links - 1] if step)]
            prompt = [BOS, *(name for pair in pairs for name in pair), SEP]
            after, roles = trace_of(prompt)
            tokens.append(prompt + after)
            layouts.append(bytes([PROMPT] * len(prompt) + roles))
            lengths.append(links)
        distinct = sorted(set(layouts))
        return rows_of(
            tokens=Ragged(np.concatenate(tokens), np.array([len(row) for row in tokens]), False),
            layouts=distinct,
            layout_B=np.array([distinct.index(layout) for layout in layouts]),
            columns={"length": np.array(lengths)},
            padding=PAD,
        )


class Scripted(nn.Module):
    """A network whose answers follow a rule. Its state is everything it has read, and how much that is."""

    def __init__(self, policy: Policy, classes: int) -> None:
        super().__init__()
        self.policy, self.classes, self.context = policy, classes, 1 << 20

    def forward(self, tokens_BT: Tensor, length_B: Tensor, at_N: Tensor) -> tuple[Tensor, Any]:
        steps = tokens_BT.shape[1]
        rows, ends = (at_N // steps).tolist(), (at_N % steps).tolist()
        chosen = [self.policy(tokens_BT[row, : end + 1].tolist()) for row, end in zip(rows, ends, strict=True)]
        return self._sure(chosen), (tokens_BT, length_B)

    def step(self, tokens_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        read_BT, length_B = state
        read_BT = nn.functional.pad(read_BT, (0, 1)).scatter(1, length_B[:, None], tokens_B[:, None])
        rows = [row[: end + 1] for row, end in zip(read_BT.tolist(), length_B.tolist(), strict=True)]
        return self._sure([self.policy(row) for row in rows]), (read_BT, length_B + 1)

    def state_bytes(self, context: int) -> int:
        return 8 * context

    def _sure(self, chosen: list[int]) -> Tensor:
        return 50.0 * nn.functional.one_hot(torch.tensor(chosen), self.classes).float()


def decode_slowly(network: Any, prompt: np.ndarray, retriever: Retriever | None, traced: bool, budget: int) -> Continuation:
    """One row alone, all of it read again for every token."""
    tokens, found, force = prompt.tolist(), Continuation(), None
    while len(found.tokens) < budget:
        logits_BTC, _ = network(torch.tensor([tokens]))
        token = int(logits_BTC[0, -1].argmax()) if force is None else force
        found.injected += [] if force is None else [len(found.tokens)]
        tokens.append(token)
        found.tokens.append(token)
        if not traced or found.tokens[-2:-1] == [EOS]:
            found.stopped = True
            break
        force = retriever.feed(token) if retriever else None
    return found
