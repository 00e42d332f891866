"""What a circuit has to know of a device: its qubits, who is coupled to whom, and how good each is.

Read from a device's properties as Amazon Braket publishes them (`AwsDevice(ARN).properties.json()`), or from the
instruction set that Rigetti's own cloud gives. Qubits without a readout fidelity and couplers without one for the
native gate are out of order and left out.
Units   fidelities in (0, 1]      Errors  ConfigError for properties that lack what is needed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import networkx as nx

from qfed.errors import ConfigError

Native = Literal["cz", "iswap"]
Coupler = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Chip:
    """One device, as calibrated at some time."""

    name: str
    native: Native
    """Its two-qubit gate."""
    gate: Mapping[int, float]
    """Fidelity of a one-qubit gate, by qubit."""
    readout: Mapping[int, float]
    """Probability that a bit is read as it is, by qubit."""
    couplers: Mapping[Coupler, float]
    """Fidelity of the two-qubit gate, by (lower, higher) qubit."""

    def __post_init__(self) -> None:
        if not self.couplers or not self.readout:
            raise ConfigError(
                f"device {self.name!r} has no usable coupler (native={self.native!r}) or no qubit with a readout "
                "fidelity; give properties of a calibrated device"
            )

    def coupled(self, u: int, v: int) -> bool:
        """Whether two qubits share a coupler."""
        return (min(u, v), max(u, v)) in self.couplers

    def fidelity(self, u: int, v: int) -> float:
        """Of the two-qubit gate on coupled qubits."""
        return self.couplers[min(u, v), max(u, v)]

    @property
    def graph(self) -> nx.Graph:
        """Its usable qubits and couplers, with `fidelity` on each edge."""
        graph = nx.Graph()
        graph.add_nodes_from(sorted(self.readout))
        graph.add_edges_from((u, v, {"fidelity": f}) for (u, v), f in sorted(self.couplers.items()))
        return graph


def read_document(file: Path) -> dict[str, Any]:
    """A device's properties from a JSON file."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read synth.born.calibration={str(file)!r}: {error.strerror}; save AwsDevice(ARN).properties.json()"
        ) from None
    except ValueError as error:
        raise ConfigError(f"synth.born.calibration={str(file)!r} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"synth.born.calibration={str(file)!r} holds no JSON object; save AwsDevice(ARN).properties.json()"
        )
    return document


def chip_of(document: Mapping[str, Any], name: str) -> Chip:
    """The device with these Braket properties; ConfigError for a document that is not such."""
    try:
        gates = {str(gate).lower() for gate in document["paradigm"]["nativeGateSet"]}
        native: Native = next(gate for gate in ("cz", "iswap") if gate in gates)
        one = document["standardized"]["oneQubitProperties"]
        two = document["standardized"]["twoQubitProperties"]
        fidelities = {int(qubit): _named(about["oneQubitFidelity"]) for qubit, about in one.items()}
        usable = {
            qubit: found
            for qubit, found in fidelities.items()
            if "READOUT" in found and any(name.endswith("RANDOMIZED_BENCHMARKING") for name in found)
        }
        gate = {
            qubit: found.get("RANDOMIZED_BENCHMARKING", found.get("SIMULTANEOUS_RANDOMIZED_BENCHMARKING", 1.0))
            for qubit, found in usable.items()
        }
        couplers = {}
        for pair, about in two.items():
            u, v = sorted(int(qubit) for qubit in pair.split("-"))
            known = {str(g["gateName"]).lower(): float(g["fidelity"]) for g in about["twoQubitGateFidelity"]}
            if native in known and u in usable and v in usable:
                couplers[u, v] = known[native]
    except (KeyError, TypeError, ValueError, StopIteration, AttributeError) as error:
        raise ConfigError(
            f"{name} does not hold the properties of a device with native gates rx, rz and cz or iswap "
            f"({type(error).__name__}: {error}); save AwsDevice(ARN).properties.json()"
        ) from None
    return Chip(name, native, gate, {qubit: found["READOUT"] for qubit, found in usable.items()}, couplers)


def chip_of_isa(isa: Any, name: str) -> Chip:
    """The device with this compiler instruction set, a `pyquil.external.rpcq.CompilerISA`.

    A simulated lattice has no fidelities; then every gate counts as good as any.
    """
    gate, readout = {}, {}
    for key, qubit in isa.qubits.items():
        if qubit.dead:
            continue
        turns = [g.fidelity for g in qubit.gates if getattr(g, "operator", "") == "RX" and g.fidelity is not None]
        reads = [g.fidelity for g in qubit.gates if "Measure" in type(g).__name__ and g.fidelity is not None]
        gate[int(key)] = min(turns, default=1.0)
        readout[int(key)] = min(reads, default=1.0)
    found: dict[str, dict[Coupler, float]] = {"cz": {}, "iswap": {}}
    for key, edge in isa.edges.items():
        u, v = sorted(int(qubit) for qubit in key.split("-"))
        if edge.dead or u not in gate or v not in gate:
            continue
        for g in edge.gates:
            couplers = found.get(str(getattr(g, "operator", "")).lower())  # of a gate that is none of the two, None
            if couplers is not None:
                couplers[u, v] = 1.0 if g.fidelity is None else g.fidelity
    native: Native = "cz" if found["cz"] else "iswap"
    return Chip(name, native, gate, readout, found[native])


def _named(fidelities: Any) -> dict[str, float]:
    return {str(f["fidelityType"]["name"]): float(f["fidelity"]) for f in fidelities if f["fidelity"] is not None}
