"""A site's part of a round: global model in, bounded update and evaluation sums out.

    delta = local_steps of (DP-)SGD from the global model, minus it;   ||delta||_2 <= update_clip

Training goes through `privacy.plan`, which charges the ledger before the records are read. Scaling an update down to
`update_clip` is post-processing of what the plan released.  Shapes: model and update (P,) float.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from qfed.config import RunConfig
from qfed.data import Records, Schema, schema_of
from qfed.errors import LocalProtocolError, QfedError
from qfed.federation.contribution import (
    LOSS_CAP,
    SQUARED_ERROR_CAP,
    Evaluation,
    bounded,
    caps,
    contribution_size,
    greatest_weight,
    target_unit,
)
from qfed.federation.facts import Facts
from qfed.federation.statement import Spending
from qfed.models import build, flatten, loss, score, unflatten
from qfed.privacy.ledger import Ledger
from qfed.privacy.plan import AnyPlan, MetricsPlan, SharedPlan, SitePlan, Task, ZerothPlan, metrics_plan_for, plan_for
from qfed.quantum.spending import current_meter


@dataclass(frozen=True, eq=False)
class Job:
    """One site's round of training, as `Learner.train` takes it."""

    vector: np.ndarray
    read: Callable[[], Records]
    ledger: Ledger | None
    dataset: str
    run: str
    round: int

    @property
    def key(self) -> tuple[object, ...]:
        """Tells it from any other."""
        account = None if self.ledger is None else self.ledger.path
        return account, self.dataset, self.run, self.round, hashlib.sha256(self.vector.tobytes()).digest()


@dataclass(frozen=True)
class Learner:
    """Model, loss and privacy plan of one configuration; a process that serves several sites shares it."""

    config: RunConfig
    schema: Schema
    model: nn.Module
    plan: AnyPlan
    exact: nn.Module
    """The model in the kernel, whatever device trains it (else `model` itself)."""
    start: np.ndarray
    """Parameters of the initial model, (P,) float32: the same at every site for the same seed."""
    _ahead: dict[tuple[object, ...], np.ndarray | Exception] = field(default_factory=dict, repr=False)
    """What `train_ahead` found, until its site asks for it."""

    @property
    def parameters(self) -> int:
        """Trainable parameters P."""
        return len(self.start)

    @property
    def metric(self) -> Literal["accuracy", "rmse"]:
        """What a score means."""
        return "accuracy" if self.schema.task == "classification" else "rmse"

    def contribute(
        self,
        vector: np.ndarray,
        read: Callable[[], Records],
        *,
        ledger: Ledger | None,
        dataset: str,
        run: str,
        round: int,
    ) -> dict[str, np.ndarray]:
        """The training blocks of one round (see contribution)."""
        trained = self.train(vector, read, ledger=ledger, dataset=dataset, run=run, round=round)
        if self.config.privacy.shares_noise:
            return {"part": trained}
        weight = min(len(read()), greatest_weight(self.config))
        return {"update": weight * trained, "weight": np.array([weight], float)}

    def train(
        self,
        vector: np.ndarray,
        read: Callable[[], Records],
        *,
        ledger: Ledger | None,
        dataset: str,
        run: str,
        round: int,
    ) -> np.ndarray:
        """The bounded update of one round, or (shared noise) this site's part of it, (P,); dp_zo: along directions.

        BudgetExhausted before `read` is called when the ledger says no.
        """
        job = Job(vector, read, ledger, dataset, run, round)
        outcome = self._ahead.pop(job.key, None)
        if outcome is None:
            (outcome,) = self.train_many([job])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def train_many(self, jobs: Sequence[Job]) -> list[np.ndarray | Exception]:
        """`train` of many sites in one call, each from its own model and charged to its own ledger before its read."""
        if not jobs:
            return []
        self._insist_on_meter()
        self.model.train()
        tasks = [
            Task(
                torch.from_numpy(np.array(job.vector, dtype=np.float32)), _reader(job.read), job.ledger, job.dataset,
                job.run, job.round, experiment_rng(self.config.seed, job.dataset, job.round),
            )
            for job in jobs
        ]  # fmt: skip
        unflatten(self.model, jobs[0].vector)
        plan, task_loss = self.plan, loss(self.schema.task)
        if isinstance(plan, SharedPlan | SitePlan):
            return list(plan.release_rounds(self.model, task_loss, tasks, optimizer=self._optimizer))
        if isinstance(plan, ZerothPlan):
            moves = plan.release_rounds(self.model, task_loss, tasks)
            clip = self.config.secagg.update_clip
            return [move if isinstance(move, Exception) else bounded(move, clip) for move in moves]
        receipts = plan.train_rounds(self.model, task_loss, tasks, optimizer=self._optimizer)
        return [
            receipt if isinstance(receipt, Exception) else self._update(job.vector, task.weights.numpy())
            for job, task, receipt in zip(jobs, tasks, receipts, strict=True)
        ]

    def train_ahead(self, jobs: Sequence[Job]) -> None:
        """Train many sites now; `train` gives each its own result (or error) when it is asked with the same terms."""
        self._ahead.clear()
        keys = [job.key for job in jobs]
        alone = [job for job, key in zip(jobs, keys, strict=True) if keys.count(key) == 1]
        try:
            outcomes = self.train_many(alone)
        except QfedError as error:  # of the model, before anything was charged: the same for every site
            outcomes = [error] * len(alone)
        self._ahead.update(zip((job.key for job in alone), outcomes, strict=True))

    def _insist_on_meter(self) -> None:
        """What a device runs is counted against the run's caps, or not run."""
        if not self.config.quantum.on_kernel and self.config.model.kind == "hybrid" and current_meter() is None:
            raise LocalProtocolError(
                f"quantum.device={self.config.quantum.device!r} runs under a meter only; see qfed.quantum.spending"
            )

    def _optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return _optimizer(self.config, parameters)

    def _update(self, vector: np.ndarray, trained: np.ndarray) -> np.ndarray:
        return bounded(trained.astype(np.float64) - vector.astype(np.float64), self.config.secagg.update_clip)

    def spending(self, rounds: int) -> Spending:
        """What `rounds` rounds, and the evaluation after them, come to."""
        plan, metrics = self.plan, self.metrics_plan
        shared = plan if isinstance(plan, SharedPlan | SitePlan) else None
        size = contribution_size(self.config, self.parameters)
        return Spending(
            noise_multiplier=plan.noise_multiplier,
            epsilon=plan.epsilon(rounds),
            epsilon_alone=None if shared is None else shared.alone(rounds),
            sampling_distance=None if shared is None else shared.shares.distance(size, rounds),
            metrics_epsilon=None if metrics is None else metrics.epsilon(),
        )

    def facts(self, rounds: int, every: int) -> Facts:
        """What the aggregator must be told: `spending` of `rounds` rounds, epsilon at every so many of them."""
        steps = [*range(every, rounds, every), rounds]
        spent = [(round, epsilon) for round in steps if (epsilon := self.plan.epsilon(round)) is not None]
        return Facts(
            task=self.schema.task,
            metric=self.metric,
            unit=target_unit(self.config),
            parameters=self.parameters,
            schema=self.schema.to_dict(),
            spending=self.spending(rounds),
            epsilon=tuple(spent),
        )

    @cached_property
    def metrics_plan(self) -> MetricsPlan | None:
        """How evaluation results are noised; None when they are only masked."""
        return metrics_plan_for(self.config)

    def score(
        self,
        vector: np.ndarray,
        read: Callable[[], Records],
        *,
        ledger: Ledger,
        dataset: str,
        run: str,
        round: int,
        train: bool,
    ) -> dict[str, np.ndarray]:
        """The evaluation blocks of a round (see contribution): exact sums, or noised and charged at the very end."""
        plan = self.metrics_plan
        if plan is None:
            sums = self.evaluate(vector, read())
            return {name: np.array([getattr(sums, name)]) for name in ("score", "loss", "records")}
        if train:
            return {}

        def figures() -> tuple[float, float, float]:
            sums = self.evaluate(vector, read())
            return sums.score, sums.loss, sums.records

        part = plan.release(
            figures, caps(self.metric), asked=vector.tobytes(), ledger=ledger, dataset=dataset, run=run, round=round
        )
        return {"metrics": part}

    def evaluate(self, vector: np.ndarray, records: Records, *, on_device: bool = True) -> Evaluation:
        """Sums over held-out records; each record's loss and squared error count up to their caps.

        By the kernel, or (quantum.scores = "device", unless not `on_device`) on the device that trains.
        """
        model = self.model if on_device and self.config.quantum.scores == "device" else self.exact
        if model is not self.exact:
            self._insist_on_meter()
        unflatten(model, vector)
        model.eval()
        x, y = _tensors(records)
        with torch.no_grad():
            outputs = model(x)
            losses = loss(self.schema.task)(outputs, y).clamp(max=LOSS_CAP)
            right, count = score(
                self.schema.task, outputs.clamp(-1, 1) if self.schema.task == "regression" else outputs, y
            )
        return Evaluation(min(right, SQUARED_ERROR_CAP * count), float(losses.sum()), count)


_learners: dict[str, Learner] = {}


def learner_for(config: RunConfig) -> Learner:
    """The learner of a configuration; building it calibrates the noise, so the last few are kept."""
    key = config.model_dump_json()
    if key not in _learners:
        schema = schema_of(config.data)
        exact = model = build(config.model, schema.inputs, schema.outputs, config.seed)
        if not config.quantum.on_kernel:
            model = build(config.model, schema.inputs, schema.outputs, config.seed, config.quantum)
        while len(_learners) >= 8:
            _learners.pop(next(iter(_learners)))
        _learners[key] = Learner(config, schema, model, plan_for(config), exact, flatten(model))
    return _learners[key]


def experiment_rng(seed: int, site: str, round: int) -> np.random.Generator:
    """Seeded randomness of one site in one round, for experiments (sampling without privacy, rounding)."""
    return np.random.default_rng([seed, zlib.crc32(site.encode()), round])


def _reader(read: Callable[[], Records]) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: _tensors(read())


def _tensors(records: Records) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(records.x)), torch.from_numpy(np.ascontiguousarray(records.y))


def _optimizer(config: RunConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    training, held = config.training, list(parameters)
    optimizer: torch.optim.Optimizer
    if training.optimizer == "adam":
        optimizer = torch.optim.Adam(held, lr=training.learning_rate)
    else:
        optimizer = torch.optim.SGD(held, lr=training.learning_rate, momentum=training.momentum)
    if config.federation.strategy == "fedprox":
        _hold_near_start(optimizer, held, config.federation.proximal_mu)
    return optimizer


def _hold_near_start(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], mu: float) -> None:
    """Add the gradient of mu/2 |w - w_start|^2 at every step (FedProx, arXiv 1812.06127).

    The hook runs when the gradient is final: under differential privacy after clipping and noise. The term depends on
    no record but through earlier noisy steps, so it costs no privacy, and clipping does not shrink it.
    """
    start = [parameter.detach().clone() for parameter in parameters]

    def add_term(*_: object) -> None:
        with torch.no_grad():
            for parameter, at in zip(parameters, start, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - at, alpha=mu)

    optimizer.register_step_pre_hook(add_term)
