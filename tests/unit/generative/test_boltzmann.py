"""Boltzmann machines on annealers: the law that is sampled, the moments that are learned, embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from dwave.embedding import verify_embedding
from scipy.stats import chisquare

from qfed.config import SynthConfig
from qfed.errors import ConfigError
from qfed.generative.annealers import GibbsAnnealer, annealer_for
from qfed.generative.boltzmann import Boltzmann, inverse_temperature
from qfed.generative.embedded import EmbeddedAnnealer, SimulatedSystem, read_chains
from qfed.generative.library import create
from qfed.generative.pairwise import boltzmann_law, moments
from qfed.generative.rbm import RestrictedBoltzmann
from qfed.generative.statistics import PairCounts

READS = 20_000


def some_problem(n: int = 5, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(0, 0.5, (n, n)), 1)
    return rng.normal(0, 0.5, n), upper + upper.T


def agreement(spins: np.ndarray, law: np.ndarray) -> float:
    """p value of the samples under a law over all states."""
    number = ((1 - spins) // 2) @ (1 << np.arange(spins.shape[1]))
    return float(chisquare(np.bincount(number, minlength=len(law)), law * len(spins)).pvalue)


def test_sa_samples_the_boltzmann_law_and_no_neighbour_of_it() -> None:
    fields, couplings = some_problem()
    law = boltzmann_law(fields, couplings)
    spins = GibbsAnnealer().draw(fields, couplings, READS, np.random.default_rng(0))
    assert agreement(spins, law) > 1e-3
    for beta in (0.9, 1.1):
        off = GibbsAnnealer(beta).draw(fields, couplings, READS, np.random.default_rng(0))
        assert agreement(off, law) < 1e-6
        assert agreement(off, boltzmann_law(beta * fields, beta * couplings)) > 1e-3
        assert inverse_temperature(fields, couplings, off) == pytest.approx(beta, abs=0.05)


SAMPLERS = [
    SynthConfig(),
    pytest.param(SynthConfig(sampler="sqa", reads=300), marks=pytest.mark.slow),
    SynthConfig(sampler="mock", topology="zephyr"),
    pytest.param(SynthConfig(sampler="mock", topology="pegasus"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda config: f"{config.sampler}-{config.topology}")
def test_the_closed_loop_learns_the_moments_on_every_sampler(config: SynthConfig) -> None:
    fields, couplings = some_problem(4)
    mean, pair = moments(boltzmann_law(fields, couplings))
    stats = PairCounts.of_moments("abcd", 1000.0, 1000 * mean, 1000 * pair, 0.0, {})
    machine = Boltzmann.of(config.model_copy(update={"prior": 1e6}))
    steps: list[tuple[int, int]] = []
    machine.fit(stats, np.random.default_rng(3), lambda done, total: steps.append((done, total)))
    found = PairCounts.exact(machine.sample(8000, np.random.default_rng(4)))
    assert np.abs(found.means - mean).max() < 0.06
    assert np.abs(found.correlations - pair).max() < 0.06
    about = machine.describe()
    assert about["moment_error_last"] < 0.06 < about["moment_error_first"]
    assert about["annealer"]["sampler"] == config.sampler
    assert steps[-1] == (config.steps, config.steps)
    if config.sampler == "sa":
        exact = moments(boltzmann_law(*machine.state()[1].values()))
        assert np.abs(exact[1] - pair).max() < 0.04
        assert about["inverse_temperature"] == pytest.approx(1, abs=0.15)
    if config.sampler == "mock":
        assert about["annealer"]["topology"] == config.topology
        assert 0 <= about["annealer"]["chain_breaks"] <= about["annealer"]["worst_chain_breaks"] < 0.2


def test_sa_is_the_same_for_the_same_seed_and_comes_back_from_its_state() -> None:
    stats = PairCounts.exact(np.random.default_rng(0).integers(0, 2, (100, 6)))
    config = SynthConfig(steps=10, reads=50)
    first, second, other = (create(config).fit(stats, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name, array in first.state()[1].items():
        np.testing.assert_array_equal(array, second.state()[1][name])
        assert not np.array_equal(array, other.state()[1][name])
    again = Boltzmann.restore(config, first.state())
    np.testing.assert_array_equal(
        again.sample(40, np.random.default_rng(5)), first.sample(40, np.random.default_rng(5))
    )
    assert again.describe() == first.describe()


@pytest.mark.parametrize("topology", ["zephyr", "pegasus"])
def test_embeddings_are_valid_cliques(topology: str) -> None:
    system = SimulatedSystem(topology)
    graph = system.sampler.to_networkx_graph()
    for bits in (2, 17, 64):
        embedding = EmbeddedAnnealer(system, bits).embedding
        pairs = [(i, j) for i in range(bits) for j in range(i)]
        assert verify_embedding(embedding, pairs, graph)
    with pytest.raises(ConfigError, match=r"no clique of 400 spins fits on simulated \w+ with \d+ qubits.*sa"):
        EmbeddedAnnealer(system, 400)


def test_a_broken_chain_is_read_by_majority_without_favour() -> None:
    values = np.array([[1, 1, -1, -1], [1, -1, -1, 1], [-1, 1, 1, 1]], dtype=np.int8)
    spins, broken = read_chains((values, list("wxyz")), [("w", "x"), ("x", "y", "z")])
    assert spins.tolist() == [[1, -1], [1, -1], [-1, 1]]
    assert broken.tolist() == [[False, True], [True, True], [True, False]]


def test_coefficients_stay_within_what_the_annealer_holds() -> None:
    equal = np.repeat(np.random.default_rng(0).integers(0, 2, (200, 1)), 3, axis=1)
    stats = PairCounts.exact(equal)  # perfectly correlated: couplings grow without end
    config = SynthConfig(sampler="mock", steps=60, reads=20, learning_rate=1.0, prior=1e6)
    machine = Boltzmann.of(config).fit(stats, np.random.default_rng(0))
    annealer = annealer_for(config, 3)
    assert annealer.bounds is not None
    assert np.abs(machine.state()[1]["couplings"]).max() <= annealer.bounds[1]
    assert machine.describe()["coefficients_at_bounds"] >= 1
    assert machine.describe()["inverse_temperature"] is None  # frozen: every sample is a ground state


def test_a_chain_strength_beyond_the_device_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"chain_strength=3 is beyond the range of simulated Zephyr; use at most 2"):
        annealer_for(SynthConfig(sampler="mock", chain_strength=3.0), 4)
    assert annealer_for(SynthConfig(sampler="mock", chain_strength=1.0), 4).report()["qubits"] >= 4


@pytest.mark.slow
def test_a_machine_with_hidden_units_learns_more_than_pairs_and_takes_no_release() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, (2, 800, 1))
    parity = np.concatenate([first, second, first ^ second], axis=1).astype(np.uint8)  # no pair tells anything
    config = SynthConfig(generator="rbm", hidden=6, steps=400, reads=400, learning_rate=0.5)
    machine = RestrictedBoltzmann.of(config).fit_records(parity, rng)
    found = machine.sample(2000, np.random.default_rng(1))
    assert np.mean(found[:, 0] ^ found[:, 1] ^ found[:, 2]) < 0.2  # independent bits give 0.5
    again = RestrictedBoltzmann.restore(config, machine.state())
    np.testing.assert_array_equal(
        again.sample(50, np.random.default_rng(1)), machine.sample(50, np.random.default_rng(1))
    )
    assert again.describe() == machine.describe()
    with pytest.raises(ConfigError, match="learns from records, not from a release"):
        machine.fit(PairCounts.exact(parity), rng)
