"""The aggregator's step, from what was opened of a round to the next model, in the arithmetic of Flower's strategies.

    fedavg, fedprox   w <- w + eta D                                        (arXiv 1602.05629, 1812.06127)
    fedavgm           v <- beta v + D;  w <- w + eta v                      (Hsu et al., arXiv 1909.06335)
    fedadagrad        v <- v + D^2;  w <- w + eta D / (sqrt(v) + tau)       (Reddi et al., arXiv 2003.00295)
    fedadam           m <- beta1 m + (1 - beta1) D;  v <- beta2 v + (1 - beta2) D^2;
                      w <- w + eta_t m / (sqrt(v) + tau),  eta_t = eta sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1))
    fedyogi           m as above;  v <- v - (1 - beta2) D^2 sign(v - D^2);  w <- w + eta m / (sqrt(v) + tau)
    krum, multikrum, median, trimmed_mean, bulyan     D from several updates, then as fedavg

D is the mean update, t the round. Departures of Flower's from the papers: v starts at 0, not at tau^2 or more, and
fedadam corrects the bias as Adam does. Flower selects for multikrum as many as it is told: n - f - 2 here, each
weighing the same. The state (v, m) is part of the checkpoint, so a run that resumes goes on exactly.

Shapes  model, updates, state (P,)      Cost  O(P); robust strategies O(n^2 P) for n updates
Errors  ProtocolError when fewer updates came than the strategy compares, or what came is not finite
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from qfed._flower import (
    Array,
    ArrayRecord,
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Message,
    MetricRecord,
    MultiKrum,
    RecordDict,
)
from qfed.config import FederationConfig
from qfed.errors import ProtocolError

Vector = NDArray[np.float64]
State = Mapping[str, Vector]
"""What an optimiser carries from round to round: "v", "m", each (P,); empty before the first step."""

_KEY = "model"
_DEFAULT_RATE = {"fedadam": 0.1, "fedadagrad": 0.1, "fedyogi": 0.01}


def server_step(
    config: FederationConfig, model: NDArray[np.float32], update: Vector, round: int, state: State
) -> tuple[NDArray[np.float32], State]:
    """The model and the optimiser's state after the step that `update` makes in `round` (from 1)."""
    if not np.isfinite(update).all():
        raise ProtocolError("the round's update holds values that are not finite; the round is discarded")
    rate = config.server_learning_rate or _DEFAULT_RATE.get(config.strategy, 1.0)
    before = model.astype(np.float64)
    match config.strategy:
        case "fedavgm":
            after, state = _momentum(config.server_momentum, rate, before, update, round, state)
        case "fedadam" | "fedyogi" | "fedadagrad":
            after, state = _adaptive(config, rate, before, update, round, state)
        case _:
            after = before + rate * update
    return after.astype(np.float32), state


def robust_update(config: FederationConfig, updates: Sequence[Vector], round: int) -> Vector:
    """The update that a robust strategy makes of several, each (P,): of groups' means, or in clear of sites'."""
    count, poisoned = len(updates), config.byzantine
    if count < config.least_parts:
        raise ProtocolError(
            f"federation.strategy={config.strategy!r} compares at least {config.least_parts} updates to withstand "
            f"{poisoned} poisoned, got {count}"
        )
    strategy: FedAvg
    match config.strategy:
        case "krum":
            strategy = Krum(num_malicious_nodes=poisoned)
        case "multikrum":
            strategy = MultiKrum(num_malicious_nodes=poisoned, num_nodes_to_select=count - poisoned - 2)
        case "median":
            strategy = FedMedian()
        case "trimmed_mean":
            # Flower cuts int(beta * n) at each end; a quarter more keeps rounding from making that one less.
            strategy = FedTrimmedAvg(beta=(poisoned + 0.25) / count if poisoned else 0.0)
        case "bulyan":
            strategy = Bulyan(num_malicious_nodes=poisoned)
        case other:
            raise ProtocolError(f"federation.strategy={other!r} takes the mean, not single updates")
    return _aggregated(strategy, round, updates)


def _momentum(
    beta: float, rate: float, before: Vector, update: Vector, round: int, state: State
) -> tuple[Vector, State]:
    strategy = FedAvgM(server_learning_rate=rate, server_momentum=beta)
    strategy.current_arrays = _record(before)
    if state:
        strategy.momentum_vector = [-state["v"]]  # Flower's is of gradients, which point the other way
    after = _aggregated(strategy, round, [before + update])
    return after, {} if strategy.momentum_vector is None else {"v": -np.asarray(strategy.momentum_vector[0])}


def _adaptive(
    config: FederationConfig, rate: float, before: Vector, update: Vector, round: int, state: State
) -> tuple[Vector, State]:
    if config.strategy == "fedadagrad":
        strategy: FedAdagrad | FedAdam | FedYogi = FedAdagrad(eta=rate, tau=config.tau)
    else:
        kind = FedAdam if config.strategy == "fedadam" else FedYogi
        strategy = kind(eta=rate, beta_1=config.beta1, beta_2=config.beta2, tau=config.tau)
    strategy.current_arrays = {_KEY: before}
    if state:
        strategy.m_t, strategy.v_t = {_KEY: state["m"]}, {_KEY: state["v"]}
    after = _aggregated(strategy, round, [before + update])
    if strategy.m_t is None or strategy.v_t is None:
        raise ProtocolError("Flower's strategy made a step without state; its version is not one that qfed knows")
    return after, {"m": strategy.m_t[_KEY], "v": strategy.v_t[_KEY]}


def _aggregated(strategy: FedAvg, round: int, arrays: Sequence[Vector]) -> Vector:
    """What a Flower strategy makes of these arrays, each of weight 1, as if sites had sent them."""
    weight = MetricRecord({"num-examples": 1.0})
    replies = [
        Message(RecordDict({"arrays": _record(array), "metrics": weight}), dst_node_id=1, message_type="train")
        for array in arrays
    ]
    with _quiet():
        record, _ = strategy.aggregate_train(round, replies)
    if record is None:
        raise ProtocolError(f"Flower's {type(strategy).__name__} made nothing of {len(arrays)} updates")
    return np.asarray(record[_KEY].numpy(), dtype=np.float64)


def _record(array: Vector) -> ArrayRecord:
    return ArrayRecord({_KEY: Array(np.asarray(array, dtype=np.float64))})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Flower's log lines about results and failures, which would speak of groups as of sites."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
