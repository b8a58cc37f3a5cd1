"""The copy task once more, in plain Python and slowly: it reads a prompt as a person would and answers it."""

from __future__ import annotations

from typing import Any


def answer(prompt: list[int], alphabet: int, recall: str) -> list[int]:
    """What a row must answer, from the tokens up to and with the delimiter alone."""
    assert prompt.count(alphabet + 1) == 1 and prompt[-1] == alphabet + 1
    remembered = [token for token in prompt if token < alphabet]
    return remembered if recall == "forward" else list(reversed(remembered))


def check_row(row: dict[str, Any], alphabet: int, recall: str, selective: bool, noise: int) -> None:
    """Assert everything that the task promises of one row, given as plain Python."""
    symbols, delay = row["symbols"], row["delay"]
    tokens, role = row["tokens"], list(row["role"])
    length = symbols + delay
    assert len(tokens) == len(role) == length + symbols
    assert role == [0] * length + [3] * symbols
    prompt, window = tokens[:length], tokens[length:]
    assert window == [alphabet] * symbols
    assert row["target"] == answer(prompt, alphabet, recall)
    assert len(row["target"]) == symbols
    fillers = [token for token in prompt[:-1] if token >= alphabet]
    assert len(fillers) == delay - 1
    assert set(fillers) <= (set(range(alphabet + 3, alphabet + 3 + noise)) if noise else {alphabet})
    if not selective:
        assert prompt[:symbols] == [token for token in prompt if token < alphabet]
