"""Which operation stands for which node of a traced graph.

Errors  Unknown for a node that has none, or settings that it does not cover
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from qfed.privacy.gradients import pointwise
from qfed.privacy.gradients.affine import Convolution, Linear
from qfed.privacy.gradients.chain import Operation
from qfed.privacy.gradients.circuit import Circuit
from qfed.privacy.gradients.normalise import Normalise
from qfed.privacy.gradients.shape import Index, Join, Pad, Permute, Pool, Reduce, Reshape
from qfed.quantum.compiled import Compiled
from qfed.quantum.layer import QuantumLayer

Node = Any
"""An fx.Node, whose arguments are anything at all; its meta holds the "example" value and the axis of the "batch"."""
Made = tuple[Operation, list[Node]]
"""An operation and the nodes that it takes."""


class Unknown(Exception):
    """The reason why a model is no chain."""


# ---- modules ---------------------------------------------------------------------------------------------------------


def _linear(m: nn.Linear, node: Node, used: tuple[int, ...], trained: tuple[bool, ...]) -> Operation:
    flags = (*trained, False)
    return Linear(_chosen(used, trained), m.bias is not None, flags[0], flags[1])


def _convolution(m: Any, node: Node, used: tuple[int, ...], trained: tuple[bool, ...]) -> Operation:
    if m.padding_mode != "zeros" or _example(node).dim() != len(m.kernel_size) + 2:
        raise Unknown(f"{type(m).__name__} with padding_mode={m.padding_mode!r}, or on input without a batch")
    if m.padding == "valid":
        padding = [(0, 0)] * len(m.kernel_size)
    elif m.padding == "same":
        whole = [d * (k - 1) for k, d in zip(m.kernel_size, m.dilation, strict=True)]
        padding = [(w // 2, w - w // 2) for w in whole]
    else:
        padding = [(p, p) for p in m.padding]
    flags = (*trained, False)
    return Convolution(
        _chosen(used, trained), m.bias is not None, flags[0], flags[1],
        tuple(m.kernel_size), tuple(m.stride), tuple(m.dilation), tuple(padding), m.groups,
    )  # fmt: skip


def _layer_norm(m: nn.LayerNorm, node: Node, used: tuple[int, ...], trained: tuple[bool, ...]) -> Operation:
    shape = _input(node).shape[1:]
    if len(shape) < len(m.normalized_shape):
        raise Unknown("LayerNorm over the batch")
    rows = math.prod(shape[: len(shape) - len(m.normalized_shape)])
    flags = (*trained, False, False)
    return Normalise(
        rows, m.eps, m.weight is not None, m.bias is not None, False, _chosen(used, trained), (flags[0], flags[1])
    )


def _group_norm(m: nn.GroupNorm, node: Node, used: tuple[int, ...], trained: tuple[bool, ...]) -> Operation:
    flags = (*trained, False, False)
    return Normalise(m.num_groups, m.eps, m.affine, m.affine, True, _chosen(used, trained), (flags[0], flags[1]))


def _quantum(m: QuantumLayer, node: Node, used: tuple[int, ...], trained: tuple[bool, ...]) -> Operation:
    circuit, x, out = compiled_circuit(m, _input(node)), _input(node), _example(node)
    shape = tuple(out.shape[1:])
    if node.meta["batch"] == 1:
        if x.dim() != 2:
            raise Unknown("a circuit that returns a tuple, on input with more than two axes")
        shape = (out.shape[0], *out.shape[2:])
    columns, start = [], 0
    for size, train in zip((math.prod(s) for s in m.weight_shapes.values()), trained, strict=True):
        if train:
            columns.append((start, start + size))
        start += size
    return Circuit(circuit, shape, tuple(columns), _chosen(used, trained))


def _pool(m: Any, node: Node, *_: Any) -> Operation:
    largest = isinstance(m, (nn.MaxPool1d, nn.MaxPool2d))
    n = 1 if isinstance(m, (nn.MaxPool1d, nn.AvgPool1d)) else 2
    if largest and (m.return_indices or _tuple(m.dilation, n) != (1,) * n):
        raise Unknown("pooling with dilation or indices")
    if not largest and getattr(m, "divisor_override", None) is not None:
        raise Unknown("pooling with divisor_override")
    return _pooled(_input(node), m.kernel_size, m.stride, m.padding, m.ceil_mode, n, largest=largest)


def _pooled(x: Tensor, kernel: Any, stride: Any, padding: Any, ceil: bool, n: int, *, largest: bool) -> Operation:
    if ceil or any(_tuple(padding, n)) or x.dim() != n + 2:
        raise Unknown("pooling with padding, ceil_mode or on input without a batch")
    kernel = _tuple(kernel, n)
    return Pool(kernel, kernel if stride in (None, (), []) else _tuple(stride, n), largest)


def _adaptive(m: Any, node: Node, *_: Any) -> Operation:
    sizes = _input(node).shape[2:]
    targets = [s if t is None else t for s, t in zip(sizes, _tuple(m.output_size, len(sizes)), strict=True)]
    if _input(node).dim() != _example(node).dim() or any(s % t for s, t in zip(sizes, targets, strict=True)):
        raise Unknown("adaptive pooling to a size that does not divide its input's")
    kernel = tuple(s // t for s, t in zip(sizes, targets, strict=True))
    return Pool(kernel, kernel, largest=False)


def _activation(function: pointwise.Pair) -> Callable[..., Operation]:
    return lambda *_: pointwise.Activation(function)


MODULES: dict[type[nn.Module], Callable[..., Operation]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    QuantumLayer: _quantum,
    nn.MaxPool1d: _pool,
    nn.MaxPool2d: _pool,
    nn.AvgPool1d: _pool,
    nn.AvgPool2d: _pool,
    nn.AdaptiveAvgPool1d: _adaptive,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Tanh: _activation(pointwise.tanh),
    nn.ReLU: _activation(pointwise.relu),
    nn.Sigmoid: _activation(pointwise.sigmoid),
    nn.SiLU: _activation(pointwise.silu),
    nn.GELU: lambda m, *_: pointwise.Activation(pointwise.gelu_tanh if m.approximate == "tanh" else pointwise.gelu),
    nn.LeakyReLU: lambda m, *_: pointwise.Activation(pointwise.leaky_relu(m.negative_slope)),
    nn.ELU: lambda m, *_: pointwise.Activation(pointwise.elu(m.alpha)),
    nn.Identity: lambda *_: pointwise.Scale(1.0),
    nn.Flatten: lambda m, node, *_: _reshape(node)[0],
    nn.Unflatten: lambda m, node, *_: _reshape(node)[0],
}


# ---- functions and methods -------------------------------------------------------------------------------------------


def _reshape(node: Node) -> Made:
    before, after = _input(node), _example(node)
    if node.args[0].meta["batch"] != 0 or after.dim() < 1 or before.shape[0] != after.shape[0]:
        raise Unknown(f"{node.name} reshapes the batch")
    return Reshape(tuple(after.shape[1:])), [node.args[0]]


def moved(node: Node) -> tuple[Operation, int]:
    """permute, transpose, movedim: the operation, and which axis of its result is the batch."""
    given = node.args[0]
    x, batch = given.meta["example"], given.meta["batch"]
    axes = torch.arange(x.dim())
    # which axis goes where: the same call on a tensor whose sizes tell its axes
    marked = torch.empty([int(a) + 2 for a in axes], device="meta")
    args, kwargs = node.args[1:], node.kwargs
    if node.op == "call_method":
        result = getattr(marked, str(node.target))(*args, **kwargs)
    else:
        result = node.target(marked, *args, **kwargs)
    order = [size - 2 for size in result.shape]
    inner = [batch, *(a for a in range(x.dim()) if a != batch)]  # how the value lies here
    batch_after = order.index(batch)
    wanted = [batch, *(a for a in order if a != batch)]
    return Permute((0, *(1 + inner.index(a) for a in wanted))), batch_after


def _move(node: Node) -> Made:
    return moved(node)[0], [node.args[0]]


def _getitem(node: Node) -> Made:
    source, key = node.args
    x = source.meta["example"]
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(p is None for p in parts) or sum(p is Ellipsis for p in parts) > 1:
        raise Unknown(f"{node.name} indexes with None")
    at = next((i for i, p in enumerate(parts) if p is Ellipsis), len(parts))
    fill = [slice(None)] * (x.dim() - len([p for p in parts if p is not Ellipsis]))
    parts = [*parts[:at], *fill, *parts[at + 1 :]]
    if source.meta["batch"] != 0 or parts[0] != slice(None):
        raise Unknown(f"{node.name} picks records")
    arrays = 0
    found: list[Any] = []
    for part in parts[1:]:
        value = part.meta["example"] if isinstance(part, fx.Node) else part
        if isinstance(value, (Tensor, list)):
            indices = torch.as_tensor(value)
            if indices.dtype != torch.int64 or indices.dim() != 1:
                raise Unknown(f"{node.name} indexes with a mask or a table")
            value, arrays = indices.numpy(), arrays + 1
        elif isinstance(value, slice):
            if any(isinstance(v, fx.Node) for v in (value.start, value.stop, value.step)):
                raise Unknown(f"{node.name} slices by the number of records")
        elif not isinstance(value, int):
            raise Unknown(f"{node.name} indexes with {type(value).__name__}")
        found.append(value)
    if arrays > 1 or (arrays and any(isinstance(v, int) for v in found)):
        raise Unknown(f"{node.name} indexes with several arrays")
    return Index(tuple(found), arrays > 0), [source]


def _pad(node: Node) -> Made:
    given = _bound(node, input=None, pad=None, mode="constant", value=None)
    x = given["input"].meta["example"]
    widths = list(given["pad"])
    if given["mode"] != "constant" or len(widths) > 2 * (x.dim() - 1) or not all(isinstance(w, int) for w in widths):
        raise Unknown(f"{node.name} pads the batch, or with mode={given['mode']!r}")
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (x.dim() - 1 - len(pairs)) + pairs
    return Pad(tuple(pairs), float(given["value"] or 0.0)), [given["input"]]


def _join(node: Node, *, new: bool) -> Made:
    given = _bound(node, tensors=None, dim=0)
    parts = list(given["tensors"])
    axis = given["dim"] % _example(node).dim()
    if axis == 0:
        raise Unknown(f"{node.name} joins batches")
    return Join(axis + 1, new), parts


def _reduce(node: Node, *, mean: bool) -> Made:
    given = _bound(node, input=None, dim=None, keepdim=False, dtype=None)
    x = given["input"].meta["example"]
    dims = [given["dim"]] if isinstance(given["dim"], int) else list(given["dim"] or ())
    axes = sorted(d % x.dim() for d in dims)
    if not axes or 0 in axes or given["dtype"] is not None:
        raise Unknown(f"{node.name} runs over the batch")
    return Reduce(tuple(a + 1 for a in axes), bool(given["keepdim"]), mean), [given["input"]]


def _arithmetic(node: Node, kind: str) -> Made:
    if node.kwargs or len(node.args) != 2:
        raise Unknown(f"{node.name} with more than two operands")
    a, b = (_number(v) for v in node.args)
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        shapes = {tuple(v.meta["example"].shape) for v in (a, b)}
        if len(shapes) > 1 or kind == "div":
            raise Unknown(f"{node.name} broadcasts, or divides by a value")
        return (pointwise.Product() if kind == "mul" else pointwise.Sum(1.0 if kind == "add" else -1.0)), [a, b]
    if isinstance(a, fx.Node):
        number = float(b)
        made = {"add": (1.0, number), "sub": (1.0, -number), "mul": (number, 0.0)}
        factor, offset = made[kind] if kind != "div" else (1 / number, 0.0)
        return pointwise.Scale(factor, offset), [a]
    if kind == "div":
        raise Unknown(f"{node.name} divides by a value")
    number = float(a)
    factor, offset = {"add": (1.0, number), "sub": (-1.0, number), "mul": (number, 0.0)}[kind]
    return pointwise.Scale(factor, offset), [b]


def _number(value: Any) -> Any:
    """A tensor of one number, or a number, as a number; a value of the chain as it is."""
    if isinstance(value, fx.Node):
        if value.meta["batch"] is None:
            constant = value.meta["example"]
            if constant.numel() != 1 or constant.dim() > 0:
                raise Unknown("arithmetic with a tensor of constants")
            return float(constant)
        if not isinstance(value.meta["example"], Tensor):
            raise Unknown("arithmetic with the number of records")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unknown(f"arithmetic with {type(value).__name__}")
    return float(value)


def _pointwise(node: Node, function: pointwise.Pair) -> Made:
    if len(node.args) != 1 or any(node.kwargs.values()):
        raise Unknown(f"{node.name} with settings")
    return pointwise.Activation(function), [node.args[0]]


def _gelu(node: Node) -> Made:
    kind = _bound(node, input=None, approximate="none")["approximate"]
    return pointwise.Activation(pointwise.gelu_tanh if kind == "tanh" else pointwise.gelu), [node.args[0]]


def _leaky(node: Node) -> Made:
    given = _bound(node, input=None, negative_slope=0.01, inplace=False)
    return pointwise.Activation(pointwise.leaky_relu(given["negative_slope"])), [node.args[0]]


def _elu(node: Node) -> Made:
    given = _bound(node, input=None, alpha=1.0, inplace=False)
    return pointwise.Activation(pointwise.elu(given["alpha"])), [node.args[0]]


def _functional_pool(node: Node, *, n: int, largest: bool) -> Made:
    more = {"dilation": 1, "ceil_mode": False, "return_indices": False} if largest else {"ceil_mode": False}
    given = _bound(node, input=None, kernel_size=None, stride=None, padding=0, **more)
    if given.get("return_indices") or _tuple(given.get("dilation", 1), n) != (1,) * n:
        raise Unknown("pooling with dilation or indices")
    x = given["input"].meta["example"]
    made = _pooled(x, given["kernel_size"], given["stride"], given["padding"], given["ceil_mode"], n, largest=largest)
    return made, [given["input"]]


NAMES: dict[str, Callable[[Node], Made]] = {
    "tanh": partial(_pointwise, function=pointwise.tanh),
    "relu": partial(_pointwise, function=pointwise.relu),
    "sigmoid": partial(_pointwise, function=pointwise.sigmoid),
    "silu": partial(_pointwise, function=pointwise.silu),
    "gelu": _gelu,
    "leaky_relu": _leaky,
    "elu": _elu,
    "add": partial(_arithmetic, kind="add"),
    "sub": partial(_arithmetic, kind="sub"),
    "mul": partial(_arithmetic, kind="mul"),
    "div": partial(_arithmetic, kind="div"),
    "neg": lambda node: (pointwise.Scale(-1.0), [node.args[0]]),
    "pad": _pad,
    "stack": partial(_join, new=True),
    "cat": partial(_join, new=False),
    "mean": partial(_reduce, mean=True),
    "sum": partial(_reduce, mean=False),
    "getitem": _getitem,
    "max_pool1d": partial(_functional_pool, n=1, largest=True),
    "max_pool2d": partial(_functional_pool, n=2, largest=True),
    "avg_pool1d": partial(_functional_pool, n=1, largest=False),
    "avg_pool2d": partial(_functional_pool, n=2, largest=False),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshape),
    **dict.fromkeys(("permute", "transpose", "movedim"), _move),
    "contiguous": lambda node: (pointwise.Scale(1.0), [node.args[0]]),
}
MOVES = dict.fromkeys(("permute", "transpose", "movedim"), moved)
_ALIASES = {"truediv": "div", "iadd": "add", "imul": "mul", "concat": "cat", "subtract": "sub", "multiply": "mul"}
_HOMES = (torch, F, operator)


def name_of(node: Node, module: nn.Module | None) -> str:
    """The name of a node's rule, or Unknown."""
    if module is not None:
        if type(module) not in MODULES:
            raise Unknown(f"there is no rule for {type(module).__name__}")
        return type(module).__name__
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
    name = _ALIASES.get(name, name)
    if node.op == "call_function" and not any(getattr(home, target.__name__, None) is target for home in _HOMES):
        raise Unknown(f"there is no rule for the function {name}")
    if name not in NAMES and name != "size":
        raise Unknown(f"there is no rule for {name}")
    return name


def operation(node: Node, module: nn.Module | None, used: tuple[int, ...], trained: tuple[bool, ...]) -> Made:
    """The operation of a node and the nodes it takes."""
    if module is None:
        return NAMES[name_of(node, None)](node)
    if len(node.args) != 1 or node.kwargs or node.args[0].meta["batch"] != 0:
        raise Unknown(f"{node.name} takes more than one value")
    return MODULES[type(module)](module, node, used, trained), [node.args[0]]


def parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """A leaf module's parameters in the order in which its operation takes them."""
    if isinstance(module, QuantumLayer):
        return [getattr(module, name) for name in module.weight_shapes]
    return [p for name in ("weight", "bias") if (p := getattr(module, name, None)) is not None]


def compiled_circuit(layer: QuantumLayer, x: Tensor) -> Compiled:
    """The layer's compiled circuit for inputs like x."""
    runner = layer.runner(x.shape[-1])
    if not isinstance(runner, Compiled):
        raise Unknown("its circuit runs on a device, not in the kernel")
    return runner


def _chosen(used: tuple[int, ...], trained: tuple[bool, ...]) -> tuple[int, ...]:
    return tuple(p for p, train in zip(used, trained, strict=True) if train)


def _input(node: Node) -> Tensor:
    example: Tensor = node.args[0].meta["example"]
    return example


def _example(node: Node) -> Tensor:
    example: Tensor = node.meta["example"]
    return example


def _bound(node: Node, **names: Any) -> dict[str, Any]:
    """Arguments by name; the given values are the defaults."""
    found = {**names, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    if len(node.args) > len(names) or set(found) != set(names):
        raise Unknown(f"{node.name} with arguments {sorted(set(found) - set(names))}")
    return found


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
