"""Classical pairwise fit: the law of largest entropy that has the released pairs, without any annealer or circuit.

    p(s) ~ exp(-h.s - sum_{i<j} J_ij s_i s_j),     minimise  log Z + theta.m + 1/2 sum w theta^2

theta are h and J, m the released moments.

Up to `MOST_EXACT` bits all 2^n states are enumerated (by Walsh transforms) and the convex objective is minimised by
SciPy's Newton method in a trust region, whose Hessian is a second look-up in the same transform: what a Boltzmann
machine on an annealer can reach at best. With more bits it is the Chow-Liu tree (tree.py) of the pairs that noise does
not explain.
The penalty (prior.py) admits pairs that no joint law has, as noise leaves them.
Source: Jaynes, Phys. Rev. 106, 620 (1957). Shapes  pairs (n, n, 2, 2)      Cost  O(2^n n + n^6) an iteration
Errors  none of its own
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp

from qfed.config import SynthConfig
from qfed.generative.library import Progress, State, silent
from qfed.generative.prior import penalty
from qfed.generative.statistics import Bits, Floats, PairCounts
from qfed.generative.tree import Tree

MOST_EXACT = 16


class Pairwise:
    """Maximum entropy given all pairs, or the Chow-Liu tree."""

    def __init__(self, scale: float, shrink: float) -> None:
        self._scale, self._shrink = scale, shrink
        self._bits = 0
        self._law: Floats | None = None
        self._tree: Tree | None = None
        self._error = 0.0

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """Not fitted."""
        return cls(config.prior, config.shrink)

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Enumerate and minimise, or build the tree."""
        self._bits = len(stats.bits)
        if self._bits > MOST_EXACT:
            self._tree = Tree.of(stats.shrunk(self._shrink))
            return self
        fields, couplings = maximum_entropy(stats.means, stats.correlations, penalty(stats, self._scale))
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


def all_spins(n: int) -> Floats:
    """Every state (2^n, n) of n spins; bit i of the state's number is bit i of the record."""
    return np.asarray(1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1))


def walsh(values: Floats) -> Floats:
    """sum_z values_z (-1)^|z & s| for every s, (2^n,): energies from coefficients, moments from probabilities."""
    out = values.copy()
    half = 1
    while half < len(out):
        pairs = out.reshape(-1, 2, half)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        half *= 2
    return out


def boltzmann_law(fields: Floats, couplings: Floats) -> Floats:
    """exp(-E) / Z of every state (2^n,); couplings symmetric."""
    n = len(fields)
    less = -_energies(np.concatenate([fields, couplings[np.triu_indices(n, 1)]]), n)
    return np.asarray(np.exp(less - logsumexp(less)))


def moments(law: Floats) -> tuple[Floats, Floats]:
    """<s_i> (n,) and <s_i s_j> (n, n) of a law over all states."""
    n = len(law).bit_length() - 1
    found = walsh(law)[_words(n)]
    pair = np.zeros((n, n))
    pair[np.triu_indices(n, 1)] = found[n:]
    return found[:n], pair + pair.T + np.eye(n)


@lru_cache(maxsize=4)
def _words(n: int) -> npt.NDArray[np.int64]:
    """The masks of all single bits, then of all pairs i < j, (n (n + 1) / 2,)."""
    row, column = np.triu_indices(n, 1)
    return np.asarray(np.concatenate([1 << np.arange(n), (1 << row) | (1 << column)]))


def _energies(theta: Floats, n: int) -> Floats:
    coefficients = np.zeros(2**n)
    coefficients[_words(n)] = theta
    return walsh(coefficients)


def maximum_entropy(mean: Floats, pair: Floats, penalty: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """Fields (n,) and symmetric couplings (n, n) of the law of largest entropy with these moments.

    `penalty` (P,) holds the weights of their squares (prior.py).
    """
    n = len(mean)
    upper = np.triu_indices(n, 1)
    problem = _Dual(n, np.concatenate([mean, pair[upper]]), penalty)
    start = np.concatenate([-np.arctanh(np.clip(mean, -0.95, 0.95)), np.zeros(len(upper[0]))])
    found = minimize(
        problem.value, start, jac=problem.slope, hess=problem.curvature, method="trust-exact", options={"gtol": 1e-6}
    ).x
    couplings = np.zeros((n, n))
    couplings[upper] = found[n:]
    return found[:n], couplings + couplings.T


class _Dual:
    """log Z + theta.m + penalty, with two derivatives; all states are gone through once a point."""

    def __init__(self, n: int, target: Floats, penalty: Floats | float) -> None:
        self._n, self._target = n, target
        self._penalty = np.broadcast_to(penalty, target.shape)
        self._words = _words(n)
        self._products = self._words[:, None] ^ self._words[None, :]
        self._at: Floats | None = None
        self._log_z, self._found = 0.0, np.zeros(0)

    def value(self, theta: Floats) -> float:
        """The objective."""
        self._move(theta)
        return self._log_z + float(theta @ self._target + self._penalty @ theta**2 / 2)

    def slope(self, theta: Floats) -> Floats:
        """Its gradient (P,)."""
        self._move(theta)
        return np.asarray(self._target - self._found[self._words] + self._penalty * theta)

    def curvature(self, theta: Floats) -> Floats:
        """Its Hessian (P, P): the covariance of spins and products, <z_A z_B> = <z_(A xor B)>, and the penalty."""
        self._move(theta)
        means = self._found[self._words]
        return np.asarray(self._found[self._products] - np.outer(means, means) + np.diag(self._penalty))

    def _move(self, theta: Floats) -> None:
        if self._at is not None and np.array_equal(theta, self._at):
            return
        less = -_energies(theta, self._n)
        self._log_z = float(logsumexp(less))
        self._found, self._at = walsh(np.exp(less - self._log_z)), theta.copy()
