"""Which operation stands for a function or a method of tensors that a traced graph calls.

Errors  Unknown for settings that an operation does not cover
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from qfed.privacy.gradients import pointwise
from qfed.privacy.gradients.chain import Operation
from qfed.privacy.gradients.modules import Made, Node, Unknown, pooled, reshape, tuple_of
from qfed.privacy.gradients.shape import Index, Join, Pad, Permute, Reduce


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
    axis = given["dim"] % node.meta["example"].dim()
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
    a, b = (_operand(v, node) for v in node.args)
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        shapes = {tuple(v.meta["example"].shape) for v in (a, b)}
        if len(shapes) > 1 or kind == "div":
            raise Unknown(f"{node.name} broadcasts, or divides by a value")
        return (pointwise.Product() if kind == "mul" else pointwise.Sum(1.0 if kind == "add" else -1.0)), [a, b]
    zero, one = pointwise.ZERO, pointwise.ONE
    if isinstance(a, fx.Node):
        made = {"add": (one, b), "sub": (one, -b), "mul": (b, zero), "div": (1 / b if kind == "div" else b, zero)}
        return pointwise.Scale(*made[kind]), [a]
    if kind == "div" or not isinstance(b, fx.Node):
        raise Unknown(f"{node.name} divides by a value, or takes none")
    made = {"add": (one, a), "sub": (-1.0, a), "mul": (a, zero)}
    return pointwise.Scale(*made[kind]), [b]


def _operand(value: Any, node: Node) -> Any:
    """A number or a constant as such, a value of the chain as its node."""
    if isinstance(value, fx.Node):
        constant = value.meta["example"]
        if not isinstance(constant, Tensor):
            raise Unknown("arithmetic with the number of records")
        if value.meta["batch"] is not None:
            return value
        whole = node.meta["example"]
        if constant.dim() >= whole.dim() or constant.dtype != whole.dtype:
            raise Unknown("arithmetic with a constant for each record, or of another type")
        return constant.detach().numpy()  # as it will be then: an array on the constant's own memory
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unknown(f"arithmetic with {type(value).__name__}")
    return float(value)


def _roll(node: Node) -> Made:
    given = _bound(node, input=None, shifts=None, dims=None)
    x = given["input"].meta["example"]
    shift, axis = given["shifts"], given["dims"]
    if not isinstance(shift, int) or not isinstance(axis, int) or axis % x.dim() == 0:
        raise Unknown(f"{node.name} rolls over the batch, or over several axes")
    axis %= x.dim()
    places = (torch.arange(x.shape[axis]) - shift) % x.shape[axis]
    return Index((*[slice(None)] * (axis - 1), places.numpy()), True), [given["input"]]


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
    if given.get("return_indices") or tuple_of(given.get("dilation", 1), n) != (1,) * n:
        raise Unknown("pooling with dilation or indices")
    x = given["input"].meta["example"]
    made = pooled(x, given["kernel_size"], given["stride"], given["padding"], given["ceil_mode"], n, largest=largest)
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
    "roll": _roll,
    "max_pool1d": partial(_functional_pool, n=1, largest=True),
    "max_pool2d": partial(_functional_pool, n=2, largest=True),
    "avg_pool1d": partial(_functional_pool, n=1, largest=False),
    "avg_pool2d": partial(_functional_pool, n=2, largest=False),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"), reshape),
    **dict.fromkeys(("permute", "transpose", "movedim"), _move),
    "contiguous": lambda node: (pointwise.Scale(pointwise.ONE), [node.args[0]]),
}
MOVES = dict.fromkeys(("permute", "transpose", "movedim"), moved)


def _bound(node: Node, **names: Any) -> dict[str, Any]:
    """Arguments by name; the given values are the defaults."""
    found = {**names, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    if len(node.args) > len(names) or set(found) != set(names):
        raise Unknown(f"{node.name} with arguments {sorted(set(found) - set(names))}")
    return found
