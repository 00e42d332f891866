"""Gates of the audit: hypothesis tests that honest releases pass and broken ones do not.

A release is one noisy sum of clipped gradients, on the audit's coordinates and in multiples of C:

    null coordinate        N(0, sigma^2)                 nothing of any record is there
    canary's coordinate    b + N(0, sigma^2),            b = 1 with probability q, else 0

noise level        sum (null / sigma)^2 ~ chi^2, as z: |z| <= 4; noise at 0.9 sigma gives z = -0.19 sqrt(n / 2)
noise shape        Kolmogorov-Smirnov distance to the normal distribution
noise correlation  the largest correlation of two releases, rounds and sites, on the same null coordinates; of n values
                   it has the density of a beta distribution on (-1, 1) with a = b = n / 2 - 1
canary gain        mean of a canary's coordinate over q: exactly 1, since each canary pulls with 50 C. Above, a record
                   counts for more than C; below, what one record does depends on the others (clipping of a mean)

Each gate fails an honest implementation with probability at most 1e-4.  Statistics are SciPy's.
Shapes  null (K, n) and canary (K, k): K releases      Errors  ConfigError for too few coordinates
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2, kstest, norm

from qfed.errors import ConfigError
from qfed.privacy.audit.verdict import Gate

FALSE_ALARM = 1e-4
_Z = float(norm.isf(FALSE_ALARM / 2))
_FEWEST = 8

Releases = NDArray[np.float64]


def noise_level(null: Releases, sigma: float) -> Gate:
    """Chi-square of the noise as a z value."""
    _enough(null)
    z = (float(np.sum((null / sigma) ** 2)) - chi2.mean(null.size)) / chi2.std(null.size)
    means = "the noise has another standard deviation than the plan charges for"
    return Gate("noise level", float(z), -4.0, 4.0, f"{means} (below: too little, above: too much)")


def noise_shape(null: Releases, sigma: float) -> Gate:
    """Kolmogorov-Smirnov distance of the noise from its distribution."""
    _enough(null)
    # Asymptotic distribution of sqrt(n) D, by its own inverse: kstest's exact one takes minutes for many values.
    from scipy.stats import kstwobign

    distance = float(kstest(null.ravel() / sigma, "norm", mode="asymp").statistic)
    limit = float(kstwobign.isf(FALSE_ALARM)) / math.sqrt(null.size)
    return Gate("noise shape", distance, None, limit, "the noise is not Gaussian with the plan's standard deviation")


def noise_correlation(null: Releases) -> Gate:
    """The largest correlation between two releases."""
    _enough(null)
    releases, size = null.shape
    if releases < 2:
        return Gate("noise correlation", 0.0, None, 1.0, "one release has nothing to be correlated with")
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.nan_to_num(np.asarray(np.corrcoef(null)), nan=1.0)  # releases without noise are all alike
    above = np.triu_indices(releases, 1)
    half = size / 2 - 1
    limit = float(beta.isf(FALSE_ALARM / (2 * len(above[0])), half, half, loc=-1, scale=2))
    means = "noise repeats between rounds, steps or sites, so that differences cancel it (a seed that is used again)"
    return Gate("noise correlation", float(np.abs(found[above]).max()), None, limit, means)


def canary_gain(canary: Releases, sigma: float, sampling_rate: float) -> Gate:
    """What a canary adds to a release that it is in, over the clip norm."""
    _enough(canary)
    error = math.sqrt((sigma**2 + sampling_rate * (1 - sampling_rate)) / canary.size) / sampling_rate
    gain = float(canary.mean()) / sampling_rate
    means = (
        "above 1 a record counts for more than the clip norm; below 1 the gradients are not clipped a record at a time "
        "or the sampling rate is another"
    )
    return Gate("canary gain", gain, 1 - _Z * error - 1e-3, 1 + _Z * error, means)


def charged(spent: float, claimed: float) -> Gate:
    """What the ledger says was spent over what the plan claims for the same rounds."""
    means = "the ledger charged another epsilon than the releases cost"
    return Gate("ledger", spent / claimed, 1 - 1e-6, 1 + 1e-6, means)


def proven(lower: float, claimed: float) -> Gate:
    """The greatest binding lower bound on epsilon, against the claim."""
    return Gate("epsilon", lower, None, claimed, "the canaries prove a larger epsilon than the plan claims")


def _enough(values: Releases) -> None:
    if values.ndim != 2 or values.shape[1] < _FEWEST:
        raise ConfigError(
            f"a gate needs at least {_FEWEST} coordinates, got shape {values.shape}; audit with more canaries"
        )
