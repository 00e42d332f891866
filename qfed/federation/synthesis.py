"""What sites and aggregator agree on in a run of kind "synthesize", and what the sum of the sites' counts says.

    bits -> sums of each class (qfed.privacy.moments) -> noise, encoding, masks -> total -> pair counts of each class

    counts  (P,)  integers as `privacy.plan` releases them; the only block of the only round

The aggregator needs neither torch nor the records: the coding is public, and the total opens to tables by arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qfed.config import RunConfig
from qfed.data import Coding
from qfed.federation.result import PrivacyStatement
from qfed.generative.release import Release
from qfed.generative.statistics import PairCounts
from qfed.privacy.grid import greatest_coordinate, share_stddev, values_of
from qfed.privacy.moments import Deviations, Moments, exclusive
from qfed.secagg import Block, Layout

COUNTS = "counts"
"""Name of the block, and what a run's folder says of its metric."""


def coding_of(config: RunConfig) -> Coding:
    """How the run's records become bits."""
    return Coding.of(config.data, config.coding)


def moments_of(config: RunConfig, coding: Coding) -> Moments:
    """Which sums are counted: of each class apart, or with the target's bits like any other."""
    fixed, patterns = _classes(config, coding)
    weighted = config.privacy.mode != "off"
    return Moments(len(coding.names), fixed, patterns, exclusive(coding.words), weighted)


def counts_layout(config: RunConfig, moments: Moments) -> Layout:
    """The vector of the run's round."""
    whole = float(greatest_coordinate(config.federation.sites, config.secagg.ring_bits))
    return Layout((Block(COUNTS, moments.size, whole, 1.0),))


def noise_of(statement: PrivacyStatement, moments: Moments, survivors: int) -> Deviations:
    """Noise in the opened sums of `survivors` sites, in records; more sites than the least add more of it."""
    if statement.noise_multiplier is None:
        return moments.deviations(0.0)
    share = share_stddev(statement.noise_multiplier, statement.honest or 1, moments.size)
    return moments.deviations(float(values_of(np.array([share]), moments.norm)[0]) * math.sqrt(survivors))


def release_of(
    config: RunConfig, coding: Coding, total: NDArray[np.float64], survivors: int, statement: PrivacyStatement
) -> Release:
    """The pair counts that the sites' sum `total` (P,) stands for.

    A part's `stddev` is half the noise in a sum of products, from which generators judge which pairs to believe; the
    cells of tables have less (`Deviations.cell`).
    """
    moments = moments_of(config, coding)
    fixed, patterns = _classes(config, coding)
    values = values_of(total, moments.norm) if moments.weighted else total
    stddev = noise_of(statement, moments, survivors).products / 2
    names = np.array(coding.names)
    parts = tuple(
        PairCounts.of_moments(
            names[list(moments.free)].tolist(),
            part.records,
            part.spins,
            part.products,
            stddev,
            statement.model_dump(),
            moments.decided,
        )
        for part in moments.opened(values)
    )
    return Release(
        coding.names, tuple(names[list(fixed)].tolist()), np.array(patterns, np.uint8).reshape(len(parts), -1), parts
    )


def _classes(config: RunConfig, coding: Coding) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    if config.synth.classes == "together":
        return (), ((),)
    first = len(coding.names) - len(coding.target_names)
    return tuple(range(first, len(coding.names))), tuple(tuple(map(int, word)) for word in coding.patterns)
