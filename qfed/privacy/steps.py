"""Local training of one or many sites' models: sample, clipped sum, release, optimiser step; knows no noise itself.

    w_k <- optimiser(w_k, release(s_k)),     s_k = sum_{i in S_k} clip(grad_i(w_k), C)        for each site k

Weights of all sites are rows of one tensor (K, P). An optimiser that works element by element (SGD with momentum,
Adam, ...) takes that one tensor, with the same result as one tensor a parameter; any other gets a parameter's pieces,
site by site. Sites of one chain (see `qfed.privacy.gradients`) are stacked: their batches, of any sizes, are filled up
with a record of zeros that counts for nothing.
Cost  a stack's step: one forward and backward of all its records, about 0.3 ms of Python whatever K is
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qfed.privacy.gradients import Array, Chain, Fill, Loss, chain_for, hooks, stacked_sum
from qfed.privacy.rounds import Opened
from qfed.quantum.time_limit import part

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Sample = Callable[[], Array]
"""Which records enter a step: ascending places in all sites' records, one after the other."""
Release = Callable[[Array], Array]
"""Sums (K, P) -> gradients (K, P) for the optimiser; may overwrite them."""

_ELEMENTWISE = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad,
    torch.optim.Adadelta, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam,
)  # fmt: skip
_STACK_NUMBERS = 1 << 24
"""Largest stack, in numbers of per-record gradients (records x P), which a batch that is not finite forms."""


def train_sites(
    model: nn.Module,
    loss: Loss,
    sites: Sequence[Opened],
    *,
    optimizer: MakeOptimizer,
    steps: int,
    sample: Sample,
    clip_norm: float | None,
    release: Release,
) -> None:
    """Train the weights of each site in place on its records, all of one shape; `model` is scratch.

    Without `clip_norm` gradients are summed as they are.
    """
    weights = torch.stack([site.task.weights for site in sites])
    sums = _sums(model, loss, sites, clip_norm)
    whole = nn.Parameter(weights)
    optimizers = [optimizer([whole])]
    if _elementwise(optimizers[0], whole):
        parts = [whole]
        cut: Callable[[Tensor], Iterable[Tensor]] = lambda gradient: [gradient]  # noqa: E731
    else:
        shapes = [p.shape for p in model.parameters() if p.requires_grad]
        rows = [[nn.Parameter(piece) for piece in _pieces(row, shapes)] for row in weights]
        optimizers = [optimizer(row) for row in rows]
        parts = [piece for row in rows for piece in row]
        cut = lambda gradient: [piece for row in gradient for piece in _pieces(row, shapes)]  # noqa: E731
    for _ in range(steps):
        with part("steps"):
            for piece, gradient in zip(parts, cut(torch.from_numpy(release(sums(weights, sample())))), strict=True):
                piece.grad = gradient
            for each in optimizers:
                each.step()
    for site, row in zip(sites, weights, strict=True):
        site.task.weights.copy_(row)


def clipped_sums(model: nn.Module, loss: Loss, sites: Sequence[Opened], *, sample: Sample, clip_norm: float) -> Array:
    """The clipped sum of each site at its own weights, (K, P), of the records that `sample` chooses."""
    weights = torch.stack([site.task.weights for site in sites])
    return np.asarray(_sums(model, loss, sites, clip_norm)(weights, sample()))


def _sums(model: nn.Module, loss: Loss, sites: Sequence[Opened], clip_norm: float | None) -> _Hooks | _Stack:
    records, x = [(site.x, site.y) for site in sites], sites[0].x
    chain = chain_for(model, tuple(x.shape[1:]), x.dtype) if x.device.type == "cpu" else None
    return _Hooks(model, loss, records, clip_norm) if chain is None else _Stack(chain, loss, records, clip_norm)


def flat(model: nn.Module) -> Tensor:
    """A copy of the trainable parameters, (P,)."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])


@torch.no_grad()
def write(model: nn.Module, weights: Tensor) -> None:
    """Weights (P,) into the model's trainable parameters."""
    start = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()


def _pieces(row: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Views of (P,) in the parameters' shapes."""
    sizes = [shape.numel() for shape in shapes]
    return [piece.view(shape) for piece, shape in zip(torch.split(row, sizes), shapes, strict=True)]


def _elementwise(optimizer: torch.optim.Optimizer, whole: nn.Parameter) -> bool:
    """Whether the optimiser may work on all weights as one tensor."""
    groups = optimizer.param_groups
    return type(optimizer) in _ELEMENTWISE and len(groups) == 1 and [id(p) for p in groups[0]["params"]] == [id(whole)]


class _Stack:
    """Sums of all sites through one chain."""

    def __init__(
        self, chain: Chain, loss: Loss, records: Sequence[tuple[Tensor, Tensor]], clip_norm: float | None
    ) -> None:
        self._chain, self._loss, self._clip_norm = chain, loss, clip_norm
        pairs = [(x.numpy(), y.numpy()) for x, y in records]
        self._bounds = np.cumsum([0, *(len(y) for _, y in pairs)])
        if len(pairs) == 1:
            self._x, self._y = pairs[0]
        else:  # one more record, of zeros, to fill up with
            fill = [(np.zeros((1, *v.shape[1:]), v.dtype)) for v in pairs[0]]
            self._x, self._y = (np.concatenate([*(pair[i] for pair in pairs), fill[i]]) for i in (0, 1))

    def __call__(self, rows: Tensor, chosen: Array) -> Array:
        weights = rows.numpy()
        if len(weights) == 1:
            return self._sum(weights, chosen[None], None)
        ends = np.searchsorted(chosen, self._bounds)
        most = int(np.diff(ends).max())
        some = max(1, _STACK_NUMBERS // max(1, most * self._chain.size))
        parts = [
            self._some(weights[k : k + some], chosen, ends[k : k + some + 1]) for k in range(0, len(weights), some)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _some(self, weights: Array, chosen: Array, ends: Array) -> Array:
        counts = np.diff(ends)
        at = np.full((len(weights), counts.max()), self._bounds[-1])
        present = np.arange(at.shape[1]) < counts[:, None]
        at[present] = chosen[ends[0] : ends[-1]]
        return self._sum(weights, at, Fill(present, ends - ends[0]))

    def _sum(self, weights: Array, at: Array, fill: Fill | None) -> Array:
        x, y = self._x.take(at, axis=0), self._y.take(at, axis=0)
        return stacked_sum(self._chain, self._loss, weights, x, y, fill, self._clip_norm)


class _Hooks:
    """Sums through the model itself, one site after the other."""

    def __init__(
        self, model: nn.Module, loss: Loss, records: Sequence[tuple[Tensor, Tensor]], clip_norm: float | None
    ) -> None:
        self._model, self._loss, self._records, self._clip_norm = model, loss, records, clip_norm
        self._bounds = np.cumsum([0, *(len(y) for _, y in records)])

    def __call__(self, rows: Tensor, chosen: Array) -> Array:
        ends = np.searchsorted(chosen, self._bounds)
        found = []
        for k, (x, y) in enumerate(self._records):
            mine = torch.from_numpy(chosen[ends[k] : ends[k + 1]] - self._bounds[k])
            write(self._model, rows[k])
            if self._clip_norm is None:
                found.append(hooks.plain_sum(self._model, self._loss, x[mine], y[mine]))
            else:
                found.append(hooks.clipped_sum(self._model, self._loss, x[mine], y[mine], self._clip_norm))
        return torch.stack(found).numpy()
