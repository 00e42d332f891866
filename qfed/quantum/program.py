"""A compiled circuit: arrays that one kernel interprets, so a new circuit never triggers a compilation.

The state of W wires and its real form: amplitudes of psi at index p are S[p] = Re, S[p + N] = Im, N = 2^W.
Multiplying by i permutes (Re, Im), so every Pauli rotation is a real Givens rotation of 2N numbers,

    exp(-i t P / 2):  S'[Q] = cos(t/2) S[Q] + sin(t/2) e (-1)^(Z . (Q ^ X)) S[Q ^ X]

with masks X, Z over W + 1 bits (bit W tells Re from Im) and e = +-1; and every word is a signed permutation,
(P S)[Q] = e (-1)^(Z . (Q ^ X)) S[Q ^ X].
Rows of `rotations`: X, Z, e, highest bit of X.   Rows of `terms`: X, Z, e, output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qfed.errors import CircuitError
from qfed.quantum.gates import Turn
from qfed.quantum.pauli import Frame, Pauli
from qfed.quantum.trace import Measured, Recording

MAX_WIRES = 20
_HALF_PI = math.pi / 2

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Program:
    """`outputs` raw expectations and probabilities; `columns` says how they become the circuit's results."""

    wires: int
    rotations: Ints
    terms: Ints
    coefficients: NDArray[np.float64]
    outcomes: Ints  # (K, N): raw output that the probability of basis state p adds to
    outputs: int
    columns: tuple[Column, ...]
    returns: str
    has_state: bool
    absorbed: int  # Clifford rotations that cost nothing
    idle: int  # rotations that change no result

    @property
    def size(self) -> int:
        """Basis states N."""
        return 1 << self.wires


@dataclass(frozen=True)
class Column:
    """One measurement's raw outputs [start, stop), and for a variance the output that holds <O^2>."""

    start: int
    stop: int
    square: int | None = None


@dataclass
class _Outputs:
    terms: list[tuple[int, int, int, int]] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)
    outcomes: list[Ints] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    count: int = 0


def compile_recording(recording: Recording) -> tuple[Program, list[int]]:
    """The program, and for each of its rotations the position of its angle among `recording.turns`."""
    wires = recording.wires
    if not 1 <= wires <= MAX_WIRES:
        raise CircuitError(
            f"the kernel simulates 1 to {MAX_WIRES} wires, got wires={wires}; use fewer wires (reduce the features "
            "in front of the circuit)"
        )
    keep_basis = any(m.kind == "probs" for m in recording.measured)
    frame = Frame(wires)
    axes: list[tuple[int, Pauli]] = []
    absorbed = 0
    for position, turn in enumerate(recording.turns):
        quarters = _quarters(turn, keep_basis)
        if quarters is not None:
            frame.turn(turn.pauli, quarters)
            absorbed += 1
            continue
        axes.append((position, frame.pull(turn.pauli)))
    found = _Outputs()
    for measured in recording.measured:
        _add(measured, frame, wires, found)
    live = _live(axes, _measured_words(recording.measured, frame), recording.state is not None)
    rows = [(x, z, sign, x.bit_length() - 1) for x, z, sign in (rotation_masks(p, wires) for _, p in live)]
    size = 1 << wires
    program = Program(
        wires=wires,
        rotations=np.array(rows, np.int64).reshape(-1, 4),
        terms=np.array(found.terms, np.int64).reshape(-1, 4),
        coefficients=np.array(found.coefficients, np.float64),
        outcomes=np.array(found.outcomes, np.int64).reshape(-1, size),
        outputs=found.count,
        columns=tuple(found.columns),
        returns=recording.returns,
        has_state=recording.state is not None,
        absorbed=absorbed,
        idle=len(axes) - len(live),
    )
    return program, [position for position, _ in live]


def _measured_words(measured: Sequence[Measured], frame: Frame) -> list[Pauli]:
    words = [p for m in measured for _, p in m.words]
    words += [Pauli(0, 1 << wire) for m in measured for wire in m.wires]
    return [frame.pull(p) for p in words]


def _live(axes: Sequence[tuple[int, Pauli]], words: Sequence[Pauli], has_state: bool) -> list[tuple[int, Pauli]]:
    """Without rotations that change no result: those that commute with all that follows and is measured, and
    diagonal ones that act on |0...0> because they commute with all that comes before.
    """
    late: list[tuple[int, Pauli]] = []
    for position, pauli in reversed(axes):
        if not all(pauli.commutes(p) for p in (*words, *(p for _, p in late))):
            late.append((position, pauli))
    kept: list[tuple[int, Pauli]] = []
    for position, pauli in reversed(late):
        if has_state or pauli.x or not all(pauli.commutes(p) for _, p in kept):
            kept.append((position, pauli))
    return kept


def _quarters(turn: Turn, keep_basis: bool) -> int | None:
    """Number of quarter turns if this rotation is a Clifford gate that may be absorbed, else None.

    Probabilities are read in the computational basis, which the frame must then map to itself.
    """
    if not isinstance(turn.angle, float) or not math.isfinite(turn.angle):
        return None
    quarters = round(turn.angle / _HALF_PI)
    if abs(turn.angle - quarters * _HALF_PI) > 1e-12 * max(1.0, abs(turn.angle)):
        return None
    if keep_basis and not (turn.relabels or turn.pauli.x == 0 or quarters % 2 == 0):
        return None
    return quarters % 4


def rotation_masks(pauli: Pauli, wires: int) -> tuple[int, int, int]:
    """X, Z, e of exp(-i t P / 2) in the real form: the factor -i i^k is real for odd k, imaginary for even k."""
    top = 1 << wires
    if pauli.k % 2:
        return pauli.x, pauli.z, (1, -1)[(pauli.k - 1) // 2]
    return pauli.x | top, pauli.z | top, (-1, 1)[pauli.k // 2]


def word_masks(pauli: Pauli, wires: int) -> tuple[int, int, int]:
    """X, Z, e of P itself in the real form."""
    top = 1 << wires
    if pauli.k % 2:
        return pauli.x | top, pauli.z | top, (1, -1)[(pauli.k - 1) // 2]
    return pauli.x, pauli.z, (1, -1)[pauli.k // 2]


def _add(measured: Measured, frame: Frame, wires: int, found: _Outputs) -> None:
    start = found.count
    if measured.kind == "probs":
        found.outcomes.append(_outcome_table(measured.wires, frame, wires) + start)
        found.count += 1 << len(measured.wires)
        found.columns.append(Column(start, found.count))
        return
    _add_words(measured.words, frame, wires, found)
    if measured.kind == "expval":
        found.columns.append(Column(start, start + 1))
        return
    _add_words(_squared(measured.words), frame, wires, found)
    found.columns.append(Column(start, start + 1, square=start + 1))


def _add_words(words: Sequence[tuple[float, Pauli]], frame: Frame, wires: int, found: _Outputs) -> None:
    for coefficient, pauli in words:
        x, z, sign = word_masks(frame.pull(pauli), wires)
        found.terms.append((x, z, sign, found.count))
        found.coefficients.append(coefficient)
    found.count += 1


def _squared(words: Sequence[tuple[float, Pauli]]) -> list[tuple[float, Pauli]]:
    """O^2 as a sum of words; the anti-Hermitian parts of the products cancel in pairs."""
    total: dict[tuple[int, int], complex] = {}
    for a, p in words:
        for b, q in words:
            product = p @ q
            phase = 1j ** (product.k - (product.x & product.z).bit_count())
            key = (product.x, product.z)
            total[key] = total.get(key, 0) + a * b * phase
    return [(v.real, Pauli(x, z, (x & z).bit_count() % 4)) for (x, z), v in total.items() if abs(v.real) > 0]


def _outcome_table(measured: Sequence[int], frame: Frame, wires: int) -> Ints:
    """For each basis state p of the kernel, the outcome b (first measured wire the most significant bit)."""
    p = np.arange(1 << wires, dtype=np.int64)
    table = np.zeros_like(p)
    for wire in measured:
        image = frame.pull(Pauli(0, 1 << wire))
        if image.x:
            raise AssertionError("a frame that keeps the basis maps Z words to Z words")
        bit = np.bitwise_count(p & image.z).astype(np.int64) & 1
        table = 2 * table + (bit ^ (image.k // 2))
    return table
