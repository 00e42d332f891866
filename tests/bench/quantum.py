"""Speed of the quantum engine against what people use today.

    python tests/bench/quantum.py [--json FILE] [--quick]

One process a contender, one thread each, measured in turns (round robin), so that a busy machine hits all of
them alike; figures are medians of the rounds. The task is the forward pass and the gradient of every weight and
input for each of 64 records (StronglyEntanglingLayers after AngleEmbedding, <Z> on every wire).
Contenders that are not installed are left out with a note: PennyLane-JAX (jax), TorchQuantum (torchquantum).
The bound is the core's fused multiply-add rate, measured with 24 independent chains in registers; an operation is
one vector multiply, add or multiply-add for one record. Goals are held against medians;
figures named "best" are extra, for machines that are shared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 64
CASES = [(4, 2), (8, 2), (10, 2), (10, 4), (12, 2), (12, 4)]
QUICK = [(4, 2), (8, 2)]
NEEDS = {"jax": "jax", "torchquantum": "torchquantum"}
# The slowest contenders skip what would take minutes.
LARGEST = {"loop": 8, "vmap": 12, "jax": 12, "torchquantum": 8}


# ---- contenders: each builds a function that does the task once


def _circuit(wires):
    import pennylane as qml

    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(wires))
        qml.StronglyEntanglingLayers(w, wires=range(wires))
        return [qml.expval(qml.Z(i)) for i in range(wires)]

    return circuit


def _data(wires, layers):
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, wires, generator=generator)
    cotangent = torch.randn(BATCH, wires, generator=generator)
    return x, cotangent, torch.rand(layers, wires, 3, generator=generator) * 6


def ours(wires, layers):
    import torch

    from qfed.quantum import QuantumLayer

    x, cotangent, w = _data(wires, layers)
    layer = QuantumLayer(_circuit(wires), {"w": tuple(w.shape)}, {"w": w}, wires=wires)

    def task():
        _, pull = layer.per_sample(x)
        of_inputs, of_weights = pull(cotangent)
        return of_inputs, of_weights["w"]

    torch.set_num_threads(1)
    return task


def vmap(wires, layers):
    """default.qubit under torch.func, with weights passed as arguments (what a repaired TorchLayer does)."""
    import pennylane as qml
    import torch

    x, cotangent, w = _data(wires, layers)
    node = qml.QNode(
        _circuit(wires), qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop"
    )

    def loss(row, weights, c):
        return (torch.stack(list(node(row, weights))).to(c) * c).sum()

    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None, 0))
    torch.set_num_threads(1)
    return lambda: gradients(x, w, cotangent)


def loop(wires, layers):
    """TorchLayer on default.qubit, one record after the other."""
    import pennylane as qml
    import torch

    x, cotangent, w = _data(wires, layers)
    node = qml.QNode(
        _circuit(wires), qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop"
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


def jax(wires, layers):
    import jax as j
    import jax.numpy as jnp
    import pennylane as qml

    x, cotangent, w = (jnp.asarray(t.numpy()) for t in _data(wires, layers))
    node = qml.QNode(_circuit(wires), qml.device("default.qubit", wires=wires), interface="jax", diff_method="backprop")

    def loss(row, weights, c):
        return (jnp.stack(node(row, weights)) * c).sum()

    gradients = j.jit(j.vmap(j.grad(loss, argnums=(0, 1)), in_axes=(0, None, 0)))
    return lambda: j.block_until_ready(gradients(x, w, cotangent))


def torchquantum(wires, layers):
    import torch
    import torchquantum as tq

    x, cotangent, w = _data(wires, layers)
    torch.set_num_threads(1)
    # every record has its own copy of the weights: that is how per-sample gradients come out of a batched simulator
    weights = w.unsqueeze(0).repeat(BATCH, 1, 1, 1).requires_grad_()
    leaf = x.clone().requires_grad_()

    def task():
        device = tq.QuantumDevice(n_wires=wires, bsz=BATCH)
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
        wires, layers, repeats = json.loads(line)
        task = tasks.get((wires, layers))
        if task is None:
            task = tasks[wires, layers] = CONTENDERS[name](wires, layers)
            task()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            task()
            times.append(time.perf_counter() - start)
        print(json.dumps(statistics.median(times)), flush=True)


class Contender:
    def __init__(self, name):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def time(self, wires, layers, repeats):
        self.process.stdin.write(json.dumps([wires, layers, repeats]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- figures


class Figures(list):
    def add(self, name, value, unit, goal=None, better="lower"):
        self.append({"name": name, "value": value, "unit": unit, "goal": goal, "better": better})
        print(f"{name:62} {value:12.4g} {unit}", flush=True)


def fused_rate():
    """Measured vector multiply-adds a second on this core, times 16 float32 lanes."""
    import numpy as np

    from qfed.quantum.compiler import compiled
    from qfed.quantum.lanes import fill, fma, store

    @compiled
    def chains(out, count):
        c = fill(out, 0.999)
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = a9 = a10 = a11 = fill(out, 1.0)
        for _ in range(count):
            a0, a1, a2, a3 = fma(a0, c, c), fma(a1, c, c), fma(a2, c, c), fma(a3, c, c)
            a4, a5, a6, a7 = fma(a4, c, c), fma(a5, c, c), fma(a6, c, c), fma(a7, c, c)
            a8, a9, a10, a11 = fma(a8, c, c), fma(a9, c, c), fma(a10, c, c), fma(a11, c, c)
        for k, v in enumerate((a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11)):
            store(out, k, v)

    out = np.zeros(12 * 16, np.float32)
    chains(out, 10)
    rates = []
    for _ in range(15):
        start = time.perf_counter()
        chains(out, 100_000)
        rates.append(12 * 16 * 100_000 / (time.perf_counter() - start))
    return max(rates)


def nominal_operations(wires, layers):
    """The design's count a batch: 4 n + 4 forward and 14 n + 18 backward an amplitude and layer."""
    return BATCH * layers * 2**wires * (18 * wires + 22)


def executed_operations(plan):
    """What the plan really does, a batch: less, because the first layer is a product state."""
    n, size = plan.wires, plan.size
    blocks, folds, start = len(plan.blocks), len(plan.folds), 8 * (len(plan.prefix) > 0)
    forward = start + 12 * blocks + 4 * folds + 2 + n
    backward = 3 * start + 33 * blocks + (10 + n) * folds + n + 2
    return BATCH * size * (forward + backward)


def races(figures, cases, rounds, available):
    contenders = {name: Contender(name) for name in available}
    try:
        for wires, layers in cases:
            here = [n for n in available if wires <= LARGEST.get(n, 99)]
            times = {n: [] for n in here}
            for _ in range(rounds):
                for n in here:
                    repeats = 1 if n == "loop" else 3 if n in ("vmap", "torchquantum") else 15
                    times[n].append(contenders[n].time(wires, layers, repeats))
            median = {n: statistics.median(t) for n, t in times.items()}
            case = f"{wires} wires, {layers} layers"
            for n in here:
                figures.add(f"{case}: {n}", median[n] * 1e3, "ms")
            for n, goal in ratios(wires):
                if n in median:
                    figures.add(f"{case}: ratio {n} / ours", median[n] / median["ours"], "x", goal, "higher")
    finally:
        for contender in contenders.values():
            contender.close()


def ratios(wires):
    yield "vmap", 500 if wires <= 8 else 200
    yield "loop", 10_000 if wires <= 8 else None
    yield "jax", 10 if wires <= 4 else 30
    yield "torchquantum", 200 if wires <= 8 else None


def bound(figures, cases):
    import torch

    torch.set_num_threads(1)
    for wires, layers in cases:
        if wires < 8:
            continue
        task, times, rates = ours(wires, layers), [], []
        for _ in range(7):
            rates.append(fused_rate())
            for _ in range(10):
                start = time.perf_counter()
                task()
                times.append(time.perf_counter() - start)
        rate, seconds, best = max(rates), statistics.median(times), min(times)
        goal = 0.45 if wires == 8 else 0.5
        case = f"{wires} wires, {layers} layers"
        figures.add(
            f"{case}: fraction of the bound, design's operation count",
            nominal_operations(wires, layers) / rate / seconds,
            "",
            goal,
            "higher",
        )
        from qfed.quantum import QuantumLayer

        plan = QuantumLayer(_circuit(wires), {"w": (layers, wires, 3)}, wires=wires).runner(wires).plan
        figures.add(
            f"{case}: fraction of the bound, design's count, best call",
            nominal_operations(wires, layers) / rate / best,
            "",
            None,
            "higher",
        )
        figures.add(
            f"{case}: fraction of the bound, operations executed",
            executed_operations(plan) / rate / seconds,
            "",
            None,
            "higher",
        )
    figures.add("measured multiply-add rate of the core", rate / 1e9, "G/s", None, "higher")


def threads(figures):
    import torch

    from qfed.quantum import QuantumLayer

    layer = QuantumLayer(_circuit(12), {"w": (2, 12, 3)}, wires=12)
    x, cotangent = torch.rand(256, 12), torch.randn(256, 12)
    times = {1: [], 2: []}
    for _ in range(9):
        for count in times:
            torch.set_num_threads(count)
            start = time.perf_counter()
            layer.per_sample(x)[1](cotangent)
            times[count].append(time.perf_counter() - start)
    torch.set_num_threads(1)
    one, two = (statistics.median(t[1:]) for t in times.values())
    figures.add("two threads over one, 12 wires, batch 256", one / two, "x", 1.6, "higher")


def sites(figures, wires):
    """64 sites' circuits with their own weights, batch 32: one call against one after the other."""
    import torch

    from qfed.quantum import QuantumLayer
    from qfed.quantum.functional import Sweep

    layer = QuantumLayer(_circuit(wires), {"w": (2, wires, 3)}, wires=wires)
    runner = layer.runner(wires)
    x = torch.rand(64, 32, wires)
    weights = torch.rand(64, layer.w.numel())
    cotangent = torch.randn(64, 32, wires)

    def together():
        own = runner.angles.own(x.flatten(0, 1), weights[0]).reshape(64, 32, -1)
        shared = torch.stack([runner.angles.shared(w) for w in weights])
        sweep = Sweep(runner.program, runner.plan, keep=True)
        sweep.forward(own, shared, None)
        sweep.backward(own, shared, None, cotangent)

    def apart():
        for k in range(64):
            runner.per_sample(x[k], weights[k])[1](cotangent[k])

    times = {together: [], apart: []}
    for _ in range(9):
        for task in times:
            start = time.perf_counter()
            task()
            times[task].append(time.perf_counter() - start)
    one, many = (statistics.median(t[1:]) for t in times.values())
    figures.add(f"{wires} wires: 64 sites in one call, circuit alone, a site", one / 64 * 1e6, "us")
    figures.add(f"{wires} wires: ratio sites one by one / one call, circuit alone", many / one, "x", None, "higher")


def opacus_step(figures, wires):
    """Linear -> circuit -> Linear with Opacus hooks: our layer, and a TorchLayer with registered weights repaired."""
    import warnings

    import pennylane as qml
    import torch
    from torch import nn

    warnings.filterwarnings("ignore")
    from opacus.grad_sample import GradSampleModule

    from qfed.quantum import QuantumLayer

    class Repaired(qml.qnn.TorchLayer):
        def forward(self, inputs):
            found = self.qnode(inputs=inputs, w=self.w)
            return torch.stack(list(found), dim=-1).to(inputs)

    node = qml.QNode(
        _circuit(wires), qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop"
    )
    layers = {
        "ours": QuantumLayer(_circuit(wires), {"w": (2, wires, 3)}, wires=wires),
        "repaired TorchLayer": Repaired(node, {"w": (2, wires, 3)}),
    }
    x, y = torch.rand(BATCH, 16), torch.randint(0, 2, (BATCH,))
    times = {}
    tasks = {}
    for name, layer in layers.items():
        model = nn.Sequential(nn.Linear(16, wires), layer, nn.Linear(wires, 2))
        tasks[name] = (GradSampleModule(model, strict=False), model)
    plain = nn.Sequential(
        nn.Linear(16, wires), QuantumLayer(_circuit(wires), {"w": (2, wires, 3)}, wires=wires), nn.Linear(wires, 2)
    )
    tasks["ours without privacy"] = (plain, plain)
    for _ in range(9):
        for name, (model, _) in tasks.items():
            start = time.perf_counter()
            model.zero_grad(set_to_none=True)
            for p in model.parameters():
                p.grad_sample = None
            nn.functional.cross_entropy(model(x), y).backward()
            times.setdefault(name, []).append(time.perf_counter() - start)
    median = {name: statistics.median(t[2:]) for name, t in times.items()}
    for name, value in median.items():
        figures.add(
            f"{wires} wires: step with {name}" + ("" if "without" in name else " and Opacus hooks"), value * 1e3, "ms"
        )
    figures.add(
        f"{wires} wires: ratio Opacus hooks, repaired TorchLayer / ours",
        median["repaired TorchLayer"] / median["ours"],
        "x",
        None,
        "higher",
    )


def accuracy(figures):
    import pennylane as qml
    import torch

    from qfed.quantum import QuantumLayer

    worst = 0.0
    for wires in (4, 8):
        layer = QuantumLayer(_circuit(wires), {"w": (3, wires, 3)}, wires=wires).double()
        node = qml.QNode(_circuit(wires), qml.device("default.qubit", wires=wires), interface="torch")
        x = torch.rand(8, wires, dtype=torch.float64)
        want = torch.stack([torch.stack(list(node(row, layer.w))) for row in x])
        worst = max(worst, float((layer(x) - want).abs().max().detach()))
    figures.add("float64 error against default.qubit", worst, "", 1e-12)


FIRST_CALL = """
import statistics
import time
import torch, pennylane as qml, numba
from qfed.quantum import QuantumLayer, warmup
start = time.perf_counter()
warmup()
kernel = time.perf_counter() - start
def circuit(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(8))
    qml.StronglyEntanglingLayers(w, wires=range(8))
    return [qml.expval(qml.Z(i)) for i in range(8)]
times = []
for layers in (2, 3, 2, 3, 2, 3):
    layer = QuantumLayer(circuit, {"w": (layers, 8, 3)}, wires=8)
    start = time.perf_counter()
    layer.runner(8)
    times.append(time.perf_counter() - start)
print(kernel, times[0], statistics.median(times[1:]), min(times[1:]))
"""


def first_calls(figures):
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        for state in ("cold", "warm"):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_CALL], env=environment, capture_output=True, text=True, check=True
            )
            kernel, first, later, best = (float(v) for v in done.stdout.split())
            figures.add(f"kernel of both dtypes, {state} cache", kernel, "s", 40 if state == "cold" else 1)
    figures.add("compile of a circuit, first in the process, warm cache", first * 1e3, "ms", 100)
    figures.add("compile of a circuit, later in the process, warm cache", later * 1e3, "ms", 100)
    figures.add("compile of a circuit, later in the process, best", best * 1e3, "ms")


def main():
    from report import finish  # tests/bench/report.py

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="4 and 8 wires, few rounds")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    available = [n for n in CONTENDERS if n not in NEEDS or importlib.util.find_spec(NEEDS[n])]
    for name in sorted(set(CONTENDERS) - set(available)):
        print(f"note: {name} left out, {NEEDS[name]} is not installed")
    figures = Figures()
    cases = QUICK if arguments.quick else CASES
    races(figures, cases, 3 if arguments.quick else 5, available)
    bound(figures, cases)
    accuracy(figures)
    for wires in (4, 8):
        sites(figures, wires)
        opacus_step(figures, wires)
    threads(figures)
    first_calls(figures)
    packages = ("torch", "pennylane", "numba", "numpy", "opacus")
    finish("Quantum engine: forward and per-sample gradients", figures, packages, arguments.json)


if __name__ == "__main__":
    main()
