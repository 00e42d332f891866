"""The releases that an attacker of the audit sees, made by the very plan that trains, on the audit's coordinates.

local    every gradient that the plan hands to a site's optimiser: each is private against everybody
shared   every sum over the honest sites, after noise shares, encoding, masking, unmasking and decoding; who colludes
         knows its own part, so the sum over the n_min others is what it sees
site     as shared; a canary is a whole site, whose update is 50 C e_i before it is clipped

Shapes  releases (K, m)      Units  multiples of the clip norm C
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qfed.data import SiteData
from qfed.federation.local import Learner
from qfed.models import loss
from qfed.privacy.audit.canaries import AuditModel, Recorder, audit_loss, with_canaries
from qfed.privacy.grid import GRID_STEPS
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import LocalPlan, SharedPlan, SitePlan, Task
from qfed.secagg import (
    Block,
    ClientSession,
    ClientStore,
    Federation,
    Identity,
    Layout,
    Policy,
    ServerSession,
    decode,
    encode,
)

DATASET, RUN = "audited", "audit"
_COPIES = 200
"""Records of a canary site: enough for each of its steps to sample some, whatever the rate."""

Progress = Callable[[int, int], None]
"""Rounds done, rounds in all."""
_T = TypeVar("_T")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Canaries:
    """Which coordinates belong to a canary, which of those are in the data, and at which site."""

    exists: NDArray[np.bool_]
    included: NDArray[np.bool_]
    owner: NDArray[np.intp]

    @property
    def coordinates(self) -> int:
        """Audit coordinates m."""
        return len(self.exists)

    def at(self, site: int) -> NDArray[np.intp]:
        """Canaries that are in a site's data."""
        return np.flatnonzero(self.included & (self.owner == site))


@dataclass(frozen=True)
class Observed:
    """What came out, and what it should look like."""

    releases: Array
    """(K, m)"""
    shows: NDArray[np.bool_]
    """(K, m): whether a release may show a canary (that of its own site, or of any site in a sum)."""
    sigma: float
    """Standard deviation that the noise should have."""
    rate: float
    """Probability with which a canary is in a release."""
    spent: float
    """The largest epsilon that a ledger tells."""


def fewest_sites(learner: Learner, asked: int) -> int:
    """Sites to audit: as many as are asked for, or with shared noise the n_min honest ones (3 hold a masked sum)."""
    if isinstance(learner.plan, SharedPlan | SitePlan):
        return max(3, learner.plan.shares.honest)
    return min(asked, learner.config.federation.sites)


def observe(
    learner: Learner, data: Sequence[SiteData], canaries: Canaries, rounds: int, folder: Path, progress: Progress
) -> Observed:
    """Train `rounds` rounds at the sites `data` with their canaries."""
    model = AuditModel(learner.model, canaries.coordinates)
    model.train()
    start = np.concatenate([learner.start, np.zeros(canaries.coordinates, np.float32)])
    with ExitStack() as opened:
        books = ledgers_of(learner, folder, len(data), opened)
        told = lambda round: progress(round, rounds)  # noqa: E731
        if isinstance(plan := learner.plan, SharedPlan | SitePlan):
            return _summed(learner, plan, model, start, data, canaries, rounds, books, told)
        assert isinstance(plan, LocalPlan)  # noqa: S101  the audit refuses mode off
        return _each(learner, plan, model, start, data, canaries, rounds, books, told)


def ledgers_of(learner: Learner, folder: Path, sites: int, opened: ExitStack) -> list[Ledger]:
    """A fresh ledger for each audited site, closed with `opened`."""
    limits = Limits(learner.config.privacy.epsilon, learner.config.privacy.delta)
    return [
        opened.enter_context(closing(Ledger(folder / f"{number}.db", limits, durable=False))) for number in range(sites)
    ]


def _each(
    learner: Learner,
    plan: LocalPlan,
    model: AuditModel,
    vector: NDArray[np.float32],
    data: Sequence[SiteData],
    canaries: Canaries,
    rounds: int,
    books: Sequence[Ledger],
    told: Callable[[int], None],
) -> Observed:
    """Mode local; the sites' models are averaged between rounds."""
    objective = audit_loss(loss(learner.schema.task), plan.clip_norm)
    records = [_records(site, canaries, number) for number, site in enumerate(data)]
    recorder = Recorder(
        canaries.coordinates, len(data), plan.batch_size, plan.clip_norm, learner.config.training.learning_rate
    )
    for round in range(1, rounds + 1):
        tasks = _tasks(vector, records, books, round)
        outcomes_of(plan.train_rounds(model, objective, tasks, optimizer=recorder.optimizer))
        vector = np.asarray(torch.stack([task.weights for task in tasks]).mean(0).numpy())
        told(round)
    spent = max(book.spent(DATASET) for book in books)
    shows = np.arange(len(recorder.releases))[:, None] % len(data) == canaries.owner
    return Observed(np.array(recorder.releases), shows, plan.noise_multiplier, plan.sampling_rate, spent)


def _summed(
    learner: Learner,
    plan: SharedPlan | SitePlan,
    model: AuditModel,
    vector: NDArray[np.float32],
    data: Sequence[SiteData],
    canaries: Canaries,
    rounds: int,
    books: Sequence[Ledger],
    told: Callable[[int], None],
) -> Observed:
    """Modes shared and site."""
    sites, size, training = len(data), len(vector), learner.config.training
    masked = MaskedSum(sites, size, plan.shares.greatest, rounds)
    task = loss(learner.schema.task)
    if isinstance(plan, SitePlan):
        # so that the copies' mean gradient moves the site by 50 C a step
        objective = audit_loss(task, plan.clip_norm * plan.batch_size / training.learning_rate / _COPIES)
        records = [_whole_site(site, canaries, number) for number, site in enumerate(data)]
    else:
        objective = audit_loss(task, plan.clip_norm)
        records = [_records(site, canaries, number) for number, site in enumerate(data)]
    releases = []
    for round in range(1, rounds + 1):
        tasks = _tasks(vector, records, books, round)
        parts = outcomes_of(
            plan.release_rounds(
                model, objective, tasks, optimizer=lambda p: torch.optim.SGD(p, lr=training.learning_rate)
            )
        )
        total = masked(parts) / GRID_STEPS
        step = total * (plan.clip_norm / sites)
        if isinstance(plan, SharedPlan):
            releases.append(total[-canaries.coordinates :])
            step *= -training.learning_rate / plan.batch_size
        else:
            releases.append(-total[-canaries.coordinates :])  # gradients point up, updates down
        vector = (vector + step).astype(np.float32)
        told(round)
    spent = max(book.spent(entry.dataset) for book in books for entry in book.rows()[:1])
    sigma = plan.shares.stddev(size) * math.sqrt(sites) / GRID_STEPS
    rate = plan.sampling_rate if isinstance(plan, SharedPlan) else 1.0
    return Observed(np.array(releases), np.broadcast_to(canaries.exists, np.shape(releases)), sigma, rate, spent)


def _tasks(
    vector: NDArray[np.float32], records: Sequence[tuple[Tensor, Tensor]], books: Sequence[Ledger], round: int
) -> list[Task]:
    return [
        Task(torch.from_numpy(vector.copy()), partial(records.__getitem__, number), book, DATASET, RUN, round, None)
        for number, book in enumerate(books)
    ]


def outcomes_of(outcomes: Sequence[_T | Exception]) -> list[_T]:
    """What came of all sites; the first error is raised, since an audit has no site to spare."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


class MaskedSum:
    """Sums of vectors of integers through secure aggregation, all of its parties in this process."""

    def __init__(self, sites: int, size: int, greatest: int, rounds: int) -> None:
        identities = [Identity.generate(f"site-{number:04d}") for number in range(sites)]
        policy = Policy.recommended("audit", sites, epoch_rounds=min(1024, rounds))
        coordinator = Identity.generate("coordinator")
        self._federation = Federation.create(policy, [each.public for each in identities], coordinator)
        self._clients = {
            each.name: ClientSession(each, self._federation, ClientStore(":memory:"), RUN) for each in identities
        }
        self._server = ServerSession(self._federation, RUN)
        self._layout = Layout((Block("part", size, float(greatest), 1.0),))
        self._done = 0

    def __call__(self, parts: Sequence[NDArray[np.int64]]) -> Array:
        """The decoded sum (size,)."""
        place = self._done % self._federation.policy.epoch_rounds
        if place == 0:
            self._begin(self._done + 1)
        self._done += 1
        exact = np.random.default_rng(0)  # integers are encoded as they are
        step = self._server.begin_round(self._epoch, place, self._layout.size)
        for (name, request), part in zip(step.upload_requests().items(), parts, strict=True):
            vector = encode(self._layout, {"part": part}, exact, self._federation.policy, len(parts))
            step.add_upload(name, self._clients[name].upload(request, vector))
        for name, body in self._ask(step.unmask_requests()).items():
            step.add_unmask(name, body)
        aggregate = step.result()
        return decode(self._layout, aggregate.total, len(aggregate.survivors))["part"]

    def _begin(self, number: int) -> None:
        setup = self._server.begin_epoch(number, list(self._clients))
        reveal = self._ask(setup.reveal(self._ask(setup.hello())))
        self._epoch = setup.finish(self._ask(setup.setup(reveal)))
        for name, body in self._ask(self._epoch.confirm_requests()).items():
            self._epoch.add_confirmation(name, body)

    def _ask(self, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: self._clients[name].handle(body) for name, body in requests.items()}


def _records(site: SiteData, canaries: Canaries, number: int) -> tuple[Tensor, Tensor]:
    x, y = (torch.from_numpy(np.ascontiguousarray(part)) for part in (site.train.x, site.train.y))
    return with_canaries(x, y, canaries.coordinates, canaries.at(number))


def _whole_site(site: SiteData, canaries: Canaries, number: int) -> tuple[Tensor, Tensor]:
    """A canary site has nothing but copies of its canary; another has its own records."""
    present = canaries.at(number)
    x, y = _records(site, canaries, number)
    return (x[-1:].repeat(_COPIES, 1), y[-1:].repeat(_COPIES)) if len(present) else (x, y)
