"""The one way in which kernels are compiled: without the interpreter lock, IEEE arithmetic, exact types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """A function that Numba compiles at its first call for each dtype."""
    return njit(nogil=True, error_model="numpy")(function)
