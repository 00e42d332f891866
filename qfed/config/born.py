"""The tree-started Born machine: how it is trained, and where its circuit is run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qfed.config.section import Count, Flag, Positive, Section, Whole

BACKENDS = ("exact", "braket.local.qubit", "braket_dm", "emulator", "braket", "pyquil")


class BornConfig(Section):
    """The generator "born": a circuit, trained here on the released counts, sampled on `backend`."""

    backend: Literal["exact", "braket.local.qubit", "braket_dm", "emulator", "braket", "pyquil"] = "exact"
    """Where samples come from. On this machine: "exact" the trained amplitudes; "braket.local.qubit" Braket's simulator
    without noise; "braket_dm" native gates with noise, every pair of qubits coupled; "emulator" the same on the
    device's lattice, which refuses whatever the device would. Elsewhere: "braket" a Rigetti device on Amazon Braket
    (AWS credentials), "pyquil" one on Rigetti's own cloud, or a qvm server."""
    device: str | None = None
    """Backend braket: ARN of the device; pyquil: its name, or "8q-qvm". Leave out for Cepheus-1-108Q."""
    calibration: str | None = None
    """Backend emulator: JSON file of the device's properties, as `AwsDevice(ARN).properties.json()` gives it. Leave out
    for a made-up square lattice with the fidelities below."""
    native: Literal["cz", "iswap"] = "cz"
    """Two-qubit gate of the made-up device."""
    one_qubit_fidelity: Annotated[float, Field(strict=True, gt=0.5, le=1)] = 0.999
    """Of a one-qubit gate of the made-up device."""
    two_qubit_fidelity: Annotated[float, Field(strict=True, gt=0.5, le=1)] = 0.995
    """Of a two-qubit gate of the made-up device."""
    readout_fidelity: Annotated[float, Field(strict=True, gt=0.5, le=1)] = 0.97
    """Probability that the made-up device reads a bit as it is."""
    extra_pairs: Whole = Field(default=6, ge=0)
    """Controlled rotations beyond the tree, on the pairs that it fits worst; each costs two two-qubit gates."""
    pairs: Literal["lattice", "any"] = "lattice"
    """Where these may be: "lattice" only where a square lattice couples them without a SWAP; "any" the worst fitted
    ones wherever they are, which suits simulators without noise."""
    steps: Count = 200
    """Gradient steps of the training."""
    learning_rate: Positive = 0.02
    """Step size at the start; it falls to 0 along a cosine."""
    corrections: Whole = Field(default=0, ge=0)
    """Times that the trained circuit is sampled on the backend and trained again, its aim moved by what came out wrong:
    that takes out errors of the device, as far as the circuit can."""
    correction_shots: Count = 4000
    """Shots of each of these times."""
    mitigate_readout: Flag = True
    """Measure each qubit's readout error (two circuits more) and unfold it from the samples."""
    calibration_shots: Count = 4000
    """Shots of each of these two circuits."""
    timeout: Positive = 3600.0
    """Backend braket: seconds to wait for the device."""
