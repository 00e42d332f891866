"""Who takes part in a run, how answers are merged, and how they are hidden."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from qfed.config.section import Count, Number, Positive, Section, Whole

Strategy = Literal[
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "krum",
    "multikrum",
    "median",
    "trimmed_mean",
    "bulyan",
]
ROBUST = ("krum", "multikrum", "median", "trimmed_mean", "bulyan")
"""Strategies that compare single updates, or the means of groups; all others need the mean only."""

Decay = Annotated[Number, Field(ge=0, lt=1)]


class FederationConfig(Section):
    """Who takes part and how answers are merged."""

    sites: Annotated[Whole, Field(ge=3, le=4096)] = 10
    """Sites of the federation (a simulation makes this many); a sum of fewer than three hides nobody's part."""
    quorum: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """Share of the sites that must answer a round; below it the round fails and the model is kept."""
    deadline: Positive = 600.0
    """Seconds after which a site that has not answered a round counts as dropped out."""
    max_failed_rounds: Annotated[Whole, Field(ge=0)] = 3
    """Failed rounds in a row after which the run ends."""
    weighting: Literal["records", "uniform"] = "records"
    """Weight of a site in the mean: its number of records (hidden in the masked sum), or one each."""
    strategy: Strategy = "fedavg"
    """How the sites' updates become a step: fedavg, fedprox (arXiv 1812.06127), fedavgm (arXiv 1909.06335), fedadam,
    fedyogi, fedadagrad (arXiv 2003.00295) need the mean only; krum, multikrum (arXiv 1703.02757), median, trimmed_mean
    (arXiv 1803.01498) and bulyan (arXiv 1802.07927) withstand poisoned updates and need `groups`."""
    server_learning_rate: Positive | None = None
    """Step size of the server optimiser; leave out for 1, or 0.1 for fedadam and fedadagrad, 0.01 for fedyogi."""
    server_momentum: Decay = 0.9
    """Momentum of fedavgm."""
    beta1: Decay = 0.9
    """Decay of the first moment of fedadam and fedyogi."""
    beta2: Decay = 0.99
    """Decay of the second moment of fedadam and fedyogi."""
    tau: Positive = 1e-3
    """What is added to the root of the second moment in fedadam, fedyogi and fedadagrad; smaller adapts more."""
    proximal_mu: Positive = 0.1
    """Weight mu of the term mu/2 |w - w_global|^2 that holds a site's model near the global one (fedprox)."""
    groups: Annotated[Whole, Field(ge=2, le=1024)] | None = None
    """Groups, drawn at random each epoch, whose sums are opened one by one so that a robust strategy can compare
    their means; each reveals its sum to the aggregator. Leave out for one sum over all sites."""
    byzantine: Annotated[Whole, Field(ge=0)] = 1
    """Poisoned groups (in clear: sites) that a robust strategy withstands: f of Krum and Bulyan, the values cut off
    at each end by trimmed_mean."""

    @property
    def least_survivors(self) -> int:
        """m: sites below which a round (of a group, if there are groups) fails and no sum is opened."""
        return max(3, math.ceil(self.quorum * (self.sites // (self.groups or 1))))

    @property
    def robust(self) -> bool:
        """Whether the strategy compares several updates."""
        return self.strategy in ROBUST

    @property
    def least_parts(self) -> int:
        """Updates (or group means) that the strategy needs to withstand `byzantine` poisoned ones.

        2f + 1 for a median or trimmed mean, 2f + 3 for Krum (Blanchard et al., 2017), 4f + 3 for Bulyan (El Mhamdi et
        al., 2018); 1 for what needs the mean only.
        """
        match self.strategy:
            case "median" | "trimmed_mean":
                return 2 * self.byzantine + 1
            case "krum" | "multikrum":
                return 2 * self.byzantine + 3
            case "bulyan":
                return 4 * self.byzantine + 3
            case _:
                return 1


class SecAggConfig(Section):
    """Secure aggregation: the aggregator decodes the cohort's sum and nothing else."""

    mode: Literal["on", "off"] = "on"
    """"off" sends updates in clear; simulation only, and every report says so."""
    update_clip: Positive = 4.0
    """Bound on the L2 norm of a site's update, so on each coordinate; a longer update is scaled down to it."""
    bits: Annotated[Whole, Field(ge=8, le=24)] | None = None
    """Quantisation: 2^(bits-1) steps between 0 and update_clip; leave out for the finest that fits the ring."""
    ring_bits: Literal[32] = 32
    """Width w of the ring that masks live in."""
    max_weight: Count = 1024
    """Largest record count that a site may weigh in with; larger sites count as this many."""
    committee_size: Annotated[Whole, Field(ge=2)] | None = None
    """Members that hold masks; all sites up to 32, beyond that leave out for the smallest safe committee."""
    recoverable_drops: Annotated[Whole, Field(ge=0)] | None = None
    """Committee members that may vanish between upload and unmask; leave out for about a fifth."""
    epoch_rounds: Annotated[Whole, Field(ge=1, le=1024)] = 32
    """Rounds after which keys are made anew."""
