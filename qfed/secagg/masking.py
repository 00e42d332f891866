"""Expand and add: out = vector + sum_k PRG(key_k) mod 2^w, the whole cost of a round.

    PRG(key) = primitives.Stream(key) (AES-256-CTR) read as little-endian unsigned integers of w bits

All streams advance together over one stretch of 128 KiB at a time, so that the stretch and the key stream stay in
the second-level cache and the vector is read and written once whatever the number of keys. Stretches are
independent, so threads take runs of them.

Shapes  vector (size,) of uint32 or uint16        Units  bytes of stream: len(keys) * size * w / 8
Cost    `tests/bench/secagg.py` measures it beside bare AES-256-CTR: 0.96 to 0.99 of its rate on a processor with
        vector AES (which gives the cipher back what the addition takes), 7 GB/s a core of 2.6 GHz
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.secagg.primitives import STRETCH, TAG, Stream

_WORTH_THREADS = 1 << 22  # bytes of key stream below which a second thread costs more than it brings


def add_streams(
    vector: NDArray[Any],
    keys: Sequence[bytes],
    *,
    start: NDArray[Any] | None = None,
    negative: bool = False,
    threads: int = 1,
) -> None:
    """Add (or subtract) the streams of all keys to `vector` in place, mod 2^w; with `start`, put start + sum there.

    Each key must be used for this purpose only. `threads` is an upper limit; small work stays on one.
    """
    stretches = -(-vector.nbytes // STRETCH)
    parts = min(threads, stretches) if vector.nbytes * len(keys) >= _WORTH_THREADS else 1
    begin = vector if start is None else start
    if parts < 2:
        _add_part(vector, begin, keys, range(stretches), negative)
        return
    bounds = [stretches * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [
            pool.submit(_add_part, vector, begin, keys, range(*bounds[part : part + 2]), negative)
            for part in range(1, parts)
        ]
        _add_part(vector, begin, keys, range(bounds[1]), negative)
        for other in others:
            other.result()


def _add_part(
    vector: NDArray[Any], start: NDArray[Any], keys: Sequence[bytes], stretches: range, negative: bool
) -> None:
    """Put start + streams into those stretches of `vector`."""
    streams = [Stream(key) for key in keys]
    buffer = memoryview(bytearray(STRETCH + TAG))
    combine = np.subtract if negative else np.add
    count = STRETCH // vector.itemsize
    for stretch in stretches:
        part = vector[count * stretch : count * (stretch + 1)]
        fresh = buffer[: part.nbytes + TAG]
        mask = np.frombuffer(fresh, vector.dtype, count=len(part))
        if start is not vector:
            part[:] = start[count * stretch : count * (stretch + 1)]
        for stream in streams:
            stream.write(stretch, fresh)
            combine(part, mask, out=part)
