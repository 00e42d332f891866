"""What is believed of fields and couplings before counts are seen, weighed against how far counts can be trusted.

    minimise over theta     log Z(theta) + theta.m + 1/2 sum_k w_k theta_k^2,   w_k = r / tau_k^2,  r = (1 + v / N) / N

The moments m are those of N records, each sum with noise of the known variance v, so they vary by F / N + v / N^2
about the law's own (F: covariance of its spins and products). With F taken as the identity and a normal prior of
deviation tau_k for each coefficient, theta is largest a posteriori where the gradient above is 0: weak couplings, which
are mostly noise, shrink towards independence, the more so the more noise there is and the fewer records.

    fields      tau = `FIELD`
    couplings   tau^2 = (nu t^2 + J^2) / (nu + 1),  nu = 3,  t = `synth.prior`: one step of expectation-maximisation
                for a Student t prior of scale t, so that strong couplings keep their strength. J^2 is the covariance
                beyond two deviations, over the variances of its bits (linear response)
    in a code   w = `CODED`: bits of one column that exclude each other do so by the coding, whatever the noise

The penalty is convex, and bounds theta where noise leaves pairs that no joint law has. All of it is post-processing of
the release: v is public.
Sources: Räisä, Jälkö, Kaski, Honkela, AISTATS 2023 (noise-aware posterior of a maximum-entropy model); Gelman, Jakulin,
Pittau, Su, Ann. Appl. Stat. 2, 1360 (2008) (weak t priors by expectation-maximisation). Departures: the mode in place
of the posterior; F = 1; one step.
Shapes  weights (P,), P = n + n (n - 1) / 2: fields, then couplings      Cost  O(P)      Errors  none of its own
"""

from __future__ import annotations

import numpy as np

from qfed.generative.statistics import Floats, PairCounts

FIELD = 1.0
"""Deviation that fields are expected to have, in units of kT."""
NU = 3.0
"""Degrees of freedom of the couplings' prior."""
CODED = 1e-3
"""Weight of couplings within a code."""
_LEAST_SPREAD = 0.05


def penalty(stats: PairCounts, scale: float) -> Floats:
    """w (P,) for these counts; `scale` is t."""
    mean, upper = stats.means, np.triu_indices(len(stats.bits), 1)
    noise, records = (2 * stats.stddev) ** 2, stats.records
    strength = (1 + noise / records) / records
    spread = np.maximum(np.outer(1 - mean**2, 1 - mean**2), _LEAST_SPREAD)
    beyond = (stats.correlations - np.outer(mean, mean)) ** 2 - 4 * (noise / records**2 + spread / records)
    square = (NU * scale**2 + np.maximum(beyond, 0.0) / spread**2) / (NU + 1)
    pairs = np.where(stats.coded, CODED, strength / square)
    return np.concatenate([np.full(len(mean), strength / FIELD**2), pairs[upper]])
