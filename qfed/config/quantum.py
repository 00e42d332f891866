"""Where circuits run: in qfed's own kernel, or on a PennyLane device, and what may be spent there."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qfed.config.section import Count, Flag, Number, Positive, Section

KERNEL = "qfed"
LOCAL = (
    KERNEL, "default.*", "reference.qubit", "null.qubit", "lightning.*", "braket.local.*", "qiskit.aer",
    "qiskit.basicsim", "cirq.simulator", "cirq.mixedsimulator", "cirq.qsim", "cirq.qsimh", "qrack.simulator",
)  # fmt: skip
"""Devices that simulate on this very machine; every other one is taken for somebody else's computer."""
FAR = ("braket.aws.*", "ionq.*", "qiskit.remote", "aqt.*", "honeywell.*", "quantinuum.*", "rigetti.qpu")
"""Devices known to send circuits away: no setting makes them local."""
NOISY = "default.mixed"
SECRET_KEY = re.compile(r"token|secret|passw|api_?key|apikey|credential|access_?key|private_?key|authori|bearer", re.I)

Rate = Annotated[Number, Field(ge=0, le=1)]


class NoiseConfig(Section):
    """Noise of a simulated device, for training circuits that will run on a noisy one (device "default.mixed")."""

    depolarizing: Rate = 0.0
    """Probability of a depolarising error on each wire of a gate after the gate, gates being RX, RY, RZ, CNOT, CZ and
    what else does not decompose into them."""
    amplitude_damping: Rate = 0.0
    """Probability of decay from |1> to |0> on each wire of a gate after the gate."""
    readout_error: Rate = 0.0
    """Probability that a measured bit is read as the other one."""

    @property
    def in_gates(self) -> bool:
        """Whether gates are noisy."""
        return self.depolarizing > 0 or self.amplitude_damping > 0

    @property
    def any(self) -> bool:
        """Whether anything is noisy."""
        return self.in_gates or self.readout_error > 0


class QuantumConfig(Section):
    """Where the circuit runs; with the default none of the other fields is needed."""

    device: str = KERNEL
    """"qfed" is the compiled kernel (exact, fast, on this machine); or any PennyLane device by its name: default.qubit,
    default.mixed, lightning.qubit, braket.local.qubit, braket.aws.qubit, qiskit.aer, ionq.simulator, ..."""
    shots: Count | None = None
    """Repetitions of each circuit; leave out for exact expectations, which simulators alone have."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """What else the device takes, e.g. {device_arn = "...", backend = "..."}. Never tokens or keys: those are read by
    the vendor's own library from its environment variables or files at each site."""
    noise: NoiseConfig = NoiseConfig()
    scores: Literal["exact", "device"] = "exact"
    """Where held-out records are scored: "exact" by the kernel, as a perfect device would (no shots spent); "device" as
    it trains, every round, with its noise and at its price."""
    remote: Flag | None = None
    """Whether the device is somebody else's computer; known for the usual names, and yes for every other. Say false for
    a plugin that simulates on this machine (each site must say so too: policy.local_devices)."""
    trust_provider: Flag = False
    """Allow a remote device in training. It gets circuits with encoded records in their angles, one a record, which
    differential privacy does not cover; each site must allow it too (policy.trust_provider)."""
    most_shots: Count | None = None
    """Most shots of a run at a site (a simulation: of all sites together); it stops before they are passed."""
    most_price: Positive | None = None
    """Most money of a run, likewise, by the price table."""
    prices: str | None = None
    """A price table of your own (TOML, first copy: qfed config prices); the one that comes with qfed if left out."""

    @property
    def on_kernel(self) -> bool:
        """Whether no PennyLane device is involved."""
        return self.device == KERNEL

    @property
    def is_local(self) -> bool:
        """Whether the device is known to simulate on this machine."""
        return any(fnmatchcase(self.device, name) for name in LOCAL)

    @property
    def is_remote(self) -> bool:
        """Whether circuits leave this machine, as far as the name and `remote` tell."""
        return bool(self.remote) or (self.remote is None and not self.is_local)

    @property
    def target(self) -> str:
        """The processor behind the device, as its options name it; empty for none."""
        named = (self.options.get(key) for key in ("device_arn", "backend", "solver", "device"))
        return next((str(name) for name in named if name is not None), "")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if secret := sorted(key for key in self.options if SECRET_KEY.search(key)):
            raise ValueError(
                f"options {secret} look like a secret, and a configuration is read by everybody in the federation; "
                "leave them out: the vendor's library finds them in its environment variables or its own file"
            )
        if reserved := sorted({"shots", "wires"} & set(self.options)):
            raise ValueError(f"options {reserved} are set by quantum.shots and model.wires; leave them out")
        if self.on_kernel:
            self._fits_kernel()
        if self.noise.any and self.device != NOISY:
            raise ValueError(
                f"noise is simulated by density matrices, got device={self.device!r}; use device = {NOISY!r} (a "
                "vendor's own noise model goes through its device and options)"
            )
        if self.remote is False and any(fnmatchcase(self.device, name) for name in FAR):
            raise ValueError(f"device={self.device!r} sends circuits to its provider, so remote = false is not true")
        if self.is_remote and self.shots is None:
            raise ValueError(
                f"device={self.device!r} is remote and measures shots, exact expectations exist on simulators only; "
                "set quantum.shots"
            )
        if self.most_shots is not None and self.shots is None:
            raise ValueError("most_shots counts shots, and this run has none; set quantum.shots")
        return self

    def _fits_kernel(self) -> None:
        for name, given in (("shots", self.shots), ("options", self.options or None)):
            if given is not None:
                raise ValueError(
                    f'{name}={given!r}, but device = "{KERNEL}" computes exact expectations and takes none; name a '
                    'PennyLane device, for example device = "default.qubit"'
                )
        if self.remote:
            raise ValueError(f'device = "{KERNEL}" runs on this machine, so remote = true is not true')
