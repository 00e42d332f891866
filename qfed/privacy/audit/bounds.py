"""Epsilon that an attacker's guesses prove: lower bounds, for comparison with what the accountant claims.

m canaries entered the data by a fair coin each; v of r guesses (in or not, abstaining on the others) were right.

one run    (epsilon, delta)-DP gives at least that many right guesses with probability at most
               beta + 2 m delta alpha,    beta = P[W >= v],    alpha = max_i P[v > W >= v - i] / i,
           W ~ Binomial(r, e^epsilon / (1 + e^epsilon))        (Steinke, Nasr, Jagielski, NeurIPS 2023, appendix D)
f-DP       mu-Gaussian DP gives it with probability at most tau unless the recursion
               h_i = max(h_{i+1}, f(r_{i+1})),   r_i = r_{i+1} + i / (r - i) (h_i - h_{i+1}),
           with f(x) = Phi(Phi^-1(x) - mu), from r_v = tau v / m, h_v = tau (r - v) / m stays at r_0 + h_0 <= r / m
                                                               (Mahloujifar, Melis, Chaudhuri, arXiv 2410.22235)
GDP-AUC    under mu-Gaussian DP a canary that is in outscores one that is not with probability at most
           Phi(mu / sqrt(2)); the share of such pairs, each canary in one, has an exact binomial limit (Clopper and
           Pearson). It takes the canaries' scores for independent, which an implementation need not honour; the
           other two do not.

How many guesses to make must not depend on how they fare: a fixed list of counts shares the level (Bonferroni).
Shapes  scores (m,), included (m,) bool      Cost  0.1 s for m = 1000      Errors  ConfigError without both kinds
"""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import bisect
from scipy.special import ndtr, ndtri
from scipy.stats import binom, binomtest, norm

from qfed.errors import ConfigError
from qfed.privacy.audit.verdict import Bound

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the canaries that are guessed on, the surest first."""
_LARGEST_EPSILON, _LARGEST_MU = 100.0, 50.0


def one_run(canaries: int, guesses: int, right: int, delta: float, level: float) -> float:
    """The largest epsilon that `right` of `guesses` guesses rule out at `level`; 0 when they rule out nothing."""

    def chance(epsilon: float) -> float:
        accuracy = 1 / (1 + math.exp(-epsilon))
        steps = np.arange(1, right + 1)
        window = binom.cdf(right - 1, guesses, accuracy) - binom.cdf(right - 1 - steps, guesses, accuracy)
        alpha = float(np.max(window / steps, initial=0.0))
        return float(binom.sf(right - 1, guesses, accuracy)) + 2 * canaries * delta * alpha

    return _largest_excluded(lambda epsilon: chance(epsilon) < level, _LARGEST_EPSILON)


def f_dp(canaries: int, guesses: int, right: int, level: float) -> float:
    """The largest mu of Gaussian DP that `right` of `guesses` guesses rule out at `level`; 0 when none."""

    def excluded(mu: float) -> bool:
        r, h = level * right / canaries, level * (guesses - right) / canaries
        for i in range(right - 1, -1, -1):
            before, h = h, max(h, float(ndtr(ndtri(r) - mu)))
            r += i / (guesses - i) * (h - before)
        return r + h > guesses / canaries

    return _largest_excluded(excluded, _LARGEST_MU)


def _largest_excluded(excluded: object, largest: float) -> float:
    """The end of the interval [0, x] on which `excluded` holds, from below, to 1e-4."""
    holds = excluded
    assert callable(holds)  # noqa: S101
    if not holds(0.0):
        return 0.0
    if holds(largest):
        return largest
    return max(0.0, float(bisect(lambda x: 1.0 if holds(x) else -1.0, 0.0, largest, xtol=1e-4)) - 1e-4)


def auc_mu(scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], level: float) -> float:
    """mu of Gaussian DP that the share of rightly ordered pairs shows at `level`; scores in random order."""
    pairs = min(len(scores_in), len(scores_out))
    right = int(np.count_nonzero(scores_in[:pairs] > scores_out[:pairs]))
    least = binomtest(right, pairs, alternative="greater").proportion_ci(1 - level, method="exact").low
    return max(0.0, math.sqrt(2) * float(norm.ppf(least))) if least > 0 else 0.0


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Epsilon at delta of mu-Gaussian DP (Balle and Wang, ICML 2018)."""
    return float(dp_accounting.get_epsilon_gaussian(1 / mu, delta)) if mu > 0 else 0.0


def lower_bounds(
    scores: NDArray[np.float64], included: NDArray[np.bool_], delta: float, confidence: float
) -> tuple[Bound, ...]:
    """All three, from a score for each canary that is higher where it was in the data."""
    if included.all() or not included.any():
        raise ConfigError(
            f"an audit needs canaries of both kinds, got {int(included.sum())} of {len(included)} in the data; use more"
        )
    level = (1 - confidence) / len(_SHARES)
    order = np.argsort(scores)
    best_epsilon = best_mu = 0.0
    for share in _SHARES:
        half = max(1, int(share * len(scores) / 2))
        right = int(np.count_nonzero(included[order[-half:]]) + np.count_nonzero(~included[order[:half]]))
        best_epsilon = max(best_epsilon, one_run(len(scores), 2 * half, right, delta, level))
        best_mu = max(best_mu, f_dp(len(scores), 2 * half, right, level))
    auc = auc_mu(scores[included], scores[~included], 1 - confidence)
    return (
        Bound("one run", best_epsilon, "Steinke et al., NeurIPS 2023", True),
        Bound("f-DP", epsilon_of_mu(best_mu, delta), "Mahloujifar et al., arXiv 2410.22235", True),
        Bound("GDP-AUC", epsilon_of_mu(auc, delta), "share of rightly ordered pairs, independent scores", False),
    )
