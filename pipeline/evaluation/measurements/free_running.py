"""Free running: a network generates each row's continuation greedily, and its own answer is scored.

Continuation: the true tokens after a row's prompt: its trace, EOS and answer, or the answer alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pipeline.evaluation.measurements.base import Cell, Point, Score, Table, digits, percent
from pipeline.evaluation.measurements.tokens import ACCURACY, CHANCE, COUNT, LOSS_CELLS, LOSSES, MEMORYLESS, SIZES, Tokens, ends
from pipeline.evaluation.statistics import wilson_interval
from pipeline.storage.lazy import np, pa
from pipeline.storage.table_schema import Column
from pipeline.tasks.vocabulary import NODES

if TYPE_CHECKING:
    import torch

    from pipeline.networks.decoding import Continuation
    from pipeline.storage.loader import DatasetRows
    from pipeline.tasks.base import TokenTask

ROOM = 1.2
"""Token budget of a row as a multiple of the dataset's longest continuation, limited by the network's context."""
STATE_BYTES = 1 << 29
"""Maximum bytes of state of a batch."""
MOST_ROWS = 256
CHUNK = 2048
"""Rows of the dataset held in memory at once."""
BINS = 20
"""Equal parts of a continuation in which first errors are counted."""
CORRECT, WRONG, NO_ANSWER = "correct", "wrong", "no answer"

NAME = -1
"""Stands for any name of the prompt, in a form."""
Form = tuple[int, ...] | None
"""A query with every name of its row's prompt replaced by NAME; None if no query token preceded the answer."""
ANSWERS = ACCURACY._replace(label="right final answers")
FORCED = Score("right tokens, teacher-forced", bounds=(0, 1), better="higher")
TYPES = {
    "outcome": "string",
    "exact": "bool",
    "first_error": "int32",
    "continuation": "int32",
    "queries": "int32",
    "valid_queries": "int32",
}
"""Arrow types of the columns of its own."""


class FreeRunning(Tokens):
    """Accuracy of answers under greedy decoding, and of tokens under teacher forcing."""

    columns: ClassVar[Mapping[str, Column]] = {
        **Tokens.columns,
        "outcome": Column("text"),  # correct, wrong or no answer: of the generated answer
        "exact": Column("flag"),  # all generated tokens equal the true continuation
        "first_error": Column("whole", null=True, least=0),  # index of the first wrong token, the first after the prompt being 0
        "continuation": COUNT,  # tokens of the true continuation
        "queries": COUNT,  # searches that were answered
        "valid_queries": COUNT,  # those with the form of a query in a true trace, whichever names of the prompt they ask for
    }
    scores: ClassVar[Mapping[str, Score]] = {
        **SIZES,
        "accuracy": ANSWERS,
        "accuracy_low": ends(ANSWERS),
        "accuracy_high": ends(ANSWERS),
        "chance": CHANCE,
        "sequence_accuracy": Score("rows without a mistake, teacher-forced", bounds=(0, 1), better="higher", share_of_examples=True),
        **LOSSES,
        "forced_accuracy": FORCED,
        "forced_accuracy_low": ends(FORCED),
        "forced_accuracy_high": ends(FORCED),
        "no_answer": Score("rows without an answer", bounds=(0, 1), better="lower", share_of_examples=True),
        "exact": Score("exact traces", bounds=(0, 1), better="higher", share_of_examples=True),
        "first_error": Score("first error", unit="token", bounds=(0, None), better="higher"),
        "first_errors": Score("first errors along the trace", bounds=(0, None), type="list"),
        "queries": Score("queries", bounds=(0, None), type="whole"),
        "valid_queries": Score("queries that are valid", bounds=(0, 1), better="higher"),
    }
    title: ClassVar[str] = "Right final answers, free running (%)"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "Free running",
            "Greedy generation. Right: final answers; the others are wrong or missing. Exact: every token equals the true trace. First "
            "error: median position, in tokens after the prompt, of the first wrong token in the rows that have one. Teacher-forced: tokens "
            "that are right given the true tokens before them.",
            (
                Cell("right (%)", "accuracy", percent),
                Cell("no answer (%)", "no_answer", percent),
                Cell("exact traces (%)", "exact", percent),
                Cell("first error (token)", "first_error", digits(0)),
                Cell("queries that are valid (%)", "valid_queries", percent),
                Cell("teacher-forced tokens (%)", "forced_accuracy", percent),
            ),
        ),
        Table(
            "At the hardest point",
            MEMORYLESS,
            (
                Cell("tokens, teacher-forced (%)", "forced_accuracy", percent),
                Cell("whole rows, teacher-forced (%)", "sequence_accuracy", percent),
                *LOSS_CELLS,
            ),
            "memoryless baseline",
        ),
    )

    name: Literal["free_running"] = "free_running"  # pyright: ignore[reportIncompatibleVariableOverride]

    def refusal(self, task: Any) -> str:
        """Return why rows of this task cannot be measured: they must end with one answer after a prompt."""
        if task.measurement == "free_running":
            return ""
        return super().refusal(task) or f"{self.name} measures rows that end with one answer; those of {task.name} do not"

    def measure(self, network: Any, task: TokenTask, data: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
        """Measure every row's free run, and its tokens under teacher forcing."""
        return {**super().measure(network, task, data, device), **run_freely(network, task, data, device)}

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """Return the outcomes of free runs as shares of the rows, and the share of valid searches.

        `first_error`: median index, in tokens, over the rows with an error. `first_errors`: number of rows whose first error is in each of
        `BINS` equal parts of their continuation.
        """
        outcome, wrong = examples["outcome"], ~examples["exact"].astype(bool)
        rows, right, queries = len(outcome), int((outcome == CORRECT).sum()), int(examples["queries"].sum())
        low, high = wilson_interval(right, rows)
        first = examples["first_error"][wrong].astype(np.int64)
        parts = np.minimum(BINS * first // examples["continuation"][wrong], BINS - 1)
        tokens = super().score(examples, run)
        return {
            **{name: value for name, value in tokens.items() if name in self.scores},
            **{f"forced_{name}": tokens.get(name) for name in ("accuracy", "accuracy_low", "accuracy_high")},
            "accuracy": right / rows,
            "accuracy_low": low,
            "accuracy_high": high,
            "no_answer": float(np.mean(outcome == NO_ANSWER)),
            "exact": 1 - float(np.mean(wrong)),
            "first_error": float(np.median(first)) if len(first) else None,
            "first_errors": np.bincount(parts, minlength=BINS).tolist(),
            "queries": queries,
            "valid_queries": int(examples["valid_queries"].sum()) / queries if queries else None,
        }


class TrueRow(NamedTuple):
    """The prompt and true continuation of a row."""

    prompt: np.ndarray
    after: list[int]
    forced: list[int]
    """Indices in `after` of injected search results."""


def run_freely(network: Any, task: TokenTask, rows: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
    """Return the columns of a free run, a value for every row of the dataset in its order."""
    from pipeline.networks.decoding import AfterToken, after_first, decode

    longest = max(len(row.after) for row in _true_rows(rows))
    budget = math.ceil(ROOM * longest)
    most = network.context + 1  # of prompt and continuation: the last token is not read
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
    return {name: pa.array([row[name] for row in found], pa.type_for_alias(kind)) for name, kind in TYPES.items()}


def _true_rows(rows: DatasetRows, start: int = 0, stop: int | None = None) -> Iterator[TrueRow]:
    from pipeline.tasks.base import INJECTED, PROMPT

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
    """Return the form of each query, given the indices of the tokens that answered them."""

    names = {token for token in prompt.tolist() if token >= NODES}
    found: list[Form] = []
    for last, place in pairwise([-1, *forced]):
        asked = tokens[last + 1 : place - 1]
        query = asked[asked.index(search) + 1 :] if search in asked else None
        found.append(None if query is None else tuple(NAME if token in names else token for token in query))
    return found
