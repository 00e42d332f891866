"""The shape of a layer's result, as qml.qnn.TorchLayer has it.

one expval (...,)    one probs (..., 2^k)    a list (..., sum of widths)    a tuple (M, ..., width)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from qfed.errors import CircuitError


@dataclass(frozen=True)
class Layout:
    """Widths of the measurements, and what the quantum function returned: "scalar", "vector", "list", "tuple"."""

    widths: tuple[int, ...]
    returns: str

    def __post_init__(self) -> None:
        if self.returns == "tuple" and len(set(self.widths)) > 1:
            raise CircuitError(
                f"a circuit that returns a tuple needs measurements of one width, got widths={self.widths}; return a "
                "list to get them side by side"
            )

    @cached_property
    def width(self) -> int:
        """Numbers a record's result has, all measurements together."""
        return sum(self.widths)

    @cached_property
    def stacks(self) -> bool:
        """Whether measurements are the first dimension of the result."""
        return self.returns == "tuple" and len(self.widths) > 1

    def shape(self, rows: Tensor, batch: Sequence[int]) -> Tensor:
        """(B, width) -> the layer's result for inputs of shape (*batch, D)."""
        if self.stacks:
            return rows.reshape(*batch, len(self.widths), self.widths[0]).movedim(len(batch), 0)
        if self.returns == "scalar":
            return rows.reshape(tuple(batch))
        return rows if len(batch) == 1 else rows.reshape(*batch, self.width)

    def rows(self, result: Tensor) -> Tensor:
        """The inverse of `shape`: a tensor like the layer's result -> (B, width)."""
        if self.stacks:
            result = result.movedim(0, -2)
        elif result.dim() == 2 and self.returns != "scalar":
            return result
        return result.reshape(result.numel() // self.width if result.numel() else 0, self.width)


def layout_of(widths: Sequence[int], returns: str, *, probabilities: bool) -> Layout:
    """`returns` is "one", "list" or "tuple"; one probability vector is a vector however short."""
    if returns == "one":
        returns = "vector" if probabilities or math.prod(widths) > 1 else "scalar"
    return Layout(tuple(widths), returns)
