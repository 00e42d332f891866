"""The federation map: the aggregator in the middle, its sites around it, as positions for an SVG template.

    site i of n stands at angle 2 pi i / n - pi / 2 on an ellipse; more than RING sites stand on several ellipses

Up to NAMED sites carry their names; beyond, they are dots and the table has the names. Shape tells the status as well
as colour does: a full disc online, a ring offline, a dotted ring never seen.

Shapes  positions in SVG user units, for two frames: wide screens and phones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qfed_server.dashboard.times import ago
from qfed_server.status import SiteStatus

NAMED = 14
RING = 40
HUB = 48.0
"""Half the side of the aggregator's square, with the gap around it."""
_LONGEST_NAME = 18


@dataclass(frozen=True)
class Frame:
    """Size of the drawing in user units, and the radii of its outermost ellipse."""

    name: str
    width: int
    height: int
    rx: float
    ry: float


FRAMES = (Frame("wide", 640, 440, 230, 140), Frame("narrow", 340, 420, 110, 140))


@dataclass(frozen=True)
class Mark:
    """One site of the drawing."""

    name: str
    label: str
    note: str
    status: str
    joined: bool
    x: float
    y: float
    above: bool
    """Whether its name stands above it, where no line passes."""
    start: tuple[float, float]
    """Where its line leaves the aggregator."""
    end: tuple[float, float]
    """Where its line meets the site."""


@dataclass(frozen=True)
class Map:
    """A drawing for one frame."""

    frame: Frame
    marks: tuple[Mark, ...]
    radius: float
    named: bool

    @property
    def centre(self) -> tuple[float, float]:
        """Of the aggregator."""
        return self.frame.width / 2, self.frame.height / 2


def draw(sites: Sequence[SiteStatus], frame: Frame, now: float, *, known: bool = True) -> Map:
    """Place the sites; `known` is False while nobody can say which of them are online."""
    named = len(sites) <= NAMED
    radius = 21.0 if named else max(3.0, 12.0 - len(sites) / 25)
    empty = Map(frame, (), radius, named)
    rings = math.ceil(len(sites) / RING)
    marks = []
    for ring in range(rings):
        members = sites[ring::rings]
        shrink = 1.0 - 0.55 * ring / rings
        for place, site in enumerate(members):
            angle = 2 * math.pi * (place + 0.5 * (ring % 2)) / len(members) - math.pi / 2
            marks.append(_mark(site, empty, angle, shrink, notes(site, now, known)))
    return Map(frame, tuple(marks), radius, named)


def notes(site: SiteStatus, now: float, known: bool) -> str:
    """Its status in words."""
    if not known:
        return "not known"
    return {"online": "online", "offline": f"away, {ago(site.last_seen, now)}", "registered": "never seen"}[site.status]


def _mark(site: SiteStatus, drawn: Map, angle: float, shrink: float, note: str) -> Mark:
    x0, y0 = drawn.centre
    x, y = x0 + shrink * drawn.frame.rx * math.cos(angle), y0 + shrink * drawn.frame.ry * math.sin(angle)
    length = math.hypot(x - x0, y - y0)
    short = site.name[: _LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
    ux, uy = (x - x0) / length, (y - y0) / length
    reach = max(abs(ux), abs(uy))  # the hub is a square
    return Mark(
        name=site.name,
        label=short if len(short) < len(site.name) else site.name,
        note=note,
        status=site.status,
        joined=site.joined,
        x=round(x, 1),
        y=round(y, 1),
        above=uy < -0.3,
        start=(round(x0 + HUB * ux / reach, 1), round(y0 + HUB * uy / reach, 1)),
        end=(round(x - (drawn.radius + 5) * ux, 1), round(y - (drawn.radius + 5) * uy, 1)),
    )
