"""The report's plots: inline SVG by matplotlib, without a name of a font, a date or a colour of its own.

Text stays text (so it is searchable, follows the page's font and is read out), colours become the page's CSS variables
(so the plot is dark where the page is dark), and identifiers are salted and prefixed (so the same result gives the same
bytes and several plots fit in one page). Only our own words enter the SVG: names that come with the result stand in the
page, where the template escapes them.

Shapes  a plot is drawn for two widths, WIDE and NARROW; the page shows the one that fits, so text stays readable.
Cost    about 0.1 s a plot.
Errors  MissingExtra without matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qfed.config import RunConfig
from qfed.errors import MissingExtra
from qfed.federation.result import Comparison, RoundRecord, Score
from qfed.report import units

Curve = npt.NDArray[Any]

# Stand-ins that matplotlib takes for colours; the SVG names the page's variables instead.
_INK, _MUTED, _GRID, _ALARM, _UP, _DOWN = "#010100", "#010101", "#010102", "#010103", "#010104", "#010105"
_CURVES = {"main": "#010200", "twin": "#010201", "non_private": "#010202", "no_federation": "#010203"}
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _ALARM: "var(--alarm)",
    _UP: "var(--up)",
    _DOWN: "var(--down)",
    **{colour: f"var(--{kind.replace('_', '-')})" for kind, colour in _CURVES.items()},
}
DASHES: dict[str, tuple[float, ...]] = {
    "main": (),
    "twin": (6, 2.5),
    "non_private": (1.5, 2),
    "no_federation": (7, 2, 1.5, 2),
    "budget": (4, 3),
}
"""Dash pattern of each curve, in pixels; colour alone must not carry the meaning."""


@dataclass(frozen=True)
class Frame:
    """Size of a plot in CSS pixels at its natural scale."""

    name: str
    width: int
    height: int


class Course(Protocol):
    """What is drawn: a finished run (RunResult), or one that is under way."""

    @property
    def config(self) -> RunConfig:
        """Its configuration."""

    @property
    def metric(self) -> units.Metric:
        """What its scores mean."""

    @property
    def initial(self) -> Score | None:
        """Before training."""

    @property
    def rounds(self) -> Sequence[RoundRecord]:
        """So far."""

    @property
    def comparisons(self) -> Sequence[Comparison]:
        """Runs beside it."""


WIDE = Frame("wide", 460, 260)
NARROW = Frame("narrow", 310, 230)
FRAMES = (WIDE, NARROW)


def score_plot(result: Course, frame: Frame, until: int = 0) -> str:
    """Score after each round, the comparisons' curves beside it; failed rounds are shaded. Room up to round `until`."""
    figure, axes = _canvas(frame)
    percent = 100.0 if result.metric == "accuracy" else 1.0
    shown: list[float] = []
    for comparison in result.comparisons:
        x, y = _curve(result, comparison)
        shown.extend(y)
        _line(axes, x, percent * y, comparison.kind, width=1.6)
    x, y = main_curve(result)
    shown.extend(y[np.isfinite(y)])
    _line(axes, x, percent * y, "main", width=2.4, points=len(x) <= 31)
    for record in result.rounds:
        if record.status == "failed":
            axes.axvspan(record.round - 0.5, record.round + 0.5, color=_ALARM, alpha=0.14, linewidth=0)
    _finish(axes, max(len(result.rounds), until), f"{units.METRIC_NAMES[result.metric]}{', %' if percent > 1 else ''}")
    finite = np.array(shown)[np.isfinite(shown)]
    if finite.size:
        low, high = percent * finite.min(), percent * finite.max()
        room = max(0.08 * (high - low), 1.0 if percent > 1 else 0.02 * abs(high) + 1e-12)
        axes.set_ylim(low - room, min(high + room, 100.0 + 0.3 * room) if percent > 1 else high + room)
    label = f"Line plot: {units.METRIC_NAMES[result.metric]} after each round"
    return _svg(figure, f"score-{frame.name}", f"{label}; the rounds and comparison tables hold the figures")


def epsilon_plot(result: Course, frame: Frame, until: int = 0) -> str:
    """Epsilon spent after each round as steps, against the budget; a private run's. Room up to round `until`."""
    figure, axes = _canvas(frame)
    spent = [0.0, *(np.nan if record.epsilon is None else record.epsilon for record in result.rounds)]
    budget = result.config.privacy.epsilon
    axes.plot(
        np.arange(len(spent)),
        spent,
        color=_CURVES["main"],
        linewidth=2.4,
        drawstyle="steps-post",
        solid_capstyle="round",
    )
    axes.plot([len(spent) - 1], spent[-1:], "o", color=_CURVES["main"], markersize=5)
    axes.axhline(budget, color=_ALARM, linewidth=1.6, dashes=DASHES["budget"])
    _finish(axes, max(len(result.rounds), until), "epsilon spent so far")
    finite = [value for value in spent if np.isfinite(value)]
    axes.set_ylim(0, 1.12 * max([budget, *finite]))
    total = units.epsilon(finite[-1])
    label = f"Step plot: epsilon spent after each round, {total} at the end, against a budget of {units.budget(budget)}"
    return _svg(figure, f"epsilon-{frame.name}", label)


def traffic_plot(result: Course, frame: Frame, until: int = 0) -> str:
    """Bytes of all sites in each round: to the aggregator below, from it on top. Room up to round `until`."""
    figure, axes = _canvas(frame)
    largest = max((record.bytes_up + record.bytes_down for record in result.rounds), default=0)
    unit, factor = next(((u, f) for u, f in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if largest >= f), ("B", 1.0))
    rounds = np.array([record.round for record in result.rounds])
    up = np.array([record.bytes_up for record in result.rounds]) / factor
    down = np.array([record.bytes_down for record in result.rounds]) / factor
    axes.bar(rounds, up, width=0.72, color=_UP, linewidth=0)
    axes.bar(rounds, down, width=0.72, bottom=up, color=_DOWN, linewidth=0)
    _finish(axes, max(len(result.rounds), until), f"{unit}, all sites together")
    axes.set_xlim(0.4, max(1, len(result.rounds), until) + 0.6)
    axes.set_ylim(bottom=0)
    total = units.size(sum(record.bytes_up + record.bytes_down for record in result.rounds))
    return _svg(figure, f"traffic-{frame.name}", f"Bar plot: bytes in each round, {total} in the whole run")


def main_curve(result: Course) -> tuple[Curve, Curve]:
    """Rounds 0..R and the score after each; a failed round keeps its model, so it keeps the score."""
    last = np.nan if result.initial is None else result.initial.score
    y = [last]
    for record in result.rounds:
        if record.metrics is not None:
            last = record.metrics.score
        elif record.status == "aggregated":
            last = np.nan
        y.append(last)
    return np.arange(len(y)), np.array(y, dtype=float)


def _curve(result: Course, comparison: Comparison) -> tuple[Curve, Curve]:
    """A comparison's rounds and scores; one that tells its final score only is a level line."""
    if not comparison.rounds:
        return np.array([0, max(1, len(result.rounds))]), np.full(2, comparison.metrics.score)
    y = np.array(comparison.rounds, dtype=float)
    return np.arange(1, len(y) + 1), y


def _line(axes: Any, x: Curve, y: Curve, kind: str, *, width: float, points: bool = False) -> None:
    style: dict[str, Any] = {"dashes": DASHES[kind]} if DASHES[kind] else {}
    if points or len(x) == 1:
        style |= {"marker": "o", "markersize": 4.2}
    with _settings():
        axes.plot(x, y, color=_CURVES[kind], linewidth=width, **style)


def _canvas(frame: Frame) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "server") from error
    with _settings():
        figure = Figure(figsize=(frame.width / 72, frame.height / 72), layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.grid(axis="y", color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", length=0, labelcolor=_MUTED, pad=5)
    return figure, axes


def _finish(axes: Any, rounds: int, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("round", color=_MUTED)
    axes.set_title(title, color=_MUTED, loc="left", pad=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=2))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(-0.02 * max(1, rounds) - 0.1, max(1, rounds) * 1.02 + 0.1)


def _settings() -> Any:
    import matplotlib

    return matplotlib.rc_context(
        {
            "font.family": "DejaVu Sans",  # comes with matplotlib, so the layout is the same on every machine
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "svg.fonttype": "none",
            "svg.hashsalt": "qfed",
            "lines.scale_dashes": False,
            "axes.formatter.use_mathtext": False,
            "axes.unicode_minus": True,
            "text.parse_math": False,
            "path.simplify": False,
        }
    )


def _svg(figure: Any, prefix: str, label: str) -> str:
    out = io.StringIO()
    with _settings():
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font(-family)?: [^;\"]*'DejaVu Sans'[^;\"]*;? ?", _font_size, text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None  # noqa: S101 - savefig always writes one
    head = f'<svg class="{prefix.rpartition("-")[2]}" {view[0]} role="img" aria-label="{label}">'
    return re.sub(r"^<svg[^>]*>", lambda _: head, text)


def _font_size(match: re.Match[str]) -> str:
    size = re.search(r"([\d.]+)px", match[0])
    return f"font-size: {size[1]}px; " if size else ""
