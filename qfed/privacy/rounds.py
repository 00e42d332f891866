"""A round of one or many sites through a plan: each is opened by itself, those that opened are trained together.

open    charges the ledger and then reads, or answers a round that is over; what it raises is that site's own outcome
train   all sites that opened, with records of one shape, in one call
close   settles the ledger
A deployed site is a list of one; a simulation stacks its sites (see `qfed.privacy.steps`) with the same guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from qfed.errors import ShapeError
from qfed.privacy.ledger import Entry, Ledger

Read = Callable[[], tuple[Tensor, Tensor]]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Receipt:
    """What a round took."""

    steps: int
    epsilon: float | None
    """Spent by the data set in all, after this round; None without privacy."""
    replayed: bool = False
    """The round was over before: the model is that of the first time, nothing was read or charged."""


@dataclass(frozen=True, eq=False)
class Task:
    """One site's round: the model it starts from, trained in place, and whose records it reads on whose account."""

    weights: Tensor
    """(P,) trainable parameters, in the order of `model.parameters()`."""
    read: Read
    ledger: Ledger | None
    dataset: str
    run: str
    round: int
    rng: np.random.Generator | None

    def to_bytes(self) -> bytes:
        """The weights."""
        return self.weights.numpy().tobytes()

    def from_bytes(self, body: bytes) -> None:
        """The inverse of `to_bytes`, in place."""
        self.weights.copy_(torch.frombuffer(bytearray(body), dtype=self.weights.dtype))


@dataclass(frozen=True, eq=False)
class Opened:
    """A task whose records are open, and its charge (None where none is due)."""

    task: Task
    x: Tensor
    y: Tensor
    held: Entry | None = None


def train_all(
    tasks: Sequence[Task],
    *,
    open: Callable[[Task], _T | Opened],  # noqa: A002  what a plan does first
    train: Callable[[Sequence[Opened]], None],
    close: Callable[[Opened], _T],
) -> list[_T | Exception]:
    """What came of each task: what `close` (or `open`) made of it, or the error that ended it."""
    outcomes: list[_T | Opened | Exception] = [_attempt(open, task) for task in tasks]
    groups: dict[object, list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Opened):
            alike = outcome.x.shape[1:], outcome.x.dtype, outcome.y.shape[1:], outcome.y.dtype
            groups.setdefault(alike, []).append(place)
    for places in groups.values():
        error = _attempt(train, [outcome for p in places if isinstance(outcome := outcomes[p], Opened)])
        for place in places:
            if isinstance(outcome := outcomes[place], Opened):
                outcomes[place] = error if error is not None else _attempt(close, outcome)
    return [outcome for outcome in outcomes if not isinstance(outcome, Opened)]


def only(outcomes: Sequence[_T | Exception]) -> _T:
    """What came of a single task; raises what ended it."""
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def records(read: Read) -> tuple[Tensor, Tensor]:
    """Open the records; ShapeError for what is none."""
    x, y = read()
    if not x.is_floating_point() or x.ndim < 2 or len(x) != len(y):
        raise ShapeError(
            f"a round trains on x (N, F) of floats and y with N rows, got x={tuple(x.shape)} of {x.dtype} and "
            f"y={tuple(y.shape)}; check what the site reads"
        )
    return x, y


def _attempt(work: Callable[..., _T], *arguments: object) -> _T | Exception:
    try:
        return work(*arguments)
    except Exception as error:  # noqa: BLE001  whatever it is, it is one site's, and raised there
        return error
