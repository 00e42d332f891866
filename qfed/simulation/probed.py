"""The releases of zeroth-order plans (training.method = "dp_zo") that an attacker of the audit sees.

local    how far a site went along its directions, each step: private against everybody
shared   the sum over the honest sites along the directions, after noise shares, masking, unmasking and decoding

The plan is that of the configuration with directions for every canary (qfed.privacy.audit.probes), and plain steps:
momentum and a proximal term come after the release, so they can take nothing of its privacy away.
Shapes  releases (K, m)      Units  multiples of the clip norm C
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qfed.data import SiteData
from qfed.federation.local import Learner
from qfed.privacy.audit.probes import ProbedCanaries, probed_loss
from qfed.privacy.grid import GRID_STEPS
from qfed.privacy.ledger import Ledger
from qfed.privacy.plan import SharedPlan, Task, ZerothPlan
from qfed.simulation.releases import (
    DATASET,
    RUN,
    Array,
    Canaries,
    MaskedSum,
    Observed,
    Progress,
    ledgers_of,
    outcomes_of,
)


def observe(
    learner: Learner, data: Sequence[SiteData], canaries: Canaries, rounds: int, folder: Path, progress: Progress
) -> Observed:
    """Run `rounds` rounds at the sites `data` with their canaries."""
    plan, told = learner.plan, partial(_told, progress, rounds)
    with ExitStack() as opened:
        books = ledgers_of(learner, folder, len(data), opened)
        if isinstance(plan, SharedPlan):
            return _summed(plan, data, canaries, rounds, books, told)
        assert isinstance(plan, ZerothPlan)  # noqa: S101  mode site does not go with the method
        return _each(plan, data, canaries, rounds, books, told)


def _each(
    plan: ZerothPlan, data: Sequence[SiteData], canaries: Canaries, rounds: int, books: Sequence[Ledger],
    told: Callable[[int], None],
) -> Observed:  # fmt: skip
    probed = ProbedCanaries(plan.probe, canaries.coordinates)
    clip_norm, multiplier = plan.clip_norm, plan.noise_multiplier
    assert clip_norm is not None and multiplier is not None  # noqa: S101, PT018  the audit refuses mode off
    wide, model = replace(plan, probe=probed.wide, momentum=0.0, proximal=0.0), probed.model()
    back = -plan.batch_size / (plan.learning_rate * clip_norm)  # through the step to the sum
    releases: list[Array] = []
    for round in range(1, rounds + 1):
        tasks = _tasks(probed, data, canaries, books, round, clip_norm)
        moves = outcomes_of(wide.release_rounds(model, probed_loss, tasks))
        by_step = np.stack([probed.seen(back * move) for move in moves], axis=1)
        releases.extend(by_step.reshape(-1, canaries.coordinates))
        told(round)
    shows = np.arange(len(releases))[:, None] % len(data) == canaries.owner
    spent = max(book.spent(DATASET) for book in books)
    return Observed(np.array(releases), shows, multiplier, plan.sampling_rate, spent)


def _summed(
    plan: SharedPlan, data: Sequence[SiteData], canaries: Canaries, rounds: int, books: Sequence[Ledger],
    told: Callable[[int], None],
) -> Observed:  # fmt: skip
    assert plan.probe is not None  # noqa: S101  only of training.method = "dp_zo"
    probed = ProbedCanaries(plan.probe, canaries.coordinates)
    wide, model = replace(plan, probe=probed.wide), probed.model()
    masked = MaskedSum(len(data), probed.wide.size, plan.shares.greatest, rounds)
    releases: list[Array] = []
    for round in range(1, rounds + 1):
        tasks = _tasks(probed, data, canaries, books, round, plan.clip_norm)
        parts = outcomes_of(wide.release_rounds(model, probed_loss, tasks))
        releases.extend(probed.seen(masked(parts) / GRID_STEPS))
        told(round)
    spent = max(book.spent(DATASET) for book in books)
    sigma = plan.shares.stddev(probed.wide.size) * math.sqrt(len(data)) / GRID_STEPS
    shows = np.broadcast_to(canaries.exists, np.shape(releases))
    return Observed(np.array(releases), shows, sigma, plan.sampling_rate, spent)


def _tasks(
    probed: ProbedCanaries,
    data: Sequence[SiteData],
    canaries: Canaries,
    books: Sequence[Ledger],
    round: int,
    clip_norm: float,
) -> list[Task]:
    features, start = probed.features(RUN, round, clip_norm), torch.zeros(probed.weights)
    return [
        Task(start, partial(_records, features[canaries.at(number)], len(site.train)), book, DATASET, RUN, round, None)
        for number, (site, book) in enumerate(zip(data, books, strict=True))
    ]


def _records(present: Tensor, honest: int) -> tuple[Tensor, Tensor]:
    """The canaries that are in a site's data and as many records as it has, whose loss does not move."""
    x = torch.cat([torch.zeros(honest, present.shape[1]), present])
    return x, torch.zeros(len(x), dtype=torch.long)


def _told(progress: Progress, rounds: int, round: int) -> None:
    progress(round, rounds)
