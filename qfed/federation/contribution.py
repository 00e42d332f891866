"""What a site contributes to a round, as blocks of one masked vector, and what their sum says.

    update   (P,)  weight x (local model - global model), its L2 norm at most max_weight x update_clip
    weight   (1,)  the site's weight: records, or 1
    score    (1,)  right answers, or sum of squared errors, of the global model it received, on its held-out records
    loss     (1,)  sum of losses, each clipped to LOSS_CAP
    records  (1,)  held-out records

The aggregator decodes the sums of these over the survivors and divides; nothing else leaves a site.
Counts have scale 1, so they pass exactly; other blocks get the finest power-of-two grid that cannot overflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qfed.config import RunConfig
from qfed.errors import ConfigError, LocalProtocolError
from qfed.federation.result import Score
from qfed.secagg import Block, Layout, Policy

LOSS_CAP = 16.0
SQUARED_ERROR_CAP = 4.0
_FINEST = 2**20


@dataclass(frozen=True)
class Evaluation:
    """Sums over a site's (or a cohort's) held-out records; a score is right answers or squared errors."""

    score: float
    loss: float
    records: float

    def means(self, metric: str, unit: float = 1.0) -> Score:
        """Accuracy, or root mean square error times `unit` (half the target's public range)."""
        mean = self.score / self.records
        value = mean if metric == "accuracy" else math.sqrt(max(mean, 0.0)) * unit
        return Score(score=value, loss=self.loss / self.records, records=round(self.records))


def greatest_weight(config: RunConfig) -> int:
    """Largest weight of a site in the mean."""
    return config.secagg.max_weight if config.federation.weighting == "records" else 1


def policy_of(config: RunConfig, federation_id: str) -> Policy:
    """The pinned policy of secure aggregation that a run's configuration asks for.

    Committee, drops and least survivors are those that the design recommends for so many sites unless given; `bits` is
    the finest quantisation for which n x max_weight x 2^(bits-1) < 2^(w-1). With groups, all of a group are its
    committee, and drops and least survivors count within it. ConfigError when given terms do not fit.
    """
    n, weight, secagg = config.federation.sites, greatest_weight(config), config.secagg
    finest = secagg.ring_bits - 1 - (n * weight).bit_length() + 1
    groups = config.federation.groups or 1
    terms: dict[str, Any] = {
        "groups": groups,
        "min_survivors": max(3, math.ceil(config.federation.quorum * (n // groups))),
        "clip": secagg.update_clip,
        "bits": secagg.bits if secagg.bits is not None else min(finest, 24),
        "ring_bits": secagg.ring_bits,
        "max_weight": weight,
        "epoch_rounds": secagg.epoch_rounds,
    }
    if secagg.committee_size is not None:
        terms["committee_size"] = secagg.committee_size
    if secagg.recoverable_drops is not None:
        terms["recoverable_drops"] = secagg.recoverable_drops
    try:
        return Policy.recommended(federation_id, n, **terms)
    except LocalProtocolError as error:
        raise ConfigError(f"[secagg] and [federation] do not fit each other: {error}") from None


def layout_of(config: RunConfig, policy: Policy, parameters: int, metric: str, *, train: bool) -> Layout:
    """The blocks of a round's vector; a round that only evaluates has no update and no weight."""
    n, held_out = config.federation.sites, config.secagg.max_weight
    room = 2 ** (config.secagg.ring_bits - 1) - 1
    score_cap = float(held_out) if metric == "accuracy" else SQUARED_ERROR_CAP * held_out

    def finest(bound: float) -> float:
        return float(min(_FINEST, 2 ** math.floor(math.log2(room / (n * bound)))))

    metrics = (
        Block("score", 1, score_cap, 1.0 if metric == "accuracy" else finest(score_cap)),
        Block("loss", 1, LOSS_CAP * held_out, finest(LOSS_CAP * held_out)),
        Block("records", 1, float(held_out), 1.0),
    )
    return Layout.of_update(policy, parameters, metrics) if train else Layout(metrics)


def bounded(update: np.ndarray, clip: float) -> np.ndarray:
    """The update, scaled down to L2 norm `clip` when it is longer; its direction stays."""
    norm = float(np.linalg.norm(update))
    return update if norm <= clip else update * (clip / norm)
