"""Where a trained circuit is sampled, by one configuration key: `synth.born.backend`.

    exact, braket.local.qubit      no device: the circuit as it is
    braket_dm, emulator            native gates and noise; the emulator's device has a lattice and refuses the rest
    braket, pyquil                 a device elsewhere: every circuit is charged to the account of use before it is sent

Readout errors are unfolded where there are any. The same generator gives the same samples, except from real devices.
Errors  CircuitError, ConfigError, MissingExtra, SpendingCapReached
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pennylane as qml

from qfed.config import BornConfig, SynthConfig, load_prices
from qfed.generative.rigetti import braket, calibration, quil
from qfed.generative.rigetti.chip import Chip, chip_of, chip_of_isa, read_document
from qfed.generative.rigetti.readout import confusion, unfold
from qfed.generative.rigetti.routing import Compiled, compiled
from qfed.generative.statistics import Bits, Floats
from qfed.quantum.spending import Caps, Meter, current_meter

_LATTICE = (4, 4)


class Backend(Protocol):
    """What samples circuits of RY and CZ on wires."""

    def sample(self, operations: Sequence[Any], wires: int, count: int, rng: np.random.Generator) -> Bits:
        """`count` records (count, wires)."""

    def describe(self) -> dict[str, Any]:
        """What it is, in JSON's types."""


REMOTE = ("braket", "pyquil")
"""Backends elsewhere."""


def backend_of(config: SynthConfig) -> Backend:
    """The configured one; nothing is imported or reached before it samples."""
    if config.born.backend in ("exact", "braket.local.qubit"):
        return Ideal(config.born.backend)
    return Chips(config)


def meter_for(config: SynthConfig, **account: Any) -> Meter:
    """The account of one fit and its samples, with the cap of the configuration; keywords as of `Meter`."""
    remote = config.born.backend == "braket"
    name = "braket.aws.qubit" if remote else config.born.backend
    target = config.born.device or (braket.ARN if remote else quil.PROCESSOR)
    price = load_prices().price_of(name, target)
    return Meter(f"{name}:{target}", price=price, caps=Caps(shots=config.most_shots), section="synth", **account)


class Ideal:
    """The circuit without noise, on Braket's state-vector simulator."""

    def __init__(self, name: str) -> None:
        self._name = name

    def sample(self, operations: Sequence[Any], wires: int, count: int, rng: np.random.Generator) -> Bits:
        """Draw from the simulated law."""
        return draw(braket.ideal(operations, wires), wires, count, rng)

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"name": self._name, "real_device": False}


class Chips:
    """Native gates on a device: emulated, on Amazon Braket, or on Rigetti's own cloud."""

    def __init__(self, config: SynthConfig) -> None:
        self.config = config.born
        self._meter = meter_for(config) if config.born.backend in REMOTE else None
        self._about: dict[str, Any] = {}

    def sample(self, operations: Sequence[Any], wires: int, count: int, rng: np.random.Generator) -> Bits:
        """Place, route, run; then unfold the readout."""
        chip, read = self._open(wires)
        circuit = compiled(operations, wires, chip, rng)
        self._about = {
            "device": chip.name,
            "two_qubit_gates": circuit.two_qubit_gates,
            "qubits": list(circuit.measured),
            "mitigate_readout": self.config.mitigate_readout,
        }
        bits = read(circuit, count, rng)
        if not self.config.mitigate_readout:
            return bits
        zeros, ones = (read(one, self.config.calibration_shots, rng) for one in _prepared(circuit))
        return unfold(bits, confusion(zeros, ones), count, rng)

    def describe(self) -> dict[str, Any]:
        """The device, and the size of what ran there last."""
        return {"name": self.config.backend, "real_device": self.config.backend in ("braket", "pyquil"), **self._about}

    def _charge(self, shots: int) -> None:
        """Account for one circuit before it is sent; to whoever counts, else to this backend's own account."""
        meter = current_meter() or self._meter
        if meter is not None:
            meter.charge(1, shots)

    def _open(self, wires: int) -> tuple[Chip, Callable[[Compiled, int, np.random.Generator], Bits]]:
        config = self.config
        if config.backend == "braket":
            device = braket.Device(braket.aws_device(config.device or braket.ARN), config.timeout)
            return chip_of(device.document, device.device.name), lambda circuit, shots, _: device.run(
                circuit, shots, self._charge
            )
        if config.backend == "pyquil":
            machine = quil.computer(config.device or quil.PROCESSOR)
            chip = chip_of_isa(machine.to_compiler_isa(), machine.name)

            def run(circuit: Compiled, shots: int, _: np.random.Generator) -> Bits:
                self._charge(shots)
                return quil.run(machine, circuit, shots)

            return chip, run
        document, name = _document(config, wires)
        emulated = braket.Emulated(json.dumps(document))
        return chip_of(document, name), lambda circuit, shots, rng: draw(emulated.law(circuit), wires, shots, rng)


def _document(config: BornConfig, wires: int) -> tuple[dict[str, Any], str]:
    """Properties of the device that is emulated."""
    if config.backend == "emulator" and config.calibration is not None:
        file = Path(config.calibration)
        return read_document(file), file.stem
    couplers = calibration.complete(max(wires, 2)) if config.backend == "braket_dm" else calibration.square(*_LATTICE)
    made_up = calibration.document(
        couplers,
        native=config.native,
        one_qubit=config.one_qubit_fidelity,
        two_qubit=config.two_qubit_fidelity,
        readout=config.readout_fidelity,
    )
    return made_up, "made-up device"


def _prepared(circuit: Compiled) -> list[Compiled]:
    """Circuits that prepare 0...0 and 1...1 on the same qubits."""
    flips = tuple(qml.RX(math.pi / 2, wires=qubit) for qubit in circuit.measured for _ in range(2))
    return [Compiled((), circuit.measured, circuit.chip), Compiled(flips, circuit.measured, circuit.chip)]


def draw(law: Floats, wires: int, count: int, rng: np.random.Generator) -> Bits:
    """`count` words (count, wires) of a law (2^wires,)."""
    words = rng.choice(len(law), size=count, p=law)
    return ((words[:, None] >> np.arange(wires - 1, -1, -1)) & 1).astype(np.uint8)
