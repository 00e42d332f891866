"""Which model is trained.

`architecture` is the frame (what stands around the circuit), `circuit` what is inside. A name of the library stands for
both: architecture = "qcnn" reads as architecture = "dense", circuit = "qcnn". `qfed models list` shows them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qfed.config.section import Count, Positive, Section, Whole

CIRCUITS = (
    "reuploading",
    "scaled_reuploading",
    "strongly_entangling",
    "basic_entangler",
    "qcnn",
    "iqp",
)
FRAMES = ("dense", "cnn", "quanvolution", "kernel")
ARCHITECTURES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "reuploading": ("dense", "reuploading"),
        "scaled_reuploading": ("dense", "scaled_reuploading"),
        "variational": ("dense", "strongly_entangling"),
        "qcnn": ("dense", "qcnn"),
        "kernel": ("kernel", "iqp"),
        "cnn": ("cnn", "reuploading"),
        "quanvolution": ("quanvolution", "reuploading"),
    }
)
"""Every model of the library by its name: the frame, and the circuit that it has unless another one is named."""
_SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType({"qcnn": {"wires": 8}, "iqp": {"layers": 1}})
"""Wires and layers that a circuit has unless given, where they are not everyone's."""
MAX_WIRES = 20


class ModelConfig(Section):
    """A frame around a circuit: what makes angles of features, the circuit, and a linear head on what it measures."""

    kind: Literal["hybrid", "twin"] = "hybrid"
    """"hybrid" has the circuit; "twin" is its classical twin with the same number of parameters."""
    architecture: Literal["dense", "cnn", "quanvolution", "kernel"] = "dense"
    """dense: linear encoder, circuit, head. cnn: convolutions in front. quanvolution: the circuit on every patch of an
    image. kernel: fixed quantum features. Or a model of `qfed models list`, which sets the circuit as well."""
    wires: Annotated[Whole, Field(ge=1, le=MAX_WIRES)] = 4
    """Qubits of the circuit (8 for the circuit qcnn, unless given)."""
    layers: Count = 2
    """Repetitions of the circuit's block (qcnn: convolution and pooling; iqp: the feature map, 1 unless given)."""
    circuit: str = "reuploading"
    """reuploading, scaled_reuploading, strongly_entangling, basic_entangler, qcnn, or your own as FILE.py:FUNCTION;
    iqp in the architecture kernel."""
    weight_shapes: dict[str, tuple[Whole, ...]] | None = None
    """Shapes of the weights that your own circuit takes, as for qml.qnn.TorchLayer; leave out for built-in ones."""
    angle_limit: Positive | None = None
    """Largest angle, in radians, by which data turn a wire; leave out for the architecture's own."""
    initial_stddev: Positive = 0.1
    """Standard deviation of the circuit's initial weights, in radians; near 0 is near the identity."""

    @property
    def name(self) -> str:
        """The name of the library for this frame and circuit, or else architecture/circuit."""
        pair = (self.architecture, self.circuit)
        return next((name for name, known in ARCHITECTURES.items() if known == pair), "/".join(pair))

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """A name of the library becomes its frame and circuit; a frame without a circuit gets its own."""
        if not isinstance(given, dict):
            return given
        tree = dict(given)
        name = tree.get("architecture", "dense")
        if name in ARCHITECTURES:
            frame, circuit = ARCHITECTURES[name]
            if name != frame and tree.get("circuit", circuit) != circuit:
                raise ValueError(
                    f"architecture={name!r} has the circuit {circuit!r}, but circuit={tree['circuit']!r} "
                    "is set as well; leave one of them out"
                )
            tree["architecture"] = frame
            tree.setdefault("circuit", circuit)
        elif isinstance(name, str) and name != "dense":
            known = ("dense", *ARCHITECTURES)
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"architecture={name!r} is none of {', '.join(known)}{hint}")
        return {**_SIZES.get(str(tree.get("circuit")), {}), **tree}

    @model_validator(mode="after")
    def _circuit(self) -> Self:
        own = ".py:" in self.circuit
        if not own and self.circuit not in CIRCUITS:
            near = difflib.get_close_matches(self.circuit, CIRCUITS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"circuit={self.circuit!r} is none of {', '.join(CIRCUITS)} and not FILE.py:FUNCTION{hint}"
            )
        if (self.circuit == "iqp") != (self.architecture == "kernel"):
            raise ValueError(
                f"architecture={self.architecture!r} cannot have circuit={self.circuit!r}: the fixed feature map iqp "
                'and architecture = "kernel" belong together; leave model.circuit out'
            )
        if self.circuit == "qcnn" and self.wires < 2:
            raise ValueError("circuit='qcnn' convolves neighbouring wires, got model.wires=1; use 2 or more")
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
