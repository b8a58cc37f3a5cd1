"""Token accuracy: every scored token of a row is predicted from the true tokens before it (teacher forcing).

Notation: B = rows of a batch, T = tokens of its longest row, N = scored positions of the batch, row after row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pipeline.config.tasks.base import NATS
from pipeline.evaluation.measurements.base import (
    COUNT,
    STATE,
    Cell,
    Measurement,
    Point,
    Score,
    Table,
    digits,
    percent,
    significant,
)
from pipeline.evaluation.points import groups
from pipeline.evaluation.statistics import rows_interval, wilson_interval
from pipeline.storage.console import ProgressLine
from pipeline.storage.errors import CorruptFileError
from pipeline.storage.lazy import np, pa
from pipeline.storage.seals import REMAKE
from pipeline.storage.table_schema import Column

if TYPE_CHECKING:
    import torch

    from pipeline.storage.loader import DatasetRows
    from pipeline.tasks.base import TokenTask

BATCH_TOKENS = 16_384
"""Maximum tokens of a batch, including padding; a longer row is a batch of its own."""
CHANCE = Score("chance", bounds=(0, 1))
ACCURACY = Score("symbol accuracy", bounds=(0, 1), better="higher", reference="chance", reference_label="chance {} %")
LOSSES = {
    "loss": Score(
        "loss", unit="{unit}", bounds=(0, None), better="lower", reference="baseline", reference_label="memoryless baseline: loss {}"
    ),
    "baseline": Score("memoryless baseline", unit="{unit}", bounds=(0, None)),
    "loss_over_baseline": Score("loss / memoryless baseline", bounds=(0, None), better="lower"),
    "bits": Score("bits recalled per row", unit="bit", bounds=(0, "bits_held"), better="higher"),
    "bits_held": Score("bits of the answers per row", unit="bit", bounds=(0, None)),
}
SIZES = {
    "rows": Score("rows", bounds=(0, None), type="whole"),
    "scored": Score("scored tokens", bounds=(0, None), type="whole"),
    "tokens": Score("tokens per row", unit="tokens", bounds=(0, None)),
}
MEMORYLESS = "The memoryless baseline is the best that is possible without memory; a network that remembers has a lower loss."
LOSS_CELLS = (
    Cell("loss ({unit})", "loss", significant, "baseline", digits(3)),
    Cell("loss / memoryless baseline", "loss_over_baseline", significant, 1.0, digits(2)),
    Cell("bits recalled per row", "bits", digits(1), 0.0),
    STATE._replace(reference=0.0),
)


def ends(score: Score) -> Score:
    """Return the score that is one end of this score's interval over a run's examples."""
    return Score(f"{score.label}, end of its interval", score.unit, score.bounds)


class Tokens(Measurement):
    """Accuracy and loss at the scored positions under teacher forcing, and bits recalled per row."""

    columns: ClassVar[Mapping[str, Column]] = {
        **dict.fromkeys(("tokens", "scored", "correct"), COUNT),
        "loss": Column("number", null=True),  # nats, or squared error if answers are real numbers, summed over the scored positions
        "hits": Column("list"),  # 1 or 0 per scored position, in order
    }
    scores: ClassVar[Mapping[str, Score]] = {
        **SIZES,
        "accuracy": ACCURACY,
        "accuracy_low": ends(ACCURACY),
        "accuracy_high": ends(ACCURACY),
        "chance": CHANCE,
        "sequence_accuracy": Score(
            "rows recalled without a mistake",
            bounds=(0, 1),
            better="higher",
            reference="sequence_chance",
            reference_label="chance {} %",
            share_of_examples=True,
        ),
        "sequence_chance": Score("chance of a whole row", bounds=(0, 1)),
        **LOSSES,
    }
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "At the hardest point",
            MEMORYLESS,
            (
                Cell("symbols (%)", "accuracy", percent, "chance"),
                Cell("whole rows (%)", "sequence_accuracy", percent, "sequence_chance", lambda value: f"{100 * value:.2g}"),
                *LOSS_CELLS,
            ),
            "memoryless baseline",
        ),
    )

    name: Literal["tokens"] = "tokens"

    def measure(self, network: Any, task: TokenTask, data: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
        """Score every row by the task's `score`, and count its tokens."""
        return forced(network, task, data, device)

    def check(self, path: Path, table: pa.Table) -> None:
        """Raise CorruptFileError if the counts of a row contradict its hits."""
        lists = table.column("hits").combine_chunks()
        counts, hits = lists.value_lengths().to_numpy(), lists.flatten().to_numpy(zero_copy_only=False)
        totals = np.concatenate([[0], np.cumsum(hits, dtype=np.int64)])[np.concatenate([[0], np.cumsum(counts)])]
        for name, counted in (("scored", counts), ("correct", np.diff(totals))):
            stored = table.column(name).to_numpy()
            wrong = np.flatnonzero(counted != stored)
            if len(wrong):
                row = wrong[0]
                raise CorruptFileError(f"{path}: column {name}: {stored[row]} in row {row}; expected {counted[row]}, as hits say; {REMAKE}")

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """Return accuracies, the loss relative to the memoryless baseline, and bits; none of them if no position is scored.

        `bits`: information in the answers of a row, `bits_held`, minus their cross-entropy, at least zero; absent if losses are not in
        nats.
        """
        rows, scored = len(examples["scored"]), int(examples["scored"].sum(dtype=np.int64))
        sizes = {"rows": rows, "scored": scored, "tokens": float(examples["tokens"].mean(dtype=np.float64))}
        known = {"chance": run["chance"], "sequence_chance": run["chance"] ** (scored / rows), "baseline": run["baseline"]}
        return {**sizes, **known, **(self._scores(examples, run, rows, scored) if scored else {})}

    def _scores(self, examples: dict[str, np.ndarray], run: Point, rows: int, scored: int) -> Point:
        total, baseline = float(examples["loss"].sum(dtype=np.float64)), run["baseline"]
        low, high = rows_interval(examples["correct"], examples["scored"])
        held, recalled = (max(0.0, nats / math.log(2) / rows) for nats in (scored * baseline, scored * baseline - total))
        return {
            "accuracy": int(examples["correct"].sum(dtype=np.int64)) / scored,
            "accuracy_low": low,
            "accuracy_high": high,
            "sequence_accuracy": float(np.mean(examples["correct"] == examples["scored"])),
            "loss": total / scored,
            "loss_over_baseline": total / scored / baseline if baseline > 0 else None,
            **({"bits": recalled, "bits_held": held} if run["unit"] == NATS else {}),
        }

    def details(self, table: pa.Table) -> pa.Table:
        """Return accuracy at each scored position of every point: position 0 is the first answer. `rows`: examples that have it."""
        lists = table.column("hits").combine_chunks()
        lengths, hits = lists.value_lengths().to_numpy(), lists.flatten().to_numpy()
        starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        found: list[Point] = []
        names: list[str] = []
        for metadata, chosen in groups(table, self):
            names = list(metadata)
            for position in range(int(lengths[chosen].max(initial=0))):
                having = chosen[lengths[chosen] > position]
                right, rows = int(hits[starts[having] + position].sum(dtype=np.int64)), len(having)
                low, high = wilson_interval(right, rows)
                scores = {"accuracy": right / rows, "accuracy_low": low, "accuracy_high": high}
                found.append(metadata | {"position": position, "rows": rows, **scores})
        shares = ("accuracy", "accuracy_low", "accuracy_high")
        fields = [*((name, pa.int64()) for name in (*names, "position", "rows")), *((name, pa.float64()) for name in shares)]
        return pa.Table.from_pylist(found, pa.schema(fields))


def forced(network: Any, task: TokenTask, rows: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
    """Return the columns of teacher forcing, a value for every row of the dataset in its order."""
    from pipeline.learners.sampler import sequential_batches

    batch = max(1, BATCH_TOKENS // max(1, int(rows.lengths.max(initial=1))))
    tables, progress, done = [], ProgressLine(rows.name, len(rows), "rows scored"), 0
    for item in sequential_batches(rows, batch, task.config.inputs):
        tables.append(_forced_batch(network, task, item, device))
        progress(done := done + len(item.tokens_BT))
    table = pa.concat_tables(tables)
    table = table.take(np.argsort(table.column("row").to_numpy(), kind="stable")).combine_chunks()
    return {name: table.column(name).combine_chunks() for name in table.column_names if name != "row"}


def _forced_batch(network: Any, task: TokenTask, batch: Any, device: torch.device) -> pa.Table:
    """Score one batch: whether each answer is right, and its loss; zero where nothing is scored."""
    import torch

    from pipeline.learners.answers import answers

    scored_BT = batch.scored_BT.numpy()
    hit_BT, loss_BT = np.zeros(scored_BT.shape, bool), np.zeros(scored_BT.shape, np.float32)
    with torch.inference_mode():
        found = answers(network, batch, task.config.tolerance, device, length_B=batch.length_B.to(device))
        hit_BT[scored_BT], loss_BT[scored_BT] = found.correct_N.cpu().numpy(), found.loss("none").float().cpu().numpy()
    row = pa.array(np.asarray(batch.columns["row"], np.int32))
    tokens = pa.array(batch.length_B.numpy().astype(np.int32))
    return pa.table({"row": row, "tokens": tokens, **task.score(scored_BT, hit_BT, loss_BT)})
