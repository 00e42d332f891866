"""FedProx at a site: the proximal term joins the step when clipping and noise are done, once and not a record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_runs import small

from qfed.config import RunConfig
from qfed.data import Records, load, partition
from qfed.federation.local import learner_for
from qfed.privacy.ledger import Ledger, Limits

MU, RATE = 3.0, 0.1
LOUD = ("training.momentum=0.0", f"training.learning_rate={RATE}", "secagg.update_clip=1e6")
PRIVATE = ("privacy.epsilon=50.0", "privacy.clip_norm=0.1", "privacy.noise_multiplier=20.0")


def update(tmp_path: Path, config: RunConfig, records: Records) -> NDArray[np.float64]:
    learner, private = learner_for(config), config.privacy.mode == "local"
    file = tmp_path / f"{np.random.default_rng().integers(2**60)}.db"
    ledger = Ledger(file, Limits(config.privacy.epsilon, config.privacy.delta)) if private else None
    try:
        return learner.train(learner.start, lambda: records, ledger=ledger, dataset="d", run="r", round=1)
    finally:
        if ledger is not None:
            ledger.close()


def run_of(steps: int, prox: bool, *changes: str) -> RunConfig:
    strategy = ("federation.strategy=fedprox", f"federation.proximal_mu={MU}") if prox else ()
    return small(*LOUD, f"training.local_steps={steps}", *strategy, *changes)


@pytest.mark.parametrize("privacy", [("privacy.mode=off",), PRIVATE])
@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_the_second_step_is_drawn_back_by_the_distance_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, privacy: tuple[str, ...], noise: float
) -> None:
    """w2 - w2' = -rate mu (w1 - w0): the first step starts at w0, so both runs make it alike."""
    monkeypatch.setattr("qfed.privacy.clipping.gaussian", lambda size, stddev: np.full(size, noise * stddev))
    data = small()
    records = partition(load(data.data), data.data, 5, 1)[0].train
    first = update(tmp_path, run_of(1, False, *privacy), records)
    assert np.array_equal(first, update(tmp_path, run_of(1, True, *privacy), records))
    plain, near = (update(tmp_path, run_of(2, prox, *privacy), records) for prox in (False, True))
    assert np.abs(first).max() > 1e-4
    np.testing.assert_allclose(near - plain, -RATE * MU * first, rtol=1e-3, atol=2e-7)


def test_the_term_does_not_depend_on_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With clipped gradients of nothing but noise, other records change nothing: the term is not clipped with them."""
    monkeypatch.setattr("qfed.privacy.clipping.gaussian", lambda size, stddev: np.linspace(-1, 1, size))
    data = small()
    sites = partition(load(data.data), data.data, 5, 1)
    tiny = ("privacy.clip_norm=1e-9", "privacy.noise_multiplier=20.0", "privacy.epsilon=50.0")
    moves = [update(tmp_path, run_of(4, True, *tiny), site.train) for site in sites[:2]]
    np.testing.assert_allclose(moves[0], moves[1], atol=1e-8)
    free = update(tmp_path, run_of(4, False, *tiny), sites[0].train)
    assert np.abs(moves[0]).max() < 0.8 * np.abs(free).max(), "it holds the model near its start"
