"""What the aggregator sees in a real run: masked vectors that are uniform, unlinkable, and open only all together."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from qfed.config import RunConfig, load_config
from qfed.data import load, partition
from qfed.federation.contribution import layout_of
from qfed.secagg import SecAggRefused, ServerRound, decode
from qfed.simulation.arms import run_arm
from qfed.simulation.provision import make_keys

SITES = 5
FALSE_ALARM = 1e-6  # of one test on one vector; masks are fresh on every run
Vector = NDArray[np.uint32]


class View:
    """Vectors that the aggregator took off the wire, by (round, site): uploads, and the members' sums of masks."""

    def __init__(self) -> None:
        self.uploads: dict[tuple[int, str], Vector] = {}
        self.masks: dict[tuple[int, str], Vector] = {}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[View, RunConfig]:
    # Steps so small that a site's update rounds to the same integers in both rounds: one plaintext, two labels.
    config = load_config(
        None,
        [
            f"federation.sites={SITES}",
            "training.rounds=2",
            "training.learning_rate=1e-12",
            "privacy.mode=off",
            "model.wires=2",
            "model.layers=1",
        ],
    )
    view, original = View(), ServerRound._vector

    def spy(self: ServerRound, body: memoryview, site: str) -> Vector:
        vector = original(self, body, site)
        into = view.uploads if self._closed is None else view.masks
        into[self.place.round, site] = vector.copy()
        return vector

    data = partition(load(config.data), config.data, SITES, config.seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerRound, "_vector", spy)
        folder: Path = tmp_path_factory.mktemp("view")
        run_arm(config, "view", data, make_keys(config, data), folder)
    assert len(view.uploads) == len(view.masks) == 3 * SITES  # two rounds of training, one that only scores
    return view, config


def uniformity(vector: Vector) -> float:
    """p-value of the vector's nibbles against the uniform law."""
    raw = vector.view(np.uint8)
    counts = np.bincount(np.concatenate([raw & 15, raw >> 4]), minlength=16)
    return float(chisquare(counts).pvalue)


def opened(view: View, number: int, names: list[str]) -> Vector:
    """What a round opens to: all uploads less all masks."""
    uploads = np.add.reduce([view.uploads[number, name] for name in names], dtype=np.uint32)
    return uploads - np.add.reduce([view.masks[number, name] for name in names], dtype=np.uint32)


def test_every_masked_vector_is_uniform(seen: tuple[View, RunConfig]) -> None:
    view, _ = seen
    for (number, site), vector in chain(view.uploads.items(), view.masks.items()):
        if number < 2:
            assert uniformity(vector) > FALSE_ALARM, (number, site)


def test_the_same_test_sees_an_unmasked_vector(seen: tuple[View, RunConfig]) -> None:
    view, _ = seen
    names = sorted({site for _, site in view.uploads})
    assert uniformity(opened(view, 0, names)) < FALSE_ALARM


def test_one_plaintext_under_two_labels_is_unlinkable(seen: tuple[View, RunConfig]) -> None:
    view, _ = seen
    names = sorted({site for _, site in view.uploads})
    apart = (opened(view, 0, names) - opened(view, 1, names)).view(np.int32)
    assert np.abs(apart[:-4]).max() <= SITES, "the plaintexts are meant to be the same but for stochastic rounding"
    for name in names:
        first, second = (view.uploads[r, name].astype(np.float64) for r in (0, 1))
        assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(len(first))
        assert uniformity(view.uploads[0, name] - view.uploads[1, name]) > FALSE_ALARM


def test_no_part_of_the_view_opens(seen: tuple[View, RunConfig]) -> None:
    view, config = seen
    names = sorted({site for _, site in view.uploads})
    subsets = list(chain.from_iterable(combinations(names, size) for size in range(SITES + 1)))
    size = len(view.uploads[0, names[0]])
    policy = make_keys(config, partition(load(config.data), config.data, SITES, 1)).federation.policy
    layout = layout_of(config, policy, size - 4, "accuracy", train=True)
    zero = np.zeros(size, np.uint32)
    found = []
    for uploads in subsets[1:]:
        total = np.add.reduce([zero, *(view.uploads[0, n] for n in uploads)], dtype=np.uint32)
        for masks in subsets:
            try:
                held = np.add.reduce([zero, *(view.masks[0, n] for n in masks)], dtype=np.uint32)
                decode(layout, total - held, SITES)
                found.append((uploads, masks))
            except SecAggRefused:
                continue
    assert found == [(tuple(names), tuple(names))], "only all uploads less all masks is a sum in range"
