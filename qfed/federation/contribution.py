"""What a site contributes to a round, as blocks of one masked vector, and what their sum says.

    update   (P,)  weight x (local model - global model), its L2 norm at most max_weight x update_clip
    weight   (1,)  the site's weight: records, or 1
             training.method = "dp_zo": (S,) how far along each of the round's S public directions, for update and part
    part     (P,)  in place of both, with shared noise: integers as `privacy.plan` releases them
    score    (1,)  right answers, or sum of squared errors, of the global model it received, on its held-out records
    loss     (1,)  sum of losses, each clipped to LOSS_CAP
    records  (1,)  held-out records
    metrics  (3,)  in place of these three, with private metrics: once, at the end, as `privacy.plan` releases them

The aggregator decodes the sums of these over the survivors and divides; nothing else leaves a site.
Counts have scale 1, so they pass exactly; other blocks get the finest power-of-two grid that cannot overflow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qfed.collusion import ALL_SITES_UP_TO
from qfed.config import RunConfig
from qfed.errors import ConfigError, LocalProtocolError
from qfed.federation.result import Score
from qfed.privacy.directions import directions
from qfed.privacy.grid import METRICS_NORM, greatest_coordinate, values_of
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
    """Largest weight of a site in the mean; shared noise is for a sum in which none weighs more."""
    by_records = config.federation.weighting == "records" and not config.privacy.shares_noise
    return config.secagg.max_weight if by_records else 1


def target_unit(config: RunConfig) -> float:
    """Half the target's public range: what a scaled error of 1 is worth in the target's unit; 1 for classes."""
    target = config.data.target
    if target is None or target.low is None or target.high is None:
        return 1.0
    return (target.high - target.low) / 2


def policy_of(config: RunConfig, federation_id: str) -> Policy:
    """The pinned policy of secure aggregation that a run's configuration asks for.

    Committee, drops and least survivors are those that the design recommends for so many sites, and for as many
    colluders as privacy.colluders names beyond a tenth of them, unless given; `bits` is
    the finest quantisation for which n x max_weight x 2^(bits-1) < 2^(w-1). With groups, all of a group are its
    committee, and drops and least survivors count within it. ConfigError when given terms do not fit.
    """
    n, weight, secagg = config.federation.sites, greatest_weight(config), config.secagg
    finest = secagg.ring_bits - 1 - (n * weight).bit_length() + 1
    groups, shares = config.federation.groups or 1, config.privacy.shares_noise
    terms: dict[str, Any] = {
        "groups": groups,
        "min_survivors": config.federation.least_survivors,
        "clip": secagg.update_clip,
        "bits": secagg.bits if secagg.bits is not None else min(finest, 24),
        "ring_bits": secagg.ring_bits,
        "max_weight": weight,
        "epoch_rounds": secagg.epoch_rounds,
        "privacy_unit": config.privacy.unit,
    }
    if secagg.committee_size is not None:
        terms["committee_size"] = secagg.committee_size
    if secagg.recoverable_drops is not None:
        terms["recoverable_drops"] = secagg.recoverable_drops
    try:
        asked = config.privacy.colluders or 0  # the default takes what the usual committee withstands
        policy = Policy.recommended(federation_id, n, corrupt=asked if shares else 0, **terms)
    except LocalProtocolError as error:
        raise ConfigError(f"[secagg] and [federation] do not fit each other: {error}") from None
    if shares and config.colluders > (most := policy.withstands(n)):
        raise ConfigError(
            f"privacy.colluders={config.colluders}, but secure aggregation among sites={n} withstands {most} with "
            f"secagg.committee_size={policy.committee_size}, recoverable_drops={policy.recoverable_drops} and at least "
            f"{policy.min_survivors} survivors; use fewer colluders, more sites, fewer recoverable_drops or (beyond "
            f"{ALL_SITES_UP_TO} sites) a larger committee"
        )
    return policy


def layout_of(config: RunConfig, policy: Policy, parameters: int, metric: str, *, train: bool) -> Layout:
    """The blocks of a round's vector; a round that only evaluates has no update and no weight."""
    whole = float(greatest_coordinate(config.federation.sites, config.secagg.ring_bits))
    metrics = _metrics(config, metric) if not config.privacy.private_metrics else ()
    if config.privacy.private_metrics and not train:
        metrics = (Block("metrics", 3, whole, 1.0),)
    if not train:
        return Layout(metrics)
    size = contribution_size(config, parameters)
    if config.privacy.shares_noise:
        return Layout((Block("part", size, whole, 1.0), *metrics))
    return Layout.of_update(policy, size, metrics)


def contribution_size(config: RunConfig, parameters: int) -> int:
    """Numbers of an update: P, or with zeroth-order steps one a direction and step."""
    training = config.training
    return parameters if training.method == "gradient" else training.directions * training.local_steps


def unfolded(config: RunConfig, update: np.ndarray, run: str, round: int, parameters: int) -> np.ndarray:
    """The move of the model (P,) that a round's update stands for, which is itself but with zeroth-order steps."""
    if config.training.method == "gradient":
        return update
    moved: np.ndarray = update @ directions(run, round, len(update), parameters)
    return moved


def _metrics(config: RunConfig, metric: str) -> tuple[Block, ...]:
    n, held_out = config.federation.sites, config.secagg.max_weight
    room = 2 ** (config.secagg.ring_bits - 1) - 1

    def finest(bound: float) -> float:
        return float(min(_FINEST, 2 ** math.floor(math.log2(room / (n * bound)))))

    score, loss, count = (cap * held_out for cap in caps(metric))
    return (
        Block("score", 1, score, 1.0 if metric == "accuracy" else finest(score)),
        Block("loss", 1, loss, finest(loss)),
        Block("records", 1, count, 1.0),
    )


def caps(metric: str) -> tuple[float, float, float]:
    """The most that one held-out record adds to score, loss and records."""
    return (1.0 if metric == "accuracy" else SQUARED_ERROR_CAP), LOSS_CAP, 1.0


def mean_update(config: RunConfig, sums: Mapping[str, np.ndarray], survivors: int) -> np.ndarray | None:
    """What a round's sums over `survivors` say about where the model should move (see `unfolded`); None if nothing.

    Mode shared: minus learning_rate x gradient, over survivors x batch_size; both are public.
    """
    if not config.privacy.shares_noise:
        weight = float(sums["weight"][0])
        return sums["update"] / weight if weight > 0 else None
    total = values_of(sums["part"], config.privacy.clip_norm) / survivors
    if config.privacy.mode == "site":
        return total
    return total * (-config.training.learning_rate / config.training.batch_size)


def evaluation_of(sums: Mapping[str, np.ndarray], metric: str) -> Evaluation | None:
    """The cohort's evaluation; None when the round tells none. Noised figures are put into their possible range."""
    if "metrics" in sums:
        score, loss, count = values_of(sums["metrics"], METRICS_NORM)
        records = max(float(count), 1.0)
        greatest, loss_cap, _ = caps(metric)
        right = min(max(float(score), 0.0), records) * greatest
        return Evaluation(right, min(max(float(loss), 0.0), records) * loss_cap, records)
    if "records" not in sums or sums["records"][0] < 1:
        return None
    return Evaluation(float(sums["score"][0]), float(sums["loss"][0]), float(sums["records"][0]))


def bounded(update: np.ndarray, clip: float) -> np.ndarray:
    """The update, scaled down to L2 norm `clip` when it is longer; its direction stays."""
    norm = float(np.linalg.norm(update))
    return update if norm <= clip else update * (clip / norm)
