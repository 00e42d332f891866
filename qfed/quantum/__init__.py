"""Circuits from PennyLane with per-sample gradients at machine speed.

`QuantumLayer` takes what `qml.qnn.TorchLayer` takes. A circuit is traced once into a program (trace, gates,
pauli, program), interpreted by one compiled kernel per dtype (kernel, lanes), and wired into torch (functional,
layer) and Opacus (persample). Opacus is never imported from here.
"""

from qfed.quantum.cache import warmup
from qfed.quantum.guard import refuse_torch_layer
from qfed.quantum.layer import QuantumLayer

__all__ = ["QuantumLayer", "refuse_torch_layer", "warmup"]
