"""Frames of test episodes from the first step to the last: a strip for each, with its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.config.figures import EpisodeStrips
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, read, read_results
from pipeline.figures.style import GREY

MAX_HEIGHT, MIN_HEIGHT = 0.85, 0.2
"""Height of a strip, inches."""
GAP = 0.06
"""Space between two frames, as a share of a frame's width."""


def draw(experiment: Path, out: Path, figure: EpisodeStrips, title: str) -> None:
    """Draw details.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: episodes of every network's first seed."""
    results = read_results(experiment, figure)
    chosen = _chosen(read(experiment, "details"), results, figure.episodes)
    if chosen.empty:
        data = results.runs[["label", "seed"]]
        with style.page():
            chart, axes = style.canvas(title, style.width_of(figure.width), MIN_HEIGHT, bottom=0.02, note=results.tuned)
            axes[0, 0].set_axis_off()
            axes[0, 0].text(0.5, 0.5, "this environment does not render", ha="center", va="center", color=GREY)
            style.save(chart, out, data)
        return
    chosen = results.ordered(chosen, "row")
    with style.page():
        strips, width = [_strip(episode) for episode in chosen.to_dict("records")], style.width_of(figure.width, panels=2)
        high = max(MIN_HEIGHT, min(MAX_HEIGHT, max((width - 0.16) * strip.shape[0] / strip.shape[1] for strip in strips)))
        room: dict[str, Any] = {"left": 0.08, "right": 0.08, "bottom": 0.02, "head": 0.2, "hspace": 0.22 / high, "note": _note(results)}
        chart, axes = style.canvas(title, width, (high + 0.22) * len(strips) - 0.22, (len(strips), 1), **room)
        for axis, strip, episode in zip(axes[:, 0], strips, chosen.to_dict("records"), strict=True):
            _show(axis, strip, episode, results.names[episode["label"]])
        style.save(chart, out, chosen.drop(columns=["frames", "frames_shape"]))


def _note(results: Results) -> str:
    """Describe the selected point, and how the experiment was tuned."""
    point = f"Episodes at {results.point_name()}." if results.point_name() else ""
    return " ".join(filter(None, [point, results.tuned]))


def _chosen(episodes: Frame, results: Results, most: int) -> Frame:
    """Select the first episodes at the figure's point, of the first seed of every label."""
    if "frames" not in episodes:
        return episodes
    point = results.at()
    for column in results.points:
        episodes = episodes[episodes[column].isin(point[column])]
    first = episodes.groupby("label")["seed"].transform("min")
    return episodes[(episodes["seed"] == first) & (episodes["row"] < most)]


def _strip(episode: Frame) -> np.ndarray:
    """Join all frames of an episode side by side, white between them: (H, W, 3)."""
    count, height, width, channels = episode["frames_shape"]
    pictures = np.frombuffer(episode["frames"], np.uint8).reshape(count, height, width, channels)
    white = np.full((height, max(1, round(GAP * width)), channels), 255, np.uint8)
    parts = [part for picture in pictures for part in (white, picture)]
    return np.concatenate(parts[1:], axis=1)


def _show(axis: Axes, strip: np.ndarray, episode: Frame, name: str) -> None:
    axis.imshow(strip, interpolation="nearest", aspect="equal")
    axis.set_anchor("W")
    axis.set_axis_off()
    axis.set_xticks([])
    axis.set_yticks([])
    ended = "" if pd.isna(episode["success"]) else "solved, " if episode["success"] else "not solved, "
    text = f"{name}, seed {episode['seed']}: {ended}return {episode['return']:.2f}, {episode['episode_length']} steps"
    axis.set_title(text, loc="left", pad=2, fontsize=style.SMALL)
