"""Call something outside of the caller's torch context."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def isolated(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """`function(...)` in a thread of its own: there, no functorch transform, no_grad or autocast is active.

    For calls into PennyLane, which needs ordinary tensors and an ordinary autograd. Errors come through, and context
    variables (the meter that counts shots) go in.
    """
    with ThreadPoolExecutor(1) as pool:
        context = copy_context()
        return pool.submit(lambda: context.run(function, *args, **kwargs)).result()
