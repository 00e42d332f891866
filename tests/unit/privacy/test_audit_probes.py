"""Canaries of zeroth-order plans: their differences along the public directions are what the audit takes them for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qfed.errors import ConfigError
from qfed.privacy.audit.canaries import PULL
from qfed.privacy.audit.probes import ProbedCanaries, probed_loss
from qfed.privacy.directions import directions
from qfed.privacy.zeroth_order import Probe, clipped_differences

C, COUNT = 0.5, 20


@pytest.mark.parametrize(("each", "steps"), [(1, 1), (4, 1), (2, 3)])
@pytest.mark.parametrize("clip_norm", [None, C])
def test_a_canary_pulls_along_its_own_directions_only(each: int, steps: int, clip_norm: float | None) -> None:
    probed = ProbedCanaries(Probe(each, 0.3, steps), COUNT)
    x, model, size = probed.features("r", 3, C), probed.model(), probed.wide.directions
    assert size == COUNT * each
    along = directions("r", 3, probed.wide.size, probed.weights)
    weights = torch.linspace(-1, 1, probed.weights)  # anywhere
    gain = PULL if clip_norm is None else 1.0
    for canary in (0, 7, COUNT - 1):
        one, y = x[canary : canary + 1], torch.zeros(1, dtype=torch.long)
        found = [
            clipped_differences(model, probed_loss, weights, along[s * size : (s + 1) * size], one, y, 0.3, clip_norm)
            for s in range(steps)
        ]
        for difference in found:
            assert np.linalg.norm(difference) == pytest.approx(gain * C, rel=1e-3)
            own = difference[canary * each : (canary + 1) * each]
            assert np.allclose(own, gain * C / np.sqrt(each), rtol=1e-3), "evenly"
        seen = probed.seen(np.concatenate(found) / C)
        assert seen.shape == (steps, COUNT)
        assert np.allclose(seen, gain * (np.arange(COUNT) == canary), atol=1e-3 * gain)


def test_honest_records_do_not_move() -> None:
    probed = ProbedCanaries(Probe(1, 0.3), COUNT)
    along = directions("r", 1, COUNT, probed.weights)
    x, y = torch.zeros(5, probed.weights), torch.zeros(5, dtype=torch.long)
    found = clipped_differences(probed.model(), probed_loss, torch.ones(probed.weights), along, x, y, 0.3, C)
    assert not found.any()


def test_so_many_directions_that_fewer_canaries_do_not_help_are_told() -> None:
    with pytest.raises(ConfigError, match="a configuration with fewer of both"):
        ProbedCanaries(Probe(100, 0.3, 10), 64)
