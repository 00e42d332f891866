"""What the kernel is called with: a plan, where its angles come from, and both packed into two arrays.

    angle[r] = constant[r] + sum_e factor[e] (x, w)[source[e]]        e in starts[r] .. starts[r + 1]

Sources 0 .. D - 1 are a record's inputs, D .. D + P - 1 its site's weights. For a circuit whose angles are affine in
inputs and weights these are the circuit's own; `direct` takes the angles themselves (own rows as inputs, shared rows
as weights), for maps that torch evaluates. Packed, since each array that a call hands over costs it 0.1 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qfed.quantum.plan import Plan
from qfed.quantum.program import Ints


@dataclass(frozen=True)
class Routine:
    """A plan with its map from inputs (D,) and weights (P,) to angles."""

    plan: Plan
    features: int
    weights: int
    starts: Ints  # (R + 1,)
    source: Ints  # (E,)
    factor: np.ndarray  # (E,)
    constant: np.ndarray  # (R,)

    @cached_property
    def integers(self) -> Ints:
        """Wires, rows, place of the constants among `numbers`; (place, rows, width) of each array; the arrays."""
        p = self.plan
        arrays = (
            p.shared, p.own, p.prefix, p.steps, p.blocks, p.folds, p.members, p.diagonal, p.terms, p.outcomes,
            self.starts, self.source,
        )  # fmt: skip
        head = [p.wires, p.rows, len(p.diagonal) + len(p.terms)]
        place = 3 * (1 + len(arrays))
        for array in arrays:
            head += [place, array.shape[0], 1 if array.ndim == 1 else array.shape[1]]
            place += array.size
        return np.concatenate([np.array(head, np.int64), *(a.reshape(-1) for a in arrays)])

    @cached_property
    def numbers(self) -> np.ndarray:
        """Coefficients of the diagonal words and of the others, constants, factors."""
        p = self.plan
        return np.concatenate([p.diagonal_coefficients, p.coefficients, self.constant, self.factor]).astype(np.float64)

    @cached_property
    def vectors(self) -> dict[int, int]:
        """Vectors of scratch that a thread needs, by lanes of a vector."""
        from qfed.quantum.kernel import scratch_vectors

        return {lanes: scratch_vectors(self.plan, self.features, self.weights, lanes) for lanes in (8, 16)}


def affine(plan: Plan, of_inputs: np.ndarray, of_weights: np.ndarray, constant: np.ndarray) -> Routine:
    """angles (R,) = of_inputs (R, D) x + of_weights (R, P) w + constant (R,)."""
    both = np.concatenate([of_inputs, of_weights], axis=1)
    row, source = np.nonzero(both)
    starts = np.searchsorted(row, np.arange(plan.rows + 1)).astype(np.int64)
    sizes = of_inputs.shape[1], of_weights.shape[1]
    return Routine(plan, *sizes, starts, source.astype(np.int64), both[row, source], constant.astype(np.float64))


def direct(plan: Plan) -> Routine:
    """The own angles as inputs, the shared ones as weights."""
    return affine(plan, _unit(plan.rows, plan.own), _unit(plan.rows, plan.shared), np.zeros(plan.rows))


def _unit(rows: int, places: Sequence[int] | Ints) -> np.ndarray:
    found = np.zeros((rows, len(places)))
    found[places, np.arange(len(places))] = 1
    return found
