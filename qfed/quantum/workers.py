"""Threads and their memory: aligned arrays, one scratch buffer a thread, groups of records spread over threads.

The kernel releases the interpreter lock. torch.get_num_threads() is the number of threads, as for torch itself;
a call too small to gain from a second thread stays on the caller's.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qfed.errors import CircuitError
from qfed.quantum.routine import Routine

VECTOR_BYTES = 64
_MIN_WORK = 400_000  # vector operations that outweigh waking a thread (about 0.1 ms)
_local = threading.local()
_SPARES = 4  # shapes of spare arrays that are kept, one each
_spares: dict[tuple[int, int, str], deque[NDArray[Any]]] = {}


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Uninitialised memory that starts on a cache line: a vector never straddles two."""
    itemsize = np.dtype(dtype).itemsize
    nbytes = itemsize
    for n in shape:
        nbytes *= n
    try:
        raw = np.empty(nbytes + VECTOR_BYTES, np.uint8)
    except MemoryError as error:
        raise CircuitError(
            f"the states of the circuit need {nbytes / 2**30:.1f} GiB, which this machine does not have; use fewer "
            "wires or smaller batches"
        ) from error
    start = -raw.ctypes.data % VECTOR_BYTES
    return np.ndarray(shape, dtype, raw, start)


def scratch(routine: Routine, dtype: Any) -> NDArray[Any]:
    """The calling thread's working memory (at least what the routine needs), kept between calls and grown on demand."""
    needed = routine.vectors[VECTOR_BYTES // dtype.itemsize] * VECTOR_BYTES
    kept: NDArray[Any] | None = getattr(_local, dtype.char, None)
    if kept is None or kept.nbytes < needed:
        _check_memory(routine.plan.wires, needed)
        setattr(_local, dtype.char, None)
        kept = aligned((needed // dtype.itemsize,), dtype)
        setattr(_local, dtype.char, kept)
    return kept


class Spare:
    """An array (rows, numbers) whose memory is used again once nobody holds it any more.

    Fresh memory of some MiB costs a page fault every 4 KiB, which is more than a sweep over it.
    """

    __slots__ = ("_key", "array")

    def __init__(self, rows: int, numbers: int, dtype: Any) -> None:
        self._key = (rows, numbers, dtype.char)
        try:
            self.array: NDArray[Any] = _spares[self._key].pop()
        except (KeyError, IndexError):
            self.array = aligned((rows, numbers), dtype)

    def __del__(self) -> None:
        if hasattr(self, "array"):  # not where there was no memory for it
            kept = _spares.setdefault(self._key, deque(maxlen=1))
            kept.append(self.array)
            while len(_spares) > _SPARES:
                _spares.pop(next(iter(_spares)), None)


def _check_memory(wires: int, needed: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise CircuitError(
            f"a circuit of wires={wires} needs {needed / 2**30:.1f} GiB a thread for its states, more than half of "
            f"this machine's {memory / 2**30:.1f} GiB; use fewer wires"
        )


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="qfed-quantum")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def each_thread(work: Callable[[int, int], None], groups: int, cost: int) -> None:
    """Call work(first, last) on ranges that make up 0..groups, side by side; `cost` is a group's, in operations."""
    threads = min(torch.get_num_threads(), groups, 1 + groups * cost // _MIN_WORK)
    if threads <= 1:
        work(0, groups)
        return
    bounds = [groups * i // threads for i in range(threads + 1)]
    pending = [_pool(threads - 1).submit(work, bounds[i], bounds[i + 1]) for i in range(1, threads)]
    work(0, bounds[1])
    for task in pending:
        task.result()
