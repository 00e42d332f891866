"""Circuits on Amazon Braket: its simulators, its strict emulator of a device, and a Rigetti device itself.

Simulated   probabilities of the circuit, with the emulator's noise where there is a device; samples are drawn from them
            with the caller's generator, so they can be repeated (Braket's own sampler cannot be seeded)
Real        a verbatim box on physical qubits, which the service may neither rewrite nor move

The emulator's noise: depolarising after every gate, (1 - F) 3/2 on one qubit and (1 - F) 5/4 on two, bit flips on
reading; RZ counts as a noisy gate, though devices do it without error. Nothing here was run on a real device.
Shapes  bits (N, n)      Cost  O(gates 4^n) with noise, O(gates 2^n) without
Errors  CircuitError for what the device refuses; ConfigError without credentials; MissingExtra
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qfed.errors import CircuitError, ConfigError, MissingExtra
from qfed.generative.rigetti.native import quarter_turns
from qfed.generative.rigetti.routing import Compiled
from qfed.generative.statistics import Bits, Floats

MOST_NOISY = 12
"""Qubits of a density matrix: 4^12 complex numbers are 256 MiB."""
ARN = "arn:aws:braket:us-west-1::device/qpu/rigetti/Cepheus-1-108Q"
_MOST_SHOTS = 50_000  # of one task, where the device does not say


def circuit(operations: Sequence[Any]) -> Any:
    """A `braket.circuits.Circuit` of these gates, without measurements."""
    Circuit = _braket()[0]
    out = Circuit()
    for gate in operations:
        wires = [int(wire) for wire in gate.wires]
        match gate.name:
            case "RX":
                out.rx(wires[0], float(gate.data[0]))
            case "RY":
                out.ry(wires[0], float(gate.data[0]))
            case "RZ":
                out.rz(wires[0], float(gate.data[0]))
            case "CZ":
                out.cz(*wires)
            case "ISWAP":
                out.iswap(*wires)
            case _:
                raise CircuitError(f"gate={gate.name} is none of RX, RY, RZ, CZ and ISWAP")
    return out


def verbatim(compiled: Compiled) -> Any:
    """The circuit as a device is asked to run it: native gates in a verbatim box, then one read a wire, in order.

    CircuitError for RX by other angles than quarter turns, which devices refuse and Braket's emulator does not look at.
    """
    Circuit = _braket()[0]
    for gate in compiled.operations:
        if gate.name == "RX" and not quarter_turns(gate):
            raise CircuitError(
                f"{compiled.chip.name} has RX by multiples of pi/2 only, got RX({float(gate.data[0]):.6g}) on qubit "
                f"{gate.wires[0]}"
            )
    out = Circuit()
    # Every read qubit is named, or the service would not know of those without a gate.
    out.add_verbatim_box(circuit(_touched(compiled)))
    for qubit in compiled.measured:
        out.measure(qubit)
    return out


def ideal(operations: Sequence[Any], wires: int) -> Floats:
    """The law (2^wires,) of gates on wires, by Braket's state-vector simulator."""
    _, LocalSimulator, _ = _braket()
    asked = circuit([*operations])
    for wire in range(wires):
        asked.i(wire)
    return _law(LocalSimulator(), asked, range(wires))


class Emulated:
    """Braket's emulator of one device: refuses what the device would, and adds the noise of its calibration."""

    def __init__(self, document: str) -> None:
        """`document` is the JSON of the device's properties."""
        LocalEmulator = _braket()[2]
        from braket.schema_common import BraketSchemaBase

        try:
            self.emulator = LocalEmulator.from_device_properties(BraketSchemaBase.parse_raw_schema(document))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"Braket's emulator cannot be built from these device properties: {error}") from None

    def law(self, compiled: Compiled) -> Floats:
        """What is read (2^n,): gates and reading with noise. CircuitError for what the device refuses."""
        if len(compiled.measured) > MOST_NOISY:
            raise CircuitError(
                f"a density matrix of {len(compiled.measured)} qubits does not fit; simulate noise on at most "
                f'{MOST_NOISY}, or use synth.born.backend = "braket.local.qubit"'
            )
        Circuit, LocalSimulator, _ = _braket()
        from braket.emulation.pass_manager import EmulatorValidationError

        program = verbatim(compiled)
        try:
            self.emulator.validate(program)
        except EmulatorValidationError as error:
            raise CircuitError(f"{compiled.chip.name} refuses the circuit: {error}") from None
        noisy = self.emulator.transform(program, apply_noise_model=True)
        # The reads' bit flips are instructions of their own by now, so the reads give way to exact probabilities.
        kept = [one for one in noisy.instructions if type(one.operator).__name__ not in _NOT_GATES]
        return _law(LocalSimulator("braket_dm"), Circuit(kept), compiled.measured)


_NOT_GATES = ("Measure", "StartVerbatimBox", "EndVerbatimBox")


class Device:
    """A device on Amazon Braket, real as far as this machine can tell."""

    def __init__(self, device: Any, timeout: float) -> None:
        """`device` is a `braket.aws.AwsDevice`."""
        self.device, self._timeout = device, timeout

    @property
    def document(self) -> dict[str, Any]:
        """Its properties as Braket publishes them."""
        import json

        found: dict[str, Any] = json.loads(self.device.properties.json())
        return found

    def run(self, compiled: Compiled, shots: int, before: Callable[[int], None]) -> Bits:
        """Read `shots` records; `before(n)` is called ahead of every task of n shots, and may refuse it."""
        least, most = self.device.properties.service.shotsRange or (1, _MOST_SHOTS)
        program, reads = verbatim(compiled), []
        left = max(shots, least)
        while left > 0:
            now = min(left, most)
            now = left if left - now == 0 else min(now, left - least)  # never leave less than the device takes
            before(now)
            result = self.device.run(
                program, shots=now, disable_qubit_rewiring=True, poll_timeout_seconds=self._timeout
            ).result()
            if result is None:
                raise CircuitError(f"device={self.device.name} gave no result within {self._timeout:g} s")
            column = {int(qubit): k for k, qubit in enumerate(result.measured_qubits)}
            reads.append(np.asarray(result.measurements)[:, [column[qubit] for qubit in compiled.measured]])
            left -= now
        return np.concatenate(reads).astype(np.uint8)[:shots]


def aws_device(arn: str, session: Any = None) -> Any:
    """The `AwsDevice` of an ARN with the user's credentials; ConfigError where AWS is not to be reached as they are."""
    _braket()
    from botocore.exceptions import BotoCoreError, ClientError
    from braket.aws import AwsDevice

    try:
        return AwsDevice(arn, aws_session=session)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise ConfigError(
            f"synth.born.device={arn!r} cannot be reached ({type(error).__name__}: {error}); give AWS credentials with "
            "access to Amazon Braket (aws configure, or AWS_PROFILE), and check the name"
        ) from None


def _touched(compiled: Compiled) -> list[Any]:
    """The gates; RZ(0) on qubits that are read and have none."""
    import pennylane as qml

    used = {wire for gate in compiled.operations for wire in gate.wires}
    idle = [qubit for qubit in compiled.measured if qubit not in used]
    return [*compiled.operations, *(qml.RZ(0.0, wires=qubit) for qubit in idle)]


def _law(simulator: Any, program: Any, qubits: Sequence[int]) -> Floats:
    """Probabilities (2^n,), the first of `qubits` the most significant bit."""
    # Asked in ascending order and rearranged here: Braket's local simulators (1.41) give other orders inverted.
    ascending = sorted(qubits)
    result = simulator.run(program.probability(target=ascending), shots=0).result()
    law = np.maximum(np.asarray(result.values[0], dtype=np.float64), 0).reshape((2,) * len(ascending))
    return np.asarray(law.transpose([ascending.index(qubit) for qubit in qubits]).reshape(-1) / law.sum())


def _braket() -> tuple[Any, Any, Any]:
    try:
        from braket.circuits import Circuit
        from braket.devices import LocalSimulator
        from braket.emulation.local_emulator import LocalEmulator
    except ModuleNotFoundError as error:
        raise MissingExtra.of(error) or error from None
    return Circuit, LocalSimulator, LocalEmulator
