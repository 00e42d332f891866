"""Noise that no site adds alone: integers whose sum over the sites has the noise of one trusted party.

    v_i = round(clamp(x_i / gamma)) + Y_i,     Y_i ~ N_Z(0, s^2) in every coordinate,     gamma = C / 2^12
    s   = sigma_total / sqrt(n_min),           sigma_total^2 = (sigma D)^2 + 9

x_i (P,) is what site i contributes, C the most that one protected unit (record or site) can change of sum_i x_i in L2.
Secure aggregation opens sums of at least m sites; c of them may collude with the aggregator, and know their own noise,
so n_min = m - c shares are noise to everybody. More survivors add more noise, which costs no privacy.

Sensitivity D, in grid steps. Taking a unit away moves the real vector by C / gamma = 2^12 at most, clamping moves no
two vectors apart, and rounding moves each coordinate of either vector by 1/2 at most, so by sqrt(P) together. Clipped
sums are floating-point sums; their rounding (some n 2^-24 of C for n records of float32) has room in the factor:

    D = 2^12 (1 + 2^-9) + sqrt(P)

Why continuous accounting holds for integers: adding N(0, a^2) to an integer vector x and then rounding each coordinate
t at random to y with probability ~ exp(-(y - t)^2 / 2 b^2) gives x + N_Z(0, a^2 + b^2), but for a factor 1 +- e(b) in
each probability (Peikert, CRYPTO 2010, theorem 3.1; `discrete.ripple`). So x + N_Z is, but for that factor, computed
from x + N(0, a^2) without looking at x again: whatever bound the Gaussian mechanism with noise a has (closed form,
privacy loss distribution, Renyi; subsampled, composed, adaptive) is one for N_Z with a^2 = sigma_total^2 - b^2. With
b = 3 the factor is 1 +- 2^-254. In the same way the sum of n_min shares is N_Z(0, sigma_total^2) but for a factor
1 +- sum_k e(s sqrt(k / (k + 1))) a coordinate (Kairouz, Liu, Steinke, ICML 2021, whose tau this is, to a constant).
Both factors are pure additions to epsilon (`slack`), far below its last digit. The sampler's distance is an addition
of (1 + e^epsilon) `distance` to delta, for which a billionth of delta is set apart (`accounting.accounted`).

The ring: every coordinate of v_i is at most floor((2^(w-1) - 1) / sites) in magnitude, so no sum wraps; x_i / gamma is
clamped to that less the greatest noise, and the bound is checked again after the noise.
Shapes  x (P,) float64 -> v (P,) int64      Cost  80 ns a coordinate
Errors  ConfigError when the ring has no room for so much noise, LocalProtocolError for values that are not finite
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qfed.errors import ConfigError, LocalProtocolError
from qfed.privacy.accounting import RESERVED
from qfed.privacy.discrete import DiscreteGaussian, discrete_gaussian, ripple
from qfed.privacy.grid import GRID_STEPS, SMOOTHING, greatest_coordinate, share_stddev


@dataclass(frozen=True)
class Shares:
    """Who adds how much: `noise_multiplier` sigma of the whole, `honest` n_min of `sites`, in a ring of `ring_bits`."""

    noise_multiplier: float
    honest: int
    sites: int
    ring_bits: int

    @property
    def greatest(self) -> int:
        """The largest magnitude of a coordinate that a site may send."""
        return greatest_coordinate(self.sites, self.ring_bits)

    def stddev(self, size: int) -> float:
        """s: standard deviation of one site's share of (P,) coordinates, in grid steps."""
        return share_stddev(self.noise_multiplier, self.honest, size)

    def noise(self, size: int) -> DiscreteGaussian:
        """One site's share; ConfigError where it is too little or too much."""
        noise = discrete_gaussian(self.stddev(size))
        if self.greatest - noise.reach < GRID_STEPS:
            raise ConfigError(
                f"noise_multiplier={self.noise_multiplier:g} for sites={self.sites} needs {noise.reach:g} steps a site "
                f"and the ring has room for {self.greatest}; use a larger privacy.epsilon or fewer sites"
            )
        return noise

    def hide(self, values: NDArray[np.float64], clip_norm: float) -> NDArray[np.int64]:
        """Encode `values` (P,), in which one unit counts at most `clip_norm`, and add this site's share."""
        if not np.isfinite(values).all():
            raise LocalProtocolError("a contribution holds values that are not finite; lower the learning rate")
        noise = self.noise(len(values))
        room = self.greatest - noise.reach
        steps = np.rint(np.clip(values * (GRID_STEPS / clip_norm), -room, room)).astype(np.int64)
        hidden = steps + noise.sample(len(values))
        if int(np.abs(hidden).max(initial=0)) > self.greatest:
            raise LocalProtocolError(f"a noised coordinate is beyond {self.greatest}, so a sum might wrap")
        return hidden

    def distance(self, size: int, releases: int) -> float:
        """Statistical distance of all sampled noise together, of `releases` vectors of (P,)."""
        return self.noise(size).distance * size * releases * self.honest

    def slack(self, size: int, releases: int) -> float:
        """What the factors above add to epsilon over `releases` vectors of (P,)."""
        s = self.stddev(size)
        sums = sum(ripple(s * math.sqrt(k / (k + 1))) for k in range(1, self.honest))
        return 2 * size * releases * (sums + ripple(SMOOTHING))


@lru_cache(maxsize=64)
def check_exactness(shares: Shares, size: int, releases: int, epsilon: float, delta: float) -> None:
    """ConfigError unless the ring has room, and integers add no more to epsilon and delta than is set apart."""
    slack, distance = shares.slack(size, releases), shares.distance(size, releases)
    if slack > 1e-12 or (1 + math.exp(min(epsilon, 700))) * distance > RESERVED * delta:
        raise ConfigError(
            f"integer noise of stddev={shares.stddev(size):g} steps is too coarse for epsilon={epsilon:g}, delta="
            f"{delta:g}: it adds {slack:g} to one and e^epsilon times {distance:g} to the other; use a smaller "
            "privacy.epsilon"
        )
