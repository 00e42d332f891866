"""From the configuration to a model, and where its weights start.

Initial weights depend on `seed` alone: linear and convolutional layers as torch initialises them (uniform within
1/sqrt(fan-in)), GroupNorm as the identity; circuit weights are normal around the identity with standard deviation
`model.initial_stddev`. Random angles over the full circle make gradients vanish exponentially in the number of wires
(McClean et al., Nature Communications 9, 4812, 2018); circuits that start near the identity, or with small Gaussian
angles, do not start on that plateau (Grant et al., Quantum 3, 214, 2019; Zhang et al., NeurIPS 2022, "Escaping from the
barren plateau via Gaussian initializations").
"""

from __future__ import annotations

import math

import torch
from torch import nn

from qfed.config import ModelConfig, QuantumConfig
from qfed.errors import ConfigError, ShapeError
from qfed.models.circuits import Circuit, circuit_of
from qfed.models.convolution import PATCH, Convolutional, Convolutions, Quanvolution, side_of
from qfed.models.hybrid import Hybrid
from qfed.models.kernel import KernelModel
from qfed.models.twin import Twin
from qfed.quantum import QuantumLayer


def build(config: ModelConfig, inputs: int, outputs: int, seed: int, quantum: QuantumConfig | None = None) -> nn.Module:
    """The model for `inputs` features and `outputs` logits (or one value), the same for the same seed.

    Its circuits run in the kernel, or on the device that `quantum` names; fixed constants of a model (what the features
    of the architecture kernel are at 0) are the kernel's. Leaves torch's global generator as it was. Raises
    CircuitError for a circuit that does not fit, ShapeError for sizes below one, ConfigError for an architecture that
    does not fit the records or a device that cannot be made.
    """
    if inputs < 1 or outputs < 1:
        raise ShapeError(f"a model needs at least one input and one output, got inputs={inputs}, outputs={outputs}")
    # Layers draw weights from the global generator as they are made; those draws are thrown away.
    with torch.random.fork_rng(devices=[]):
        circuit = circuit_of(config)
        model = _assemble(config, circuit, inputs, outputs)
    _initialise(model, circuit, config.initial_stddev, torch.Generator().manual_seed(seed))
    model.to(torch.float32)
    if quantum is not None and not quantum.on_kernel:
        for module in model.modules():
            if isinstance(module, QuantumLayer):
                module.run_on(quantum, seed)
    return model


def _assemble(config: ModelConfig, circuit: Circuit, inputs: int, outputs: int) -> nn.Module:
    twin = config.kind == "twin"
    limit = circuit.angle_limit if config.angle_limit is None else config.angle_limit
    if config.architecture == "kernel":
        return KernelModel(inputs, outputs, config.wires, circuit, limit, twin=twin)
    if config.architecture == "quanvolution":
        if config.wires != PATCH:
            raise ConfigError(
                f"model.architecture='quanvolution' has a wire for each of the {PATCH} pixels of a patch, got "
                f"model.wires={config.wires}; set model.wires = {PATCH}"
            )
        return Quanvolution(side_of(inputs, "quanvolution"), outputs, circuit, limit, twin=twin)
    front = Convolutions(side_of(inputs, "cnn")) if config.architecture == "cnn" else None
    features = inputs if front is None else front.features
    dense: nn.Module
    if twin:
        dense = Twin(features, outputs, config.wires, circuit.outputs, circuit.size)
    else:
        dense = Hybrid(features, outputs, config.wires, circuit, limit)
    return dense if front is None else Convolutional(front, dense)


@torch.no_grad()
def _initialise(model: nn.Module, circuit: Circuit, stddev: float, generator: torch.Generator) -> None:
    """Draw all weights, from the input on, so that a hybrid and its twin start from the same encoder."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, QuantumLayer):
            for name, parameter in module.named_parameters():
                parameter.normal_(circuit.centres.get(name, 0.0), stddev, generator=generator)
