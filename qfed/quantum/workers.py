"""Threads and their memory: aligned arrays, one scratch buffer a thread, groups of records spread over threads.

The kernel releases the interpreter lock. torch.get_num_threads() is the number of threads, as for torch itself;
a call too small to gain from a second thread stays on the caller's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qfed.errors import CircuitError
from qfed.quantum.plan import Plan

VECTOR_BYTES = 64
_MIN_WORK = 400_000  # vector operations that outweigh waking a thread (about 0.1 ms)
_local = threading.local()


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


def scratch(plan: Plan, dtype: Any) -> NDArray[Any]:
    """The calling thread's working memory, kept between calls and grown on demand."""
    from qfed.quantum.kernel import scratch_vectors

    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    vectors = scratch_vectors(plan.size, plan.wires, plan.rows, len(plan.folds), plan.outputs, lanes)
    needed = vectors * VECTOR_BYTES
    kept: NDArray[Any] | None = getattr(_local, "bytes", None)
    if kept is None or kept.nbytes < needed:
        _check_memory(plan.wires, needed)
        _local.bytes = None
        kept = _local.bytes = aligned((needed,), np.uint8)
    return kept[:needed].view(dtype)


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
