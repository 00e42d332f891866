"""Circuits on Rigetti's own cloud: native Quil, so that no compiler has to touch it.

    DECLARE ro BIT[n]; RX(pi/2) 0; RZ(..) 0; CZ 0 1; ...; MEASURE q ro[w]

What was tested without a server: the program's text, its parse, its gates against the device's, and its law by pyQuil's
state-vector simulator; the client's calls against a stand-in for the qvm server. Never a quantum processor.
Shapes  bits (N, n)      Errors  ConfigError without credentials or server; MissingExtra
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from qfed.errors import ConfigError, MissingExtra
from qfed.generative.rigetti.routing import Compiled
from qfed.generative.statistics import Bits

PROCESSOR = "Cepheus-1-108Q"


def program(compiled: Compiled, shots: int = 1) -> Any:
    """A `pyquil.Program`; wire w is read into ro[w]."""
    pyquil = _pyquil()
    out = pyquil.Program()
    memory = out.declare("ro", "BIT", len(compiled.measured))
    for gate in compiled.operations:
        wires = [int(wire) for wire in gate.wires]
        match gate.name:
            case "RX":
                out += pyquil.gates.RX(float(gate.data[0]), *wires)
            case "RZ":
                out += pyquil.gates.RZ(float(gate.data[0]), *wires)
            case "CZ":
                out += pyquil.gates.CZ(*wires)
            case _:
                out += pyquil.gates.ISWAP(*wires)
    for wire, qubit in enumerate(compiled.measured):
        out += pyquil.gates.MEASURE(qubit, memory[wire])
    return out.wrap_in_numshots_loop(shots)


def computer(name: str) -> Any:
    """The `pyquil.api.QuantumComputer` of a processor, or of a qvm ("8q-qvm"); ConfigError if it cannot be reached."""
    pyquil = _pyquil()
    from qcs_sdk.client import QCSClient

    try:
        if not name.endswith("qvm"):
            QCSClient.load().oauth_session  # noqa: B018  # raises without credentials; the client would retry minutes
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pyQuil v5")  # pyQuil 5 will have no qvm; 4 has
            return pyquil.get_qc(name)
    except Exception as error:  # noqa: BLE001  # the client raises types of its own for each layer of its transport
        raise ConfigError(
            f"synth.born.device={name!r} cannot be reached ({type(error).__name__}: {error}); give Rigetti credentials "
            "(~/.qcs/settings.toml and secrets.toml), or for a qvm start: qvm -S"
        ) from None


def run(machine: Any, compiled: Compiled, shots: int) -> Bits:
    """Read `shots` records."""
    executable = machine.compiler.native_quil_to_executable(program(compiled, shots))
    return np.asarray(machine.run(executable).get_register_map()["ro"]).astype(np.uint8)


def _pyquil() -> Any:
    if sys.version_info >= (3, 13):
        raise ConfigError(
            f"pyQuil has no release for Python {sys.version_info[0]}.{sys.version_info[1]}; use Python 3.12, or "
            'reach Rigetti through Amazon Braket: synth.born.backend = "braket"'
        )
    try:
        import pyquil
        import pyquil.gates
    except ModuleNotFoundError as error:
        raise MissingExtra.of(error) or error from None
    return pyquil
