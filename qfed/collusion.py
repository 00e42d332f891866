"""How many colluders a committee withstands, and how likely a drawn one is worse.

    private while  c_committee < L - 2d  and  m - c >= 2
    P[failure] <=  A * b * sum_{j >= L-2d} C(c, j) C(b-c, L-j) / C(b, L)

L committee members, d of them recoverable, m least survivors; c colluding sites in all, b sites at the setup (at
least m; the server may leave out honest ones), A setups that a site accepts before one of them is finished (each
draws a new committee, so a server that aborts draws again), and at most b draws in one of them (a server may show
different sets of bundles, but each draw uses up an honest site's only nonce). Derived in secagg/SECURITY.md; open to
review. Arithmetic alone, so that the configuration's default (`assumed`) can follow from it.

Cost    O(L) exact big-integer terms    Errors  LocalProtocolError
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

from qfed.errors import LocalProtocolError

ALL_SITES_UP_TO = 32  # every site is on the committee of a federation of at most this many
OPENERS = 32  # whose nonces draw the committee of a larger one
MOST_ATTEMPTS = 64  # setups that a site begins without one being finished
TARGET = 40  # bits: a drawn committee is worse than the policy says with probability below 2^-40


def colluders_tolerated(committee_size: int, recoverable_drops: int, min_survivors: int) -> int:
    """Return the most colluding sites (all on the committee) under which every update stays private.

    c < L - 2d keeps one honest member's masks closed; m - c >= 2 leaves two honest updates in every sum.
    """
    return min(committee_size - 2 * recoverable_drops - 1, min_survivors - 2)


def failure_log2(committee_size: int, recoverable_drops: int, candidates: int, corrupt: int) -> float:
    """Return log2 of the (bound of the) probability that a drawn committee holds L - 2d or more of the corrupt sites.

    -inf when it cannot happen. `candidates` is how many sites the committee is drawn from.
    """
    size, least = committee_size, committee_size - 2 * recoverable_drops
    if not 0 < size <= candidates or not 0 <= corrupt <= candidates or least < 1:
        raise LocalProtocolError(
            f"a draw takes 0 < L <= candidates, 0 <= corrupt <= candidates and L > 2d, got L={size}, "
            f"d={recoverable_drops}, candidates={candidates}, corrupt={corrupt}"
        )
    bad = sum(
        math.comb(corrupt, j) * math.comb(candidates - corrupt, size - j) for j in range(least, min(size, corrupt) + 1)
    )
    if bad == 0:
        return -math.inf
    probability = Fraction(bad * MOST_ATTEMPTS * candidates, math.comb(candidates, size))
    return min(0.0, _log2(probability.numerator) - _log2(probability.denominator))


def least_for_groups(sites: int) -> int:
    """Return how many sites of a roster must take part in a draw of groups: four fifths.

    Else the server could leave honest sites out until colluders fill the groups.
    """
    return sites - sites // 5


def group_failure_log2(sites: int, groups: int, tolerated: int, corrupt: int) -> float:
    """Return log2 of the (bound of the) probability that an epoch puts more than `tolerated` corrupt sites together.

    Groups are drawn from the b sites that the server lets take part (at least `least_for_groups`, its worst choice
    counts), and A times at most until a draw is used (groups.py); -inf when it cannot happen.

        P <= max_b A k sum_{j > tolerated} C(c, j) C(b - c, g - j) / C(b, g)
        k = min(G, b // (n // G)) groups,   g = ceil(b / k) the largest
    """
    worst = Fraction(0)
    for present in range(max(corrupt, least_for_groups(sites)), sites + 1):
        count = min(groups, present // (sites // groups))
        largest = -(-present // count)
        bad = sum(
            math.comb(corrupt, j) * math.comb(present - corrupt, largest - j)
            for j in range(tolerated + 1, min(largest, corrupt) + 1)
        )
        worst = max(worst, Fraction(bad * MOST_ATTEMPTS * count, math.comb(present, largest)))
    return -math.inf if worst == 0 else min(0.0, _log2(worst.numerator) - _log2(worst.denominator))


def _log2(value: int) -> float:
    """Return log2 of an integer too large for a float."""
    shift = max(0, value.bit_length() - 64)
    return math.log2(value >> shift) + shift


@cache
def recommended_size(
    sites: int, least: int | None = None, corrupt: int = 0, size: int | None = None
) -> tuple[int, int, int]:
    """Return (L, d, m) for a federation: a fifth of the sites may be away, a tenth (or `corrupt`, if more) may collude.

    Up to 32 sites all are members. Beyond, the smallest committee with d = L // 4 whose failure probability stays
    below 2^-40 when so many collude and only m answer, or `least`, if that is fewer; or the one of `size`.
    """
    if sites <= ALL_SITES_UP_TO:
        drops = sites // 5
        return sites, drops, max(3, sites - drops)
    usual, corrupt = sites - sites // 5, max(corrupt, sites // 10)
    present = min(usual, least or usual)
    if size is not None:
        return size, size // 4, usual
    for tried in range(8, sites + 1):
        candidates = max(present, tried)  # a setup takes as many sites as the committee has members
        if corrupt <= candidates and failure_log2(tried, tried // 4, candidates, corrupt) < -TARGET:
            return tried, tried // 4, usual
    raise LocalProtocolError(
        f"no committee of sites={sites} withstands {corrupt} that collude; use fewer colluders or more sites"
    )


@cache
def withstood(sites: int, committee_size: int, recoverable_drops: int, min_survivors: int) -> int:
    """Return the most colluding sites, wherever they are, under which updates stay private.

    Where all sites are on the committee: surely (`colluders_tolerated`). Of a drawn one: but for a chance below 2^-40
    an epoch, if that allows more.
    """
    surely = colluders_tolerated(committee_size, recoverable_drops, min_survivors)
    if sites <= ALL_SITES_UP_TO or surely < 1:
        return surely
    candidates = max(min_survivors, committee_size)
    low, high = surely, min_survivors - 2
    while low < high:
        middle = (low + high + 1) // 2
        fails = failure_log2(committee_size, recoverable_drops, candidates, middle) >= -TARGET
        low, high = (low, middle - 1) if fails else (middle, high)
    return low


def assumed(sites: int, min_survivors: int, committee_size: int | None = None, drops: int | None = None) -> int:
    """Return the colluders that a run allows for when nobody says how many: a fifth, or all that are withstood.

    Terms that are not given are the recommended ones; at least 1, as terms that withstand none are refused.
    """
    size, usual, _ = recommended_size(sites, min_survivors, size=committee_size)
    most = withstood(sites, committee_size or size, usual if drops is None else drops, min_survivors)
    return max(1, min(sites // 5, most))
