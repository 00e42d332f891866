"""The report's plots for a run under way: drawn when a round ends, kept until the next, with no inline style.

Inline style would need a weaker content-security policy, so each style attribute becomes presentation attributes.

Cost    about 0.1 s a plot, six plots; matplotlib is loaded at the first. One at a time: its settings are global.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

from qfed.report import plots
from qfed_server.dashboard.runs import Run

_KEPT = 32


@dataclass(frozen=True)
class Curves:
    """Each plot as SVG for a wide screen and for a phone; empty where there is nothing to draw."""

    score: tuple[str, ...] = ()
    epsilon: tuple[str, ...] = ()
    traffic: tuple[str, ...] = ()


class Drawer:
    """Draws, and remembers; safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: OrderedDict[tuple[str, float, int], Curves] = OrderedDict()

    def curves(self, run: Run) -> Curves:
        """The plots of a run as it is now."""
        if not run.rounds:
            return Curves()
        key = (run.name, run.changed, len(run.rounds))
        with self._lock:
            if key not in self._drawn:
                self._drawn[key] = _draw(run)
                while len(self._drawn) > _KEPT:
                    self._drawn.popitem(last=False)
            return self._drawn[key]


def _draw(run: Run) -> Curves:
    told = run.private and any(record.epsilon is not None for record in run.rounds)
    until = run.planned if run.under_way else 0
    return Curves(
        tuple(_without_style(plots.score_plot(run, frame, until)) for frame in plots.FRAMES),
        tuple(_without_style(plots.epsilon_plot(run, frame, until)) for frame in plots.FRAMES) if told else (),
        tuple(_without_style(plots.traffic_plot(run, frame, until)) for frame in plots.FRAMES),
    )


def _without_style(svg: str) -> str:
    return re.sub(r' style="([^"]*)"', _attributes, svg)


def _attributes(match: re.Match[str]) -> str:
    pairs = (part.partition(":") for part in match[1].split(";") if part.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in pairs)
