"""Text tables for the terminal."""

from __future__ import annotations

from typing import Any


def format_table(rows: list[tuple[Any, ...]]) -> str:
    """Format rows as text with aligned columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
