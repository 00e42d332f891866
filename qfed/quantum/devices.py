"""PennyLane devices by configuration: made, with one clear error each, and counted wherever they execute.

Every circuit that a counted device executes is charged (`qfed.quantum.spending`) before it is submitted: those of a
batch together, a broadcast circuit as one a record, and groups of observables that need bases of their own, and the
shifted circuits of a gradient, each for itself, since that is what a processor runs.
A submission goes out as a whole or, past a cap or a limit of time, not at all.
Errors  MissingExtra, ConfigError for a device that cannot be made; SpendingCapReached from the meter, ResourcesRefused
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qfed.config import QuantumConfig
from qfed.errors import ConfigError, MissingExtra
from qfed.quantum.spending import charge
from qfed.quantum.time_limit import part

_EXTRAS = {
    "braket": ("amazon-braket-pennylane-plugin", "rigetti"),
    "qiskit": ("pennylane-qiskit", "ibm"),
    "ionq": ("pennylane-ionq", "ionq"),
}
"""What brings the devices of a family, by the first part of their names."""
SEEDED = ("default.qubit", "default.mixed")
"""Simulators that take a seed for their shots."""


def make_device(settings: QuantumConfig, wires: Sequence[Any] | None, seed: int | None = None) -> Any:
    """The configured device, counted; `seed` makes the shots of PennyLane's own simulators reproducible."""
    import pennylane as qml

    options: dict[str, Any] = dict(settings.options)
    if seed is not None and settings.device in SEEDED:
        options.setdefault("seed", seed)
    family = settings.device.split(".")[0]
    try:
        device = qml.device(settings.device, wires=wires, **options)
    except qml.exceptions.DeviceError as error:
        if "does not exist" not in str(error):
            raise _cannot(settings, error) from error
        if family in _EXTRAS:
            raise MissingExtra(*_EXTRAS[family]) from error
        raise ConfigError(
            f"quantum.device={settings.device!r}: no plugin that is installed here brings it; install the vendor's "
            f"PennyLane plugin beside qfed, or use one of {', '.join(sorted(qml.plugin_devices))}"
        ) from error
    except ImportError as error:
        raise MissingExtra(*_EXTRAS.get(family, (error.name or settings.device, family))) from error
    except Exception as error:  # a vendor's constructor may raise anything
        raise _cannot(settings, error) from error
    return counted(device)


def counted(device: Any) -> Any:
    """The same device, which from now on charges what it executes."""
    execute = device.execute

    def charging(circuits: Any, *args: Any, **kwargs: Any) -> Any:
        batch = circuits if isinstance(circuits, (list, tuple)) else (circuits,)
        runs = [circuit.batch_size or 1 for circuit in batch]
        shots = sum(n * (circuit.shots.total_shots or 0) for n, circuit in zip(runs, batch, strict=True))
        with part("circuits", sum(runs)):
            charge(sum(runs), shots)
            return execute(circuits, *args, **kwargs)

    device.execute = charging
    return device


def _cannot(settings: QuantumConfig, error: Exception) -> ConfigError:
    told = str(error).strip().splitlines()
    given = ", ".join(sorted(settings.options)) or "none"
    return ConfigError(
        f"quantum.device={settings.device!r} cannot be made with the options given ({given}): {type(error).__name__}: "
        f"{told[0] if told else 'no message'}; see the plugin's documentation"
    )
