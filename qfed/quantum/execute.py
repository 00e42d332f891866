"""Run a plan on a batch: arrays of records in, arrays of records out.

    own (K, B, Ro), shared (K, Rs), state (K, B, N) or None -> raw outputs (K, B, M)

K sites have weights of their own, B records each. Records are laid out a lane each; lanes that are left over
compute the circuit at angle 0 and are dropped. Groups of lanes are spread over threads where the work is worth it.
Memory: 7 * 2^W vectors of 64 bytes a thread, and the final states (kept for the backward sweep up to 64 MiB).
Errors  CircuitError when the states do not fit the machine's memory, or prepared amplitudes have no norm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """Raw outputs (K, B, M), and the final states for `backward` (empty unless `keep` and small enough)."""
    sites, batch, _ = own.shape
    lanes = VECTOR_BYTES // own.dtype.itemsize
    per_site = -(-batch // lanes)
    groups = sites * per_site
    if groups == 0:
        return np.zeros((sites, batch, plan.outputs), own.dtype), np.zeros((0, 0), own.dtype)
    _check_norms(state)
    keep = keep and groups * 2 * plan.size * VECTOR_BYTES <= _KEEP_BYTES
    final = aligned((groups if keep else 0, 2 * plan.size * lanes), own.dtype)
    out = aligned((groups, plan.outputs * lanes), own.dtype)
    arguments = (
        per_site,
        plan.wires,
        *_arrays(plan),
        *_tables(plan, own, shared, lanes),
        _lay(state, own, lanes, groups),
    )

    def work(first: int, last: int) -> None:
        from qfed.quantum import kernel

        kernel.forward(first, last, *arguments, scratch(plan, own.dtype), final, out)

    each_thread(work, groups, _work(plan))
    return _records(out.reshape(sites, per_site, plan.outputs, lanes), batch), final


def backward(
    plan: Plan, own: Floats, shared: Floats, state: Floats | None, cotangent: Floats, final: Floats
) -> Gradients:
    """Per-record gradients of sum_m cotangent[k, b, m] out[k, b, m]; `final` is what `forward` kept."""
    sites, batch, _ = own.shape
    lanes = VECTOR_BYTES // own.dtype.itemsize
    per_site = -(-batch // lanes)
    groups = sites * per_site
    if groups == 0:
        nothing = np.zeros((sites, batch, len(plan.shared)), own.dtype)
        return Gradients(np.zeros_like(own), nothing, None if state is None else np.zeros_like(state))
    gradient = aligned((groups, (plan.rows + 1) * lanes), own.dtype)
    initial = _lay(state, own, lanes, groups)
    of_initial = aligned(initial.shape, own.dtype)
    cotangents = _lay(cotangent, own, lanes, groups)
    arguments = (per_site, plan.wires, *_arrays(plan), *_tables(plan, own, shared, lanes), initial)

    def work(first: int, last: int) -> None:
        from qfed.quantum import kernel

        kernel.backward(first, last, *arguments, scratch(plan, own.dtype), final, cotangents, gradient, of_initial)

    each_thread(work, groups, 3 * _work(plan))
    slopes = gradient.reshape(sites, per_site, plan.rows + 1, lanes)
    return Gradients(
        _records(slopes[:, :, plan.own], batch),
        _records(slopes[:, :, plan.shared], batch),
        None if state is None else _records(of_initial.reshape(sites, per_site, -1, lanes), batch),
    )


def _work(plan: Plan) -> int:
    """Vector operations of a group in a forward sweep, roughly."""
    return plan.size * (8 + 12 * len(plan.blocks) + 4 * len(plan.folds) + plan.wires + 2 * len(plan.terms))


def _arrays(plan: Plan) -> tuple[Any, ...]:
    return (
        plan.shared,
        plan.own,
        plan.prefix,
        plan.steps,
        plan.blocks,
        plan.folds,
        plan.members,
        plan.diagonal,
        plan.diagonal_coefficients,
        plan.terms,
        plan.coefficients,
        plan.outcomes,
    )


def _tables(plan: Plan, own: Floats, shared: Floats, lanes: int) -> tuple[Floats, ...]:
    """cos and sin of half the angles: shared (K, Rs), own (G, Ro * lanes); of the folds' phases (K, F, N)."""
    groups = own.shape[0] * -(-own.shape[1] // lanes)
    half = _lay(own, own, lanes, groups) * 0.5
    half_shared = shared * 0.5
    phases = np.empty((shared.shape[0], len(plan.folds), plan.size), own.dtype)
    if len(plan.folds):
        from qfed.quantum import kernel

        for site, angles in enumerate(shared):
            every = np.zeros(plan.rows, own.dtype)
            every[plan.shared] = angles
            kernel.phases(plan.folds, plan.members, every, phases[site])
    with np.errstate(invalid="ignore"):  # an infinite angle gives NaN in its own record
        return (
            np.cos(half_shared),
            np.sin(half_shared),
            np.cos(half),
            np.sin(half),
            np.cos(phases),
            np.sin(phases),
        )


def _lay(values: Floats | None, like: Floats, lanes: int, groups: int) -> Floats:
    """(K, B, C) -> (G, C * lanes), a site's groups one after the other; nothing becomes (G, 0)."""
    if values is None:
        return np.empty((groups, 0), like.dtype)
    sites, batch, width = values.shape
    per_site = groups // sites
    full = aligned((sites, per_site, width, lanes), like.dtype)
    whole = batch // lanes
    rest = batch - whole * lanes
    full[:, :whole] = values[:, : whole * lanes].reshape(sites, whole, lanes, width).transpose(0, 1, 3, 2)
    if rest:
        full[:, whole, :, rest:] = 0
        full[:, whole, :, :rest] = values[:, whole * lanes :].transpose(0, 2, 1)
    return full.reshape(groups, width * lanes)


def _records(values: Floats, batch: int) -> Floats:
    """(K, groups, C, lanes) -> (K, B, C)."""
    sites, per_site, width, lanes = values.shape
    return values.transpose(0, 1, 3, 2).reshape(sites, per_site * lanes, width)[:, :batch]


def _check_norms(state: Floats | None) -> None:
    """PennyLane's own check of prepared amplitudes, with its tolerance; NaN rows pass and stay NaN."""
    if state is None:
        return
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
    program = Program(2, rotations, none, np.zeros(0), outcomes, 4, (Column(0, 4),), "one", True, 0)
    plan = make_plan(program, [1, 2, 3])
    own, shared = np.zeros((1, 1, 1), dtype), np.zeros((1, 3), dtype)
    state = np.zeros((1, 1, 4), dtype)
    state[0, 0, 0] = 1
    out, final = forward(plan, own, shared, state, keep=True)
    backward(plan, own, shared, state, np.ones_like(out), final)
