"""The classical fits: a law is found again from its own pairs, a tree from its own edges."""

from __future__ import annotations

import numpy as np
import pytest

from qfed.config import SynthConfig
from qfed.generative.library import LIBRARY, create
from qfed.generative.pairwise import MOST_EXACT, all_spins, boltzmann_law, maximum_entropy, moments
from qfed.generative.statistics import PairCounts
from qfed.generative.tree import Tree


def couplings_of(n: int, seed: int, scale: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(0, scale, (n, n)), 1)
    return rng.normal(0, scale, n), upper + upper.T


def test_a_pairwise_law_is_found_again_from_its_moments() -> None:
    fields, couplings = couplings_of(5, 1)
    law = boltzmann_law(fields, couplings)
    assert law.sum() == pytest.approx(1)
    found = boltzmann_law(*maximum_entropy(*moments(law)))
    np.testing.assert_allclose(found, law, atol=1e-6)
    wrong = boltzmann_law(fields, 1.1 * couplings)
    assert np.abs(wrong - law).max() > 5e-3  # the tolerance above tells neighbouring laws apart


def test_moments_are_those_of_the_states() -> None:
    fields, couplings = couplings_of(4, 2)
    law = boltzmann_law(fields, couplings)
    mean, pair = moments(law)
    for state, chance in zip(all_spins(4), law, strict=True):
        energy = fields @ state + sum(couplings[i, j] * state[i] * state[j] for i in range(4) for j in range(i))
        assert chance == pytest.approx(np.exp(-energy) * law[0] / np.exp(-energy_of_all_up(fields, couplings)))
    np.testing.assert_allclose(mean, sum(c * s for c, s in zip(law, all_spins(4), strict=True)))
    np.testing.assert_allclose(np.diag(pair), 1)


def energy_of_all_up(fields: np.ndarray, couplings: np.ndarray) -> float:
    return float(fields.sum() + np.triu(couplings, 1).sum())


def test_a_tree_law_is_found_again() -> None:
    rng = np.random.default_rng(5)
    bits = np.zeros((40_000, 6), np.uint8)
    bits[:, 2] = rng.random(40_000) < 0.4
    for parent, child, flip in ((2, 0, 0.1), (2, 4, 0.2), (4, 1, 0.15), (4, 5, 0.1), (0, 3, 0.25)):
        bits[:, child] = bits[:, parent] ^ (rng.random(40_000) < flip)
    stats = PairCounts.exact(bits)
    tree = Tree.of(stats)
    edges = {frozenset(edge) for edge in tree.order.tolist()}
    assert edges == {frozenset(edge) for edge in ((2, 0), (2, 4), (4, 1), (4, 5), (0, 3))}
    assert tree.root in (2, 4, 0)  # the middle of the longest path 3 - 0 - 2 - 4 - 1
    again = PairCounts.exact(tree.sample(40_000, rng))
    np.testing.assert_allclose(again.pairs, stats.pairs, atol=0.012)


def test_a_tree_of_independent_or_constant_bits_spans_all() -> None:
    constant = PairCounts.exact(np.ones((10, 4), np.uint8))
    tree = Tree.of(constant)
    assert len(tree.order) == 3
    assert (tree.sample(50, np.random.default_rng(0)) == 1).all()
    assert len(Tree.of(PairCounts.exact(np.ones((3, 1), np.uint8))).sample(7, np.random.default_rng(0))) == 7


def test_a_tree_of_noisy_counts_spans_all_where_a_margin_is_zero_but_for_rounding() -> None:
    rng = np.random.default_rng(3)
    mean = np.clip(rng.normal(0.8, 0.4, 12), -1.3, 1.3)
    pair = np.outer(mean, mean) + rng.normal(0, 0.2, (12, 12))
    stats = PairCounts.of_moments([f"b{i}" for i in range(12)], 100.0, 100 * mean, 100 * pair, 10.0, {})
    assert (stats.ones == 0).any()
    assert len(Tree.of(stats).order) == len(Tree.of(stats.shrunk()).order) == 11


@pytest.mark.parametrize(("name", "bits"), [("independent", 5), ("pairwise", 5), ("pairwise", MOST_EXACT + 1)])
def test_a_classical_generator_has_the_margins_and_comes_back_from_its_state(name: str, bits: int) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.random((4000, 1))
    stats = PairCounts.exact((rng.random((4000, bits)) < 0.2 + 0.6 * hidden).astype(np.uint8))
    config = SynthConfig()
    generator = create(config, name).fit(stats, rng)
    sample = generator.sample(20_000, np.random.default_rng(1))
    assert sample.shape == (20_000, bits)
    found = PairCounts.exact(sample)
    np.testing.assert_allclose(found.ones, stats.ones, atol=0.02)
    off = np.abs(found.correlations - stats.correlations).mean()
    assert off < 0.02 if (name, bits) == ("pairwise", 5) else off > 0.02  # only the full fit has all pairs
    again = type(generator).restore(config, generator.state())
    np.testing.assert_array_equal(
        again.sample(50, np.random.default_rng(2)), generator.sample(50, np.random.default_rng(2))
    )
    assert generator.describe()["generator"] == name
    assert again.describe() == generator.describe()


def test_every_generator_of_the_library_says_where_it_comes_from() -> None:
    assert set(LIBRARY) >= {"independent", "pairwise", "boltzmann", "born"}
    assert all(entry.title and entry.source and ":" in entry.place for entry in LIBRARY.values())
