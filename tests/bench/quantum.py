"""Speed of the quantum engine against what people use today.

    python tests/bench/quantum.py [--json FILE] [--quick] [--python NAME=PATH]

One process a contender, one thread each, measured in turns (round robin), so that a busy machine hits all of them
alike, a tenth of a second each; figures are medians of the rounds. The task is the forward pass and the gradient of
every weight and input for each record of a batch (StronglyEntanglingLayers after AngleEmbedding, <Z> on every wire),
64 records unless said; contenders.py has them, step.py the whole DP-SGD step around the circuit.
Contenders that are not installed are left out with a note: jax (PennyLane-JAX), torchquantum; the latter pins an old
Qiskit and goes into an environment of its own, `--python torchquantum=that/bin/python`.
The bound is the core's fused multiply-add rate, measured with 12 independent chains in registers; an operation is
one vector multiply, add or multiply-add for one record. Goals are held against medians;
figures named "best" are extra, for machines that are shared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import step  # tests/bench/step.py
from contenders import CONTENDERS, circuit_of, ours  # tests/bench/contenders.py
from report import finish  # tests/bench/report.py

HERE = Path(__file__).parent
BATCH = 64
CASES = [(4, 2), (6, 2), (8, 2), (10, 2), (10, 4), (12, 2), (12, 4), (14, 2)]
QUICK = [(4, 2), (8, 2)]
BATCHES = [1, 16, 256, 1024]
NEEDS = {"jax": "jax", "torchquantum": "torchquantum"}
# The slowest contenders skip what would take minutes.
LARGEST = {"loop": 8, "vmap": 14, "jax": 14, "torchquantum": 8}


class Contender:
    """A contender's process."""

    def __init__(self, name, python):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        }
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(HERE / "contenders.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def time(self, wires, layers, batch):
        self.process.stdin.write(json.dumps([wires, layers, batch]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Figures(list):
    def add(self, name, value, unit, goal=None, better="lower"):
        self.append({"name": name, "value": value, "unit": unit, "goal": goal, "better": better})
        print(f"{name:62} {value:12.4g} {unit}", flush=True)


# ---- races


def races(figures, cases, batches, rounds, pythons):
    """`pythons` is the interpreter of each contender that can run."""
    contenders = {name: Contender(name, python) for name, python in pythons.items()}
    try:
        for wires, layers in cases:
            median = _race(contenders, wires, layers, BATCH, rounds)
            case = f"{wires} wires, {layers} layers"
            for name, seconds in median.items():
                figures.add(f"{case}: {name}", seconds * 1e3, "ms")
            for name, goal in _goals(wires):
                if name in median:
                    figures.add(f"{case}: ratio {name} / ours", median[name] / median["ours"], "x", goal, "higher")
        few = {name: c for name, c in contenders.items() if name in ("ours", "vmap", "jax")}
        for batch in batches:
            for name, seconds in _race(few, 8, 2, batch, rounds).items():
                figures.add(f"8 wires, 2 layers, batch {batch}: {name}", seconds * 1e3, "ms")
    finally:
        for contender in contenders.values():
            contender.close()


def _race(contenders, wires, layers, batch, rounds):
    times = {name: [] for name in contenders if wires <= LARGEST.get(name, 99)}
    for _ in range(rounds if wires < 12 else 3):
        for name, found in times.items():
            found.append(contenders[name].time(wires, layers, batch))
    return {name: statistics.median(found) for name, found in times.items()}


def _goals(wires):
    yield "vmap", 500 if wires <= 8 else 200
    yield "loop", 10_000 if wires <= 8 else None
    yield "jax", 10 if wires <= 4 else 30 if wires >= 8 else None
    yield "torchquantum", 200 if wires <= 8 else None


# ---- the core's bound


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
    plain = int(plan.blocks[:, -1].sum())
    blocks, folds, start = len(plan.blocks), len(plan.folds), 8 * (len(plan.prefix) > 0)
    forward = start + 12 * blocks + 4 * folds + 2 + n
    backward = 3 * start + 33 * blocks - 3 * plain + (10 + n) * folds + n + 2
    return BATCH * size * (forward + backward)


def bound(figures, cases):
    import torch

    from qfed.quantum import QuantumLayer

    torch.set_num_threads(1)
    rate = fused_rate()
    for wires, layers in cases:
        if wires < 8:
            continue
        task, times = ours(wires, layers, BATCH), []
        for _ in range(7):
            rate = max(rate, fused_rate())
            for _ in range(10):
                start = time.perf_counter()
                task()
                times.append(time.perf_counter() - start)
        plan = QuantumLayer(circuit_of(wires), {"w": (layers, wires, 3)}, wires=wires).runner(wires).plan
        nominal, seconds = nominal_operations(wires, layers) / rate, statistics.median(times)
        case, goal = f"{wires} wires, {layers} layers: fraction of the bound", 0.45 if wires == 8 else 0.5
        executed = executed_operations(plan) / rate / seconds
        figures.add(f"{case}, design's operation count", nominal / seconds, "", goal, "higher")
        figures.add(f"{case}, design's count, best call", nominal / min(times), "", None, "higher")
        figures.add(f"{case}, operations executed", executed, "", None, "higher")
    figures.add("measured multiply-add rate of the core", rate / 1e9, "G/s", None, "higher")


# ---- the rest


def threads(figures):
    import torch

    from qfed.quantum import QuantumLayer

    layer = QuantumLayer(circuit_of(12), {"w": (2, 12, 3)}, wires=12)
    x, cotangent = torch.rand(256, 12), torch.randn(256, 12)
    times = {1: [], 2: []}
    for _ in range(15):
        for count, found in times.items():
            torch.set_num_threads(count)
            start = time.perf_counter()
            layer.per_sample(x)[1](cotangent)
            found.append(time.perf_counter() - start)
    torch.set_num_threads(1)
    one, two = (statistics.median(t[1:]) for t in times.values())
    figures.add("two threads over one, 12 wires, batch 256", one / two, "x", 1.6, "higher")


def accuracy(figures):
    import pennylane as qml
    import torch

    from qfed.quantum import QuantumLayer

    worst = 0.0
    for wires in (4, 8):
        layer = QuantumLayer(circuit_of(wires), {"w": (3, wires, 3)}, wires=wires).double()
        node = qml.QNode(circuit_of(wires), qml.device("default.qubit", wires=wires), interface="torch")
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
print(kernel, times[0], statistics.median(times[1:]))
"""


def first_calls(figures):
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        for state in ("cold", "warm"):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_CALL], env=environment, capture_output=True, text=True, check=True
            )
            kernel, first, later = (float(v) for v in done.stdout.split())
            figures.add(f"kernel of both dtypes, {state} cache", kernel, "s", 40 if state == "cold" else 1)
    figures.add("compile of a circuit, first in the process, warm cache", first * 1e3, "ms", 100)
    figures.add("compile of a circuit, later in the process, warm cache", later * 1e3, "ms", 100)


def available(given):
    """The interpreter of each contender that can run: ours, or the one that was named for it."""
    pythons = dict(pair.split("=", 1) for pair in given)
    found = {}
    for name in CONTENDERS:
        python = pythons.get(name, sys.executable)
        needed = NEEDS.get(name)
        if needed is None or subprocess.run([python, "-c", f"import {needed}"], capture_output=True).returncode == 0:
            found[name] = python
        else:
            print(f"note: {name} left out, {needed} cannot be imported by {python}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="4 and 8 wires, few rounds")
    parser.add_argument(
        "--python", action="append", default=[], metavar="NAME=PATH", help="run a contender with this interpreter"
    )
    arguments = parser.parse_args()
    figures = Figures()
    cases = QUICK if arguments.quick else CASES
    races(figures, cases, () if arguments.quick else BATCHES, 3 if arguments.quick else 5, available(arguments.python))
    bound(figures, cases)
    accuracy(figures)
    threads(figures)
    step.add(figures)
    first_calls(figures)
    packages = ("torch", "pennylane", "numba", "numpy", "opacus")
    finish("Quantum engine: forward and per-sample gradients", figures, packages, arguments.json)


if __name__ == "__main__":
    main()
