"""What an audit found: gates that passed or not, lower bounds on epsilon, and the figures behind them.

Plain values, for the terminal, JSON and plots.      Units  releases and scores in multiples of the clip norm C
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMAT = "qfed.audit/1"


@dataclass(frozen=True)
class Gate:
    """One check that an honest implementation passes but for one in ten thousand; `low` <= `value` <= `high`."""

    name: str
    value: float
    low: float | None
    high: float | None
    means: str
    """What it says when it fails."""

    @property
    def passed(self) -> bool:
        """Whether the value lies within; one that is not a number does not."""
        above = self.low is None or self.value >= self.low
        return above and (self.high is None or self.value <= self.high)


@dataclass(frozen=True)
class Bound:
    """Epsilon at the plan's delta that the canaries prove, with the verdict's confidence."""

    name: str
    epsilon: float
    source: str
    binding: bool
    """Holds for any implementation; if not, it takes the canaries' scores for independent."""


@dataclass(frozen=True)
class Membership:
    """A membership-inference attack on the trained model alone, for the picture (see qfed.simulation.membership)."""

    auc: float
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    models: int
    records: int


@dataclass(frozen=True)
class Verdict:
    """An audit of one configuration."""

    name: str
    mode: str
    method: str
    """What training takes from a record: its gradient, or (dp_zo) differences of its loss."""
    unit: str
    epsilon: float
    """What the plan claims for the audited rounds."""
    delta: float
    noise_multiplier: float
    clip_norm: float
    sampling_rate: float
    canaries: int
    sites: int
    rounds: int
    releases: int
    confidence: float
    gates: tuple[Gate, ...]
    bounds: tuple[Bound, ...]
    scores_in: tuple[float, ...]
    """Score of each canary that was in the data: its mean over the releases that may show it."""
    scores_out: tuple[float, ...]
    levels: tuple[float, ...]
    """Measured over claimed standard deviation of the noise, each release."""
    seconds: float
    membership: Membership | None = None

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the gates that did not."""
        return tuple(gate.name for gate in self.gates if not gate.passed)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        tree = {"format": FORMAT, "passed": self.passed, "failed": list(self.failed)} | asdict(self)
        tree["gates"] = [asdict(gate) | {"passed": gate.passed} for gate in self.gates]
        return tree
