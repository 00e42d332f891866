"""Classical pairwise fit: the law of largest entropy that has the released pairs, without any annealer or circuit.

    p(s) ~ exp(-h.s - sum_{i<j} J_ij s_i s_j),     minimise  log Z + h.m + sum J_ij m_ij + w/2 (|h|^2 + |J|^2)

Up to `MOST_EXACT` bits all 2^n states are enumerated and the convex objective is minimised by SciPy's L-BFGS: the
reference that a Boltzmann machine on an annealer can reach at best. With more bits it is the Chow-Liu tree (tree.py).
The penalty w admits pairs that no joint law has, as noise leaves them.
Source: Jaynes, Phys. Rev. 106, 620 (1957). Shapes  pairs (n, n, 2, 2)      Cost  O(2^n n^2) an iteration, 2^n n memory
Errors  none of its own
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from qfed.config import SynthConfig
from qfed.generative.library import Progress, State, silent
from qfed.generative.statistics import Bits, Floats, PairCounts
from qfed.generative.tree import Tree

MOST_EXACT = 16


class Pairwise:
    """Maximum entropy given all pairs, or the Chow-Liu tree."""

    def __init__(self, weight_decay: float) -> None:
        self._weight_decay = weight_decay
        self._bits = 0
        self._law: Floats | None = None
        self._tree: Tree | None = None
        self._error = 0.0

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """Not fitted."""
        return cls(config.weight_decay)

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Enumerate and minimise, or build the tree."""
        self._bits = len(stats.bits)
        if self._bits > MOST_EXACT:
            self._tree = Tree.of(stats)
            return self
        fields, couplings = maximum_entropy(stats.means, stats.correlations, self._weight_decay)
        self._law = boltzmann_law(fields, couplings)
        mean, pair = moments(self._law)
        upper = np.triu_indices(self._bits, 1)
        off = np.concatenate([mean - stats.means, (pair - stats.correlations)[upper]])
        self._error = float(np.abs(off).mean())
        return self

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records."""
        if self._tree is not None:
            return self._tree.sample(count, rng)
        states = ((1 - all_spins(self._bits)) // 2).astype(np.uint8)
        return states[rng.choice(len(states), size=count, p=self._law)]

    def describe(self) -> dict[str, Any]:
        """Which of the two it is."""
        if self._tree is not None:
            return {"generator": "pairwise", "kind": "Chow-Liu tree", "bits": self._bits}
        return {
            "generator": "pairwise",
            "kind": "maximum entropy, exact",
            "bits": self._bits,
            "moment_error": self._error,
        }

    def state(self) -> State:
        """The law, or the tree."""
        about = {"bits": self._bits, "error": self._error}
        if self._tree is None:
            return about, {"law": np.asarray(self._law)}
        tree = self._tree
        about |= {"root": tree.root, "start": tree.start}
        return about, {"order": tree.order, "given": tree.given}

    @classmethod
    def restore(cls, config: SynthConfig, state: State) -> Self:
        """From the law, or the tree."""
        about, arrays = state
        self = cls.of(config)
        self._bits, self._error = about["bits"], about["error"]
        if "law" in arrays:
            self._law = arrays["law"]
        else:
            self._tree = Tree(about["root"], arrays["order"], about["start"], arrays["given"])
        return self


@lru_cache(maxsize=2)
def all_spins(n: int) -> Floats:
    """Every state (2^n, n) of n spins; bit i of the state's number is bit i of the record."""
    return np.asarray(1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1))


def energies(fields: Floats, couplings: Floats) -> Floats:
    """h.s + sum_{i<j} J_ij s_i s_j of every state (2^n,); couplings symmetric with diagonal 0."""
    spins = all_spins(len(fields))
    return np.asarray(spins @ fields + 0.5 * ((spins @ couplings) * spins).sum(1))


def boltzmann_law(fields: Floats, couplings: Floats) -> Floats:
    """exp(-E) / Z of every state (2^n,)."""
    less = -energies(fields, couplings)
    return np.asarray(np.exp(less - logsumexp(less)))


def moments(law: Floats) -> tuple[Floats, Floats]:
    """<s_i> (n,) and <s_i s_j> (n, n) of a law over all states."""
    spins = all_spins(len(law).bit_length() - 1)
    weighted = spins * law[:, None]
    return np.asarray(weighted.sum(0)), np.asarray(spins.T @ weighted)


def maximum_entropy(mean: Floats, pair: Floats, weight_decay: float) -> tuple[Floats, Floats]:
    """Fields (n,) and symmetric couplings (n, n) of the law of largest entropy with these moments."""
    n = len(mean)
    upper = np.triu_indices(n, 1)
    target = np.concatenate([mean, pair[upper]])

    def unpack(theta: Floats) -> tuple[Floats, Floats]:
        couplings = np.zeros((n, n))
        couplings[upper] = theta[n:]
        return theta[:n], couplings + couplings.T

    def objective(theta: Floats) -> tuple[float, Floats]:
        less = -energies(*unpack(theta))
        log_z = logsumexp(less)
        found, pairs = moments(np.exp(less - log_z))
        slope = target - np.concatenate([found, pairs[upper]]) + weight_decay * theta
        return float(log_z + theta @ target + weight_decay / 2 * theta @ theta), slope

    start = np.concatenate([-np.arctanh(np.clip(mean, -0.99, 0.99)), np.zeros(len(upper[0]))])
    return unpack(minimize(objective, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-5}).x)
