"""Independent bits: every bit is 1 with its released frequency, and knows nothing of the others.

    P[b] = prod_i p_i^{b_i} (1 - p_i)^{1 - b_i}

Shapes  bits (N, n)      Cost  O(N n) a sample      Errors  none of its own
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from qfed.config import SynthConfig
from qfed.generative.library import Progress, State, silent
from qfed.generative.statistics import Bits, Floats, PairCounts


class Independent:
    """One-way margins only."""

    def __init__(self, ones: Floats | None = None) -> None:
        self._ones: Floats = np.zeros(0) if ones is None else ones

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """Not fitted."""
        return cls()

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Take the margins."""
        self._ones = stats.ones
        return self

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records."""
        return (rng.random((count, len(self._ones))) < self._ones).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        """Its name and size."""
        return {"generator": "independent", "bits": len(self._ones), "parameters": len(self._ones)}

    def state(self) -> State:
        """The margins."""
        return {}, {"ones": self._ones}

    @classmethod
    def restore(cls, config: SynthConfig, state: State) -> Self:
        """From the margins."""
        return cls(state[1]["ones"])
