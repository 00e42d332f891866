"""Speed of a whole DP-SGD step around a circuit, alone and for 64 sites at once.

    python tests/bench/step.py [--json FILE]

The model is Linear(16, n) -> StronglyEntangling circuit of 2 layers -> Linear(n, 2). A step is Poisson sampling from
the operating system's entropy, per-record gradients, clipping, noise and SGD with momentum; every contender samples,
clips, adds noise and steps. One thread, contenders in turns; figures are medians over single steps, of CPU time (a
busy machine takes the wall clock).

ours            what a site runs (`qfed.privacy.steps`, the inside of mode local)
autograd        the same layer and loop without privacy: sample, backward, SGD
opacus          Opacus' hooks and DPOptimizer with our layer
torchlayer      Opacus' hooks and DPOptimizer with PennyLane's TorchLayer, its weights registered so that it learns

Physical limit: the circuit alone, which is arithmetic; what a step takes above it is Python and calls of libraries.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path

from contenders import circuit_of  # tests/bench/contenders.py

RECORDS, RATE, CLIP, SIGMA = 640, 0.1, 1.0, 1.0
BATCH, SITE_BATCH, SITES = 64, 32, 64


def _model(wires, layer=None):
    from torch import nn

    from qfed.quantum import QuantumLayer

    layer = layer or QuantumLayer(circuit_of(wires), {"w": (2, wires, 3)}, wires=wires)
    return nn.Sequential(nn.Linear(16, wires), layer, nn.Linear(wires, 2))


def _records(count, seed=0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 16, generator=generator), torch.randint(0, 2, (count,), generator=generator)


def _sgd(parameters):
    import torch

    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def _opened(model, count):
    """Sites as a plan hands them over once they are paid for."""
    import numpy as np

    from qfed.privacy.rounds import Opened, Task
    from qfed.privacy.steps import flat

    return [
        Opened(Task(flat(model), lambda: None, None, str(k), "bench", 1, np.random.default_rng(k)), *_records(count, k))
        for k in range(SITES)
    ]


def ours(model, sites, batch, steps):
    """Median seconds of a step, all of `sites` in it."""
    from qfed.models import loss
    from qfed.privacy.clipping import noisy_mean
    from qfed.privacy.steps import train_sites

    count, clock = sum(len(site.y) for site in sites), Clock(RATE)
    train_sites(
        model, loss("classification"), sites, optimizer=_sgd, steps=steps, clip_norm=CLIP,
        sample=lambda: clock.sample(count),
        release=lambda total: noisy_mean(total, noise_multiplier=SIGMA, clip_norm=CLIP, batch_size=batch),
    )  # fmt: skip
    return clock.median()


def plain(model, x, y, steps):
    """Median seconds of a step without privacy, by autograd."""
    import torch

    from qfed.models import loss

    optimizer, criterion, clock = _sgd(model.parameters()), loss("classification"), Clock(RATE)
    for _ in range(steps):
        chosen = torch.from_numpy(clock.sample(len(x)))
        optimizer.zero_grad()
        (criterion(model(x[chosen]), y[chosen]).sum() / BATCH).backward()
        optimizer.step()
    return clock.median()


class Clock:
    """Poisson sampling, which begins a step, and the times at which steps began."""

    def __init__(self, rate):
        self.rate, self.starts = rate, []

    def sample(self, count):
        from qfed.privacy.noise import poisson_sample

        self.starts.append(time.thread_time())
        return poisson_sample(count, self.rate)

    def median(self):
        ends = [*self.starts[1:], time.thread_time()]
        return statistics.median(end - start for start, end in zip(self.starts, ends, strict=True))


class Opacus:
    """Opacus' hooks around a model, and its optimiser."""

    def __init__(self, model, batch):
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        self.model = GradSampleModule(model, loss_reduction="sum", strict=False)
        self.optimizer = DPOptimizer(
            _sgd(self.model.parameters()), noise_multiplier=SIGMA, max_grad_norm=CLIP, expected_batch_size=batch
        )

    def steps(self, x, y, steps):
        """Median seconds of a step."""
        import torch

        from qfed.models import loss

        criterion, clock = loss("classification"), Clock(RATE)
        for _ in range(steps):
            chosen = torch.from_numpy(clock.sample(len(x)))
            self.optimizer.zero_grad()
            criterion(self.model(x[chosen].requires_grad_()), y[chosen]).sum().backward()
            self.optimizer.step()
        return clock.median()


def _repaired(wires):
    import pennylane as qml
    import torch

    class Repaired(qml.qnn.TorchLayer):
        def forward(self, inputs):
            found = self.qnode(inputs=inputs, w=self.w)
            return torch.stack(list(found), dim=-1).to(inputs)

    device = qml.device("default.qubit", wires=wires)
    node = qml.QNode(circuit_of(wires), device, interface="torch", diff_method="backprop")
    return Repaired(node, {"w": (2, wires, 3)})


def _medians(tasks, rounds):
    """Medians of the contenders' times, measured in turns; the first turn warms up."""
    times = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            times[name].append(task())
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def one_site(figures, wires, rounds=9):
    """A step of one site, batch 64."""
    model, open_model = _model(wires), _model(wires)
    x, y = _records(RECORDS)
    site = _opened(model, RECORDS)[:1]
    opacus, torchlayer = Opacus(_model(wires), BATCH), Opacus(_model(wires, _repaired(wires)), BATCH)
    median = _medians(
        {
            "ours": lambda: ours(model, site, BATCH, 60),
            "autograd": lambda: plain(open_model, x, y, 40),
            "opacus": lambda: opacus.steps(x, y, 10),
            "torchlayer": lambda: torchlayer.steps(x, y, 2),
            "circuit": lambda: _circuit_alone(wires, 1, BATCH),
        },
        rounds,
    )
    case = f"{wires} wires, DP-SGD step"
    for name in ("ours", "autograd", "opacus", "torchlayer"):
        figures.add(f"{case}: {name}", median[name] * 1e6, "us")
    figures.add(f"{case}: its circuit alone (the limit)", median["circuit"] * 1e6, "us")
    ratio = median["torchlayer"] / median["ours"]
    figures.add(f"{case}: ratio Opacus and TorchLayer / ours", ratio, "x", 100, "higher")
    figures.add(f"{case}: ratio ours / non-private autograd", median["ours"] / median["autograd"], "x", 1)


def many_sites(figures, wires, rounds=7):
    """A step of 64 sites in one call, batch 32 a site, with Poisson batches of any sizes."""
    model, count = _model(wires), round(SITE_BATCH / RATE)
    sites = _opened(model, count)
    x, y = _records(count)
    opacus = Opacus(_model(wires), SITE_BATCH)
    few = sites[:8]
    median = _medians(
        {
            "stacked": lambda: ours(model, sites, SITE_BATCH, 10) / SITES,
            "sequential": lambda: statistics.median(ours(model, [site], SITE_BATCH, 10) for site in few),
            "opacus": lambda: opacus.steps(x, y, 20),
            "circuit": lambda: _circuit_alone(wires, SITES, SITE_BATCH) / SITES,
        },
        rounds,
    )
    case = f"{wires} wires, 64 sites"
    figures.add(f"{case}: in one call, a site and step", median["stacked"] * 1e6, "us")
    figures.add(f"{case}: one after the other, a site and step", median["sequential"] * 1e6, "us")
    figures.add(f"{case}: one after the other, Opacus and our layer", median["opacus"] * 1e6, "us")
    figures.add(f"{case}: circuits alone, even batches, a site (the limit)", median["circuit"] * 1e6, "us")
    figures.add(f"{case}: ratio one by one / one call", median["sequential"] / median["stacked"], "x", 5, "higher")
    figures.add(f"{case}: ratio Opacus / one call", median["opacus"] / median["stacked"], "x", 25, "higher")


def _circuit_alone(wires, sites, batch):
    """Seconds of the kernel, forward and backward."""
    import numpy as np

    from qfed.quantum import QuantumLayer
    from qfed.quantum.execute import even

    circuit = QuantumLayer(circuit_of(wires), {"w": (2, wires, 3)}, wires=wires).runner(wires)
    rng = np.random.default_rng(0)
    x, w = (rng.random(shape, dtype=np.float32) for shape in ((sites * batch, wires), (sites, 6 * wires)))
    cotangent, times = rng.random((sites * batch, wires), dtype=np.float32), []
    for _ in range(20 if sites == 1 else 5):
        start = time.thread_time()
        circuit.sites(x, w, even(sites, batch))[1](cotangent)
        times.append(time.thread_time() - start)
    return statistics.median(times)


def add(figures):
    """All figures of a step, at 4 and 8 wires."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for wires in (4, 8):
            one_site(figures, wires)
            many_sites(figures, wires)
    torch.set_num_threads(before)


def main():
    from quantum import Figures  # tests/bench/quantum.py
    from report import finish  # tests/bench/report.py

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures = Figures()
    add(figures)
    finish("A DP-SGD step", figures, ("torch", "pennylane", "numba", "numpy", "opacus"), arguments.json)


if __name__ == "__main__":
    main()
