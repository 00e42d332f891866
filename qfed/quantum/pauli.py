"""Pauli words as bit masks, and the Clifford frame that makes CNOT, SWAP, X, S, ... free.

    P = i^k X^x Z^z,   bit w of x and z belongs to block w
    C^dagger exp(-i t P / 2) C = exp(-i t P' / 2),   P' = C^dagger P C

A circuit of Pauli rotations and Clifford gates equals one Clifford C after rotations about conjugated words,
and C in turn is absorbed by the observables. A Clifford gate therefore costs nothing at run time: it
relabels the words of what follows (for CNOT and SWAP: a linear map of the indices over GF(2)).
Source  Gottesman, quant-ph/9807006 (tableau); Litinski, Quantum 3, 128 (2019) (Clifford + Pauli rotations).
Cost    O(W) words a Clifford gate, at compile time only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pauli:
    """i^k X^x Z^z with k modulo 4; Hermitian if and only if k = popcount(x & z) modulo 2."""

    x: int
    z: int
    k: int = 0

    def __matmul__(self, other: Pauli) -> Pauli:
        swaps = (self.z & other.x).bit_count()
        return Pauli(self.x ^ other.x, self.z ^ other.z, (self.k + other.k + 2 * swaps) % 4)

    def times_i(self, power: int) -> Pauli:
        return Pauli(self.x, self.z, (self.k + power) % 4)

    def commutes(self, other: Pauli) -> bool:
        return ((self.x & other.z).bit_count() + (self.z & other.x).bit_count()) % 2 == 0


def word(letters: Iterable[tuple[int, str]]) -> Pauli:
    """The product of single-wire letters, each wire at most once: `word([(0, "X"), (2, "Y")])`."""
    x = z = k = 0
    for wire, letter in letters:
        if letter in "XY":
            x |= 1 << wire
        if letter in "YZ":
            z |= 1 << wire
        if letter == "Y":
            k += 1  # Y = i X Z
    return Pauli(x, z, k % 4)


class Frame:
    """The images C^dagger X_w C and C^dagger Z_w C of the Clifford gates seen so far."""

    def __init__(self, wires: int) -> None:
        self._images = [Pauli(1 << w, 0) for w in range(wires)] + [Pauli(0, 1 << w) for w in range(wires)]
        self._wires = wires

    def pull(self, pauli: Pauli) -> Pauli:
        """C^dagger P C."""
        image = Pauli(0, 0, pauli.k)
        for offset, mask in ((0, pauli.x), (self._wires, pauli.z)):
            while mask:
                low = mask & -mask
                image = image @ self._images[offset + low.bit_length() - 1]
                mask ^= low
        return image

    def turn(self, pauli: Pauli, quarters: int) -> None:
        """C becomes exp(-i quarters pi/4 P) C: what anticommutes with P gains a factor exp(i quarters pi/2 P)."""
        quarters %= 4
        axis = self.pull(pauli)
        if quarters == 0:
            return
        for index, image in enumerate(self._images):
            if image.commutes(axis):
                continue
            if quarters == 2:
                self._images[index] = image.times_i(2)
            else:
                self._images[index] = (axis @ image).times_i(quarters)
