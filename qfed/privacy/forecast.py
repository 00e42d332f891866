"""What a plan will cost, as plain values: made by calibration.py, shown by the report; needs no accountant to read.

Units  epsilon at the plan's delta; noise in multiples of C / (B x sites), what one record's step may be
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMAT = "qfed.calibration/1"


@dataclass(frozen=True)
class ModeCost:
    """One privacy mode at the same budget."""

    mode: str
    unit: str
    trusts: str
    noise_multiplier: float
    epsilon: float
    """What each site's data set is charged for the whole run."""
    epsilon_alone: float | None
    """What a site's own releases are worth if secure aggregation fails entirely; None where it does not matter."""
    mean_noise: float
    """Standard deviation of the noise in the mean of one step over all sites, over C / B."""


@dataclass(frozen=True)
class Curve:
    """epsilon against something: points (x, epsilon)."""

    label: str
    x: tuple[float, ...]
    epsilon: tuple[float, ...]


@dataclass(frozen=True)
class Cohort:
    """Who adds the noise of a sum, and what is left when fewer do (modes shared and site)."""

    sites: int
    survivors: int
    """m: the fewest sites over which a sum is opened."""
    colluders: int
    honest: int
    """n_min = m - c: shares of the noise that count."""
    left: Curve
    """epsilon against the number of shares that nobody but their sites knows."""
    safe: bool
    verdict: str


@dataclass(frozen=True)
class Forecast:
    """What a configuration will cost each site, before anything runs."""

    name: str
    mode: str
    budget: float
    delta: float
    rounds: int
    steps: int
    sampling_rate: float
    modes: tuple[ModeCost, ...]
    rounds_curves: tuple[Curve, ...]
    """epsilon against rounds, one curve a noise."""
    cohort: Cohort
    person_curves: tuple[Curve, ...]
    """epsilon of a person who has one record at each of 1, 2, ... sites; by mode."""

    @property
    def chosen(self) -> ModeCost:
        """The configuration's own mode."""
        return next(mode for mode in self.modes if mode.mode == self.mode)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"format": FORMAT} | asdict(self)
