"""`pipeline solve`: a puzzle, answered step by step by a trained network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.param_types import FILE, Finite
from pipeline.cli.stages import RESULTS, changed_code, execution, settings
from pipeline.storage.errors import UserError

if TYPE_CHECKING:
    from pipeline.evaluation.questions import Question
    from pipeline.evaluation.runs import Run
    from pipeline.evaluation.solver import Solver, Step

VALID, RIGHT = {True: "valid", False: "not valid"}, {True: "right", False: "wrong"}
"""Words for an answer that is checked by the rules, and for one that is compared with the solution."""
MAX_STEPS, MAX_CHAINS, MAX_NOISE, MAX_VOTES = 100_000, 4_096, 100, 100_001


@click.command()
@click.argument("run", type=FILE)
@click.argument("puzzle")
@click.option("--steps", type=click.IntRange(1, MAX_STEPS), default=16, help="Supervision steps at most.")
@click.option("--chains", type=click.IntRange(1, MAX_CHAINS), default=1, help="Attempts; more need noise to differ.")
@click.option("--noise", type=Finite(0, MAX_NOISE), default=0.0, help="Standard deviation of noise before each step.")
@click.option("--choose", type=click.Choice(["q", "vote", "first_to_halt"]), default="q", help="Which attempt is the answer.")
@click.option("--all-steps", is_flag=True, help="Go on after the first valid answer.")
@click.option("--votes", type=click.IntRange(1, MAX_VOTES), help="ARC: symmetries of the puzzle that vote on its answer.")
@click.option("--checkpoint", default="model", help="Weights to use: model, or a label of learner.keep, for example best.")
@execution
@changed_code
def solve(run: Path, puzzle: str, steps: int, all_steps: bool, votes: int | None, **options: Any) -> int:
    """Solve a puzzle with a trained network, and show its answer after every supervision step.

    RUN is a run below results/runs, or its folder. PUZZLE is a puzzle of the run's task, a file of puzzles, or - for standard input: a line
    or a grid for Sudoku, the lines of a maze, a csv file with a column question, ARC's JSON of one puzzle or the name of one. q is the
    probability that the answer is right, as the network estimates it. It stops at the first answer that is valid by the rules; answers to
    ARC's puzzles are only known to be right by their solutions, so that all steps are shown.

    Exit codes: 0 every puzzle has a valid answer, or there is none to compare it with; 1 one has not; 2 invalid input.

    \b
      pipeline solve sudoku-recursive-full-attention-s0-7f3a9c2e 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
      pipeline solve results/try/runs/maze-recursive-stencil-s0-18d0a1c4 maze.txt --steps 64 --chains 8 --noise 0.1
    """
    from pipeline.evaluation.measurements.puzzles import Puzzles
    from pipeline.evaluation.questions import read_questions
    from pipeline.evaluation.solver import Solver

    found = run_of(run)
    runtime, _ = settings(found.folder.parents[1])
    machine = options["threads"] or runtime.get("threads", 1), options["device"] or runtime.get("device", "auto")
    solver = Solver(found, options["checkpoint"], *machine, options["allow"] or runtime.get("changed_code") == "allow")
    if votes and solver.config.name != "arc":
        raise UserError(f"--votes: symmetries vote on puzzles of arc only; the task of {found.id} is {solver.config.name}")
    if solver.recursive and not options["noise"] and options["chains"] > solver.network.settings.different_starts:
        raise UserError(f"--chains: got {options['chains']} attempts that start alike; expected --noise above 0")
    questions = read_questions(solver.config, puzzle)
    for question in questions:
        solver.check(question, votes or 1)
    counts = range(1, (steps if solver.recursive else 1) + 1)
    chosen = Puzzles(supervision=list(counts), **{name: options[name] for name in ("chains", "noise", "choose")})
    solved = [_voted(solver, one, votes, chosen) if votes else _solved(solver, one, chosen, all_steps) for one in questions]
    if len(solved) > 1:
        click.echo(f"{sum(map(bool, solved))} of {len(solved)} solved")
    return int(False in solved)


def run_of(name: Path) -> Run:
    """Return the run of this name below results, or of this folder."""
    from pipeline.evaluation.runs import load_run

    return load_run(name if len(name.parts) > 1 or (name / "run.yaml").is_file() else str(name), RESULTS)


def _solved(solver: Solver, question: Question, chosen: Any, all_steps: bool) -> bool | None:
    """Show the answers to a puzzle; return whether a valid one was found, None if that cannot be checked."""
    _introduce(question)
    before_T, first, steps = question.tokens_T, 0, 0
    last: Step | None = None
    for steps, last in enumerate(solver.steps(question, chosen), 1):
        _show(question, steps, last, before_T, chosen.chains)
        before_T, first = last.answer_T, first or (steps if last.valid else 0)
        if first and not all_steps and question.label_T is None:
            break
    assert last is not None
    if question.label_T is not None:
        click.echo(f"{RIGHT[bool(last.valid)]} after {_count(steps)}")
        return bool(last.valid)
    if last.valid is None:
        click.echo(f"answered in {_count(steps)}; the solution is not known")
        return None
    click.echo(f"solved in {_count(first)}" if first else f"not solved in {_count(steps)}")
    return first > 0


def _count(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"


def _introduce(question: Question) -> None:
    config = question.task.config
    if config.name == "sudoku":
        click.echo(f"{question.where}:\n  puzzle  {question.task.text(question.tokens_T)}")
    elif config.name == "arc" and config.puzzle_identifiers:
        known = f"identifier {question.identifier}, of {question.known_as} as it is"
        click.echo(f"{question.where}: {known if question.known_as else 'identifier 0, as the puzzle was not trained on'}")
    else:
        click.echo(f"{question.where}:")


def _show(question: Question, number: int, step: Step, before_T: Any, chains: int) -> None:
    """Print one step: a line for Sudoku, a grid for others; cells that changed stand out on a terminal."""
    changed_T = step.answer_T != before_T
    changed = int(changed_T.sum())
    lines = [
        "".join(click.style(letter, bold=True, fg="green") if new else letter for letter, new in line)
        for line in _cells(question, step, changed_T)
    ]
    facts = [] if step.q is None else [f"q {step.q:.3f}"]
    facts += [f"attempt {step.attempt + 1} of {chains}"] if chains > 1 else []
    words = VALID if question.label_T is None else RIGHT
    facts += [words[step.valid]] if step.valid is not None else []
    if len(lines) == 1:
        click.echo(f"step {number:>3}  {lines[0]}  {'  '.join(facts)}")
    else:
        click.echo("  ".join([f"step {number:>3}", f"{changed} cell{'s' * (changed != 1)} changed", *facts]))
        click.echo("\n".join(lines))


def _cells(question: Question, step: Step, changed_T: Any) -> Iterator[list[tuple[str, bool]]]:
    """Yield the lines of an answer: each cell's letter, and whether it changed."""
    if question.task.config.name == "arc":
        from pipeline.tasks.arc_grids import crop

        grid = crop(step.answer_T)
        changed = changed_T.reshape(question.task.side, -1)
        yield from (
            [(str(cell), bool(new)) for cell, new in zip(line, news, strict=False)]
            for line, news in zip(grid.tolist(), changed, strict=False)
        )
        return
    places = iter(changed_T.tolist())
    for line in question.task.text(step.answer_T).split("\n"):
        yield [(letter, next(places)) for letter in line]


def _voted(solver: Solver, question: Question, votes: int, chosen: Any) -> bool | None:
    """Show the two answers to a question of ARC that most of its symmetries give; return whether one is right, None if that is not known."""
    import numpy as np

    from pipeline.evaluation.arc_votes import as_grid
    from pipeline.tasks.arc_grids import crop

    _introduce(question)
    candidates = solver.votes(question, votes, chosen)
    right = None if question.label_T is None else as_grid(np.asarray(crop(question.label_T)))
    for number, candidate in enumerate(candidates[:2], 1):
        word = "" if right is None else "  right" if candidate.grid == right else "  wrong"
        click.echo(f"attempt {number}  {candidate.count} of {votes} votes  q {candidate.q:.3f}{word}")
        click.echo("\n".join("".join(map(str, line)) for line in candidate.grid))
    if not candidates:
        click.echo("no answer has a grid")
    return None if right is None else right in [candidate.grid for candidate in candidates[:2]]
