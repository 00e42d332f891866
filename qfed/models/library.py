"""The models of the library: where each comes from, where its twin puts the same parameters, how it trains.

`qfed models list` and `qfed models show NAME` print this table; a name stands for its frame and circuit
(`qfed.config.ARCHITECTURES`). Departures from the sources are told where the model is defined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Entry:
    """One model of the library, in words."""

    title: str
    source: str
    twin: str
    trains: str
    """What is known about its gradients, and where its weights start."""
    module: str
    """Where it is defined, with equations and departures from the source."""


_HIDDEN = "the same encoder and head around a tanh layer with a skip connection, as many weights as the circuit"

LIBRARY: Mapping[str, Entry] = MappingProxyType(
    {
        "reuploading": Entry(
            "data re-uploading classifier",
            "Perez-Salinas et al., Quantum 4, 226 (2020)",
            _HIDDEN,
            "Starts near the identity (trained entanglers at angle 0, as Grant et al. 2019 ask for), where it answers "
            "sin of its angles; local observables; plateau only when it is wide, deep and far from its start.",
            "qfed.models.circuits",
        ),
        "scaled_reuploading": Entry(
            "data re-uploading classifier with trained input scales",
            "Perez-Salinas et al., Quantum 4, 226 (2020)",
            _HIDDEN,
            "As reuploading; scales start around 1 and widen the spectrum where the data ask for it (Schuld, Sweke, "
            "Meyer, Phys. Rev. A 103, 032430, 2021). Slower than reuploading: its angles are products.",
            "qfed.models.circuits",
        ),
        "variational": Entry(
            "variational classifier",
            "Schuld et al., Phys. Rev. A 101, 032308 (2020); Farhi, Neven, arXiv:1802.06002 (2018)",
            _HIDDEN,
            "Small initial angles around a ring of CZ that leaves a measured Z alone; deeper than about log(wires) "
            "layers it approaches a random circuit far from its start.",
            "qfed.models.circuits",
        ),
        "qcnn": Entry(
            "quantum convolutional classifier",
            "Cong et al., Nature Physics 15, 1273 (2019); Hur et al., Quantum Mach. Intell. 4, 3 (2022)",
            _HIDDEN,
            "Shared filters that start near the identity; no barren plateau: gradients vanish at most polynomially "
            "(Pesah et al., Phys. Rev. X 11, 041011, 2021). Few outputs: a bottleneck for many classes.",
            "qfed.models.qcnn",
        ),
        "kernel": Entry(
            "linear model on projected quantum kernel features",
            "Huang et al., Nat. Commun. 12, 2631 (2021); Havlicek et al., Nature 567, 209 (2019)",
            "the same head on as many polynomial features of second degree in the same coordinates",
            "No trained angle: a convex objective. Small circuits on groups of features, since features of one wide "
            "circuit concentrate.",
            "qfed.models.kernel",
        ),
        "cnn": Entry(
            "hybrid convolutional network for 8 x 8 and 28 x 28 images",
            "Mari et al., Quantum 4, 340 (2020)",
            "the same convolutions, then the dense twin",
            "As reuploading behind two convolutions with GroupNorm; private training wants more steps than the others.",
            "qfed.models.convolution",
        ),
        "quanvolution": Entry(
            "quanvolutional network for 8 x 8 and 28 x 28 images",
            "Henderson et al., Quantum Mach. Intell. 2, 2 (2020)",
            "a small tanh layer with a skip connection on every patch, as many weights as the circuit",
            "A circuit of four wires, shared by all patches: no plateau; starts near the identity.",
            "qfed.models.convolution",
        ),
    }
)
