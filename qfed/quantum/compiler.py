"""The one way in which kernels are compiled: without the interpreter lock, IEEE arithmetic, exact types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """A function that Numba compiles at its first call for each dtype."""
    return njit(nogil=True, error_model="numpy")(function)


_NO_ENTRY: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def part(function: Callable[..., Any]) -> Any:
    """A function that only compiled functions call: it has no entry for Python, which is a third of compiling."""
    return njit(nogil=True, error_model="numpy", **_NO_ENTRY)(function)
