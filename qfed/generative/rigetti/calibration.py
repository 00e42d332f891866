"""A made-up device on a square lattice, as the properties document that Amazon Braket would publish for it.

For the emulator when no calibration file is given, and for tests. Its fidelities are arguments, not measurements; its
text says so. What comes out is read by Braket's own schema for Rigetti devices and by `chip.chip_of` alike.
Units   fidelities in (0, 1], times in seconds      Errors  none of its own
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

from qfed.generative.rigetti.chip import Coupler, Native

LABEL = "SYNTHETIC: a made-up square lattice, not a measured device; replace it by your device's own properties"
_SHOTS = {"minShots": 1, "maxShots": 50_000}
_OBSERVABLES = ["x", "y", "z", "h", "i"]


def square(rows: int, columns: int) -> list[Coupler]:
    """Couplers of a square lattice, its qubits numbered row by row."""
    cells = list(product(range(rows), range(columns)))
    right = [(r * columns + c, r * columns + c + 1) for r, c in cells if c + 1 < columns]
    down = [(r * columns + c, (r + 1) * columns + c) for r, c in cells if r + 1 < rows]
    return sorted(right + down)


def complete(qubits: int) -> list[Coupler]:
    """Everyone coupled to everyone, which no device is."""
    return list(combinations(range(qubits), 2))


def document(
    couplers: Iterable[Coupler],
    *,
    native: Native = "cz",
    one_qubit: float = 0.999,
    two_qubit: float = 0.995,
    readout: float = 0.97,
    spread: Any = None,
) -> dict[str, Any]:
    """The properties document; `spread`, a numpy generator, scatters every error between 0.5 and 1.5 times its mean."""
    edges = sorted(couplers)
    qubits = sorted({qubit for edge in edges for qubit in edge})
    neighbours: dict[str, list[str]] = {str(qubit): [] for qubit in qubits}
    for u, v in edges:
        neighbours[str(u)].append(str(v))
        neighbours[str(v)].append(str(u))

    def near(mean: float) -> float:
        return mean if spread is None else round(1 - (1 - mean) * float(spread.uniform(0.5, 1.5)), 5)

    def fidelity(name: str, mean: float) -> dict[str, Any]:
        return {"fidelityType": {"name": name}, "fidelity": near(mean)}

    def coupler() -> dict[str, Any]:
        gate = "CZ" if native == "cz" else "ISwap"
        return {"twoQubitGateFidelity": [{"gateName": gate, **fidelity("RANDOMIZED_BENCHMARKING", two_qubit)}]}

    def time(seconds: float) -> dict[str, Any]:
        return {"value": seconds, "standardError": None, "unit": "S"}

    results = [{"name": name, "observables": _OBSERVABLES, **_SHOTS} for name in ("Sample", "Expectation", "Variance")]
    gates = ["cz", "iswap", "xy", "cnot", "swap", "h", "i", "rx", "ry", "rz", "s", "si", "t", "ti", "x", "y", "z"]
    return {
        "braketSchemaHeader": _header("rigetti.rigetti_device_capabilities", "2"),
        "service": {
            "braketSchemaHeader": _header("device_service_properties"),
            "executionWindows": [{"executionDay": "Everyday", "windowStartHour": "00:00", "windowEndHour": "23:59:59"}],
            "shotsRange": [10, 50_000],
            "deviceDocumentation": {"imageUrl": "", "summary": LABEL, "externalDocumentationUrl": ""},
            "deviceLocation": "nowhere",
            "updatedAt": "2000-01-01T00:00:00",
        },
        "action": {
            "braket.ir.openqasm.program": {
                "actionType": "braket.ir.openqasm.program",
                "version": ["1"],
                "supportedOperations": gates,
                "supportedResultTypes": [*results, {"name": "Probability", **_SHOTS}],
                "supportedPragmas": ["verbatim"],
                "forbiddenPragmas": [],
                "requiresAllQubitsMeasurement": False,
                "requiresContiguousQubitIndices": False,
                "supportsPhysicalQubits": True,
                "supportsPartialVerbatimBox": False,
                "disabledQubitRewiringSupported": True,
            }
        },
        "paradigm": {
            "braketSchemaHeader": _header("gate_model_qpu_paradigm_properties"),
            "qubitCount": len(qubits),
            "nativeGateSet": ["rx", "rz", native],
            "connectivity": {"fullyConnected": False, "connectivityGraph": neighbours},
        },
        "deviceParameters": {},
        "standardized": {
            "braketSchemaHeader": _header("standardized_gate_model_qpu_device_properties"),
            "oneQubitProperties": {
                str(qubit): {
                    "T1": time(3e-5),
                    "T2": time(2e-5),
                    "oneQubitFidelity": [
                        fidelity("RANDOMIZED_BENCHMARKING", one_qubit),
                        fidelity("READOUT", readout),
                    ],
                }
                for qubit in qubits
            },
            "twoQubitProperties": {f"{u}-{v}": coupler() for u, v in edges},
        },
    }


def _header(name: str, version: str = "1") -> dict[str, str]:
    return {"name": f"braket.device_schema.{name}", "version": version}
