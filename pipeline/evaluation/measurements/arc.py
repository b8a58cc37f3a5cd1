"""ARC: what is measured of every puzzle, and the votes of each test pair's symmetries on its answer.

A test pair is asked under several symmetries. The answers are turned back and counted, so that the most frequent grids are its candidates,
and `pass_k` is the share of puzzles that are solved by the first k of them. An answer without a grid is no candidate. Puzzles have several
test pairs: as published, a puzzle counts by the share of its pairs that are right; by the official rules, `pass_2_all`, only if all of them
are, with two attempts each.

What the votes say of a pair stands in its row of symmetry 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pipeline.evaluation.measurements.base import STATE, Cell, Point, Score, Table, Training, digits, percent
from pipeline.evaluation.measurements.puzzles import Puzzles
from pipeline.evaluation.measurements.tokens import ends
from pipeline.evaluation.statistics import wilson_interval
from pipeline.storage.lazy import np, pa
from pipeline.storage.table_schema import Column

if TYPE_CHECKING:
    import torch

    from pipeline.evaluation.arc_votes import Grid, Pair, Votes
    from pipeline.storage.loader import DatasetRows

ATTEMPTS = (1, 2, 5, 10, 100, 1000)
"""Numbers of candidates, as published."""
PLACE = Column("whole", null=True, least=1)
GRID = Column("list", null=True, optional=True)
SOLVED = {
    f"pass_{attempts}": Score(f"puzzles solved by {attempts} attempt{'s' * (attempts > 1)}", bounds=(0, 1), better="higher")
    for attempts in ATTEMPTS
}
ALL = Score("puzzles solved by two attempts, all pairs", bounds=(0, 1), better="higher")


class Ballot(NamedTuple):
    """The votes on one test pair: the place of the right grid among the candidates, if it is one; how many there are; the first two grids."""

    rank: int | None
    candidates: int
    attempts: list[Grid]


class ArcVotes(Puzzles):
    """What `puzzles` measures of every row, and the share of ARC's puzzles solved by the first candidates of a vote among symmetries."""

    example: ClassVar[str] = "row"
    columns: ClassVar[Mapping[str, Column]] = {
        **Puzzles.columns,
        "rank": PLACE,  # of the right grid among the candidates of the row's test pair; null if none is right, and beside symmetry 0
        "puzzle_rank": PLACE,  # the largest rank of the puzzle's test pairs, null if one is
        "weight": Column("number", null=True, least=0, most=1),  # 1 / test pairs of the puzzle; null beside symmetry 0
        "candidates": PLACE,  # different answers to the pair; null if none has a grid
        "attempt_1": GRID,  # rows of colours of the first candidate; null if there is none
        "attempt_2": GRID,  # and of the second
    }
    scores: ClassVar[Mapping[str, Score]] = {
        **SOLVED,
        "pass_2_all": ALL,
        **{f"{name}_{end}": ends(score) for name, score in {**SOLVED, "pass_2_all": ALL}.items() for end in ("low", "high")},
        "puzzles": Score("ARC puzzles", bounds=(0, None), type="whole"),
        "candidates": Score("different answers to a test pair", bounds=(0, None)),
        **Puzzles.scores,
        "rows": Score("rows", bounds=(0, None), type="whole"),
        "accuracy": Puzzles.scores["accuracy"]._replace(label="rows right"),
    }
    primary: ClassVar[str] = "pass_2"
    title: ClassVar[str] = "Puzzles solved by two attempts (%)"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "Votes",
            "A test pair's symmetries vote on its answer. Solved by k attempts: the right grid is among the k most frequent answers, mean over "
            "puzzles of the share of their test pairs. All pairs: the official rule, by which a puzzle is solved if all its pairs are, with two "
            "attempts each. Rows right: without votes, the share of all symmetries answered right.",
            (
                *(Cell(f"{attempts} (%)", f"pass_{attempts}", percent) for attempts in ATTEMPTS),
                Cell("2, all pairs (%)", "pass_2_all", percent),
                Cell("answers per pair", "candidates", digits(1)),
                Cell("rows right (%)", "accuracy", percent),
                Cell("cells (%)", "cell_accuracy", percent),
                Cell("q right (%)", "q_accuracy", percent),
                STATE,
            ),
        ),
    )
    training: ClassVar[Training] = Puzzles.training._replace(accuracy="rows right", goal="this share of rows was right")

    name: Literal["arc_votes"] = "arc_votes"

    def refusal(self, task: Any) -> str:
        """Return why this task cannot be measured: its rows must be symmetries of test pairs."""
        known = {"group", "pair", "augmentation"} <= set(task.columns)
        return super().refusal(task) or ("" if known else f"{self.name} measures votes on test pairs; {task.name} has none")

    def measure(self, network: Any, task: Any, data: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
        """Answer every row, and count the votes after each number of steps."""
        from pipeline.evaluation.arc_votes import Votes

        votes = [Votes(task.names) for _ in self.supervision]

        def count(batch: Any, found: Any) -> None:
            q_BK = np.nan_to_num(1 / (1 + np.exp(-found.q_BK.astype(np.float64))))  # without recursion all count alike
            group_B, pair_B, augmentation_B = (np.asarray(batch.columns[name]) for name in ("group", "pair", "augmentation"))
            for place, counted in enumerate(votes):
                counted.add(group_B, pair_B, augmentation_B, found.answer_BKT[:, place], q_BK[:, place])

        columns = self.solve(network, task, data, device, count)
        return columns | _columns(data, [_ballots(counted, task) for counted in votes])

    def score(self, examples: dict[str, np.ndarray], run: Point) -> Point:
        """Return the scores of `puzzles`, and the shares of puzzles solved by votes, each with Wilson's interval over puzzles."""
        weight = examples["weight"].astype(np.float64)
        asked = ~np.isnan(weight)
        weight, candidates = weight[asked], np.nan_to_num(examples["candidates"][asked].astype(np.float64))
        rank, puzzle_rank = (np.nan_to_num(examples[name][asked].astype(np.float64), nan=np.inf) for name in ("rank", "puzzle_rank"))
        puzzles = round(float(weight.sum()))
        right = {f"pass_{attempts}": rank <= attempts for attempts in ATTEMPTS} | {"pass_2_all": puzzle_rank <= 2}
        scores: Point = {"puzzles": puzzles, "candidates": float(candidates.mean()) if puzzles else None}
        for name, right_P in right.items():
            solved = float(weight[right_P].sum())
            low, high = wilson_interval(solved, puzzles) if puzzles else (None, None)
            scores |= {name: solved / puzzles if puzzles else None, f"{name}_low": low, f"{name}_high": high}
        return scores | super().score(examples, run)


def _ballots(votes: Votes, task: Any) -> dict[Pair, Ballot]:
    """Look up the right grid among the candidates of every pair."""
    from pipeline.evaluation.arc_votes import as_grid

    found = {}
    for pair in votes.pairs():
        grids, solution = [candidate.grid for candidate in votes.candidates(pair)], as_grid(task.solution(*pair))
        rank = grids.index(solution) + 1 if solution in grids else None
        found[pair] = Ballot(rank, len(grids), grids[:2])
    return found


def _columns(data: DatasetRows, ballots: list[dict[Pair, Ballot]]) -> dict[str, pa.Array]:
    """Return the columns of the votes; ballots: of each number of steps."""
    grid, place = pa.list_(pa.list_(pa.uint8())), pa.int32()
    kinds = {"rank": place, "puzzle_rank": place, "weight": pa.float64(), "candidates": place, "attempt_1": grid, "attempt_2": grid}
    found: dict[str, list[Any]] = {name: [] for name in kinds}
    ranks = [_puzzle_ranks(of_pairs) for of_pairs in ballots]
    for group, pair, augmentation in _keys(data):
        for of_pairs, of_puzzles in zip(ballots, ranks, strict=True):
            ballot = of_pairs[group, pair] if augmentation == 0 else Ballot(None, 0, [])
            pairs, puzzle_rank = of_puzzles[group] if augmentation == 0 else (0, None)
            first, second = [*ballot.attempts, None, None][:2]
            values = (ballot.rank, puzzle_rank, 1 / pairs if pairs else None, ballot.candidates or None, first, second)
            for column, value in zip(found.values(), values, strict=True):
                column.append(value)
    return {name: pa.array(found[name], kind) for name, kind in kinds.items()}


def _keys(data: DatasetRows) -> Iterator[Any]:
    """Yield puzzle, pair and symmetry of every row."""
    return zip(*(data.column(name).tolist() for name in ("group", "pair", "augmentation")), strict=True)


def _puzzle_ranks(ballots: Mapping[Pair, Ballot]) -> dict[int, tuple[int, int | None]]:
    """Return how many test pairs each puzzle has, and the largest rank among them; None if one was never answered right."""
    ranks: dict[int, list[int | None]] = {}
    for (group, _), ballot in ballots.items():
        ranks.setdefault(group, []).append(ballot.rank)
    return {group: (len(found), None if None in found else max(rank or 0 for rank in found)) for group, found in ranks.items()}
