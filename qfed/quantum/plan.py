"""How the kernel runs a program: a product state, then blocks of three rotations and folded diagonals.

    |psi> = step_T ... step_1 (tensor_b |phi_b>)

prefix   rotations of one index bit that nothing before them entangles make a product state: cost O(2^W) for
         all of them together, instead of O(2^W) each
block    three rotations with linearly independent masks X: one pass over the state for three, in registers
fold     three or more diagonal rotations whose angles do not depend on the record: one multiplication by a
         table exp(i Phi_p), Phi = Walsh-Hadamard transform of their angles; all their gradients come from one
         transform of g_p = Im(lambda_p* psi_p)
A rotation joins an earlier step when it commutes with everything in between. "Shared" rows have one angle for
all records of a site (weights, constants); "own" rows have one a record (inputs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from qfed.quantum.program import Ints, Program

_BLOCK = 3
_MIN_FOLD = 3
_MIN_DIAGONAL_TERMS = 3
_MIN_PREFIX = 3


@dataclass(frozen=True)
class Plan:
    """Arrays for the kernel; see the fields' comments for their rows."""

    wires: int  # at least 2: a block needs 8 real amplitudes
    rows: int
    shared: Ints  # rows with a shared angle, in the order of the shared angles
    own: Ints  # rows with an angle a record
    prefix: Ints  # row, X, Z, negative (masks of one wire), wire; sorted by wire
    steps: Ints  # 0, block  |  1, fold
    blocks: Ints  # 3 rows (R: none), 3 X, 3 Z, 3 pivots, 12 sign bits, kind (0 signed, 1 plain, 2 sheared)
    folds: Ints  # first and last member
    members: Ints  # row, Z, sign, place among the shared rows
    diagonal: Ints  # Z, sign, output: measured words that are diagonal
    diagonal_coefficients: np.ndarray
    terms: Ints  # X, Z, sign, output: the other words
    coefficients: np.ndarray
    outcomes: Ints
    outputs: int
    prepared: int  # amplitudes that the caller prepares; 0 for |0...0>

    @property
    def size(self) -> int:
        """Basis states that the kernel holds."""
        return 1 << self.wires

    @cached_property
    def cost(self) -> int:
        """Vector operations of a group of records in a forward sweep, roughly; the backward sweep has three times."""
        return self.size * (
            8 + 12 * len(self.blocks) + 4 * len(self.folds) + self.wires + 4 * (len(self.terms) + len(self.outcomes))
        )


@dataclass
class _Step:
    fold: bool
    rows: list[int] = field(default_factory=list)


def make_plan(program: Program, shared_rows: Sequence[int]) -> Plan:
    """Plan a program whose rows `shared_rows` have the same angle for all records of a site."""
    wires = max(program.wires, 2)
    rotations = _lift(program.rotations, program.wires, wires)
    terms = _lift(program.terms, program.wires, wires)
    shared = sorted(shared_rows)
    top = 1 << wires
    prefix, rest = ([], list(range(len(rotations)))) if program.has_state else _prefix(rotations, top)
    steps = _schedule(rotations, rest, set(shared), top)
    blocks: list[list[int]] = []
    members: list[tuple[int, int, int, int]] = []
    place = {r: i for i, r in enumerate(shared)}
    folds: list[tuple[int, int]] = []
    order: list[tuple[int, int]] = []
    for step in steps:
        if step.fold:
            order.append((1, len(folds)))
            folds.append((len(members), len(members) + len(step.rows)))
            members += [(r, int(rotations[r, 1]) & ~top, -int(rotations[r, 2]), place[r]) for r in step.rows]
        else:
            order.append((0, len(blocks)))
            blocks.append(_block(rotations, step.rows, wires, set(shared)))
    by_wire = sorted((_wire(rotations[r], top), r) for r in prefix)
    diagonal = [t for t in range(len(terms)) if terms[t, 0] == 0]
    if len(diagonal) < _MIN_DIAGONAL_TERMS:
        diagonal = []
    others = [t for t in range(len(terms)) if t not in set(diagonal)]
    return Plan(
        wires=wires,
        rows=len(rotations),
        shared=np.array(shared, np.int64),
        own=np.array([r for r in range(len(rotations)) if r not in set(shared)], np.int64),
        prefix=_ints([_single(rotations[r], r, wire, top) for wire, r in by_wire], 5),
        steps=_ints(order, 2),
        blocks=_ints(blocks, 14),
        folds=_ints(folds, 2),
        members=_ints(members, 4),
        diagonal=np.ascontiguousarray(terms[diagonal][:, 1:]),
        diagonal_coefficients=program.coefficients[diagonal],
        terms=np.ascontiguousarray(terms[others]),
        coefficients=program.coefficients[others],
        outcomes=_outcomes(program.outcomes, program.size, 1 << wires),
        outputs=program.outputs,
        prepared=program.size if program.has_state else 0,
    )


def _ints(rows: Sequence[Sequence[int]], width: int) -> Ints:
    return np.array(rows, np.int64).reshape(-1, width)


def _lift(masks: Ints, wires: int, to: int) -> Ints:
    """Masks over `wires` + 1 bits -> over `to` + 1 bits: the bit of Re and Im moves to the top."""
    lifted = masks.copy()
    for column in (0, 1):
        low = masks[:, column] & ((1 << wires) - 1)
        lifted[:, column] = low | ((masks[:, column] >> wires) << to)
    return lifted


def _outcomes(table: Ints, size: int, to: int) -> Ints:
    """An added wire stays |0>; its other half has probability 0 and may count anywhere."""
    return np.ascontiguousarray(np.concatenate([table] * (to // size), axis=1)) if len(table) else _ints([], to)


def _commute(a: Ints, b: Ints, top: int) -> bool:
    x1, z1, x2, z2 = (int(v) & (top - 1) for v in (a[0], a[1], b[0], b[1]))
    return ((x1 & z2).bit_count() + (z1 & x2).bit_count()) % 2 == 0


def _wire(row: Ints, top: int) -> int:
    return ((int(row[0]) | int(row[1])) & (top - 1)).bit_length() - 1


def _prefix(rotations: Ints, top: int) -> tuple[list[int], list[int]]:
    prefix: list[int] = []
    rest: list[int] = []
    for r, row in enumerate(rotations):
        support = (int(row[0]) | int(row[1])) & (top - 1)
        if support.bit_count() == 1 and all(_commute(row, rotations[other], top) for other in rest):
            prefix.append(r)
        else:
            rest.append(r)
    return (prefix, rest) if len(prefix) >= _MIN_PREFIX else ([], list(range(len(rotations))))


def _single(row: Ints, r: int, wire: int, top: int) -> tuple[int, int, int, int, int]:
    """Masks over (bit of the wire, bit of Re and Im)."""
    x, z = ((int(v) >> wire) & 1 | (2 if int(v) & top else 0) for v in row[:2])
    return r, x, z, int(row[2] < 0), wire


def _schedule(rotations: Ints, rest: Sequence[int], shared: set[int], top: int) -> list[_Step]:
    foldable = {r for r in rest if r in shared and int(rotations[r, 0]) == top}
    while True:
        steps = _place(rotations, rest, foldable, top)
        small = {r for s in steps if s.fold and len(s.rows) < _MIN_FOLD for r in s.rows}
        if not small:
            return steps
        foldable -= small


def _place(rotations: Ints, rest: Sequence[int], foldable: set[int], top: int) -> list[_Step]:
    """List scheduling on "does not commute with an earlier one": full blocks first, then all ready diagonals."""
    waits: dict[int, set[int]] = {}
    for position, r in enumerate(rest):
        waits[r] = {o for o in rest[:position] if not _commute(rotations[r], rotations[o], top)}
    steps: list[_Step] = []
    while waits:
        ready = [r for r, before in waits.items() if not before]
        diagonal = [r for r in ready if r in foldable]
        others = [r for r in ready if r not in foldable]
        if others and (len(others) >= _BLOCK or not diagonal):
            step = _Step(False)
            for r in others:
                if _fits(rotations, [*step.rows, r]):
                    step.rows.append(r)
        else:
            step = _Step(True, diagonal)
        steps.append(step)
        for r in step.rows:
            del waits[r]
        for before in waits.values():
            before.difference_update(step.rows)
    return _merge_folds(steps)


def _merge_folds(steps: Sequence[_Step]) -> list[_Step]:
    """Diagonals that follow each other are one."""
    merged: list[_Step] = []
    for step in steps:
        if step.fold and merged and merged[-1].fold:
            merged[-1].rows.extend(step.rows)
        else:
            merged.append(step)
    return merged


def _pivots(masks: Sequence[int]) -> list[int] | None:
    """Bits that a basis of the span leads with, or None if the masks are dependent."""
    basis: list[int] = []
    for mask in masks:
        for b in basis:
            mask = min(mask, mask ^ b)
        if mask == 0:
            return None
        basis.append(mask)
    return [b.bit_length() - 1 for b in basis]


def _fits(rotations: Ints, rows: Sequence[int]) -> bool:
    return len(rows) <= _BLOCK and _pivots([int(rotations[r, 0]) for r in rows]) is not None


def _block(rotations: Ints, rows: Sequence[int], wires: int, shared: set[int]) -> list[int]:
    x = [int(rotations[r, 0]) for r in rows]
    z = [int(rotations[r, 1]) for r in rows]
    negative = [int(rotations[r, 2] < 0) for r in rows]
    names = list(rows)
    for bit in range(wires + 1):  # complete with rotations by nothing
        mask = 1 << bit
        for a, b in zip(x, z, strict=True):  # that leave a block plain
            mask ^= a if _dot(b, mask) else 0
        if len(x) < _BLOCK and _pivots([*x, mask]) is not None:
            x, z, negative, names = [*x, mask], [*z, 0], [*negative, 0], [*names, len(rotations)]
    pivots = sorted(_pivots(x) or [])
    signs = 0
    for j in range(_BLOCK):
        for k, low in enumerate(q for q in range(8) if not q >> j & 1):
            index = 0
            for i in range(_BLOCK):
                index ^= x[i] if (low | 1 << j) >> i & 1 else 0
            signs |= (_dot(index, z[j]) ^ negative[j]) << (4 * j + k)
    plain = _plain(x, z)
    return [*names, *x, *z, *pivots, signs, 2 if plain and shared.issuperset(rows) else int(plain)]


def _dot(a: int, b: int) -> int:
    return (a & b).bit_count() % 2


def _plain(x: Sequence[int], z: Sequence[int]) -> bool:
    """Whether all signs of a block can be made those of its rotations; see blocks.py."""
    return all(z[i] == 0 or _dot(z[i], x[j]) == (i == j) for i in range(_BLOCK) for j in range(_BLOCK))
