"""What a study of data efficiency found: scores by number of real records, intervals, and what may be concluded.

    band        mean over seeds and its 95 % t interval
    gain        mean over seeds of (score with simulated records - score without), paired by seed, and its t interval at
                1 - 0.05 / K for K numbers of records (Bonferroni), so that all K hold together
An arm helps or hurts at a number of records where the gain's interval lies above or below 0; anything else is no
difference that these seeds can show.      Source of the intervals  scipy.stats (t, sem)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from qfed.federation.result import Record

FORMAT: Literal["qfed.study/1"] = "qfed.study/1"
LEVEL = 0.95
_ALIKE = 1e-12
Finding = Literal["helps", "hurts", "no difference"]


class Band(Record):
    """A mean over seeds with its confidence interval."""

    mean: float
    """Of the seeds."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


class Point(Record):
    """One arm at one number of real records."""

    records: int
    """Real records that it may use."""
    scores: tuple[float, ...]
    """Accuracy on held-out records, one a seed, in the order of the seeds."""

    @property
    def band(self) -> Band:
        """Mean accuracy, within what accuracy can be."""
        found = interval(self.scores, LEVEL)
        return Band(mean=found.mean, low=max(found.low, 0.0), high=min(found.high, 1.0))


class Curve(Record):
    """One arm: a model, with or without simulated records."""

    model: Literal["hybrid", "twin"]
    """Which."""
    generator: str | None
    """What made the simulated records; None without any."""
    points: tuple[Point, ...]
    """By number of real records, rising."""

    @property
    def label(self) -> str:
        """For people."""
        return self.model if self.generator is None else f"{self.model} + {self.generator}"


class Gain(Record):
    """What simulated records changed at one number of real records."""

    records: int
    """Real records."""
    difference: Band
    """Accuracy with less accuracy without."""
    finding: Finding
    """What may be said."""


class DataSet(Record):
    """All arms on one data set."""

    source: str
    """Which."""
    bits: int
    """Bits that a record is coded in for the release."""
    features: int
    """Features of every arm's records."""
    curves: tuple[Curve, ...]
    """The arms."""

    def curve(self, model: str, generator: str | None) -> Curve:
        """The arm of a model and generator."""
        return next(c for c in self.curves if (c.model, c.generator) == (model, generator))

    def gains(self, model: str, generator: str) -> tuple[Gain, ...]:
        """What the simulated records of a generator changed for a model."""
        with_them, without = self.curve(model, generator).points, self.curve(model, None).points
        level = 1 - (1 - LEVEL) / len(without)
        return tuple(
            _gain(mine.records, [a - b for a, b in zip(mine.scores, theirs.scores, strict=True)], level)
            for mine, theirs in zip(with_them, without, strict=True)
        )


class Budget(Record):
    """How the privacy budget of each arm was spent; the total is the same for all."""

    epsilon: float
    """Of every arm, both uses of the records together."""
    delta: float
    """Failure probability."""
    release: float
    """Epsilon of the release alone."""
    training: float
    """Epsilon of the training alone, beside a release."""
    share: float
    """Part of the privacy (of 1 / sigma^2) that goes into the release."""
    most_spent: float
    """The largest epsilon that a ledger of this study came to."""


class StudyResult(Record):
    """A whole study."""

    format: Literal["qfed.study/1"] = FORMAT
    """Version of this schema."""
    seeds: tuple[int, ...]
    """One split, subset, model and noise each."""
    simulated: int
    """Simulated records that an arm adds."""
    steps: int
    """Optimiser steps of every arm."""
    budget: Budget
    """Privacy of every arm."""
    sets: tuple[DataSet, ...]
    """By data set."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of Python and packages."""
    seconds: float = 0.0
    """Wall time."""


def interval(values: Sequence[float], level: float) -> Band:
    """The mean and its t interval; a single value, or equal ones, have none wider than themselves."""
    mean = float(np.mean(values))
    if len(values) < 2 or float(np.ptp(values)) < _ALIKE:
        return Band(mean=mean, low=mean, high=mean)
    low, high = stats.t.interval(level, len(values) - 1, loc=mean, scale=stats.sem(values))
    return Band(mean=mean, low=float(low), high=float(high))


def _gain(records: int, differences: Sequence[float], level: float) -> Gain:
    band = interval(differences, level)
    finding: Finding = "no difference"
    if len(differences) > 1 and band.low > 0:
        finding = "helps"
    if len(differences) > 1 and band.high < 0:
        finding = "hurts"
    return Gain(records=records, difference=band, finding=finding)
