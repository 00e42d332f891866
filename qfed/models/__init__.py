"""Models: the hybrid classifier or regressor and its classical twin of equal size, built from the configuration."""

from qfed.models.build import build
from qfed.models.circuits import Circuit, circuit_of
from qfed.models.hybrid import Hybrid
from qfed.models.objective import loss, score
from qfed.models.own import load_circuit
from qfed.models.plateau import warn_of_plateau
from qfed.models.store import Model, load_model, model_files, save_model
from qfed.models.twin import Twin
from qfed.models.vector import flatten, unflatten

__all__ = [
    "Circuit",
    "Hybrid",
    "Model",
    "Twin",
    "build",
    "circuit_of",
    "flatten",
    "load_circuit",
    "load_model",
    "loss",
    "model_files",
    "save_model",
    "score",
    "unflatten",
    "warn_of_plateau",
]
