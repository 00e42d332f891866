"""Run a program on a batch: arrays of records in, arrays of records out.

Records are laid out a lane each: angles (B, R) become (G, R, lanes) with G = ceil(B / lanes); lanes that are left
over compute the circuit at angle 0 and are dropped. Memory per thread: 2 states of 2 * 2^W vectors of 64 bytes.
Errors  CircuitError when the states do not fit the machine's memory.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.errors import CircuitError
from qfed.quantum.program import Program

_VECTOR_BYTES = 64
_local = threading.local()

Floats = NDArray[Any]


@dataclass(frozen=True)
class Gradients:
    """dL/dangles (B, R) and dL/dstate (B, N) of every record, the latter None for circuits from |0...0>."""

    angles: Floats
    state: Floats | None


def forward(program: Program, angles: Floats, state: Floats | None) -> Floats:
    """angles (B, R), state (B, N) or None -> raw outputs (B, M), in the dtype of angles."""
    from qfed.quantum import kernel

    batch, lanes = angles.shape[0], _lanes(angles.dtype)
    if batch == 0:
        return np.zeros((0, program.outputs), angles.dtype)
    _check_norms(state)
    out = _aligned((_groups(batch, lanes), program.outputs, lanes), angles.dtype)
    out[:] = 0
    cosine, sine = _turns(angles, lanes)
    kernel.forward(
        0,
        out.shape[0],
        *_arrays(program),
        cosine.reshape(out.shape[0], -1),
        sine.reshape(out.shape[0], -1),
        _initial(state, lanes, angles.dtype),
        _workspace(program, angles.dtype)[0],
        out.reshape(out.shape[0], -1),
        program.size,
    )
    return _from_lanes(out, batch)


def backward(program: Program, angles: Floats, state: Floats | None, cotangent: Floats) -> Gradients:
    """Per-record gradients of sum_m cotangent[b, m] out[b, m]."""
    from qfed.quantum import kernel

    batch, lanes = angles.shape[0], _lanes(angles.dtype)
    if batch == 0:
        return Gradients(np.zeros_like(angles), None if state is None else np.zeros_like(state))
    groups = _groups(batch, lanes)
    gradient = _aligned((groups, angles.shape[1], lanes), angles.dtype)
    initial = _initial(state, lanes, angles.dtype)
    initial_gradient = _aligned(initial.shape, angles.dtype)
    cosine, sine = _turns(angles, lanes)
    psi, adjoint = _workspace(program, angles.dtype)
    kernel.backward(
        0,
        groups,
        *_arrays(program),
        cosine.reshape(groups, -1),
        sine.reshape(groups, -1),
        initial,
        psi,
        adjoint,
        _to_lanes(cotangent, lanes).reshape(groups, -1),
        gradient.reshape(groups, -1),
        initial_gradient,
        program.size,
    )
    found = None
    if state is not None:
        found = _from_lanes(initial_gradient.reshape(groups, program.size, lanes), batch)
    return Gradients(_from_lanes(gradient, batch), found)


def compile_for(dtype: np.dtype[Any]) -> None:
    """Compile (or load from the cache) the kernel of one dtype by running the smallest circuit."""
    from qfed.quantum.program import Column

    none = np.zeros((0, 4), np.int64)
    program = Program(1, none, none, np.zeros(0), np.zeros((1, 2), np.int64), 1, (Column(0, 1),), "one", False, 0)
    angles = np.zeros((1, 0), dtype)
    forward(program, angles, None)
    backward(program, angles, None, np.zeros((1, 1), dtype))


def _arrays(program: Program) -> tuple[Any, ...]:
    return program.rotations, program.terms, program.coefficients, program.outcomes


def _lanes(dtype: np.dtype[Any]) -> int:
    return _VECTOR_BYTES // dtype.itemsize


def _groups(batch: int, lanes: int) -> int:
    return -(-batch // lanes)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
    """Uninitialised memory that starts on a cache line: a vector never straddles two."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        raw = np.empty(nbytes + _VECTOR_BYTES, np.uint8)
    except MemoryError as error:
        raise CircuitError(
            f"a state of the circuit needs {nbytes / 2**30:.1f} GiB, which this machine does not have; use fewer wires"
        ) from error
    start = -raw.ctypes.data % _VECTOR_BYTES
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def _to_lanes(values: Floats, lanes: int) -> Floats:
    """(B, K) -> (G, K, lanes)."""
    batch, width = values.shape
    groups = _groups(batch, lanes)
    full = _aligned((groups, width, lanes), values.dtype)
    whole = batch // lanes
    full[:whole] = values[: whole * lanes].reshape(whole, lanes, width).transpose(0, 2, 1)
    if whole < groups:
        full[whole:] = 0
        full[whole, :, : batch - whole * lanes] = values[whole * lanes :].T
    return full


def _from_lanes(values: Floats, batch: int) -> Floats:
    """(G, K, lanes) -> (B, K)."""
    groups, width, lanes = values.shape
    return values.transpose(0, 2, 1).reshape(groups * lanes, width)[:batch]


def _turns(angles: Floats, lanes: int) -> tuple[Floats, Floats]:
    """cos (G, R, lanes) and (sin, -sin) (G, R, 2, lanes) of half the angles."""
    half = _to_lanes(angles, lanes)
    half *= 0.5
    groups, rows, _ = half.shape
    sine = _aligned((groups, rows, 2, lanes), angles.dtype)
    with np.errstate(invalid="ignore"):  # an infinite angle gives NaN in its own record
        np.sin(half, out=sine[:, :, 0])
        np.negative(sine[:, :, 0], out=sine[:, :, 1])
        np.cos(half, out=half)
    return half, sine


def _initial(state: Floats | None, lanes: int, dtype: np.dtype[Any]) -> Floats:
    if state is None:
        return np.empty((0, 0), dtype)
    found = _to_lanes(state, lanes)
    return found.reshape(found.shape[0], -1)


def _check_norms(state: Floats | None) -> None:
    """PennyLane's own check of prepared amplitudes, with its tolerance; NaN rows pass and stay NaN."""
    if state is None:
        return
    norms = np.einsum("bn,bn->b", state, state)
    wrong = np.flatnonzero(np.abs(norms - 1) > 1e-3)
    if wrong.size:
        raise CircuitError(
            f"prepared amplitudes must have norm 1, got norm={float(np.sqrt(norms[wrong[0]])):.4g} in record "
            f"{int(wrong[0])} of the batch; give AmplitudeEmbedding normalize=True"
        )


def _workspace(program: Program, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
    """Two states, kept by the thread and grown on demand."""
    needed = 4 * program.size * _VECTOR_BYTES
    _check_memory(program, needed)
    kept: Floats | None = getattr(_local, "bytes", None)
    if kept is None or kept.nbytes < needed:
        _local.bytes = None
        kept = _local.bytes = _aligned((needed,), np.dtype(np.uint8))
    half = needed // 2
    return kept[:half].view(dtype), kept[half:needed].view(dtype)


def _check_memory(program: Program, needed: int) -> None:
    if needed < 1 << 26:
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise CircuitError(
            f"a circuit of wires={program.wires} needs {needed / 2**30:.1f} GiB a thread for its states, more than "
            f"half of this machine's {memory / 2**30:.1f} GiB; use fewer wires"
        )
