"""Which operation stands for a module that a traced graph calls.

Errors  Unknown for settings that an operation does not cover
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from qfed.privacy.gradients import pointwise
from qfed.privacy.gradients.affine import Convolution, Linear
from qfed.privacy.gradients.chain import Operation
from qfed.privacy.gradients.circuit import Circuit
from qfed.privacy.gradients.normalise import Normalise
from qfed.privacy.gradients.shape import Pool, Reshape
from qfed.quantum.compiled import Compiled
from qfed.quantum.layer import QuantumLayer

Node = Any
"""An fx.Node, whose arguments are anything at all; its meta holds the "example" value and the axis of the "batch"."""
Made = tuple[Operation, list[Node]]
"""An operation and the nodes that it takes."""


class Unknown(Exception):
    """The reason why a model is no chain."""


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
    if largest and (m.return_indices or tuple_of(m.dilation, n) != (1,) * n):
        raise Unknown("pooling with dilation or indices")
    if not largest and getattr(m, "divisor_override", None) is not None:
        raise Unknown("pooling with divisor_override")
    return pooled(_input(node), m.kernel_size, m.stride, m.padding, m.ceil_mode, n, largest=largest)


def pooled(x: Tensor, kernel: Any, stride: Any, padding: Any, ceil: bool, n: int, *, largest: bool) -> Operation:
    if ceil or any(tuple_of(padding, n)) or x.dim() != n + 2:
        raise Unknown("pooling with padding, ceil_mode or on input without a batch")
    kernel = tuple_of(kernel, n)
    return Pool(kernel, kernel if stride in (None, (), []) else tuple_of(stride, n), largest)


def _adaptive(m: Any, node: Node, *_: Any) -> Operation:
    sizes = _input(node).shape[2:]
    targets = [s if t is None else t for s, t in zip(sizes, tuple_of(m.output_size, len(sizes)), strict=True)]
    if _input(node).dim() != _example(node).dim() or any(s % t for s, t in zip(sizes, targets, strict=True)):
        raise Unknown("adaptive pooling to a size that does not divide its input's")
    kernel = tuple(s // t for s, t in zip(sizes, targets, strict=True))
    return Pool(kernel, kernel, largest=False)


def reshape(node: Node) -> Made:
    before, after = _input(node), _example(node)
    if node.args[0].meta["batch"] != 0 or after.dim() < 1 or before.shape[0] != after.shape[0]:
        raise Unknown(f"{node.name} reshapes the batch")
    return Reshape(tuple(after.shape[1:])), [node.args[0]]


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
    nn.Identity: lambda *_: pointwise.Scale(pointwise.ONE),
    nn.Flatten: lambda m, node, *_: reshape(node)[0],
    nn.Unflatten: lambda m, node, *_: reshape(node)[0],
}


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


def tuple_of(value: Any, n: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
