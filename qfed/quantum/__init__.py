"""Circuits from PennyLane with per-sample gradients at machine speed.

`QuantumLayer` takes what `qml.qnn.TorchLayer` takes. A circuit is traced once into a program (trace, gates,
pauli, angles, program), planned for the machine (plan), interpreted by one compiled kernel per dtype (kernel and
the parts it names; torch_path on an accelerator), and wired into torch (functional, layer) and Opacus (persample).
What cannot be compiled runs on a named PennyLane device (device). Opacus is never imported from here.
"""

from qfed.quantum.cache import warmup
from qfed.quantum.guard import refuse_torch_layer
from qfed.quantum.layer import QuantumLayer
from qfed.quantum.trainability import Trainability, trainability

__all__ = ["QuantumLayer", "Trainability", "refuse_torch_layer", "trainability", "warmup"]
