"""Expand and add: vector += sum_k PRG(key_k) mod 2^w, the whole cost of a round.

    PRG(key) = AES-256-CTR(key) of zeros, read as little-endian unsigned integers of w bits

All streams advance together over one stretch of the vector at a time, so that the stretch and the key stream stay
in the cache; a counter-mode stream can begin anywhere, so two threads take one half of the vector each.

Shapes  vector (size,) of uint32 or uint16, changed in place      Units  bytes per key: size * w / 8
Cost    len(keys) * size * w / 8 bytes of AES-256-CTR; measured 60 to 80 % of the bare cipher's rate
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.secagg import primitives

_STRETCH = 1 << 17  # bytes of key stream made at a time
_ZEROS = bytes(_STRETCH)
_WORTH_THREADS = 1 << 24  # bytes of key stream below which a second thread costs more than it brings


def add_streams(vector: NDArray[Any], keys: Sequence[bytes], *, negative: bool = False, threads: int = 1) -> None:
    """Add (or subtract) the streams of all keys to `vector` in place, mod 2^w.

    Each key must be used for this purpose only. `threads` is an upper limit; small work stays on one.
    """
    total = len(vector) * vector.itemsize
    if threads < 2 or total * len(keys) < _WORTH_THREADS or total < 4 * _STRETCH:
        _add_part(vector, keys, 0, negative)
        return
    step = -(-total // threads // _STRETCH) * _STRETCH  # whole stretches, so whole cipher blocks
    starts = range(0, total, step)
    with ThreadPoolExecutor(len(starts)) as pool:
        parts = [vector[at // vector.itemsize : (at + step) // vector.itemsize] for at in starts]
        for future in [
            pool.submit(_add_part, part, keys, at, negative) for part, at in zip(parts, starts, strict=True)
        ]:
            future.result()


def _add_part(vector: NDArray[Any], keys: Sequence[bytes], offset: int, negative: bool) -> None:
    """Add the streams from byte `offset` (a multiple of 16) on to all of `vector`."""
    streams = [primitives.stream(key, offset // 16) for key in keys]
    buffer = bytearray(_STRETCH + 15)  # the cipher asks for a block less one byte of slack
    fresh = np.frombuffer(buffer, vector.dtype, count=_STRETCH // vector.itemsize)
    combine = np.subtract if negative else np.add
    per_stretch = _STRETCH // vector.itemsize
    for begin in range(0, len(vector), per_stretch):
        part = vector[begin : begin + per_stretch]
        zeros = _ZEROS if len(part) == per_stretch else _ZEROS[: len(part) * vector.itemsize]
        mask = fresh[: len(part)]
        for stream in streams:
            stream.update_into(zeros, buffer)
            combine(part, mask, out=part)
