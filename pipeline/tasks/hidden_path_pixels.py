"""Rendering of Mystery Path as in `memory-gym` 1.0.2, without its drawing library: 84 x 84 pixels, 12 per tile.

The agent is an octagon with two hands that show its facing; a cross over it shows that it fell off the path; origin and goal are coloured
tiles. A frame is a black background, the tiles, then one of a few stamps: the agent with or without cross.

Notation: B = frames. Facings are in eighths of a turn to the left, from up.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pipeline.tasks.hidden_paths import SIDE

TILE = 12
SIZE = SIDE * TILE
ROW = 3 * SIZE
"""Bytes per row of pixels."""
FACINGS = 8
BODY, HAND, CROSS = (250, 204, 153), (50, 50, 50), (255, 0, 0)
ORIGIN, GOAL = (0, 0, 255), (0, 255, 0)
STAMP = 16
"""Side of a stamp in pixels; the agent's centre is the corner between the middle pixels."""
MARGIN = STAMP // 2 - TILE // 2
"""Pixels by which a stamp may extend beyond the frame's edge."""
HANDS = [
    ((-4, -4), (4, -4)),
    ((-1, -6), (-6, 0)),
    ((-4, -4), (-4, 4)),
    ((-6, 0), (0, 5)),
    ((-4, 4), (4, 4)),
    ((0, 5), (5, 0)),
    ((4, -4), (4, 4)),
    ((0, -6), (5, 0)),
]
"""Offsets (right, down) of the hands' centres from the agent's, per facing."""


def _octagon(right: int, down: int, radius: float, cut: float) -> np.ndarray:
    """Return the mask of an octagon in a stamp, with the given offset of its centre from the stamp's."""
    across = np.abs(np.arange(STAMP) - STAMP / 2 + 0.5 - right)[None]
    along = np.abs(np.arange(STAMP) - STAMP / 2 + 0.5 - down)[:, None]
    return (np.maximum(across, along) < radius) & (across + along <= cut)


def _stamp(facing: int, fallen: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a stamp's colours and the mask of its opaque pixels."""
    colours, opaque = np.zeros((STAMP, STAMP, 3), np.uint8), np.zeros((STAMP, STAMP), bool)
    places = np.arange(STAMP) - STAMP / 2 + 0.5
    diagonals = np.minimum(np.abs(places[:, None] - places), np.abs(places[:, None] + places)) <= 1
    cross = diagonals & (np.maximum(np.abs(places)[:, None], np.abs(places)) < 5)
    parts = [(_octagon(0, 0, 6, 7), BODY), *((_octagon(*hand, 2, 2), HAND) for hand in HANDS[facing]), *([(cross, CROSS)] * fallen)]
    for part, colour in parts:
        colours[part], opaque[part] = colour, True
    return colours, opaque


def _moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift a stamp's content; what leaves the stamp is lost."""
    wide = np.zeros((STAMP + 2 * MARGIN, STAMP + 2 * MARGIN, *image.shape[2:]), image.dtype)
    wide[MARGIN : MARGIN + STAMP, MARGIN : MARGIN + STAMP] = image
    return wide[MARGIN - down : MARGIN - down + STAMP, MARGIN - right : MARGIN - right + STAMP]


class Painter:
    """Renders frames. Stamps are stored with all shifts needed at the edge, so that every stamp lies within the frame."""

    def __init__(self) -> None:
        stamps = [_stamp(facing, fallen) for facing in range(FACINGS) for fallen in (False, True)]
        moves = [(down, right) for down in range(-MARGIN, MARGIN + 1) for right in range(-MARGIN, MARGIN + 1)]
        colours = np.array([[_moved(colour, *move) for colour, _ in stamps] for move in moves])
        opaque = np.array([[_moved(mask, *move) for _, mask in stamps] for move in moves])
        self.colours = colours.reshape(-1, STAMP, 3 * STAMP)
        self.kept = np.where(opaque, 0, 255).astype(np.uint8).repeat(3, axis=-1).reshape(-1, STAMP, 3 * STAMP)
        self.origin, self.goal = (np.tile(np.array(colour, np.uint8), TILE) for colour in (ORIGIN, GOAL))

    def paint(self, at_B2: np.ndarray, stamp_B: np.ndarray, origin_B: np.ndarray | None, goal_B: np.ndarray | None) -> np.ndarray:
        """Render frames (B, 84, 84, 3), uint8, given the agent's centre in pixels, 2 x facing + fallen, and the tiles of origin and goal if shown."""
        copies = np.arange(len(at_B2))
        frames = np.zeros((len(copies), SIZE, SIZE, 3), np.uint8)
        tiles = as_strided(frames, (len(copies), SIDE, SIDE, TILE, 3 * TILE), (SIZE * ROW, TILE * ROW, 3 * TILE, ROW, 1))
        for tile_B, colour in ((origin_B, self.origin), (goal_B, self.goal)):
            if tile_B is not None:
                tiles[copies, tile_B // SIDE, tile_B % SIDE] = colour
        wanted_B2 = at_B2 - STAMP // 2
        corner_B2 = np.minimum(np.maximum(wanted_B2, 0), SIZE - STAMP)
        move_B2 = wanted_B2 - corner_B2 + MARGIN
        index_B = (move_B2[:, 1] * (2 * MARGIN + 1) + move_B2[:, 0]) * 2 * FACINGS + stamp_B
        places = SIZE - STAMP + 1
        windows = as_strided(frames, (len(copies), places, places, STAMP, 3 * STAMP), (SIZE * ROW, ROW, 3, ROW, 1))
        here = (copies, corner_B2[:, 1], corner_B2[:, 0])
        windows[here] = windows[here] & self.kept[index_B] | self.colours[index_B]
        return frames
