"""qfed: federated learning of small quantum-classical models, private and encrypted, on Flower.

Everything exported here is loaded when it is first used, so importing qfed is fast and does nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qfed.config import RunConfig, load_config
    from qfed.errors import (
        BudgetExhausted,
        ConfigError,
        DataError,
        PolicyRefused,
        ProtocolError,
        QfedError,
        QuorumLost,
    )
    from qfed.federation.result import RunResult
    from qfed.models import Model, load_model
    from qfed.quantum import QuantumLayer
    from qfed.report import read_result
    from qfed.simulation import simulate

_HOMES = {
    "BudgetExhausted": "qfed.errors",
    "ConfigError": "qfed.errors",
    "DataError": "qfed.errors",
    "Model": "qfed.models",
    "PolicyRefused": "qfed.errors",
    "ProtocolError": "qfed.errors",
    "QfedError": "qfed.errors",
    "QuantumLayer": "qfed.quantum",
    "QuorumLost": "qfed.errors",
    "RunConfig": "qfed.config",
    "RunResult": "qfed.federation.result",
    "load_config": "qfed.config",
    "load_model": "qfed.models",
    "read_result": "qfed.report",
    "simulate": "qfed.simulation",
}

__version__ = "0.1.0"
__all__ = [
    "BudgetExhausted",
    "ConfigError",
    "DataError",
    "Model",
    "PolicyRefused",
    "ProtocolError",
    "QfedError",
    "QuantumLayer",
    "QuorumLost",
    "RunConfig",
    "RunResult",
    "load_config",
    "load_model",
    "read_result",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qfed' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
