"""What the quantum engine is raced against: each function builds a task, the forward pass and the gradient of every
weight and input for each record of a batch (StronglyEntanglingLayers after AngleEmbedding, <Z> on every wire).

    python tests/bench/contenders.py NAME

answers on standard output, one line for each line [wires, layers, batch] on standard input: the median seconds of the
calls of a tenth of a second (of one call at least). A process a contender, so that none of them sees another's threads
or memory. Imports are those of the contender alone: one whose packages do not fit beside ours runs in an environment
of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

BURST = 0.1


def circuit_of(wires):
    import pennylane as qml

    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(wires))
        qml.StronglyEntanglingLayers(w, wires=range(wires))
        return [qml.expval(qml.Z(i)) for i in range(wires)]

    return circuit


def _data(wires, layers, batch):
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, wires, generator=generator)
    cotangent = torch.randn(batch, wires, generator=generator)
    return x, cotangent, torch.rand(layers, wires, 3, generator=generator) * 6


def ours(wires, layers, batch):
    import torch

    from qfed.quantum import QuantumLayer

    x, cotangent, w = _data(wires, layers, batch)
    layer = QuantumLayer(circuit_of(wires), {"w": tuple(w.shape)}, {"w": w}, wires=wires)

    def task():
        _, pull = layer.per_sample(x)
        of_inputs, of_weights = pull(cotangent)
        return of_inputs, of_weights["w"]

    torch.set_num_threads(1)
    return task


def vmap(wires, layers, batch):
    """default.qubit under torch.func, with weights passed as arguments (what a repaired TorchLayer does)."""
    import pennylane as qml
    import torch

    x, cotangent, w = _data(wires, layers, batch)
    node = qml.QNode(
        circuit_of(wires), qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop"
    )

    def loss(row, weights, c):
        return (torch.stack(list(node(row, weights))).to(c) * c).sum()

    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None, 0))
    torch.set_num_threads(1)
    return lambda: gradients(x, w, cotangent)


def loop(wires, layers, batch):
    """TorchLayer on default.qubit, one record after the other."""
    import pennylane as qml
    import torch

    x, cotangent, w = _data(wires, layers, batch)
    node = qml.QNode(
        circuit_of(wires), qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop"
    )
    layer = qml.qnn.TorchLayer(node, {"w": tuple(w.shape)}, init_method={"w": w})
    torch.set_num_threads(1)

    def task():
        found = []
        for row, c in zip(x, cotangent, strict=True):
            leaf = row.clone().requires_grad_()
            found.append(torch.autograd.grad(layer(leaf), [leaf, layer.w], c))
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))

    return task


def jax(wires, layers, batch):
    import jax as j
    import jax.numpy as jnp
    import pennylane as qml

    x, cotangent, w = (jnp.asarray(t.numpy()) for t in _data(wires, layers, batch))
    node = qml.QNode(
        circuit_of(wires), qml.device("default.qubit", wires=wires), interface="jax", diff_method="backprop"
    )

    def loss(row, weights, c):
        return (jnp.stack(node(row, weights)) * c).sum()

    gradients = j.jit(j.vmap(j.grad(loss, argnums=(0, 1)), in_axes=(0, None, 0)))
    return lambda: j.block_until_ready(gradients(x, w, cotangent))


def torchquantum(wires, layers, batch):
    import torch
    import torchquantum as tq

    x, cotangent, w = _data(wires, layers, batch)
    torch.set_num_threads(1)
    # every record has its own copy of the weights: that is how per-sample gradients come out of a batched simulator
    weights = w.unsqueeze(0).repeat(batch, 1, 1, 1).requires_grad_()
    leaf = x.clone().requires_grad_()

    def task():
        device = tq.QuantumDevice(n_wires=wires, bsz=batch)
        for i in range(wires):
            tq.functional.rx(device, wires=i, params=leaf[:, i : i + 1])
        for layer in range(w.shape[0]):
            for i in range(wires):
                for gate, k in ((tq.functional.rz, 0), (tq.functional.ry, 1), (tq.functional.rz, 2)):
                    gate(device, wires=i, params=weights[:, layer, i, k : k + 1])
            step = layer % (wires - 1) + 1
            for i in range(wires):
                tq.functional.cnot(device, wires=[i, (i + step) % wires])
        out = tq.measurement.expval_joint_analytical
        words = ["".join("Z" if i == k else "I" for i in range(wires)) for k in range(wires)]
        result = torch.stack([out(device, word) for word in words], dim=1)
        return torch.autograd.grad((result * cotangent).sum(), [leaf, weights])

    return task


CONTENDERS = {"ours": ours, "vmap": vmap, "loop": loop, "jax": jax, "torchquantum": torchquantum}


def serve(name):
    """A contender's process: builds tasks as asked and answers with the median seconds of a burst."""
    tasks = {}
    for line in sys.stdin:
        wires, layers, batch = json.loads(line)
        task = tasks.get((wires, layers, batch))
        if task is None:
            task = tasks[wires, layers, batch] = CONTENDERS[name](wires, layers, batch)
            task()
        times = []
        while sum(times) < BURST:
            start = time.perf_counter()
            task()
            times.append(time.perf_counter() - start)
        print(json.dumps(statistics.median(times)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
