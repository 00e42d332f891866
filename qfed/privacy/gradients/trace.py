"""From a module to a chain, by torch.fx: the graph of the forward pass, each node an operation that is known.

The pass is traced with symbolic values that know their shapes but for the number of records, so code that looks at
shapes is followed and code that looks at values or at the number of records is refused. A chain is used only after it
gave the model's own outputs and autograd's gradients, record by record, on random inputs.
Cost    a few milliseconds, once for each model and shape of a record
Errors  Unknown, with the reason, for a model that is none; nothing is changed in the model
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from qfed.privacy.gradients import rules
from qfed.privacy.gradients.chain import Chain, Fill, Parameter, Step
from qfed.privacy.gradients.functions import MOVES
from qfed.privacy.gradients.modules import MODULES, Node, Unknown, compiled_circuit, parameters_of
from qfed.quantum.layer import QuantumLayer

_EXAMPLES = 7  # a number of records that is no size of anything else, one hopes; what is wrong shows in the comparison
_LOCK = threading.Lock()  # tracing patches nn.Module while it runs
_DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def compile_chain(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> Chain:
    """The chain of `model` for records of the given shape. Raises Unknown."""
    parameters = list(model.parameters())
    if dtype not in _DTYPES or any(p.dtype != dtype or p.device.type != "cpu" for p in parameters):
        raise Unknown("parameters and inputs are not all float32, or all float64, on the CPU")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, name) for module in model.modules() for name in hooks):
        raise Unknown("there are hooks on the model")
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(_EXAMPLES, *shape, dtype=dtype, generator=generator)
    try:
        with _LOCK, torch.no_grad():
            graph = _Tracer(example).trace(model)
        graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        chain = _chain(model, graph, parameters, _DTYPES[dtype])
        _compare(model, chain, example, generator)
    except Unknown:
        raise
    except Exception as error:  # a forward pass may do anything, and raise anything when values are symbolic
        raise Unknown(f"its forward pass cannot be traced ({type(error).__name__}: {str(error)[:120]})") from error
    return chain


class _Proxy(fx.Proxy):
    """A symbolic value with a known shape, but for the batch."""

    @property
    def _example(self) -> Tensor:
        example: Tensor = self.node.meta["example"]
        return example

    @property
    def ndim(self) -> int:
        return self._example.dim()

    def dim(self) -> int:
        return self._example.dim()

    @property
    def dtype(self) -> torch.dtype:
        return self._example.dtype

    @property
    def device(self) -> torch.device:
        return self._example.device

    def is_floating_point(self) -> bool:
        return self._example.is_floating_point()

    @property
    def shape(self) -> tuple[Any, ...]:
        sizes: list[Any] = list(self._example.shape)
        batch = self.node.meta["batch"]
        sizes[batch] = self.tracer.create_proxy("call_method", "size", (self, batch), {})
        return tuple(sizes)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]


class _Tracer(fx.Tracer):
    def __init__(self, example: Tensor) -> None:
        # an empty tuple, else `math` is patched while circuits are compiled
        super().__init__(autowrap_modules=())  # type: ignore[arg-type]
        self._input, self._call = example, nn.Module.__call__

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, nn.Parameter):
            raise Unknown("its forward pass uses a parameter outside of the layers that are known")
        if isinstance(a, Tensor):
            node = self.create_node("get_attr", "constant", (), {})  # fx would put an attribute into the model
            node.meta.update(example=a, batch=None)
            return node
        return super().create_arg(a)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        node = proxy.node
        node.meta["batch"] = 0
        if kind == "placeholder":
            if any(other.op == "placeholder" and other is not node for other in node.graph.nodes):
                raise Unknown("its forward pass takes more than one argument")
            node.meta["example"] = self._input
        elif kind != "output":
            traced = nn.Module.__call__  # what runs now is not to be traced
            nn.Module.__call__ = self._call  # type: ignore[method-assign]
            try:
                node.meta["example"] = self._run(node)
            finally:
                nn.Module.__call__ = traced  # type: ignore[method-assign]
        return proxy

    def _run(self, node: Node) -> Any:
        """The node's value for the example."""
        module = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        name = rules.name_of(node, module)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["example"])
        if name == "size":
            return _EXAMPLES
        if isinstance(module, QuantumLayer):
            compiled_circuit(module, args[0])  # before a circuit that has none runs on its device
            if module.runner(args[0].shape[-1]).layout(args[0].shape[-1]).stacks:
                node.meta["batch"] = 1
        elif name in MOVES:
            node.meta["batch"] = MOVES[name](node)[1]
        if module is not None:
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def _chain(model: nn.Module, graph: fx.Graph, parameters: list[nn.Parameter], dtype: np.dtype[Any]) -> Chain:
    place = {id(parameter): i for i, parameter in enumerate(parameters)}
    known, size = [], 0
    for parameter in parameters:
        if parameter.requires_grad:
            known.append(Parameter(tuple(parameter.shape), size, size + parameter.numel()))
            size += parameter.numel()
        else:
            known.append(Parameter(tuple(parameter.shape), None, frozen=_reader(parameter)))
    values: dict[fx.Node, int] = {}
    live = [False]
    steps: list[Step] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = 0
        elif node.op == "output":
            out = node.args[0]
            if not isinstance(out, fx.Node) or values.get(out) != len(steps) or not steps or out.meta["batch"] != 0:
                raise Unknown("its forward pass does not give one tensor")
        elif node.op != "get_attr" and isinstance(node.meta["example"], Tensor):
            module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
            used = [] if module is None else [place[id(p)] for p in parameters_of(module)]
            trained = [known[p].start is not None for p in used]
            operation, inputs = rules.operation(node, module, tuple(used), tuple(trained))
            if any(source not in values for source in inputs):
                raise Unknown(f"{node.name} takes a value that is no tensor of records")
            wanted = tuple(live[values[source]] for source in inputs)
            steps.append(
                Step(operation, tuple(values[s] for s in inputs), tuple(used), wanted, any(wanted) or any(trained))
            )
            values[node] = len(steps)
            live.append(steps[-1].live)
    return Chain(tuple(steps), tuple(known), size, dtype)


def _reader(parameter: nn.Parameter) -> Callable[[], Any]:
    return lambda: parameter.detach().numpy()


def _compare(model: nn.Module, chain: Chain, example: Tensor, generator: torch.Generator) -> None:
    """Unknown unless outputs and per-record gradients are the model's own."""
    trained = [p for p in model.parameters() if p.requires_grad]
    x = example[:3]
    with torch.enable_grad():
        want = model(x)
    if want.dim() < 1 or want.shape[0] != len(x):
        raise Unknown("its output has no row a record")
    slope = torch.randn(want.shape, dtype=want.dtype, generator=generator)
    flat = torch.cat([p.detach().reshape(-1) for p in trained]).numpy()[None] if trained else np.zeros((1, 0))
    with np.errstate(all="ignore"):
        out, tape = chain.forward(x.numpy()[None], flat.astype(chain.dtype, copy=False))
        shares = chain.backward(tape, slope.numpy()[None])
        covered = {p for share in shares for p in share.parameters}
        missing = [p for i, p in enumerate(chain.parameters) if p.start is not None and i not in covered]
        if missing:
            raise Unknown(f"a trainable parameter of shape {missing[0].shape} has no effect on the output")
        totals = [chain.total([*shares], _only(len(x), b), 1e30, 1)[0] for b in range(len(x))]
    _close(torch.from_numpy(np.ascontiguousarray(out[0])), want.detach(), "outputs")
    for b, total in enumerate(totals):
        with torch.enable_grad():
            found = torch.autograd.grad((want[b] * slope[b]).sum(), trained, retain_graph=True)
        _close(torch.from_numpy(total), torch.cat([g.reshape(-1) for g in found]), "gradients")


def _only(records: int, chosen: int) -> Fill:
    """One of `records` records."""
    return Fill((np.arange(records) == chosen)[None], np.array([0, 1]))


def _close(found: Tensor, want: Tensor, what: str) -> None:
    scale = float(want.abs().max()) if want.numel() else 0.0
    if found.shape != want.shape or not torch.allclose(found, want, rtol=1e-3, atol=1e-3 * scale + 1e-6):
        raise Unknown(f"its {what} come out otherwise than the model's own")
