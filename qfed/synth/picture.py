"""The picture of an evaluation: samples side by side (square images), pairs simulated against real, scores.

Errors  MissingExtra without matplotlib
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qfed.generative.statistics import Bits, PairCounts
from qfed.report.figure import INK, MAIN, MUTED, OTHER, figure_of, png
from qfed.synth.evaluation import INDEPENDENT, PAIRWISE, Evaluation

_COLUMNS, _LINES = 12, 2


def evaluation_picture(found: Evaluation) -> bytes:
    """Two or three panels, as PNG."""
    figure, axes = figure_of(2 if found.side is None else 3)
    if found.side is not None:
        _samples(axes[0], found, found.side)
    _pairs(axes[-2], found)
    _scores(axes[-1], found)
    return png(figure)


def _samples(axes: Any, found: Evaluation, side: int) -> None:
    """A few records of every row, drawn in the order that they came."""
    lines: list[np.ndarray] = []
    ticks: list[float] = []
    for row in found.rows:
        ticks.append((len(lines) + _LINES / 2) * (side + 1))
        shown = row.bits[: _COLUMNS * _LINES, : side**2].reshape(-1, side, side)
        tiles = np.pad(shown.astype(float), ((0, _COLUMNS * _LINES - len(shown)), (0, 1), (0, 1)), constant_values=0.35)
        lines += list(tiles.reshape(_LINES, _COLUMNS, side + 1, side + 1))
    image = np.concatenate([np.concatenate(list(line), axis=1) for line in lines], axis=0)
    axes.imshow(1 - image, cmap="gray", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.set_yticks(ticks, [row.name for row in found.rows])
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title("records (bits)")


def _pairs(axes: Any, found: Evaluation) -> None:
    """Covariance of every pair of bits: real across, simulated up."""
    real = _covariances(found.counted_bits)
    axes.plot([real.min(), real.max()], [real.min(), real.max()], color=INK, linewidth=0.8)
    colours = {INDEPENDENT: MUTED, PAIRWISE: OTHER, found.simulated.name: MAIN}
    for row in sorted(found.rows[1:], key=lambda row: row is found.simulated):
        if row.name in colours:
            axes.plot(
                real, _covariances(row.bits), ".", color=colours[row.name], markersize=4, label=row.name, alpha=0.7
            )
    axes.legend(frameon=False, fontsize=8)
    axes.set(title="covariance of pairs", xlabel="counted real records", ylabel="simulated records")


def _scores(axes: Any, found: Evaluation) -> None:
    """A bar for each training set, forest; marks for the other two models."""
    place = np.arange(len(found.rows))[::-1]
    colours = [INK, MAIN, *[MUTED] * (len(found.rows) - 2)]
    axes.barh(place, [max(row.scores["forest"], 0) for row in found.rows], color=colours, height=0.55, label="forest")
    axes.plot([row.scores["linear"] for row in found.rows], place, "D", color=OTHER, markersize=5, label="linear")
    axes.plot(
        [row.scores.get("hybrid", np.nan) for row in found.rows],
        place,
        "o",
        color="white",
        markeredgecolor=INK,
        label="hybrid",
    )
    axes.set_yticks(place, [row.name for row in found.rows])
    lowest = min(min(row.scores.values()) for row in found.rows)
    axes.set_xlim(max(0.0, lowest - 0.1), 1.0)
    axes.set(title="tested on real records")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=3)


def _covariances(bits: Bits) -> np.ndarray:
    counts = PairCounts.exact(bits)
    apart = counts.correlations - np.outer(counts.means, counts.means)
    return np.asarray(apart[np.triu_indices(len(apart), 1)])
