"""One column's code: public levels, and the word of bits that stands for each.

    thermometer  level l -> 1^l 0^(b-l)         L = b + 1      bit k says: above threshold k
    gray         level l -> l xor (l >> 1)      L <= 2^b       neighbouring levels differ in one bit
    onehot       level l -> e_l                 b = L          (b = 1 for L = 2)
    binary       gray code of the category's number

Why thermometer and one-hot are the defaults: the pair counts of two such columns are linear in their full two-way table
(P[x > s, y > t] for all thresholds s, t determines it), so nothing that one or two columns can tell is lost, and a
pairwise model of the bits can hold any two-way table of the columns. A Gray code of b bits names 2^b levels, and pair
counts hold (1 + b)^2 - 1 figures of the 4^b - 1 that a table of two such columns has: finer bins, coarser relations.

A word that stands for no level (101 of a thermometer, two hot bits) is read as the nearest word in Hamming distance,
the lowest level first among equals; how many there were is told.
Shapes  levels (N,), words (N, b)      Cost  O(N L b)      Errors  ConfigError for codes that cannot be
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from qfed.config import MOST_BITS
from qfed.errors import ConfigError

Bits = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int64]
Kind = Literal["thermometer", "gray", "onehot", "binary"]


@dataclass(frozen=True, eq=False)
class Code:
    """Words of the levels of one column."""

    names: tuple[str, ...]
    """Names of the bits."""
    words: Bits = field(repr=False)
    """(L, b)"""

    @property
    def levels(self) -> int:
        """L."""
        return len(self.words)

    @property
    def size(self) -> int:
        """b."""
        return int(self.words.shape[1])

    def encode(self, levels: Levels) -> Bits:
        """The word of each level."""
        return self.words[levels]

    def decode(self, words: Bits) -> tuple[Levels, int]:
        """The level of each word, and how many words stood for none."""
        apart = (words[:, None, :] != self.words[None, :, :]).sum(axis=2)
        levels = apart.argmin(axis=1)
        repaired = np.count_nonzero(apart[np.arange(len(words)), levels])
        return levels.astype(np.int64), int(repaired)


def code_of(column: str, labels: tuple[str, ...], kind: Kind) -> Code:
    """The code of a column whose levels are called `labels`, L >= 2."""
    count = len(labels)
    if kind == "thermometer":
        words = np.tri(count, count - 1, -1, dtype=np.uint8)
        names = tuple(f"{column}>{label}" for label in labels[:-1])
    elif kind == "onehot" and count > 2:
        words = np.eye(count, dtype=np.uint8)
        names = tuple(f"{column}={label}" for label in labels)
    elif kind == "onehot":
        words, names = np.array([[0], [1]], np.uint8), (f"{column}={labels[1]}",)
    else:
        bits = max(1, math.ceil(math.log2(count)))
        number = np.arange(count)
        gray = number ^ (number >> 1)
        words = ((gray[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
        names = tuple(f"{column}#{bit}" for bit in range(bits))
    if kind == "gray" and (count & (count - 1) or count > 2**MOST_BITS):
        raise ConfigError(
            f"column {column!r} has {count} bins, but a Gray code numbers 2, 4, 8 ... of them; use that many less one "
            'thresholds, or coding.numeric="thermometer"'
        )
    return Code(names, words)
