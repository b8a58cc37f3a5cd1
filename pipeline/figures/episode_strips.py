"""How networks play: pictures of held-out episodes from the first step to the last, a strip for each, with how it ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.config.figures import EpisodeStrips
from pipeline.figures import style
from pipeline.figures.frames import Frame, read, read_results
from pipeline.figures.style import GREY

WIDE, HIGH, LEAST = 7.4, 0.95, 0.24
"""Width of a strip, and the height it has at most and at least, inches."""
GAP = 0.06
"""Between two pictures, as a share of a picture's width."""


def draw(experiment: Path, out: Path, figure: EpisodeStrips, title: str) -> None:
    """Draw episodes.parquet of the folder `experiment` to `out`.svg, .png and .csv: of every network, as its first seed played them."""
    results = read_results(experiment)
    chosen = _chosen(read(experiment, "episodes"), results.points, figure.episodes)
    if chosen.empty:
        shown = results.runs[["label", "seed"]]
        with style.page():
            chart, axes = style.canvas(title, (WIDE, LEAST))
            axes[0, 0].set_axis_off()
            axes[0, 0].text(0.5, 0.5, "this environment draws no pictures", ha="center", va="center", color=GREY)
            style.save(chart, out, shown)
        return
    chosen = results.ordered(chosen, "row")
    with style.page():
        strips = [_strip(found) for found in chosen.to_dict("records")]
        high = max(LEAST, min(HIGH, max(WIDE * strip.shape[0] / strip.shape[1] for strip in strips)))
        chart, axes = style.canvas(
            title, (WIDE, (high + 0.3) * len(strips)), (len(strips), 1), left=0.2, bottom=0.1, head=0.3, hspace=0.3 / high
        )
        for axis, strip, found in zip(axes[:, 0], strips, chosen.to_dict("records"), strict=True):
            _show(axis, strip, found)
        style.save(chart, out, chosen.drop(columns=["frames", "frames_shape"]))


def _chosen(episodes: Frame, points: list[str], most: int) -> Frame:
    """The first episodes at the hardest point, of the first seed of every label."""
    if "frames" not in episodes:
        return episodes
    for column in points:
        episodes = episodes[episodes[column] == episodes[column].max()]
    first = episodes.groupby("label")["seed"].transform("min")
    return episodes[(episodes["seed"] == first) & (episodes["row"] < most)]


def _strip(found: Frame) -> np.ndarray:
    """All pictures of an episode side by side, white between them: (H, W, 3)."""
    count, height, width, channels = found["frames_shape"]
    pictures = np.frombuffer(found["frames"], np.uint8).reshape(count, height, width, channels)
    white = np.full((height, max(1, round(GAP * width)), channels), 255, np.uint8)
    parts = [part for picture in pictures for part in (white, picture)]
    return np.concatenate(parts[1:], axis=1)


def _show(axis: Axes, strip: np.ndarray, found: Frame) -> None:
    axis.imshow(strip, interpolation="nearest", aspect="equal")
    axis.set_anchor("W")
    axis.set_axis_off()
    axis.set_xticks([])
    axis.set_yticks([])
    ended = "solved" if found["success"] else "not solved"
    text = f"{found['label']}, seed {found['seed']}: {ended}, return {found['return']:.2f}, {found['episode_length']} steps"
    axis.set_title(text, loc="left", pad=3, fontsize=style.SMALL)
