"""Which model is trained."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qfed.config.section import Count, Section, Whole

CIRCUITS = ("reuploading", "strongly_entangling", "basic_entangler")
MAX_WIRES = 20


class ModelConfig(Section):
    """Encoder (linear, features to angles), circuit, head (linear, expectations to outputs)."""

    kind: Literal["hybrid", "twin"] = "hybrid"
    """"hybrid" is encoder + circuit + head; "twin" its classical twin with the same number of parameters."""
    wires: Annotated[Whole, Field(ge=1, le=MAX_WIRES)] = 4
    """Qubits of the circuit."""
    layers: Count = 2
    """Repetitions of the circuit's trainable block."""
    circuit: str = "reuploading"
    """A built-in circuit (reuploading, strongly_entangling, basic_entangler) or your own as FILE.py:FUNCTION."""
    weight_shapes: dict[str, tuple[Whole, ...]] | None = None
    """Shapes of the weights that your own circuit takes, as for qml.qnn.TorchLayer; leave out for built-in ones."""

    @model_validator(mode="after")
    def _circuit(self) -> Self:
        own = ".py:" in self.circuit
        if not own and self.circuit not in CIRCUITS:
            near = difflib.get_close_matches(self.circuit, CIRCUITS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"circuit={self.circuit!r} is none of {', '.join(CIRCUITS)} and not FILE.py:FUNCTION{hint}"
            )
        if bad := [name for name, shape in (self.weight_shapes or {}).items() if any(size < 1 for size in shape)]:
            raise ValueError(f"model.weight_shapes of {bad} must be positive integers; use [] for a single number")
        if own and not self.weight_shapes:
            raise ValueError(
                f"circuit={self.circuit!r} is your own, so model.weight_shapes must give its weights' shapes"
            )
        if not own and self.weight_shapes:
            raise ValueError(
                f"circuit={self.circuit!r} is built in and knows its weights; leave model.weight_shapes out"
            )
        return self
