"""Run a plan on a batch: arrays of records in, arrays of records out.

    own (K, B, Ro), shared (K, Rs), state (K, B, N) or None -> raw outputs (K, B, M)

K sites have weights of their own, B records each. Records are laid out a lane each; lanes that are left over
compute the circuit at angle 0 and are dropped. Groups of lanes are spread over threads where the work is worth it.
Memory: 7 * 2^W vectors of 64 bytes a thread, and the final states (kept for the backward sweep up to 64 MiB).
Errors  CircuitError when the states do not fit the machine's memory, or prepared amplitudes have no norm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.errors import CircuitError
from qfed.quantum.plan import Plan
from qfed.quantum.workers import VECTOR_BYTES, aligned, each_thread, scratch

_KEEP_BYTES = 1 << 26
Floats = NDArray[Any]


@dataclass(frozen=True)
class Gradients:
    """Per record: dL/down (K, B, Ro), dL/dshared (K, B, Rs), dL/dstate (K, B, N) or None."""

    own: Floats
    shared: Floats
    state: Floats | None


def forward(plan: Plan, own: Floats, shared: Floats, state: Floats | None, *, keep: bool) -> tuple[Floats, Floats]:
    """Raw outputs (K, B, M), and the final states for `backward` (no rows unless `keep` and small enough)."""
    from qfed.quantum import kernel

    sites, batch, _ = own.shape
    dtype = own.dtype
    lanes = VECTOR_BYTES // dtype.itemsize
    groups = sites * -(-batch // lanes)
    out = np.empty((sites, batch, plan.outputs), dtype)
    keep = keep and groups * 2 * plan.size * VECTOR_BYTES <= _KEEP_BYTES
    final = aligned((groups if keep else 0, 2 * plan.size * lanes), dtype)
    if state is not None:
        _check_norms(state)
    initial = np.empty((sites, 0, 0), dtype) if state is None else state

    def work(first: int, last: int) -> None:
        kernel.forward(first, last, plan.wires, *plan.arrays, own, shared, initial, scratch(plan, dtype), final, out)

    each_thread(work, groups, plan.cost)
    return out, final


def backward(
    plan: Plan, own: Floats, shared: Floats, state: Floats | None, cotangent: Floats, final: Floats
) -> Gradients:
    """Per-record gradients of sum_m cotangent[k, b, m] out[k, b, m]; `final` is what `forward` kept."""
    from qfed.quantum import kernel

    sites, batch, _ = own.shape
    dtype = own.dtype
    lanes = VECTOR_BYTES // dtype.itemsize
    groups = sites * -(-batch // lanes)
    of_own, of_shared = np.empty_like(own), np.empty((sites, batch, len(plan.shared)), dtype)
    initial = np.empty((sites, 0, 0), dtype) if state is None else state
    of_initial = np.empty_like(initial)

    def work(first: int, last: int) -> None:
        kernel.backward(
            first,
            last,
            plan.wires,
            *plan.arrays,
            own,
            shared,
            initial,
            scratch(plan, dtype),
            final,
            cotangent,
            _unit(lanes, dtype),
            plan.amplitudes,
            of_own,
            of_shared,
            of_initial,
        )

    each_thread(work, groups, 3 * plan.cost)
    return Gradients(of_own, of_shared, None if state is None else of_initial)


@cache
def _unit(lanes: int, dtype: np.dtype[Any]) -> Floats:
    """(1, -1) as vectors."""
    unit = aligned((2, lanes), dtype)
    unit[0], unit[1] = 1, -1
    return unit.reshape(-1)


def _check_norms(state: Floats) -> None:
    """PennyLane's own check of prepared amplitudes, with its tolerance; NaN rows pass and stay NaN."""
    norms = np.einsum("kbn,kbn->kb", state, state).reshape(-1)
    wrong = np.flatnonzero(np.abs(norms - 1) > 1e-3)
    if wrong.size:
        raise CircuitError(
            f"prepared amplitudes must have norm 1, got norm={float(np.sqrt(norms[wrong[0]])):.4g} in record "
            f"{int(wrong[0])} of the batch; give AmplitudeEmbedding normalize=True"
        )


def compile_for(dtype: np.dtype[Any]) -> None:
    """Compile (or load from the cache) the kernel of one dtype by running a small circuit with a fold."""
    from qfed.quantum.plan import make_plan
    from qfed.quantum.program import Column, Program

    rotations = np.array([[1, 1, 1, 0]] + [[4, 4 | z, -1, 2] for z in (1, 2, 3)], np.int64)
    none = np.zeros((0, 4), np.int64)
    outcomes = np.arange(4, dtype=np.int64).reshape(1, 4)
    program = Program(2, rotations, none, np.zeros(0), outcomes, 4, (Column(0, 4),), "one", True, 0, 0)
    plan = make_plan(program, [1, 2, 3])
    own, shared = np.zeros((1, 1, 1), dtype), np.zeros((1, 3), dtype)
    state = np.zeros((1, 1, 4), dtype)
    state[0, 0, 0] = 1
    out, final = forward(plan, own, shared, state, keep=True)
    backward(plan, own, shared, state, np.ones_like(out), final)
