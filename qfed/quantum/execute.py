"""Run a routine on a batch: arrays of records in, arrays of records out.

    x (B, D), w (K, P), state (B, N) or None -> raw outputs (B, M)

Records offsets[k] .. offsets[k + 1] belong to site k, which has weights of its own; sites may have any number of
records, none included. Records are laid out a lane each; lanes that are left over compute the circuit at angle 0 and
are dropped. Groups of lanes are spread over threads where the work is worth it.
Memory: 7 * 2^W vectors of 64 bytes a thread, and the final states (kept for the backward sweep up to 64 MiB).
Errors  CircuitError when the states do not fit the machine's memory, or prepared amplitudes have no norm 1.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qfed.errors import CircuitError
from qfed.quantum.program import Ints
from qfed.quantum.routine import Routine
from qfed.quantum.workers import VECTOR_BYTES, Spare, aligned, each_thread, scratch

_KEEP_BYTES = 1 << 26
Floats = NDArray[Any]


class Batch(NamedTuple):
    """Records of K sites in a dtype: x (B, D), w (K, P), offsets (K + 1,), state (B, N) or None."""

    inputs: Floats
    weights: Floats
    offsets: Ints
    state: Floats | None = None

    def groups(self, lanes: int) -> int:
        """Groups of lanes."""
        if len(self.offsets) == 2:
            return -(-len(self.inputs) // lanes)
        return int((-(-np.diff(self.offsets) // lanes)).sum())


@lru_cache(maxsize=256)
def even(sites: int, records: int) -> Ints:
    """Offsets of sites with as many records each."""
    return np.arange(sites + 1, dtype=np.int64) * records


def forward(routine: Routine, batch: Batch, *, keep: bool) -> tuple[Floats, Spare]:
    """Raw outputs (B, M), and the final states for `backward` (none unless `keep` and small enough)."""
    plan, x, state = routine.plan, batch.inputs, batch.state
    dtype = x.dtype
    lanes = VECTOR_BYTES // dtype.itemsize
    groups = batch.groups(lanes)
    out = np.empty((x.shape[0], plan.outputs), dtype)
    amplitudes = 2 * plan.size * lanes
    final = Spare(groups if keep and groups * amplitudes * dtype.itemsize <= _KEEP_BYTES else 0, amplitudes, dtype)
    if state is not None:
        _check_norms(state)
    initial = _none(dtype) if state is None else state

    sweep, states, integers, numbers = _kernel().forward, final.array, routine.integers, routine.numbers
    weights, offsets = batch.weights, batch.offsets

    def work(first: int, last: int) -> None:
        own = scratch(routine, dtype)
        sweep(first, last, integers, numbers, x, weights, offsets, initial, own, states, out)

    each_thread(work, groups, plan.cost)
    return out, final


def backward(routine: Routine, batch: Batch, cotangent: Floats, final: Spare | None) -> tuple[Floats, Floats, Floats]:
    """Per record of sum_m cotangent[b, m] out[b, m]: dL/dx (B, D), dL/dw (B, P), dL/dstate (B, N or 0).

    `final` is what `forward` kept; without it the forward sweep is run again.
    """
    x, state = batch.inputs, batch.state
    dtype = x.dtype
    of_inputs, of_weights = np.empty(x.shape, dtype), np.empty((x.shape[0], routine.weights), dtype)
    initial = _none(dtype) if state is None else state
    of_initial = initial if state is None else np.empty_like(initial)
    kept = _no_states(dtype) if final is None else final.array

    def work(first: int, last: int) -> None:
        _kernel().backward(
            first, last, routine.integers, routine.numbers, x, batch.weights, batch.offsets, initial,
            scratch(routine, dtype), kept, cotangent, _unit(dtype), of_inputs, of_weights, of_initial,
        )  # fmt: skip

    each_thread(work, batch.groups(VECTOR_BYTES // dtype.itemsize), 3 * routine.plan.cost)
    return of_inputs, of_weights, of_initial


@cache
def _kernel() -> Any:
    """The kernel's module, which brings Numba with it: not before something runs."""
    from qfed.quantum import kernel

    return kernel


@cache
def _none(dtype: np.dtype[Any]) -> Floats:
    return np.empty((0, 0), dtype)


@cache
def _no_states(dtype: np.dtype[Any]) -> Floats:
    return aligned((0, VECTOR_BYTES // dtype.itemsize), dtype)


@cache
def _unit(dtype: np.dtype[Any]) -> Floats:
    """(1, -1) as vectors."""
    unit = aligned((2, VECTOR_BYTES // dtype.itemsize), dtype)
    unit[0], unit[1] = 1, -1
    return unit.reshape(-1)


def _check_norms(state: Floats) -> None:
    """PennyLane's own check of prepared amplitudes, with its tolerance; NaN rows pass and stay NaN."""
    norms = np.einsum("bn,bn->b", state, state)
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
    from qfed.quantum.routine import direct

    rotations = np.array([[1, 1, 1, 0]] + [[4, 4 | z, -1, 2] for z in (1, 2, 3)], np.int64)
    none = np.zeros((0, 4), np.int64)
    outcomes = np.arange(4, dtype=np.int64).reshape(1, 4)
    program = Program(2, rotations, none, np.zeros(0), outcomes, 4, (Column(0, 4),), "one", True, 0, 0)
    routine = direct(make_plan(program, [1, 2, 3]))
    state = np.zeros((1, 4), dtype)
    state[0, 0] = 1
    batch = Batch(np.zeros((1, 1), dtype), np.zeros((1, 3), dtype), even(1, 1), state)
    out, final = forward(routine, batch, keep=True)
    backward(routine, batch, np.ones_like(out), final)
