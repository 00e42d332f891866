"""The classical twin: a network with exactly as many trainable parameters as the hybrid model.

    z = tanh(E x + e)                                                            encoder, as in the hybrid
    v = skip(z) + B tanh(A z + a)  +  b' tanh(a'.z[:i] + a0')                    in place of the circuit
    out = H v + h                                                                head, as in the hybrid

Encoder and head have the shapes of the hybrid's, so what replaces a circuit of C weights, W inputs and M outputs must
have C parameters. A hidden unit costs W + 1 + M (a row of A, a bias, a column of B): C = h (W + M + 1) + r gives h full
units, and the remaining r < W + M + 1 parameters make one more unit that reads the first i features and writes to the
first j outputs: i + j = r, or i + 1 + j = r with a bias; r = 1 is a unit with a reading weight and a fixed writing one.
`skip` has no parameters: the identity when M = W, else features are averaged or repeated. There is no bottleneck, so a
circuit with few weights does not make a strawman. All layers are nn.Linear, which every engine for per-sample gradients
knows, and an empty batch passes.    Cost O(B (F W + C + M O))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Hidden(nn.Module):
    """z (..., W) -> (..., M) with exactly `size` parameters."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        units, rest = divmod(size, inputs + outputs + 1)
        self.into = nn.Linear(inputs, units) if units else None
        self.out = nn.Linear(units, outputs, bias=False) if units else None
        bias = rest >= 3
        # Writes to half of what is left, within what there is to write to and to read from.
        writes = min(max(rest // 2, rest - bias - inputs), outputs)
        reads = rest - bias - writes
        self.last_into = nn.Linear(reads, 1, bias=bias) if rest else None
        self.last_out = nn.Linear(1, writes, bias=False) if writes else None
        self.unwritten = outputs - max(writes, 1)

    def forward(self, z: Tensor) -> Tensor:
        v = self._skip(z)
        if self.into is not None and self.out is not None:
            v = v + self.out(torch.tanh(self.into(z)))
        if self.last_into is not None:
            unit = torch.tanh(self.last_into(z[..., : self.last_into.in_features]))
            written = self.last_out(unit) if self.last_out is not None else unit
            v = v + nn.functional.pad(written, (0, self.unwritten))
        return v

    def _skip(self, z: Tensor) -> Tensor:
        if self.outputs == self.inputs:
            return z
        if self.outputs > self.inputs:
            return z[..., torch.arange(self.outputs, device=z.device) % self.inputs]
        return torch.stack([z[..., m :: self.outputs].mean(dim=-1) for m in range(self.outputs)], dim=-1)


class Twin(nn.Module):
    """x (B, F) -> (B, O)."""

    def __init__(self, inputs: int, outputs: int, wires: int, features: int, size: int) -> None:
        """`wires` W, `features` M and `size` C are those of the circuit that it stands in for."""
        super().__init__()
        self.encoder = nn.Linear(inputs, wires)
        self.hidden = Hidden(wires, features, size)
        self.head = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.hidden(torch.tanh(self.encoder(x))))
        return out
