"""A site's part of a run of kind "synthesize": its coded records, counted through the privacy plan.

The plan charges the ledger before the records are read; what leaves the site is one block of integers (synthesis.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qfed.config import RunConfig
from qfed.data import Coding, Records, Schema, schema_of
from qfed.federation.statement import Spending
from qfed.federation.synthesis import COUNTS, coding_of, counts_layout, moments_of
from qfed.privacy.ledger import Ledger
from qfed.privacy.plan import CountsPlan, counts_plan_for
from qfed.secagg import Layout


@dataclass(frozen=True)
class Counter:
    """Coding and privacy plan of one configuration."""

    config: RunConfig
    schema: Schema
    """Of the records as they lie at the site."""
    coding: Coding
    plan: CountsPlan

    @property
    def layout(self) -> Layout:
        """The vector of the run's round."""
        return counts_layout(self.config, self.plan.moments)

    def contribute(
        self, read: Callable[[], Records], *, ledger: Ledger | None, dataset: str, run: str, round: int
    ) -> dict[str, np.ndarray]:
        """The block of the run's round; BudgetExhausted before `read` is called when the ledger says no."""
        terms = (self.config.data.model_dump_json(), self.config.coding.model_dump_json())
        part = self.plan.release(
            lambda: self.coding.encode(read()),
            asked=hashlib.sha256("\n".join(terms).encode()).digest(),
            ledger=ledger,
            dataset=dataset,
            run=run,
            round=round,
        )
        return {COUNTS: part}

    def spending(self) -> Spending:
        """What the release comes to."""
        plan = self.plan
        shared = plan.shares if plan.mode == "shared" else None
        return Spending(
            noise_multiplier=plan.noise_multiplier,
            epsilon=plan.epsilon(),
            epsilon_alone=None if shared is None else plan.alone(),
            sampling_distance=None if shared is None else shared.distance(plan.moments.size, 1),
        )


@lru_cache(maxsize=8)
def _counter(text: str) -> Counter:
    config = RunConfig.model_validate_json(text)
    coding = coding_of(config)
    return Counter(config, schema_of(config.data), coding, counts_plan_for(config, moments_of(config, coding)))


def counter_for(config: RunConfig) -> Counter:
    """The counter of a configuration; ConfigError for a coding that its data do not have, or a budget too small."""
    return _counter(config.model_dump_json())
