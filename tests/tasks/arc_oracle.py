"""ARC's symmetries, tokens and crops in plain Python, cell by cell."""

from __future__ import annotations

from tests.tasks.arc_index import Grid


def undo_turn(grid: Grid, number: int) -> Grid:
    """Undo one of the eight turns: 1..3 counter-clockwise quarters, 4 left-right, 5 up-down, 6 transposed, 7 = 4 after 1."""
    if number == 7:
        return undo_turn(undo_turn(grid, 4), 1)
    if number in (1, 2, 3):
        for _ in range(number):
            grid = [list(column) for column in zip(*grid[::-1], strict=True)]
    if number == 4:
        grid = [row[::-1] for row in grid]
    if number == 5:
        grid = grid[::-1]
    if number == 6:
        grid = [list(column) for column in zip(*grid, strict=True)]
    return grid


def undo(grid: Grid, number: int, colours: list[int]) -> Grid:
    """Undo a turn and a permutation of colours."""
    return [[colours.index(cell) for cell in row] for row in undo_turn(grid, number)]


def tokens(grid: Grid, side: int, top: int = 0, left: int = 0) -> list[int]:
    """Tokens of a grid whose first cell is at (top, left)."""
    height, width = len(grid), len(grid[0])
    found = []
    for row in range(-top, side - top):
        for column in range(-left, side - left):
            if 0 <= row < height and 0 <= column < width:
                found.append(grid[row][column] + 2)
            else:
                found.append(1 if (row == height and 0 <= column < width) or (column == width and 0 <= row < height) else 0)
    return found


def crop(row: list[int], side: int) -> Grid:
    """The largest rectangle of colours in the top left corner, tried one by one."""
    best: Grid = []
    for height in range(1, side + 1):
        for width in range(1, side + 1):
            cells = [[row[place * side + column] - 2 for column in range(width)] for place in range(height)]
            if all(0 <= cell <= 9 for line in cells for cell in line) and height * width > (len(best) * len(best[0]) if best else 0):
                best = cells
    return best
