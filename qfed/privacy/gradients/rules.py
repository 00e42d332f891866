"""Which operation stands for a node of a traced graph: by the module it calls, or the function's or method's name.

Errors  Unknown for a node that has none
"""

from __future__ import annotations

import operator

import torch
from torch import nn
from torch.nn import functional as F

from qfed.privacy.gradients.functions import NAMES
from qfed.privacy.gradients.modules import MODULES, Made, Node, Unknown

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
