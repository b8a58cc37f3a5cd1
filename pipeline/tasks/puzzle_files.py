"""Read csv files of puzzles in the form of Sudoku-Extreme and Maze-Hard: columns question and answer, maybe rating; others are ignored.

    source,question,answer,rating
    0,..3.5..1[...],423651879[...],17

A board is its cells in row-major order, a character each. Files may be compressed: .csv.xz, .csv.gz. Notation: P = puzzles, C = cells.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from pipeline.storage.arrow import to_numpy
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import UserError


class PuzzleFile(NamedTuple):
    """Tokens of each puzzle and its answer, and its rating, 0 where the file has none; puzzle p is on line p + 2."""

    path: Path
    question_PC: np.ndarray
    answer_PC: np.ndarray
    rating_P: np.ndarray

    def refuse(self, wrong_P: np.ndarray, got: str, expected: str) -> None:
        """Raise UserError for the first wrong puzzle, if there is one, saying how many there are."""
        if wrong_P.any():
            more = int(wrong_P.sum()) - 1
            others = f" (and {more:,} other lines)" if more else ""
            raise UserError(f"{self.path}:{int(wrong_P.argmax()) + 2}: {got}; expected {expected}{others}")


def read_puzzle_file(path: Path, sha256: str | None, cells: int, letters: Mapping[str, int]) -> PuzzleFile:
    """Read and check a file. letters: the token of each character.

    Raises UserError, naming file and line, for a file that is missing, not the one of the digest, or whose boards are no boards.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a csv file of puzzles")
    if sha256 and (found := file_sha256(path)) != sha256:
        raise UserError(f"{path}: SHA-256 is {found}; expected {sha256}, as planned")
    table = _table(path)
    question_PC, answer_PC = (_boards(table.column(name), path, name, cells, letters) for name in ("question", "answer"))
    rating = (
        to_numpy(table.column("rating").combine_chunks().fill_null(0)) if "rating" in table.column_names else np.zeros(len(question_PC))
    )
    return PuzzleFile(path, question_PC, answer_PC, rating.astype(np.int32))


def opened(path: Path) -> IO[bytes]:
    """Open a file to read its bytes, uncompressed."""
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    return openers.get(path.suffix, open)(path, "rb")


def _table(path: Path) -> pa.Table:
    try:
        with opened(path) as file:
            header = file.readline().decode("utf-8-sig", "replace").strip().replace('"', "").split(",")
            if missing := [name for name in ("question", "answer") if name not in header]:
                raise UserError(f"{path}:1: no column {missing[0]}; expected columns question and answer")
            types = {"question": pa.string(), "answer": pa.string(), "rating": pa.int32()}
            wanted = [name for name in types if name in header]
            return pcsv.read_csv(
                file,
                pcsv.ReadOptions(column_names=header, use_threads=False),
                pcsv.ParseOptions(ignore_empty_lines=False),
                pcsv.ConvertOptions(column_types=types, include_columns=wanted),
            )
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: {line}; expected a csv file with columns question, answer and maybe rating") from None


def _boards(column: pa.ChunkedArray, path: Path, name: str, cells: int, letters: Mapping[str, int]) -> np.ndarray:
    """Convert a column of strings to tokens."""
    lengths_P = np.concatenate([np.diff(_offsets(chunk)) for chunk in column.chunks] or [np.empty(0, np.int32)])
    wrong_P = lengths_P != cells
    if wrong_P.any():
        line = int(wrong_P.argmax())
        text = column[line].as_py()
        foreign = next((f"{letter!r} in cell {place}" for place, letter in enumerate(text, 1) if not letter.isascii()), None)
        raise UserError(f"{path}:{line + 2}: {name} has {foreign or f'{len(text)} characters'}; expected {cells} characters of a board")
    tokens = np.full(256, 255, np.uint8)
    tokens[[ord(letter) for letter in letters]] = list(letters.values())
    text = b"".join(_bytes(chunk) for chunk in column.chunks)
    boards_PC = tokens[np.frombuffer(text, np.uint8)].reshape(-1, cells)
    wrong_P = (boards_PC == 255).any(axis=1)
    if wrong_P.any():
        line = int(wrong_P.argmax())
        place = line * cells + int((boards_PC[line] == 255).argmax())
        allowed = " ".join(repr(letter) for letter in letters)
        raise UserError(f"{path}:{line + 2}: {name} has {chr(text[place])!r} in cell {place % cells + 1}; expected {allowed}")
    return boards_PC


def _bytes(chunk: pa.StringArray) -> bytes:
    """Return the characters of all strings of an array, concatenated."""
    offsets, data = _offsets(chunk), chunk.buffers()[2]
    return bytes(memoryview(data)[offsets[0] : offsets[-1]]) if data is not None and len(chunk) else b""


def _offsets(chunk: pa.StringArray) -> np.ndarray:
    """Return where each string starts among the array's characters, and where the last ends."""
    return np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
