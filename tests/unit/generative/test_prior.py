"""The prior: weak couplings shrink with the noise, strong ones and those of a code keep their strength."""

from __future__ import annotations

import numpy as np

from qfed.config import SynthConfig
from qfed.generative.boltzmann import Boltzmann
from qfed.generative.pairwise import boltzmann_law, maximum_entropy, moments
from qfed.generative.prior import CODED, penalty
from qfed.generative.statistics import PairCounts

N, RECORDS, NOISE = 8, 700.0, 40.0
COUNT = N * (N - 1) // 2


def truth(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields and couplings: most weak, one strong."""
    rng = np.random.default_rng(seed)
    couplings = np.triu(rng.normal(0, 0.05, (N, N)), 1)
    couplings[0, 1] = -1.2
    return rng.normal(0, 0.3, N), couplings + couplings.T


def released(law: np.ndarray, noise: float, seed: int) -> PairCounts:
    mean, pair = moments(law)
    rng = np.random.default_rng(seed)
    sums, products = RECORDS * mean, RECORDS * pair + np.triu(rng.normal(0, noise, (N, N)), 1) * 2
    return PairCounts.of_moments([f"b{i}" for i in range(N)], RECORDS, sums, products, noise / 2, {})


def test_fits_are_nearer_to_the_truth_than_without_and_keep_what_is_strong() -> None:
    apart: dict[str, list[float]] = {"prior": [], "none": []}
    strong = []
    for seed in range(1, 9):
        law = boltzmann_law(*truth(seed))
        stats = released(law, NOISE, seed)
        for name, weights in (("prior", penalty(stats, 0.2)), ("none", np.full(N + COUNT, 1e-3))):
            fields, couplings = maximum_entropy(stats.means, stats.correlations, weights)
            apart[name].append(float((law * np.log(law / boltzmann_law(fields, couplings))).sum()))
            if name == "prior":
                strong.append(couplings[0, 1])
    assert sum(apart["prior"]) < 0.7 * sum(apart["none"])
    assert -1.4 < np.mean(strong) < -0.9  # the truth is -1.2, the scale of the prior 0.2


def test_weights_grow_with_the_noise_and_fall_with_records_and_strength() -> None:
    law = boltzmann_law(*truth(1))
    quiet, loud = (penalty(released(law, noise, 1), 0.2) for noise in (0.0, 3 * NOISE))
    assert (loud[N:] > quiet[N:]).all()
    strong, weak = quiet[N], np.median(quiet[N:])  # the pair of bits 0 and 1 comes first
    assert strong < weak / 2


def test_pairs_of_one_code_are_left_to_the_coding() -> None:
    law = boltzmann_law(*truth(1))
    stats = released(law, NOISE, 1)
    code = np.zeros((N, N), np.bool_)
    code[2, 3] = code[3, 2] = True
    known = PairCounts(stats.bits, stats.pairs, stats.records, stats.stddev, stats.privacy, code)
    upper = np.triu_indices(N, 1)
    place = N + int(np.flatnonzero((upper[0] == 2) & (upper[1] == 3))[0])
    assert penalty(known, 0.2)[place] == CODED
    others = np.delete(np.arange(N + COUNT), place)
    np.testing.assert_array_equal(penalty(known, 0.2)[others], penalty(stats, 0.2)[others])


def test_the_closed_loop_ends_where_the_exact_fit_does() -> None:
    stats = released(boltzmann_law(*truth(2)), NOISE, 2)
    config = SynthConfig(steps=80, reads=800, prior=0.05)
    machine = Boltzmann.of(config).fit(stats, np.random.default_rng(0))
    wanted = moments(boltzmann_law(*maximum_entropy(stats.means, stats.correlations, penalty(stats, config.prior))))
    found = moments(boltzmann_law(*machine.state()[1].values()))
    unshrunk = np.abs(stats.correlations - wanted[1])[np.triu_indices(N, 1)].mean()
    apart = np.abs(found[1] - wanted[1])[np.triu_indices(N, 1)].mean()
    assert apart < 0.3 * unshrunk
