"""A trained network left to itself on held-out rows: how often its own answer is right, and where its trace leaves the true one.

Continuation: what truly follows a row's prompt, its trace, EOS and answer, or the answer alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from pipeline.networks.decoding import AfterToken, Continuation, after_first, decode
from pipeline.storage.loader import DatasetRows
from pipeline.tasks.base import INJECTED, PROMPT
from pipeline.tasks.vocabulary import NODES

if TYPE_CHECKING:
    from pipeline.tasks.base import TokenTask

ROOM = 1.2
"""A row may write so many times the tokens of the dataset's longest continuation, as far as the network's context goes."""
STATE_BYTES = 1 << 29
"""Bytes of state that the rows of a batch carry at most."""
MOST_ROWS = 256
CHUNK = 2048
"""Rows of the dataset that are held at once."""
CORRECT, WRONG, NO_ANSWER = "correct", "wrong", "no answer"

NAME = -1
"""Any name of the prompt, in a form."""
Form = tuple[int, ...] | None
"""A query with all names of its row's prompt alike; None for one that never began."""


class TrueRow(NamedTuple):
    """A row as it should be."""

    prompt: np.ndarray
    after: list[int]
    forced: list[int]
    """Places in `after` of what searches found."""


def run_freely(network: Any, task: TokenTask, rows: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
    """The columns of a free run, see `pipeline.evaluation.scores`, a value for every row of the dataset in its order."""
    longest = max(len(row.after) for row in _true_rows(rows))
    budget = math.ceil(ROOM * longest)
    most = network.context + 1  # tokens of prompt and continuation: the last one is not read
    state = network.state_bytes(int(rows.lengths.max()) - longest + budget)
    batch = max(1, min(MOST_ROWS, STATE_BYTES // max(1, state)))
    forms = {form for row in _true_rows(rows) for form in _queries(row.prompt, row.after, row.forced, task.search)}
    stop = AfterToken(task.eos, further=1) if task.traced else after_first
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), CHUNK):
        chunk = list(_true_rows(rows, start, start + CHUNK))
        prompts = [row.prompt for row in chunk]
        retrievers = [task.retriever(prompt) for prompt in prompts]
        budgets = [min(budget, most - len(prompt)) for prompt in prompts]
        written = decode(network, prompts, budgets, stop, device, batch, retrievers)
        found += [_judged(one, other, forms, task.search) for one, other in zip(written, chunk, strict=True)]
    return {name: pa.array([row[name] for row in found], kind) for name, kind in COLUMNS.items()}


COLUMNS = {
    "outcome": pa.string(),
    "exact": pa.bool_(),
    "first_error": pa.int32(),
    "continuation": pa.int32(),
    "queries": pa.int32(),
    "valid_queries": pa.int32(),
}


def _true_rows(rows: DatasetRows, start: int = 0, stop: int | None = None) -> Iterator[TrueRow]:
    stop = min(len(rows), len(rows) if stop is None else stop)
    for first in range(start, stop, CHUNK):
        block = rows.gather(np.arange(first, min(stop, first + CHUNK)))
        for tokens, roles, length in zip(block.tokens, block.roles, block.lengths.tolist(), strict=True):
            begin = int((roles[:length] != PROMPT).argmax())
            yield TrueRow(tokens[:begin], tokens[begin:length].tolist(), np.flatnonzero(roles[begin:length] == INJECTED).tolist())


def _judged(found: Continuation, true: TrueRow, forms: set[Form], search: int) -> dict[str, Any]:
    differing = (place for place, (one, other) in enumerate(zip(found.tokens, true.after, strict=False)) if one != other)
    exact = found.tokens == true.after
    queries = _queries(true.prompt, found.tokens, found.injected, search)
    return {
        "outcome": NO_ANSWER if not found.stopped else CORRECT if found.tokens[-1] == true.after[-1] else WRONG,
        "exact": exact,
        "first_error": None if exact else next(differing, min(len(found.tokens), len(true.after))),
        "continuation": len(true.after),
        "queries": len(queries),
        "valid_queries": sum(query in forms for query in queries),
    }


def _queries(prompt: np.ndarray, tokens: list[int], forced: Sequence[int], search: int) -> list[Form]:
    """The form of each query, given the places of the tokens that answered them."""
    names = {token for token in prompt.tolist() if token >= NODES}
    found: list[Form] = []
    for last, place in pairwise([-1, *forced]):
        asked = tokens[last + 1 : place - 1]
        query = asked[asked.index(search) + 1 :] if search in asked else None
        found.append(None if query is None else tuple(NAME if token in names else token for token in query))
    return found
