"""Private evaluation: one noised release about the held-out records, at the end of a run.

    x_i = sum_j (score_j / S, loss_j / L, 1),   each in [0, 1],   v_i = encode(x_i) + share of the noise,   C = sqrt 3

S and L are the caps of a record's score and loss. At the level of sites, x_i is the mean over the site's records. Every
score that is told costs budget, so there is one, of the final model. It is charged to the account of the held-out
records (accounts.py), in mode local with all of the noise at every site.
Shapes  v (3,) int64      Errors  as mode shared
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qfed.privacy.accounting import Releases, accounted, epsilon_of
from qfed.privacy.accounts import account
from qfed.privacy.grid import METRICS_NORM
from qfed.privacy.ledger import Ledger
from qfed.privacy.shares import Shares, check_exactness


@dataclass(frozen=True)
class MetricsPlan:
    """One release of three figures; `evaluate` returns their sums over the records, and how many records."""

    unit: Literal["record", "site"]
    delta: float
    shares: Shares

    @property
    def per_round(self) -> Releases:
        """What is released."""
        return Releases(1.0, self.shares.noise_multiplier, 1)

    def epsilon(self) -> float:
        """What it spends of the held-out records' budget."""
        return epsilon_of([self.per_round], accounted(self.delta))

    def release(
        self,
        evaluate: Callable[[], Sequence[float]],
        caps: Sequence[float],
        *,
        asked: bytes,
        ledger: Ledger,
        dataset: str,
        run: str,
        round: int,
    ) -> NDArray[np.int64]:
        """This site's part (3,); `evaluate`, called once charged, gives sums that `caps` bound for each record.

        `asked` tells one request from another: the model that is scored.
        """
        check_exactness(self.shares, len(caps), 1, self.epsilon(), self.delta)
        request = hashlib.sha256(f"{self!r}".encode() + asked).digest()
        name = account(dataset, self.unit, held_out=True)
        held = ledger.reserve(name, run, round, self.per_round, planned_rounds=1, request=request, kind="evaluate")
        sums = np.asarray(evaluate(), dtype=np.float64) / np.asarray(caps, dtype=np.float64)
        if self.unit == "site":
            sums = sums / max(float(sums[-1]), 1.0)
        part = self.shares.hide(sums, METRICS_NORM)
        ledger.settle(held)
        return part
