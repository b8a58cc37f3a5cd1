"""Puzzles that a person wrote: on the command line, on standard input, or in a file. Never imports torch.

sudoku   53..7....6..195...    a puzzle per line, or its rows one below the other
maze     the rows of one maze, of any side
arc      JSON of one puzzle, {"train": [...], "test": [{"input": grid}, ...]}, or the name of a puzzle of the run's task
a csv file of sudokus or mazes has a column question, as those of the tasks
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.config.catalogue import implementation
from pipeline.storage.errors import MissingFileError, UserError
from pipeline.tasks.arc_grids import encode, read_grid, read_set
from pipeline.tasks.puzzle_files import opened

MOST = 1 << 24
"""Characters of a text at most."""
SUFFIXES = (".txt", ".csv", ".json", ".xz", ".gz")
"""Of a text that names a file, whether there is one or not."""


class Question(NamedTuple):
    """One puzzle. task: the implementation, of the puzzle's own side. label_T: the solution, where it is no matter of rules and known.

    known_as: the puzzle's name among those of the run's ARC task, which gives its identifier; empty if it is none of them.
    """

    where: str
    task: Any
    tokens_T: np.ndarray
    label_T: np.ndarray | None = None
    known_as: str = ""

    @property
    def group(self) -> int:
        """The puzzle's index in the run's task; it must be known."""
        return self.task.names.index(self.known_as)

    @property
    def identifier(self) -> int:
        """Identifier of the puzzle as it is; 0 if it is not known, or networks read none."""
        if not self.known_as or not self.task.config.puzzle_identifiers:
            return 0
        return 1 + self.group * (self.task.config.augmentations + 1)

    def valid(self, answer_T: np.ndarray) -> bool | None:
        """Return whether an answer is right by the rules, or equal to the solution; None if there is nothing to check it by."""
        if self.task.config.name == "arc" and self.label_T is None:
            return None
        label_BT = None if self.label_T is None else self.label_T[None]
        return bool(self.task.valid(self.tokens_T[None], answer_T[None], label_BT)[0])


def read_questions(config: Any, given: str) -> list[Question]:
    """Read puzzles for the task of this config. given: the puzzle, `-` for standard input, a file, or the name of one of ARC's puzzles.

    Raises UserError, one line, for what is no puzzle, MissingFileError where there is no such file.
    """
    maker = implementation(config)(config)
    if config.name == "arc" and given in maker.names:
        return _arc(maker, json.dumps(_published(config, given)), given, given)
    path = Path(given)
    if given == "-":
        text, where = _text(sys.stdin, "standard input"), "standard input"
    elif _is_file(path):
        if ".csv" in path.suffixes:
            return [_question(maker, line, place) for line, place in _csv_lines(path)]
        with path.open(encoding="utf-8-sig") as file:
            text, where = _text(file, given), given
    elif "\n" not in given and path.suffix in SUFFIXES:
        raise MissingFileError(f"{given}: no such file; expected one, a puzzle, or - for standard input")
    else:
        text, where = given, "puzzle"
    if not text.strip():
        raise UserError(f"{where}: empty; expected a puzzle")
    if config.name == "arc":
        if where == "puzzle" and not text.lstrip().startswith("{"):
            raise UserError(f"{_shortened(text)}: neither a puzzle of the run's task nor JSON; expected one of them, a file, or -")
        return _arc(maker, text, where, path.stem if where == given else "")
    return [_question(maker, one, place) for one, place in _separate(config, text, where)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a puzzle can be longer than any file's name
        return False


def _text(file: Any, where: str) -> str:
    try:
        text = file.read(MOST + 1)
    except (OSError, ValueError) as error:
        reason = "not text in UTF-8" if isinstance(error, UnicodeError) else error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{where}: {reason}; expected puzzles") from None
    if len(text) > MOST:
        raise UserError(f"{where}: more than {MOST:,} characters; expected puzzles")
    return text


def _separate(config: Any, text: str, where: str) -> Iterator[tuple[str, str]]:
    """Yield each puzzle of a text, and where it is."""
    lines = text.split("\n")
    if config.name != "sudoku" or not any(len(line.strip()) > config.side for line in lines):
        yield text, where
        return
    several = sum(bool(line.strip()) for line in lines) > 1
    yield from ((line, f"{where}:{number}" if several else where) for number, line in enumerate(lines, 1) if line.strip())


def _csv_lines(path: Path) -> list[tuple[str, str]]:
    """Return the questions of a csv file, and where each is."""
    try:
        with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            rows = [(row, reader.line_num) for row in reader]
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, csv.Error) as error:
        raise UserError(f"{path}: {(str(error).splitlines() or [type(error).__name__])[0]}; expected a csv file of puzzles") from None
    if not rows or "question" not in rows[0][0]:
        raise UserError(f"{path}: {'no column question' if rows else 'no puzzle'}; expected a column question with a puzzle in every row")
    for row, number in rows:
        if not row["question"]:
            raise UserError(f"{path}:{number}: no question; expected a puzzle in every row")
    return [(row["question"], f"{path}:{number}") for row, number in rows]


def _question(maker: Any, text: str, where: str) -> Question:
    """Parse a puzzle, a maze at its own side."""
    if maker.config.name == "maze":
        lines = _square(text.removesuffix("\n").split("\n"), maker.config.side, where)
        side, text = math.isqrt(len(lines[0])) if len(lines) == 1 else len(lines), "\n".join(lines)
        if side != maker.config.side:
            try:
                config = maker.config.variant(side=side, min_path=1)
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            maker = implementation(config)(config)
    return Question(where, maker, maker.parse(text, where))


def _square(lines: list[str], known: int, where: str) -> list[str]:
    """Return the lines of a maze, without empty ones around it if it is a square only then; or all cells in one line.

    known: the side of the run's mazes, whose lines may lack the spaces at their end. Raises UserError for what is no square.
    """
    longest = max(map(len, lines))
    if len(lines) == 1:
        if math.isqrt(longest) ** 2 == longest:
            return lines
        raise UserError(f"{where}: got {longest} cells in one line; expected a square number, or one line per row")
    for some in (lines, "\n".join(lines).strip("\n").split("\n")):
        if len(some) == longest or (len(some) == known >= max(len(line.rstrip()) for line in some)):
            return some
    raise UserError(f"{where}: got {len(lines)} lines of at most {longest} cells; expected a square, each line with the spaces at its end")


def _shortened(text: str) -> str:
    line = text.strip().split("\n")[0]
    return line if len(line) <= 40 else f"{line[:40]}..."


def _published(config: Any, name: str) -> Any:
    return next(read_set(puzzle.set)[name] for puzzle in config.selection.puzzles if puzzle.name == name)


def _arc(maker: Any, text: str, where: str, name: str) -> list[Question]:
    """Parse the test inputs of a puzzle, with their outputs where it has them."""
    found, known_as = [], name if name in maker.names else ""
    for index, (tokens_T, pair) in enumerate(zip(maker.parse(text, where), json.loads(text)["test"], strict=True)):
        label_T = None
        if pair.get("output") is not None:
            label_T = encode(read_grid(pair["output"], f"{where}: test {index} output", maker.side), maker.side)
        found.append(Question(f"{where}: test {index}", maker, tokens_T, label_T, known_as))
    return found
