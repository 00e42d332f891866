"""mbi's graphical model on the same counts, where mbi is installed."""

from __future__ import annotations

import numpy as np
import pytest

from qfed.generative.release import Release
from qfed.synth.graphical import graphical, installed


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="mbi comes with no extra of qfed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_graphical_model_has_the_pairs_it_was_given() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.random((2000, 1))
    bits = (rng.random((2000, 4)) < 0.2 + 0.6 * hidden).astype(np.uint8)
    release = Release.exact(bits, list("abcy"), ["y"], np.array([[0], [1]]))
    sample = graphical(release)(20_000, rng)
    again = Release.exact(sample, list("abcy"), ["y"], np.array([[0], [1]]))
    np.testing.assert_allclose(again.weights, release.weights, atol=0.02)
    for ours, theirs in zip(again.parts, release.parts, strict=True):
        np.testing.assert_allclose(ours.pairs, theirs.pairs, atol=0.03)
