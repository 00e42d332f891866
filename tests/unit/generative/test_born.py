"""The tree-started Born machine: it starts as the Chow-Liu tree, gets better, and comes back from its state."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest

from qfed.config import BornConfig, SynthConfig
from qfed.errors import ConfigError
from qfed.generative.born import Born, all_bits
from qfed.generative.lattice import lattice_pairs
from qfed.generative.library import create
from qfed.generative.statistics import Bits, PairCounts
from qfed.generative.tree_circuit import TreeCircuit


def chain(count: int, n: int, seed: int, copied: float = 0.85) -> Bits:
    """Each bit copies the one before with this probability, the last two also the first."""
    rng = np.random.default_rng(seed)
    bits = np.zeros((count, n), np.uint8)
    bits[:, 0] = rng.random(count) < 0.4
    for k in range(1, n):
        source = bits[:, k - 1] if k < n - 2 else np.where(rng.random(count) < 0.5, bits[:, k - 1], bits[:, 0])
        bits[:, k] = np.where(rng.random(count) < copied, source, 1 - source)
    return bits


def born(**keys: object) -> Born:
    return Born.of(SynthConfig(generator="born", born=BornConfig(**keys)))  # type: ignore[arg-type]


def tvd2(law: np.ndarray, stats: PairCounts) -> float:
    """Mean total variation distance of the two-way margins."""
    words = all_bits(len(stats.bits)).astype(float)
    i, j = np.triu_indices(len(stats.bits), 1)
    found = np.stack(
        [np.einsum("w,wi,wj->ij", law, np.abs(1 - a - words), np.abs(1 - b - words)) for a in (0, 1) for b in (0, 1)]
    )
    wanted = np.stack([stats.pairs[:, :, a, b] for a in (0, 1) for b in (0, 1)])
    return float(0.5 * np.abs(found - wanted)[:, i, j].sum(0).mean())


def test_independent_bits_get_no_gate() -> None:
    ones = np.array([[0.3, 0.7], [0.6, 0.4]])
    table = np.einsum("ia,jb->ijab", ones, ones) * 1000
    circuit = TreeCircuit.of(PairCounts.of_counts(["a", "b"], table, 0.0, {}))
    assert {parent for parent, _ in circuit.order} == {None}
    assert circuit.couplings == ()


def test_the_circuit_starts_as_the_tree() -> None:
    stats = PairCounts.exact(chain(3000, 6, 2))
    circuit = TreeCircuit(TreeCircuit.of(stats).order, further=((0, 5), (1, 4)))
    law = Born(SynthConfig(), circuit, circuit.start(stats)).probabilities()
    words = all_bits(6)
    wanted = np.ones(len(words))
    for parent, child in circuit.order:
        if parent is None:
            wanted *= np.where(words[:, child], stats.ones[child], 1 - stats.ones[child])
        else:
            table = stats.pairs[parent, child]
            wanted *= (table / table.sum(1, keepdims=True))[words[:, parent], words[:, child]]
    np.testing.assert_allclose(law, wanted, atol=1e-12)
    assert circuit.parameters == 1 + 2 * 5 + 2 * 2
    assert circuit.couplings[5:] == ((0, 5), (0, 5), (1, 4), (1, 4))


def test_training_beats_the_tree_and_independent_bits() -> None:
    stats = PairCounts.exact(chain(3000, 6, 3))
    machine = born(pairs="any").fit(stats, np.random.default_rng(0))
    before, after = machine.losses
    assert after < 0.1 * before
    tree = TreeCircuit(machine.circuit.order)
    alone = Born(SynthConfig(), tree, tree.start(stats)).probabilities()
    ones = stats.ones
    independent = np.where(all_bits(6), ones, 1 - ones).prod(1)
    assert tvd2(machine.probabilities(), stats) < 0.5 * tvd2(alone, stats) < 0.25 * tvd2(independent, stats)


def test_same_seed_same_machine_and_samples() -> None:
    stats = PairCounts.exact(chain(500, 5, 4))
    first, second = (born().fit(stats, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.angles, second.angles)
    drawn = [machine.sample(50, np.random.default_rng(1)) for machine in (first, second)]
    assert np.array_equal(*drawn)
    assert drawn[0].dtype == np.uint8
    assert not np.array_equal(drawn[0], first.sample(50, np.random.default_rng(2)))


def test_samples_follow_the_law() -> None:
    machine = born(steps=1).fit(PairCounts.exact(chain(500, 4, 5)), np.random.default_rng(0))
    bits = machine.sample(40_000, np.random.default_rng(3))
    seen = np.bincount(bits @ (1 << np.arange(3, -1, -1)), minlength=16) / len(bits)
    assert 0.5 * np.abs(seen - machine.probabilities()).sum() < 0.02


def test_state_comes_back() -> None:
    config = SynthConfig(generator="born")
    machine = create(config).fit(PairCounts.exact(chain(500, 4, 6)), np.random.default_rng(0))
    again = Born.restore(config, machine.state())
    assert again.describe() == machine.describe()
    assert np.array_equal(*(one.sample(30, np.random.default_rng(1)) for one in (machine, again)))


def test_noise_in_the_counts_buys_no_gates() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (400, 6)).astype(np.uint8)
    exact = PairCounts.exact(bits)
    noisy = PairCounts.of_counts(exact.bits, exact.pairs * 400, 30.0, {})
    assert born(pairs="any").fit(noisy, np.random.default_rng(0)).circuit.couplings == ()


@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_tables(n: int) -> None:
    stats = PairCounts.exact(chain(200, 4, 8)[:, :n])
    machine = born().fit(stats, np.random.default_rng(0))
    np.testing.assert_allclose(machine.probabilities().sum(), 1)
    np.testing.assert_allclose(machine.probabilities() @ all_bits(n), stats.ones, atol=1e-3)


def test_seventeen_bits_are_too_many() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (10, 17)).astype(np.uint8)
    with pytest.raises(ConfigError, match="at most 16 bits, got bits=17"):
        born().fit(PairCounts.exact(bits), np.random.default_rng(0))


def test_pairs_on_a_lattice_cost_no_swap() -> None:
    path = [(0, 1), (1, 2), (2, 3)]  # its ends close a square
    misfit = np.zeros((4, 4))
    misfit[0, 3] = misfit[3, 0] = 0.2
    misfit[0, 2] = misfit[2, 0] = 0.9  # two edges apart: no square lattice couples these
    assert lattice_pairs(path, misfit, np.random.default_rng(0)) == [(0, 3)]


def test_exported_circuit_is_the_trained_one() -> None:
    machine = born(pairs="any", steps=20).fit(PairCounts.exact(chain(500, 7, 9)), np.random.default_rng(0))
    device = qml.device("default.qubit", wires=7)

    @qml.qnode(device)
    def function() -> object:
        machine.circuit.function(machine.angles)()
        return qml.probs(wires=range(7))

    @qml.qnode(device)
    def operations() -> object:
        for gate in machine.circuit.operations(machine.angles):
            qml.apply(gate)
        return qml.probs(wires=range(7))

    np.testing.assert_allclose(function(), machine.probabilities(), atol=1e-6)
    np.testing.assert_allclose(operations(), machine.probabilities(), atol=1e-6)
    assert {gate.name for gate in machine.circuit.operations(machine.angles)} == {"RY", "CZ"}
