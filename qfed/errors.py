"""Everything qfed raises on purpose, and whose fault it is.

    QfedError
    |-- ConfigError            yours: a configuration value, a file, an argument   (exit status 2)
    |   |-- DataError          yours: a table that does not fit its schema
    |   |-- ShapeError         yours: a tensor of the wrong shape
    |   |-- CircuitError       yours: a circuit that cannot be compiled or run as asked
    |   `-- MissingExtra       yours: a part of qfed that is not installed
    |-- PolicyRefused          this site's own policy says no
    |   |-- BudgetExhausted    ... because the privacy budget would be exceeded     (exit status 2)
    |   |-- KindRefused        ... this kind of run
    |   |-- ModeRefused        ... this privacy mode, or none
    |   |-- UnitRefused        ... what is protected: records, sites
    |   |-- EpsilonRefused     ... too large an epsilon
    |   |-- DeltaRefused       ... too large a delta
    |   |-- NoiseRefused       ... too little noise
    |   |-- CohortRefused      ... a sum over too few sites
    |   |-- RoundsRefused      ... too many rounds
    |   |-- ClearRefused       ... updates in clear
    |   |-- TermsRefused       ... other terms than those of the federation file
    |   |-- CodeRefused        ... code of somebody else
    |   `-- ProviderRefused    ... records, encoded, to a quantum provider
    |-- SpendingCapReached     the next circuits would cost more than was allowed   (exit status 2)
    |-- ProtocolError
    |   |-- LocalProtocolError yours: a call out of order
    |   `-- RemoteProtocolError  the other side's: a message that must not be accepted
    |-- LinkError              the way from a site to the aggregator
    |   |-- Unreachable        no connection, or one that broke off; worth trying again
    |   |-- CertificateRefused the aggregator's certificate is not one that this site accepts
    |   |-- NotAdmitted        the aggregator does not let this site in
    |   |   `-- TwoAgents      ... because two agents speak for it at once
    |   `-- RunOver            the run that a message belongs to has ended
    |-- QuorumLost             too few sites answered a round
    `-- StateError             durable state is missing, corrupt or rolled back
        `-- RolledBack         a ledger older than the one that was countersigned

A message says what was expected, what came (`name=value`) and what to do; it never holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

_MODULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "client": ("torch", "pennylane", "numba", "opacus", "dp_accounting", "scipy", "sklearn", "pyarrow", "tomlkit"),
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "server": ("jinja2", "matplotlib"),
        "sim": ("ray",),
        "dwave": ("dimod", "dwave", "minorminer"),
        "rigetti": ("braket",),
        "rigetti-qcs": ("pyquil",),
        "ibm": ("pennylane_qiskit", "qiskit", "qiskit_aer"),
        "ionq": ("pennylane_ionq",),
    }
)
"""The extra of pyproject.toml that brings each module which qfed imports."""


class QfedError(Exception):
    """Base of all errors that qfed raises on purpose; `exit_status` is what the command line returns."""

    exit_status = 1


class ConfigError(QfedError):
    """A configuration value, file or argument that cannot be used as it is."""

    exit_status = 2


class DataError(ConfigError):
    """A table that does not fit its schema: missing columns, strings where numbers belong, no rows."""


class ShapeError(ConfigError):
    """A tensor whose shape is not what the callee takes."""


class CircuitError(ConfigError):
    """A circuit that cannot be compiled, or does not fit its weights, wires or memory."""


class MissingExtra(ConfigError):
    """A part of qfed that is not installed here."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'qfed[{extra}]'")

    @classmethod
    def of(cls, error: ModuleNotFoundError) -> Self | None:
        """What to say of a failed import; None where the module belongs to no extra."""
        missing = (error.name or "").split(".")[0]
        extra = next((extra for extra, modules in _MODULES.items() if missing in modules), None)
        return None if extra is None else cls(missing, extra)


class PolicyRefused(QfedError):
    """This site's own policy refuses what was asked."""


class BudgetExhausted(PolicyRefused):
    """The event would take the data set past its privacy budget; nothing was read or released."""

    exit_status = 2


class KindRefused(PolicyRefused):
    """The run is of a kind that this site does not take part in."""


class ModeRefused(PolicyRefused):
    """The run's privacy mode is not one that this site allows."""


class UnitRefused(PolicyRefused):
    """The run protects another unit than this site asks for."""


class EpsilonRefused(PolicyRefused):
    """The run asks for a larger epsilon than this site allows."""


class DeltaRefused(PolicyRefused):
    """The run asks for a larger delta than this site allows."""


class NoiseRefused(PolicyRefused):
    """The run adds less noise than this site asks for."""


class CohortRefused(PolicyRefused):
    """The run opens sums over fewer sites than this site asks for."""


class RoundsRefused(PolicyRefused):
    """The run has more rounds than this site allows."""


class ClearRefused(PolicyRefused):
    """The run would send this site's update in clear."""


class TermsRefused(PolicyRefused):
    """The run's secure aggregation has other terms than the federation file that this site holds."""


class CodeRefused(PolicyRefused):
    """The run would execute code that this site does not allow."""


class ProviderRefused(PolicyRefused):
    """The run would send this site's encoded records to a quantum provider that its policy does not trust."""


class SpendingCapReached(QfedError):
    """The next circuits would pass a cap on shots or money; they were not submitted."""

    exit_status = 2


class ModelRefused(PolicyRefused):
    """The run trains a model, or one of a size, that this site does not allow."""


class ResourcesRefused(PolicyRefused):
    """The run needs more wires or seconds than this site gives."""


class ScheduleRefused(PolicyRefused):
    """This site does not work for runs at this time; ask again inside its hours."""


class ProtocolError(QfedError):
    """A step of the secure-aggregation protocol that must not happen."""


class LocalProtocolError(ProtocolError):
    """This side called a step out of order or with values that may not be sent."""


class RemoteProtocolError(ProtocolError):
    """The other side sent a message that must not be accepted."""


class LinkError(QfedError):
    """The way from this site to the aggregator is not open."""


class Unreachable(LinkError):
    """No connection to the aggregator, or one that broke off."""


class CertificateRefused(LinkError):
    """The aggregator showed a certificate that this site does not accept; nothing was sent."""


class NotAdmitted(LinkError):
    """The aggregator does not let this site in: unknown key, wrong clock, or still connected."""


class TwoAgents(NotAdmitted):
    """Two agents with this site's keys are alive: its folder was copied, and neither is served."""


class RunOver(LinkError):
    """The run that a message belongs to has ended; the message is of no use any more."""


class QuorumLost(QfedError):
    """Fewer sites than the quorum answered a round; the model of the last good round is kept."""


class StateError(QfedError):
    """Durable state (keys, labels, ledger) is missing, corrupt or older than what was already used."""


class RolledBack(StateError):
    """A privacy ledger that is older than the one that the aggregator countersigned; nothing was read."""
