"""Independent checks on all cores: signatures, sealed keys and hashes, whose library lets other Python threads run.

Cost    one thread a core for the length of the call; work of a few items stays where it is
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_FEWEST = 4  # items a thread that are worth starting it (each takes a tenth of a millisecond or more)


def on_threads(function: Callable[[_Item], _Result], items: Sequence[_Item], threads: int) -> list[_Result]:
    """Return the function's results in order, made on up to `threads` threads; the first item's error is raised."""
    parts = min(threads, len(items) // _FEWEST)
    if parts < 2:
        return [function(item) for item in items]
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        made = [
            pool.submit(lambda part: [function(item) for item in part], items[bounds[part] : bounds[part + 1]])
            for part in range(parts)
        ]
        return [result for some in made for result in some.result()]
