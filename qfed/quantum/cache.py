"""Where compiled kernels are kept: Numba's disk cache, also in a read-only installation.

Numba writes next to the source where it can, else to the user's cache directory, or to NUMBA_CACHE_DIR. Where
none of these is writable (a container with a read-only home), the kernel is compiled once a process and the
log says so; nothing fails.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_LOG = logging.getLogger("qfed.quantum")


def fingerprint(*modules: ModuleType) -> str:
    """Hash of the modules' sources."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def keep_on_disk(*kernels: Any) -> None:
    """Turn on the disk cache of Numba dispatchers."""
    for kernel in kernels:
        try:
            kernel.enable_caching()
        except RuntimeError:
            _LOG.info("no writable cache directory: kernels are compiled once a process; set NUMBA_CACHE_DIR")
            return


def warmup(progress: Callable[[str], None] | None = None) -> float:
    """Compile everything the quantum engine needs on this machine; seconds it took (about 0 when cached)."""
    from qfed.quantum import execute

    start = time.perf_counter()
    for dtype in (np.float32, np.float64):
        if progress is not None:
            progress(f"compiling the quantum kernel for {np.dtype(dtype).name} (once per machine)")
        execute.compile_for(np.dtype(dtype))
    return time.perf_counter() - start
