"""A PennyLane circuit as a torch layer with per-sample gradients.

    out = QuantumLayer(qnode, weight_shapes)(x)        x (..., D) -> out (..., M)

Takes what `qml.qnn.TorchLayer` takes and returns what it returns (shapes, state_dict names, dtype of x), but
compiles the circuit once and runs it in qfed's own kernel. Weights are ordinary parameters, so functional_call,
torch.func and Opacus (hooks and ghost clipping) see them. A record's NaN stays in that record's result.
Units   angles in radians.      Shapes  as TorchLayer: one expval (...,), a list (..., M), a tuple (M, ..., 1).
Cost    O(B R 2^W) for B records, R rotations, W wires.
Errors  CircuitError for a circuit, weights or init_method that do not fit; ShapeError for inputs.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qfed.config import QuantumConfig
from qfed.errors import CircuitError, ShapeError
from qfed.quantum.compiled import Compiled, compile_circuit
from qfed.quantum.device import DeviceCircuit, why_not_compiled
from qfed.quantum.devices import make_device
from qfed.quantum.explain import explain
from qfed.quantum.gates import Uncompilable
from qfed.quantum.persample import register_with_opacus
from qfed.quantum.trace import Circuit

PerSample = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
InitMethod = Callable[[Tensor], Tensor] | Mapping[str, Any] | None
_COMPUTE = (torch.float32, torch.float64)


class QuantumLayer(nn.Module):
    """Drop-in for `qml.qnn.TorchLayer`; see the module's docstring.

    `qnode` is a QNode or a plain quantum function (then give `wires`, a number or labels). One argument is the
    data, named `inputs` (or `input_name`); the others are weights, with their shapes in `weight_shapes`.
    `init_method` is None (uniform over [0, 2 pi)), a function of torch.nn.init, or a dict with a function or a
    tensor for each weight. `fallback` names the PennyLane device for circuits that cannot be compiled (noise,
    mid-circuit measurement); a QNode with finite shots, transforms or a device other than an exact simulator runs
    on its own device; both are logged. `shots` asks for finite shots.
    """

    def __init__(
        self,
        qnode: Any,
        weight_shapes: Mapping[str, int | Iterable[int]],
        init_method: InitMethod = None,
        *,
        wires: int | Sequence[Any] | None = None,
        input_name: str | None = None,
        fallback: str | None = None,
        shots: int | None = None,
    ) -> None:
        super().__init__()
        self.qnode = qnode
        self.fallback = fallback
        self.shots = shots
        input_name = QuantumLayer._input_arg if input_name is None else input_name
        self.input_arg = input_name
        self.weight_shapes = {name: _shape(name, size) for name, size in weight_shapes.items()}
        function = qnode.func if hasattr(qnode, "func") else qnode
        _check_signature(function, input_name, self.weight_shapes)
        self._circuit = Circuit(function, input_name, _wires(qnode, wires))
        self._runners: dict[int, Compiled | DeviceCircuit] = {}
        self._asked: tuple[QuantumConfig, int] | None = None
        for name, shape in self.weight_shapes.items():
            self.register_parameter(name, nn.Parameter(_initial(name, shape, init_method)))
        register_with_opacus(type(self))

    _input_arg = "inputs"

    @staticmethod
    def set_input_argument(input_name: str = "inputs") -> None:
        """Name of the data's argument in layers built from now on without `input_name`, as TorchLayer's method."""
        QuantumLayer._input_arg = input_name

    @property
    def qnode_weights(self) -> dict[str, Tensor]:
        """The weights by name; the parameters as they are now, so that torch.func and Opacus can swap them."""
        return {name: getattr(self, name) for name in self.weight_shapes}

    def __getattr__(self, name: str) -> Any:
        """What is no attribute of the layer is one of its QNode, as with TorchLayer: device, interface, func, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            qnode = self.__dict__.get("qnode")
            # A plain function lends nothing: its attributes are Python's, and deepcopy and pickle ask for those.
            if qnode is None or not hasattr(qnode, "construct") or name.startswith("__") or name == "construct":
                raise
            return getattr(qnode, name)

    def forward(self, inputs: Tensor) -> Tensor:
        """x (..., D) -> as TorchLayer; x (D,) is one record."""
        register_with_opacus(type(self))
        _refuse_recording()
        x = self.checked(inputs)
        runner = self.runner(x.shape[-1])
        rows = runner(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), self.flat_weights(x))
        return runner.layout(x.shape[-1]).shape(rows, x.shape[:-1]).to(inputs.dtype)

    def runner(self, features: int) -> Compiled | DeviceCircuit:
        """What runs records of `features` numbers: the compiled circuit, or the device it falls back to."""
        found = self._runners.get(features)
        if found is None:
            found = self._runners[features] = self._make_runner(features)
        return found

    def _make_runner(self, features: int) -> Compiled | DeviceCircuit:
        if self._asked is not None:
            return self._configured(*self._asked, features)
        reason = why_not_compiled(self.qnode, self.shots)
        if reason is None:
            try:
                return compile_circuit(self._circuit, features, self.weight_shapes)
            except Uncompilable as error:
                if self.fallback is None:
                    raise
                reason = str(error)
        own = getattr(self.qnode, "device", None)
        if self.fallback is None and own is None:
            raise CircuitError(f"this circuit needs a device ({reason}); name one: fallback='default.qubit'")
        device: Any = own
        if self.fallback is not None:
            import pennylane as qml

            device = qml.device(self.fallback, wires=self._circuit.wires)
        keep = self.qnode if self.fallback is None else None
        return DeviceCircuit(self._circuit.func, device, self.input_arg, self.weight_shapes, reason, self.shots, keep)

    def run_on(self, settings: QuantumConfig, seed: int) -> None:
        """From now on run on the configured device, even what the kernel could run (`quantum.device`).

        `seed` makes the shots of PennyLane's own simulators reproducible. The device is made now, so that one that
        cannot be is refused here; the kernel comes back with device "qfed".
        """
        self._asked = None if settings.on_kernel else (settings, seed)
        features = self.compiled_for
        self._runners = {}
        for each in features:
            self.runner(each)

    def _configured(self, settings: QuantumConfig, seed: int, features: int) -> DeviceCircuit:
        device = make_device(settings, self._circuit.wires, seed)
        reason = f"quantum.device={settings.device!r}"
        keep = self.qnode.update(device=device) if hasattr(self.qnode, "construct") else None
        made = DeviceCircuit(
            self._circuit.func, device, self.input_arg, self.weight_shapes, reason, settings.shots, keep, settings
        )
        with contextlib.suppress(Uncompilable):  # what it returns is known then, and no record is run to find out
            made.take_layout(compile_circuit(self._circuit, features, self.weight_shapes).layout(features))
        return made

    def per_sample(self, inputs: Tensor) -> tuple[Tensor, PerSample]:
        """x (B, D) -> the layer's result, and the function dL/dresult -> (dL/dx (B, D), {weight: (B, *shape)}).

        Per-sample gradients without autograd, hooks or functorch: the fast path for a model that does its own
        backward pass. The result carries no graph.
        """
        if inputs.dim() != 2:
            raise ShapeError(f"per_sample takes inputs of shape (B, D), got inputs of shape={tuple(inputs.shape)}")
        x = self.checked(inputs)
        features = x.shape[1]
        runner = self.runner(features)
        layout = runner.layout(features)
        rows, pull = runner.per_sample(x.detach() if x.requires_grad else x, self.flat_weights(x, detached=True))

        def gradients(grad_output: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            cotangent = layout.rows(grad_output.detach() if grad_output.requires_grad else grad_output)
            of_inputs, of_weights = pull(cotangent if cotangent.dtype == x.dtype else cotangent.to(x.dtype))
            return of_inputs, self.split_records(of_weights)

        result = layout.shape(rows, x.shape[:1])
        return result if result.dtype == inputs.dtype else result.to(inputs.dtype), gradients

    @property
    def compiled_for(self) -> tuple[int, ...]:
        """Numbers of features that this layer has run or been compiled for."""
        return tuple(self._runners)

    @property
    def wires(self) -> tuple[Any, ...] | None:
        """Labels of the wires, None where the device leaves them to the circuit."""
        return self._circuit.wires

    def split_records(self, flat: Tensor) -> dict[str, Tensor]:
        """(B, P) -> (B, *shape) for each weight."""
        if len(self.weight_shapes) == 1:
            return {name: flat.reshape(flat.shape[0], *shape) for name, shape in self.weight_shapes.items()}
        parts = torch.split_with_sizes(flat, [math.prod(s) for s in self.weight_shapes.values()], dim=1)
        return {
            name: part.reshape(flat.shape[0], *shape)
            for (name, shape), part in zip(self.weight_shapes.items(), parts, strict=True)
        }

    def explain(self, features: int) -> str:
        """What runs records of `features` numbers, what it costs, and what fell back and why."""
        return explain(self.runner(features))

    def flat_weights(self, like: Tensor, *, detached: bool = False) -> Tensor:
        """All weights, one after the other, in the dtype and on the device of `like`."""
        weights = [getattr(self, name) for name in self.weight_shapes]
        parts = [(w.detach() if detached else w).reshape(-1) for w in weights]
        if not parts:
            return like.new_zeros(0)
        flat = parts[0] if len(parts) == 1 else torch.cat(parts)
        alike = flat.dtype == like.dtype and (flat.is_cpu if like.is_cpu else flat.device == like.device)
        return flat if alike else flat.to(like)

    def checked(self, inputs: Tensor) -> Tensor:
        """Inputs in the dtype the kernel computes in."""
        if not isinstance(inputs, Tensor) or inputs.dim() == 0 or not inputs.is_floating_point():
            what = f"shape={tuple(inputs.shape)}, dtype={inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs)
            raise ShapeError(f"QuantumLayer takes a floating-point tensor of shape (..., D), got inputs of {what}")
        return inputs if inputs.dtype in _COMPUTE else inputs.float()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runners": {}}  # cheap to make again, and may hold a torch graph

    def extra_repr(self) -> str:
        name = getattr(self._circuit.func, "__name__", type(self._circuit.func).__name__)
        return f"{name}, " + ", ".join(f"{k}={v}" for k, v in self.weight_shapes.items())


def _refuse_recording() -> None:
    pennylane = sys.modules.get("pennylane")
    # Compiling records in a thread of its own, which would wait for this recording for ever.
    if pennylane is not None and pennylane.QueuingManager.recording():
        raise CircuitError(
            "a QuantumLayer was called while PennyLane records a circuit, as in qml.draw(layer); give PennyLane what "
            "the layer was built from: qml.draw(layer.qnode)(inputs, **layer.qnode_weights)"
        )


def _shape(name: str, size: int | Iterable[int]) -> tuple[int, ...]:
    """TorchLayer's rule: an int n is (n,), and 1 is a scalar."""
    try:
        if isinstance(size, Iterable):
            shape = tuple(operator.index(n) for n in size)  # NumPy's integers as well
        else:
            shape = () if size == 1 else (operator.index(size),)
    except TypeError:
        shape = (0,)
    if any(n < 1 for n in shape):
        raise CircuitError(f"a weight shape is a tuple of positive integers, got weight_shapes[{name!r}]={size!r}")
    return shape


def _check_signature(function: Any, input_name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if not callable(function):
        raise CircuitError(f"QuantumLayer takes a QNode or a quantum function, got qnode={type(function).__name__}")
    parameters = inspect.signature(function).parameters
    kinds = {p.kind for p in parameters.values()}
    if input_name not in parameters:
        raise CircuitError(
            f"the circuit must take its data in an argument named {input_name!r}, got arguments={list(parameters)}; "
            "rename it or give input_name="
        )
    if input_name in shapes:
        raise CircuitError(f"weight_shapes holds weights only, got the input {input_name!r} in it; take it out")
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise CircuitError("the circuit must name its arguments, got *args; write one argument a weight")
    required = {n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    missing = sorted(required - set(shapes) - {input_name})
    unknown = [] if inspect.Parameter.VAR_KEYWORD in kinds else sorted(set(shapes) - set(parameters))
    if missing or unknown:
        raise CircuitError(
            "weight_shapes must name every argument of the circuit but the input, got "
            f"weight_shapes={dict(shapes)}; missing: {missing}, not an argument: {unknown}"
        )


def _wires(qnode: Any, wires: int | Sequence[Any] | None) -> Sequence[Any] | None:
    if wires is not None:
        return range(wires) if isinstance(wires, int) else list(wires)
    device = getattr(qnode, "device", None)
    if device is None:
        raise CircuitError("a plain quantum function needs its wires: QuantumLayer(function, shapes, wires=4)")
    return None if device.wires is None else list(device.wires)


def _initial(name: str, shape: tuple[int, ...], method: InitMethod) -> Tensor:
    chosen: Any = method
    if isinstance(method, Mapping):
        if name not in method:
            raise CircuitError(f"init_method needs an entry for each weight, got keys={list(method)}, not {name!r}")
        chosen = method[name]
    if isinstance(chosen, Tensor):
        if tuple(chosen.shape) != shape:
            raise CircuitError(f"init_method[{name!r}] must have shape {shape}, got shape={tuple(chosen.shape)}")
        return chosen.detach().clone()
    empty = torch.empty(shape or (1,))
    filled = nn.init.uniform_(empty, b=2 * math.pi) if chosen is None else chosen(empty)
    value: Tensor = filled.detach()
    return value if shape else value[0]
