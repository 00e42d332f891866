"""What several runs on one data set cost together, when each may have been chosen by looking at those before it.

A run declares its whole plan before its first release. Let P1, P2, ... be the plans in the order in which they came and
B the budget at delta. What is admitted, and why it is (B, delta)-private:

1. P1 was fixed before anything was released, so fixed-plan accounting (accounting.py) holds: epsilon(P1) <= B.
   Stopping early, or skipping rounds, releases a part of P1 and costs no more.
2. P2 may depend on answers of P1. Privacy loss distributions and other trade-off curves compose wrongly then (arXiv
   2602.06756); a filter does not: a sum of bounds that no sequence of answers can take past the budget. Two are exact
   enough and valid for any analyst, also with runs interleaved (Haney et al., CCS 2023):

       Gaussian   sum_t 1/sigma_t^2 <= mu_B^2         (Smith and Thakurta, 2022; closed form, loses nothing)
       Renyi      sum_t D_alpha(t) <= rho_B(alpha)    (Feldman and Zrnic, NeurIPS 2021)     for ONE alpha

   alpha has to be fixed before the answers. The minimum over alphas, which fixed plans may take, would let the answers
   pick the alpha: each way things may go then has its own bound of delta, and their union has none. For the same reason
   a data set keeps one filter for life: the Gaussian one if P1 has q = 1 (later q < 1 is charged as q = 1, which
   dominates it), else Renyi with the alpha that is best for repeating P1's releases until B is spent. Both are known
   when P1 is declared, and recorded with it.
3. The two accountings must not be mixed along the way either: "finish P1, which costs B by (1)" and "stop P1, start P2,
   which costs B by (2)" is a choice that the answers could make. So P2 is admitted only if all of P1 as declared, its
   unused rounds as well, passes the filter; then (2) alone covers whatever happens. If it does not pass, P1 may run to
   its end and nobody else ever runs. With q = 1 it always passes. With q < 1 the filter reads some 5 to 20 % above P1's
   own epsilon, and that much must be left of the budget for another run.

Cost  0.2 s to choose alpha, 1 ms a reading
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from qfed.privacy.accounting import ADJACENCY, ORDERS, Releases, epsilon_of, merged


@dataclass(frozen=True)
class Limits:
    """The budget of each data set of a ledger."""

    epsilon: float
    delta: float

    def exceeded_by(self, epsilon: float) -> bool:
        """Whether `epsilon` is more than the budget, rounding aside."""
        return epsilon > self.epsilon * (1 + 1e-9)


@dataclass(frozen=True)
class Course:
    """How far a run's plan has come: all of it, what it may still use up, and what it was charged."""

    declared: Releases
    held: Releases
    charged: Releases


@lru_cache(maxsize=256)
def order_for(first: Releases, limits: Limits) -> int | None:
    """The filter of a data set whose first plan is `first`: a Renyi order, or None for the Gaussian filter."""
    if first.sampling_rate == 1:
        return None
    order: int = ORDERS[0]
    for power in range(64):
        accountant = RdpAccountant(ORDERS, ADJACENCY).compose(replace(first, steps=2**power).event)
        epsilon, best = accountant.get_epsilon_and_optimal_order(limits.delta)
        if power and limits.exceeded_by(epsilon):
            break
        order = int(best)
    return order


def reading(releases: Sequence[Releases], delta: float, order: int | None) -> float:
    """The least budget at which the filter would have let these releases pass."""
    if order is None:
        return epsilon_of([replace(part, sampling_rate=1.0) for part in releases], delta)
    return _renyi(merged(releases), delta, order)


@lru_cache(maxsize=4096)
def _renyi(parts: tuple[Releases, ...], delta: float, order: int) -> float:
    accountant = RdpAccountant([order], ADJACENCY)
    for part in parts:
        accountant.compose(part.event)
    return float(accountant.get_epsilon(delta)) if parts else 0.0


def spent(courses: Sequence[Course], delta: float, order: int | None) -> float:
    """What was charged so far, runs in the order in which they came."""
    charged = [course.charged for course in courses]
    return epsilon_of(charged, delta) if len(courses) < 2 else reading(charged, delta, order)


def committed(courses: Sequence[Course], delta: float, order: int | None) -> float:
    """What the data set will have spent once every run has used up what it holds; at most the budget, or it is refused.

    With several runs it is at least the filter's reading of the whole first plan: point 3 above.
    """
    if len(courses) < 2:
        return epsilon_of([course.declared for course in courses], delta)
    first = reading([courses[0].declared], delta, order)
    return max(first, reading([course.held for course in courses], delta, order))
