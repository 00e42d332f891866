"""Tree-started Born machine: a circuit whose measured bits follow the released pair counts.

    q_t(b) = |<b| U(t) |0>|^2,    loss(t) = sum_i (<s_i>_q - m_i)^2 + sum_{i < j} (<s_i s_j>_q - m_ij)^2,    s = 1 - 2 b

U starts as the Chow-Liu tree of the counts; the pairs that this tree fits worst, and whose misfit is above the noise of
the counts, get a controlled rotation each, by default only where a square lattice couples them next to the tree, so
that the circuit runs on a device without SWAPs; then Adam on the exact amplitudes. Only counts are ever seen, so
nothing here costs privacy, and neither does sampling on hardware: it gets trained angles, no record.
No quantum advantage: at this size a laptop computes q exactly, and the classical pairwise fit is as good or better.
Source: Benedetti et al., npj Quantum Inf. 5, 45 (2019); moment losses are MMD with a kernel of parities up to order 2.
Shapes  bits (N, n), n <= 16      Units  probabilities      Cost  steps x O((n + pairs) 2^n)
Errors  ConfigError for more than 16 bits; those of the backend
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch

from qfed.config import BornConfig, SynthConfig
from qfed.errors import ConfigError
from qfed.generative.lattice import lattice_pairs
from qfed.generative.library import Progress, State, silent
from qfed.generative.rigetti.backends import backend_of
from qfed.generative.statistics import Bits, Floats, PairCounts
from qfed.generative.tree_circuit import TreeCircuit

MOST_BITS = 16
_EXACT = 1e-3  # misfit of <s_i s_j> that is not worth a gate
_JITTER = 0.01  # radians; a further pair at exactly 0 has no gradient in the direction that its sign will take


class Born:
    """The generator "born"."""

    def __init__(self, config: SynthConfig, circuit: TreeCircuit | None = None, angles: Floats | None = None) -> None:
        self.config, self._shrink = config.born, config.shrink
        self.circuit = circuit or TreeCircuit(())
        """The gates' places."""
        self.angles: Floats = np.zeros(0) if angles is None else angles
        """Trained angles (P,)."""
        self.losses: tuple[float, float] = (float("nan"), float("nan"))
        """Loss of the tree alone, and at the end."""
        self._backend = backend_of(config)

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """Not fitted."""
        return cls(config)

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Find the tree and the further pairs, then train the angles."""
        n = len(stats.bits)
        if n > MOST_BITS:
            raise ConfigError(
                f'synth.generator = "born" computes 2^n amplitudes and takes at most {MOST_BITS} bits, got bits={n}; '
                'code fewer columns or bins, or use synth.generator = "boltzmann"'
            )
        wanted = stats.shrunk(self._shrink)
        aim = _moments(wanted)
        spins = torch.from_numpy(1.0 - 2.0 * all_bits(n))
        tree = TreeCircuit.of(wanted)
        misfit = np.abs(_found(spins, _probabilities(tree, tree.start(wanted))).numpy() - aim.numpy())
        np.fill_diagonal(misfit, 0)
        candidates = lattice_pairs(tree.edges, misfit, rng) if self.config.pairs == "lattice" else _all_pairs(n)
        least = max(_EXACT, self._shrink * 2 * stats.stddev / stats.records)  # misfit that noise explains
        self.circuit = TreeCircuit(tree.order, _worst(misfit, candidates, self.config.extra_pairs, least))
        start = self.circuit.start(wanted)
        more = 2 * len(self.circuit.further)
        if more:
            start[-more:] = _JITTER * rng.normal(size=more)
        self.angles, last = _train(self.circuit, start, spins, aim, self.config, progress)
        self.losses = (float((np.triu(misfit) ** 2).sum()), last)
        goal = aim
        for _ in range(self.config.corrections):
            seen = _moments(PairCounts.exact(self.sample(self.config.correction_shots, rng)))
            goal = (goal + aim - seen).clamp(-1, 1)
            self.angles, _ = _train(self.circuit, self.angles, spins, goal, self.config, progress)
        return self

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records from the configured backend."""
        if self.config.backend == "exact":
            law = self.probabilities()
            return all_bits(self.circuit.wires)[rng.choice(len(law), size=count, p=law / law.sum())]
        return self._backend.sample(self.circuit.operations(self.angles.tolist()), self.circuit.wires, count, rng)

    def probabilities(self) -> Floats:
        """The trained law (2^n,) without noise, bit 0 the most significant."""
        return np.asarray(_probabilities(self.circuit, self.angles).numpy())

    def describe(self) -> dict[str, Any]:
        """Size, loss, and where samples come from."""
        return {
            "generator": "born",
            "bits": self.circuit.wires,
            "parameters": self.circuit.parameters,
            "two_qubit_gates": len(self.circuit.couplings),
            "tree_edges": [list(edge) for edge in self.circuit.edges],
            "further_pairs": [list(pair) for pair in self.circuit.further],
            "loss_of_tree": self.losses[0],
            "loss": self.losses[1],
            "backend": self._backend.describe(),
        }

    def state(self) -> State:
        """Places of the gates and the angles."""
        order = [[-1 if parent is None else parent, child] for parent, child in self.circuit.order]
        about = {"order": order, "further": [list(pair) for pair in self.circuit.further], "losses": list(self.losses)}
        return about, {"angles": self.angles}

    @classmethod
    def restore(cls, config: SynthConfig, state: State) -> Self:
        """From what `state` gave."""
        about, arrays = state
        order = tuple((None if parent < 0 else parent, child) for parent, child in about["order"])
        further = tuple((control, target) for control, target in about["further"])
        born = cls(config, TreeCircuit(order, further), arrays["angles"])
        born.losses = (about["losses"][0], about["losses"][1])
        return born


def all_bits(n: int) -> Bits:
    """Every word (2^n, n) in the order of a probability vector; bit 0 is the most significant."""
    words = np.arange(2**n)[:, None] >> np.arange(n - 1, -1, -1)
    return (words & 1).astype(np.uint8)


def _moments(stats: PairCounts) -> torch.Tensor:
    """<s_i s_j> (n, n) with <s_i> on the diagonal."""
    moments = stats.correlations.copy()
    np.fill_diagonal(moments, stats.means)
    return torch.from_numpy(moments)


def _found(spins: torch.Tensor, law: torch.Tensor) -> torch.Tensor:
    """As `_moments`, of a law (2^n,)."""
    weighted = law[:, None] * spins
    pair = spins.T @ weighted
    return pair - torch.diag(torch.diagonal(pair)) + torch.diag(weighted.sum(0))


def _probabilities(circuit: TreeCircuit, angles: Floats) -> torch.Tensor:
    layer = circuit.layer()
    with torch.no_grad():
        layer.angles.copy_(torch.from_numpy(angles))
        law: torch.Tensor = layer(torch.zeros(1, 1, dtype=torch.float64))[0]
    return law


def _all_pairs(n: int) -> list[tuple[int, int]]:
    return [(u, v) for u in range(n) for v in range(u + 1, n)]


def _worst(misfit: Floats, pairs: list[tuple[int, int]], most: int, least: float) -> tuple[tuple[int, int], ...]:
    """At most `most` of these pairs, those with the largest misfit above `least`, worst first."""
    return tuple(sorted((pair for pair in pairs if misfit[pair] > least), key=lambda pair: -misfit[pair])[:most])


def _train(
    circuit: TreeCircuit,
    start: Floats,
    spins: torch.Tensor,
    aim: torch.Tensor,
    config: BornConfig,
    progress: Progress,
) -> tuple[Floats, float]:
    """The angles after training, and their loss."""
    layer = circuit.layer()
    with torch.no_grad():
        layer.angles.copy_(torch.from_numpy(start))
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    optimizer = torch.optim.Adam(layer.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    best, angles = float("inf"), start
    for step in range(config.steps + 1):
        loss = torch.triu(_found(spins, layer(nothing)[0]) - aim).square().sum()
        if loss.item() < best:
            best, angles = loss.item(), layer.angles.detach().numpy().copy()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        progress(step, config.steps)
    return angles, best
