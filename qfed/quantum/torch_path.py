"""The same program in torch operations, for tensors on an accelerator.

Same mathematics as kernel.py, vectorised over the batch instead of compiled: a rotation is a gather and two
multiply-adds over S (2N, B). Runs on any torch device; on a CPU it only serves as a check of the kernel.
Cost  R passes over the state, two states in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qfed.quantum.plan import Plan
from qfed.quantum.program import Program


def forward(program: Program, plan: Plan, own: Tensor, shared: Tensor, state: Tensor | None) -> Tensor:
    """own (K, B, Ro), shared (K, Rs) -> raw outputs (K, B, M)."""
    sites, batch = own.shape[:2]
    psi = _final(program, _angles(plan, own, shared), None if state is None else state.flatten(0, 1))
    return _measure(program, psi).T.reshape(sites, batch, program.outputs)


def backward(
    program: Program, plan: Plan, own: Tensor, shared: Tensor, state: Tensor | None, cotangent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-record gradients: own (K, B, Ro), shared (K, B, Rs), state (K, B, N) (empty without state)."""
    sites, batch = own.shape[:2]
    angles = _angles(plan, own, shared)
    psi = _final(program, angles, None if state is None else state.flatten(0, 1))
    adjoint = _pull(program, psi, cotangent.flatten(0, 1).T)
    half = angles.T * 0.5
    gradient = torch.empty_like(half)
    for r in reversed(range(half.shape[0])):
        index, sign = _coupling(program, program.rotations[r], angles)
        turned = sign * psi[index]
        gradient[r] = (adjoint * turned).sum(0)
        cosine, sine = torch.cos(half[r]), torch.sin(half[r])
        psi = cosine * psi - sine * turned
        adjoint = cosine * adjoint - sine * sign * adjoint[index]
    slopes = gradient.T.reshape(sites, batch, -1)
    of_state = own.new_zeros(0) if state is None else 2 * adjoint[: program.size].T.reshape(state.shape)
    return slopes[..., torch.from_numpy(plan.own)], slopes[..., torch.from_numpy(plan.shared)], of_state


def _angles(plan: Plan, own: Tensor, shared: Tensor) -> Tensor:
    """(K B, R)."""
    angles = own.new_zeros(*own.shape[:2], plan.rows)
    angles[..., torch.from_numpy(plan.own)] = own
    angles[..., torch.from_numpy(plan.shared)] = shared.unsqueeze(1)
    return angles.flatten(0, 1)


def _coupling(program: Program, row: object, like: Tensor) -> tuple[Tensor, Tensor]:
    """Q ^ X (2N,) and e (-1)^(Z . (Q ^ X)) (2N, 1)."""
    x, z, e, _ = (int(v) for v in row)  # type: ignore[attr-defined]
    index = torch.arange(2 * program.size, device=like.device) ^ x
    return index, (e * (1 - 2 * _parity(index & z, program.wires + 1))).to(like.dtype).unsqueeze(1)


def _parity(bits: Tensor, width: int) -> Tensor:
    shift = 1
    while shift < width:
        bits = bits ^ (bits >> shift)
        shift *= 2
    return bits & 1


def _final(program: Program, angles: Tensor, state: Tensor | None) -> Tensor:
    psi = angles.new_zeros(2 * program.size, angles.shape[0])
    if state is None:
        psi[0] = 1
    else:
        psi[: program.size] = state.T
    half = angles.T * 0.5
    for r in range(half.shape[0]):
        index, sign = _coupling(program, program.rotations[r], angles)
        psi = torch.cos(half[r]) * psi + torch.sin(half[r]) * (sign * psi[index])
    return psi


def _measure(program: Program, psi: Tensor) -> Tensor:
    out = psi.new_zeros(program.outputs, psi.shape[1])
    for row, coefficient in zip(program.terms, program.coefficients, strict=True):
        index, sign = _coupling(program, row, psi)
        out[int(row[3])] += float(coefficient) * (psi * sign * psi[index]).sum(0)
    if program.outcomes.shape[0]:
        probability = psi[: program.size].square() + psi[program.size :].square()
        for table in program.outcomes:
            out.index_add_(0, torch.from_numpy(table).to(psi.device), probability)
    return out


def _pull(program: Program, psi: Tensor, cotangent: Tensor) -> Tensor:
    adjoint = torch.zeros_like(psi)
    for row, coefficient in zip(program.terms, program.coefficients, strict=True):
        index, sign = _coupling(program, row, psi)
        adjoint += float(coefficient) * cotangent[int(row[3])] * sign * psi[index]
    for table in program.outcomes:
        weight = cotangent[torch.from_numpy(table).to(psi.device)]
        adjoint += torch.cat([weight, weight]) * psi
    return adjoint
