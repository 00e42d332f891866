"""A user's own circuit, `FILE.py:FUNCTION`: found, imported and tried once before anything is trained.

The function has the signature that `qml.qnn.TorchLayer` asks for: an argument `inputs`, one argument a weight, no
defaults and no `*args` or `**kwargs`; it applies gates and returns measurements. A QNode is taken as well.
Importing the file runs it, with all rights of this process: name only files that you trust.
Errors CircuitError, with the user's own error in it
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qfed.errors import CircuitError

# What code under test raises by mistake; anything rarer keeps its own traceback, as a fault of qfed would.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def _faults() -> tuple[type[Exception], ...]:
    from pennylane import exceptions

    return *_FAULTS, exceptions.DeviceError, exceptions.QuantumFunctionError, exceptions.WireError


def load_circuit(reference: str) -> Callable[..., Any]:
    """The quantum function or QNode that `FILE.py:FUNCTION` names. The file's folder is not put on the import path."""
    path, colon, name = reference.rpartition(":")
    file = Path(path)
    if not colon or file.suffix != ".py" or not name.isidentifier():
        raise CircuitError(f"circuit={reference!r}; expected FILE.py:FUNCTION, for example circuits.py:my_circuit")
    if not file.is_file():
        raise CircuitError(f"circuit={reference!r}: there is no file {path}; check model.circuit")
    # One module a path, and never one that is already imported under the same name.
    module_name = f"_qfed_circuit_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise CircuitError(f"circuit={reference!r}: {path} cannot be imported as Python; check model.circuit")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except _faults() as error:
        del sys.modules[module_name]
        raise CircuitError(
            f"circuit={reference!r}: importing {path} fails with {_told(error, reference)}; correct it"
        ) from error
    function = getattr(module, name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known) or 'no functions'}"
        raise CircuitError(f"circuit={reference!r}: {path} has no function {name!r}; {hint}")
    if not callable(function):
        raise CircuitError(
            f"circuit={reference!r}: {name!r} is a {type(function).__name__}, not a function; name a quantum function"
        )
    return function  # type: ignore[no-any-return]


def check(function: Callable[..., Any], shapes: Mapping[str, tuple[int, ...]], wires: int, reference: str) -> int:
    """Try the circuit on zeros and return how many numbers it gives for a record; raises CircuitError."""
    import pennylane as qml

    quantum_function = function.func if isinstance(function, qml.QNode) else function
    _signature(quantum_function, shapes, reference)
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    try:
        tape = _tape(quantum_function, wires, weights)
    except _faults() as error:
        taken = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise CircuitError(
            f"circuit={reference!r} called with inputs ({wires},) and weights {taken} fails with "
            f"{_told(error, reference)}; correct the circuit, model.wires or model.weight_shapes"
        ) from error
    _wires(function, tape.wires.tolist(), wires, reference)
    if not tape.measurements:
        raise CircuitError(
            f"circuit={reference!r} returns no measurement; return for example qml.expval(qml.PauliZ(0))"
        )
    try:
        dimensions = [measurement.shape(None, wires) for measurement in tape.measurements]
    except _faults() as error:
        raise CircuitError(
            f"circuit={reference!r} returns a measurement that is no fixed set of numbers ({_told(error, reference)}); "
            "return expectations or probabilities"
        ) from error
    return sum(int(torch.Size(dimension).numel()) for dimension in dimensions)


def _tape(function: Callable[..., Any], wires: int, weights: Mapping[str, torch.Tensor]) -> Any:
    import pennylane as qml

    try:
        return qml.tape.make_qscript(function)(torch.zeros(wires), **weights)
    except IndexError:  # TorchLayer passes (B, W), and some functions index the batch
        return qml.tape.make_qscript(function)(torch.zeros(1, wires), **weights)


def _wires(function: Callable[..., Any], used: Sequence[Any], wires: int, reference: str) -> None:
    import pennylane as qml

    device = function.device.wires if isinstance(function, qml.QNode) else None
    found = list(used) if device is None else device.tolist()
    if len(found) > wires:
        where = "acts on" if device is None else "has a device of"
        raise CircuitError(
            f"circuit={reference!r} {where} {len(found)} wires, {found}, but model.wires={wires}; "
            f"set model.wires = {len(found)} or use fewer wires"
        )
    if not isinstance(function, qml.QNode) and (foreign := [wire for wire in found if wire not in range(wires)]):
        raise CircuitError(
            f"circuit={reference!r} acts on the wires {foreign}, but model.wires={wires} are 0 to {wires - 1}; number "
            "the wires so"
        )


def _signature(function: Callable[..., Any], shapes: Mapping[str, tuple[int, ...]], reference: str) -> None:
    parameters = inspect.signature(function).parameters
    starred = [name for name, p in parameters.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if starred or "inputs" not in parameters:
        raise CircuitError(
            f"circuit={reference!r} has the signature {inspect.signature(function)}; expected (inputs, "
            f"{', '.join(shapes)}), by name and without * or **, as for qml.qnn.TorchLayer"
        )
    taken = [name for name in parameters if name != "inputs"]
    if set(taken) != set(shapes):
        raise CircuitError(
            f"circuit={reference!r} takes the weights {taken}, but model.weight_shapes gives {sorted(shapes)}; "
            "make the two agree"
        )
    if preset := [name for name in taken if parameters[name].default is not inspect.Parameter.empty]:
        raise CircuitError(
            f"circuit={reference!r} gives the weights {preset} default values; take the defaults away, all are trained"
        )


def _told(error: BaseException, reference: str) -> str:
    """The user's error and, when its traceback passes through the user's file, the line there."""
    file = reference.rpartition(":")[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" (line {frames[-1].lineno})" if frames else ""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}{where}"
