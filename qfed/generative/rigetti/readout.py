"""Readout errors, measured and unfolded.

    observed = M t,   M = kron_w M_w,   M_w[read, true] from two circuits that prepare 0...0 and 1...1
    t <- t * M^T (observed / (M t)),    from the observed law, until it moves by less than a sampling error

Iterative Bayesian unfolding keeps t a probability vector, which inverting M does not. Samples are then drawn from t:
each word as often as t says, the fractions by one random offset (systematic resampling), in random order. Readout
errors are taken to be independent between qubits; correlated ones stay.
Source: D'Agostini, Nucl. Instrum. Meth. A 362, 487 (1995); Nachman et al., npj Quantum Inf. 6, 84 (2020).
Shapes  bits (N, n), M_w (n, 2, 2), laws (2^n,) with bit 0 the most significant
Cost    O(iterations n 2^n)      Errors  CircuitError when a qubit reads 0 and 1 alike
"""

from __future__ import annotations

import numpy as np

from qfed.errors import CircuitError
from qfed.generative.statistics import Bits, Floats

MOST_ITERATIONS = 200


def confusion(zeros: Bits, ones: Bits) -> Floats:
    """M_w[read, true] (n, 2, 2), from reads (N, n) of 0...0 and of 1...1."""
    wrong_zero, right_one = zeros.mean(0), ones.mean(0)
    matrices = np.stack([np.stack([1 - wrong_zero, wrong_zero]), np.stack([1 - right_one, right_one])])
    found: Floats = np.ascontiguousarray(matrices.transpose(2, 1, 0))
    if (np.abs(np.linalg.det(found)) < 0.05).any():
        qubit = int(np.argmin(np.abs(np.linalg.det(found))))
        raise CircuitError(f"bit {qubit} is read as 1 about as often from 0 as from 1; use other qubits")
    return found


def unfold(bits: Bits, matrices: Floats, count: int, rng: np.random.Generator) -> Bits:
    """Reads (N, n) -> `count` samples (count, n) of the law before readout."""
    n = bits.shape[1]
    weights = 1 << np.arange(n - 1, -1, -1)
    observed = np.bincount(bits.astype(np.int64) @ weights, minlength=2**n) / len(bits)
    law = unfolded(observed, matrices, 0.1 / np.sqrt(len(bits)))
    edges = np.cumsum(law)
    words = np.searchsorted(edges, (np.arange(count) + rng.random()) / count * edges[-1], side="right")
    words = rng.permutation(np.minimum(words, 2**n - 1))
    return np.asarray((words[:, None] & weights) > 0, dtype=np.uint8)


def unfolded(observed: Floats, matrices: Floats, tolerance: float) -> Floats:
    """The law (2^n,) that, read through M, gives the observed one, to `tolerance` in the last step's total move."""
    law = (observed + 1 / len(observed) / 100) / 1.01  # words that were never read are not ruled out
    for _ in range(MOST_ITERATIONS):
        expected = through(matrices, law)
        ratio = np.divide(observed, expected, out=np.zeros_like(observed), where=expected > 0)
        better = law * through(matrices.transpose(0, 2, 1), ratio)
        moved = float(np.abs(better - law).sum())
        law = better
        if moved < tolerance:
            break
    return law


def through(matrices: Floats, law: Floats) -> Floats:
    """(kron_w M_w) law."""
    n = len(matrices)
    tensor = law.reshape((2,) * n)
    for wire, matrix in enumerate(matrices):
        tensor = np.moveaxis(np.tensordot(matrix, tensor, axes=(1, wire)), 0, wire)
    return np.asarray(tensor.reshape(-1))
