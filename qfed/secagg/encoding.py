"""Real values to ring integers and back: the only form in which an update, a weight or a metric leaves a site.

    enc(x) = nearest integer to x * scale + u,  u ~ Uniform(-1/2, 1/2)      (stochastic rounding)
    |E[enc(x)] - x * scale| <= 2^-32,   |enc(x) - x * scale| < 1 surely
    |decode(sum_i enc(x_i)) - sum_i x_i| < s / scale           for s survivors, surely, per coordinate

u is an odd multiple of 2^-32 from the key stream of 32 bytes that the generator gives: a quarter of the time that the
generator would take for as many numbers itself.

Values outside [-bound, bound], NaN and infinities are refused, never clipped: clipping belongs to privacy, before
the noise. A block of scale 1 carries integers exactly. Rounding is not a secret, so its generator is the caller's
and seeded: two runs of one seed give equal aggregates.

Shapes  values {block name: (size,)} -> (layout.size,) of policy.dtype
Cost    O(size), 2 ns a coordinate, in stretches that stay in the cache
Errors  SecAggMisuse: NOT_FINITE, OUT_OF_RANGE, OVERWEIGHT (block "weight"), RING_OVERFLOW, LAYOUT_MISMATCH;
        SecAggRefused(AGGREGATE_OUT_OF_RANGE) when a sum lies where no honest sum can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qfed.secagg import primitives
from qfed.secagg.policy import Policy, check_ring
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused

WEIGHT = "weight"
_CHUNK = primitives.STRETCH // 4  # coordinates whose roundings one stretch of the key stream decides


@dataclass(frozen=True)
class Block:
    """A stretch of `size` coordinates with |x| <= bound, encoded as a stochastic rounding of x * scale."""

    name: str
    size: int
    bound: float
    scale: float

    def __post_init__(self) -> None:
        if self.size < 0 or not all(math.isfinite(v) and v > 0 for v in (self.bound, self.scale)):
            raise _mismatch(
                f"a block has size >= 0 and finite bound, scale > 0, got name={self.name}, size={self.size}, "
                f"bound={self.bound}, scale={self.scale}"
            )

    @property
    def magnitude(self) -> int:
        """The greatest |enc(x)|."""
        return math.ceil(self.bound * self.scale)


@dataclass(frozen=True)
class Layout:
    """Which coordinates of the vector mean what; sites and aggregator agree on it out of band."""

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        names = [block.name for block in self.blocks]
        if len(set(names)) != len(names):
            raise _mismatch(f"a layout names each block once, got {names}")

    @classmethod
    def of_update(cls, policy: Policy, size: int, metrics: tuple[Block, ...] = ()) -> Self:
        """Return weight * update (size,), weight (1,), then the metric numerators.

        An update coordinate lies in [-clip, clip]; weighted by an integer up to max_weight and scaled by
        (2^(bits-1) - 1) / clip it is an integer of at most max_weight * 2^(bits-1), as `Policy.check` assumes.
        """
        scale = (2 ** (policy.bits - 1) - 1) / policy.clip
        update = Block("update", size, policy.max_weight * policy.clip, scale)
        return cls((update, Block(WEIGHT, 1, policy.max_weight, 1.0), *metrics))

    @cached_property
    def size(self) -> int:
        """Coordinates in all."""
        return sum(block.size for block in self.blocks)

    @cached_property
    def digest(self) -> bytes:
        """What two sides compare to know that they agree."""
        return primitives.digest("layout", repr(self.blocks).encode())

    def check(self, policy: Policy, n_sites: int) -> None:
        """Raise SecAggMisuse(RING_OVERFLOW) if the sum over `n_sites` could wrap in any block."""
        for block in self.blocks:
            check_ring(n_sites, block.magnitude, policy.ring_bits, f"block={block.name}")


def encode(
    layout: Layout,
    values: Mapping[str, NDArray[Any]],
    rng: np.random.Generator,
    policy: Policy,
    n_sites: int,
) -> NDArray[Any]:
    """Return the ring vector of `values`, of dtype policy.dtype and shape (layout.size,)."""
    layout.check(policy, n_sites)
    if set(values) != {block.name for block in layout.blocks}:
        raise _mismatch(f"values hold exactly the blocks {[b.name for b in layout.blocks]}, got {sorted(values)}")
    vector = np.empty(layout.size, policy.dtype)
    signed = vector.view(np.dtype("<i4" if policy.ring_bits == 32 else "<i2"))
    rounding = _Rounding(rng)
    scaled = np.empty(min(layout.size, _CHUNK))
    at = 0
    for block in layout.blocks:
        x = np.asarray(values[block.name])
        if x.shape != (block.size,):
            raise _mismatch(f"block={block.name} has shape ({block.size},), got {x.shape}")
        for begin in range(0, block.size, _CHUNK):
            values_here = x[begin : begin + _CHUNK]
            greatest = _check_values(block, values_here, begin) * block.scale
            part = scaled[: len(values_here)]
            np.multiply(values_here, block.scale, out=part, dtype=np.float64)
            if block.scale != 1.0 or not np.array_equal(part, np.rint(part)):
                rounding.apply(part)
                if greatest + 1 > block.magnitude:
                    # A value at the bound whose scaled form rounds up in floating point stays at the magnitude.
                    np.clip(part, -block.magnitude, block.magnitude, out=part)
            signed[at + begin : at + begin + len(part)] = part  # integers by now, within the ring by `check`
        at += block.size
    return vector


class _Rounding:
    """Stochastic rounding in place, one stretch of a key stream at a time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._stream = primitives.Stream(rng.bytes(primitives.KEY_SIZE))
        self._stretch = 0
        self._buffer = memoryview(bytearray(primitives.STRETCH + primitives.TAG))
        self._offsets = np.empty(_CHUNK)

    def apply(self, part: NDArray[np.float64]) -> None:
        """Round (at most _CHUNK) reals to one of their two neighbours, up or down by chance."""
        fresh = self._buffer[: 4 * len(part) + primitives.TAG]
        self._stream.write(self._stretch, fresh)
        self._stretch += 1
        drawn = np.frombuffer(fresh, "<i4", count=len(part))
        np.bitwise_or(drawn, 1, out=drawn)  # never -1/2, with which an integer could move
        offsets = self._offsets[: len(part)]
        np.multiply(drawn, 2.0**-32, out=offsets, dtype=np.float64)
        np.add(part, offsets, out=part)
        np.rint(part, out=part)


def decode(layout: Layout, total: NDArray[Any], survivors: int) -> dict[str, NDArray[np.float64]]:
    """Return each block's sum over the survivors, (size,) float64.

    `total` is the aggregate, (layout.size,) of the ring's unsigned integer. A coordinate beyond
    survivors * magnitude cannot be a sum of valid encodings and is refused: some site or member misbehaved.
    """
    if total.shape != (layout.size,) or total.dtype.itemsize not in (2, 4) or total.dtype.kind != "u":
        raise _mismatch(
            f"the aggregate has shape ({layout.size},) and dtype uint16 or uint32, got {total.shape}, {total.dtype}"
        )
    signed = total.view(np.dtype("<i4" if total.dtype.itemsize == 4 else "<i2"))
    sums: dict[str, NDArray[np.float64]] = {}
    at = 0
    for block in layout.blocks:
        part = signed[at : at + block.size].astype(np.int64)
        greatest = int(np.abs(part).max(initial=0))
        if greatest > survivors * block.magnitude:
            raise SecAggRefused(
                Reason.AGGREGATE_OUT_OF_RANGE,
                f"the sum of block={block.name} over survivors={survivors} is at most "
                f"{survivors * block.magnitude} in magnitude, got {greatest}; discard the round",
            )
        sums[block.name] = part / block.scale
        at += block.size
    if WEIGHT in sums and bool((sums[WEIGHT] < 0).any()):
        raise SecAggRefused(
            Reason.AGGREGATE_OUT_OF_RANGE, "the sum of weights is not negative, but this one is; discard the round"
        )
    return sums


def _check_values(block: Block, part: NDArray[Any], begin: int) -> float:
    """Return the greatest magnitude of the values, if all may be encoded."""
    low, high = float(part.min()), float(part.max())  # NaN if any is, so one pass sees everything
    least = 0.0 if block.name == WEIGHT else -block.bound
    if low >= least and high <= block.bound:
        return max(-low, high)
    finite = np.isfinite(part)
    if not finite.all():
        where = begin + int(np.argmin(finite))
        raise SecAggMisuse(
            Reason.NOT_FINITE,
            f"block={block.name} takes finite values, got NaN or infinity at index={where}; lower the learning rate",
        )
    where = begin + int(np.argmax((part < least) | (part > block.bound)))
    reason = Reason.OVERWEIGHT if block.name == WEIGHT else Reason.OUT_OF_RANGE
    raise SecAggMisuse(
        reason,
        f"block={block.name} takes values from {least} to {block.bound}, got one beyond at index={where}; clip the "
        "update before it is encoded, or raise the bound in the federation's policy",
    )


def _mismatch(message: str) -> SecAggMisuse:
    return SecAggMisuse(Reason.LAYOUT_MISMATCH, message)
