"""One private release of pair counts: what simulated data is made from, at no further privacy cost.

    x_i = sum over the site's records of phi(record)                    (moments.py; |phi| = C for every record)
    shared   v_i = encode(x_i) + share of the noise                     sigma in the sum over n_min honest sites
    local    v_i = encode(x_i) + all of the noise                       sigma at every site
    off      v_i = x_i, whole numbers without weights and without noise: for comparison, in simulations

The release is one Gaussian mechanism of sensitivity C (shares.py: in grid steps, rounding included, for integers), so
it is charged as one, before the records are read. Fitting, sampling and publishing afterwards look at no record.
An answer is not kept in the ledger: before it is masked it may have a share of the noise only. A request that comes
again is answered from what secure aggregation has sent, or refused.
Adjacency: one record added or removed, so the number of records is protected as well.
Shapes  v (P,) int64      Cost  O(records n^2)      Errors  as mode shared
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qfed.errors import LocalProtocolError
from qfed.privacy.accounting import Releases, accounted, epsilon_of
from qfed.privacy.grid import GRID_STEPS
from qfed.privacy.ledger import Ledger
from qfed.privacy.moments import Moments
from qfed.privacy.shares import Shares, check_exactness

KIND = "synthesize"
"""Of the charge in a ledger."""
_log = logging.getLogger("qfed.privacy")


@dataclass(frozen=True)
class CountsPlan:
    """One release of `moments`; `shares` is None in mode off. Unit: one record."""

    mode: Literal["shared", "local", "off"]
    delta: float
    moments: Moments
    shares: Shares | None

    @property
    def noise_multiplier(self) -> float | None:
        """sigma, in sensitivities, of the sum over n_min honest sites (shared) or at each site (local)."""
        return None if self.shares is None else self.shares.noise_multiplier

    @property
    def per_round(self) -> Releases | None:
        """What is released."""
        return None if self.shares is None else Releases(1.0, self.shares.noise_multiplier, 1)

    def epsilon(self) -> float | None:
        """What the release spends; None without privacy."""
        return None if self.per_round is None else epsilon_of([self.per_round], accounted(self.delta))

    def alone(self) -> float | None:
        """What it spends against somebody who sees one site's own part, secure aggregation broken."""
        if self.shares is None:
            return None
        weaker = self.shares.noise_multiplier / math.sqrt(self.shares.honest)
        return epsilon_of([Releases(1.0, weaker, 1)], accounted(self.delta))

    def describe(self) -> dict[str, str | float | None]:
        """The mechanism in figures, for a privacy statement."""
        shared = self.shares if self.mode == "shared" else None
        return {
            "mode": self.mode,
            "unit": "record",
            "adjacency": "add or remove",
            "epsilon": self.epsilon(),
            "epsilon_alone": None if shared is None else self.alone(),
            "delta": None if self.shares is None else self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": None if self.shares is None else self.moments.norm,
            "sampling_rate": 1.0,
            "honest": None if shared is None else shared.honest,
            "rounds": 1,
            "steps": 1,
        }

    def release(
        self,
        read: Callable[[], NDArray[np.integer]],
        *,
        asked: bytes,
        ledger: Ledger | None,
        dataset: str,
        run: str,
        round: int,
    ) -> NDArray[np.int64]:
        """This site's part (P,); `read`, called once charged, gives its coded records (N, n + t).

        `asked` tells one request from another: the coding.
        """
        shares, releases = self.shares, self.per_round
        if shares is None or releases is None:
            return self._exact(read, ledger)
        if ledger is None:
            raise LocalProtocolError("a private release needs the ledger of its data set; none was given")
        check_exactness(shares, self.moments.size, 1, self.epsilon() or 0.0, self.delta)
        request = hashlib.sha256(f"{self!r}".encode() + asked).digest()
        held = ledger.reserve(dataset, run, round, releases, planned_rounds=1, request=request, kind=KIND)
        sums = self.moments.sums(read())
        self._warn_of_clamping(sums, shares)
        part = shares.hide(sums, self.moments.norm)
        ledger.settle(held)
        return part

    def _exact(self, read: Callable[[], NDArray[np.integer]], ledger: Ledger | None) -> NDArray[np.int64]:
        if ledger is not None:
            raise LocalProtocolError('privacy.mode="off" charges no ledger, but one was given; was noise meant?')
        return np.rint(self.moments.sums(read())).astype(np.int64)

    def _warn_of_clamping(self, sums: NDArray[np.float64], shares: Shares) -> None:
        room = (shares.greatest - shares.noise(len(sums)).reach) * self.moments.norm / GRID_STEPS
        if float(np.abs(sums).max(initial=0.0)) > room:
            _log.warning(
                "this site has more records than the ring of %d bits holds for %d sites: its counts stop at %.0f "
                "(this is private to the site); deal its records to several sites",
                shares.ring_bits,
                shares.sites,
                room / max(self.moments.weights),
            )
