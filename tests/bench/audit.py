"""The audit against broken implementations, and against honest ones.

    python tests/bench/audit.py [--json FILE] [--runs 100]

Each bug is put into the parts of the real plan, in modes local and shared and for both methods of training (gradients,
zeroth-order steps), and the audit must flag it; then `runs` audits of the plan as it is (modes and methods in turn)
count each gate's false alarms. The last rows time an audit with the default number of canaries. Exit status 1 when a
bug gets through or a gate has more than one false alarm in a hundred.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from qfed.config import RunConfig, load_config
from qfed.privacy import clipping, steps, zeroth_order
from qfed.privacy.audit.verdict import Verdict
from qfed.privacy.discrete import DiscreteGaussian
from qfed.simulation.audit import audit

BASE = ("data.source=wine", "model.kind=twin", "model.wires=2", "model.layers=1", "federation.sites=5")
LOCAL = ("privacy.mode=local", "training.rounds=4", "training.local_steps=4", "training.batch_size=30")
SHARED = ("privacy.mode=shared", "training.rounds=24", "training.local_steps=1", "training.batch_size=30")
ZEROTH = ("training.method=dp_zo",)
HONEST_CANARIES, PROBED_CANARIES = 400, 250
MODES, METHODS = ("local", "shared"), ("gradient", "dp_zo")


def small(mode: str, *changes: str, method: str = "gradient") -> RunConfig:
    """A run that takes seconds to audit."""
    base = [*BASE, *(LOCAL if mode == "local" else SHARED), *(ZEROTH if method == "dp_zo" else ())]
    return load_config(None, [*base, *changes])


@contextmanager
def noise(make: Callable[[Callable[[int], Any], int], Any]) -> Iterator[None]:
    """Replace the noise of both modes; `make` gets the honest sampler of a size, and the size."""
    gaussian, sample = clipping.gaussian, DiscreteGaussian.sample

    def continuous(size: int, stddev: float) -> Any:
        return make(lambda n: gaussian(n, stddev), size)

    def discrete(self: DiscreteGaussian, size: int) -> Any:
        return np.rint(make(lambda n: sample(self, n), size)).astype(np.int64)

    with patch.object(clipping, "gaussian", continuous), patch.object(DiscreteGaussian, "sample", discrete):
        yield


def weaker() -> AbstractContextManager[None]:
    """Nine tenths of the noise."""
    return noise(lambda sample, size: 0.9 * sample(size))


def absent() -> AbstractContextManager[None]:
    """No noise at all."""
    return noise(lambda sample, size: np.zeros(size))


def seeded() -> AbstractContextManager[None]:
    """The same seed in each round, at every site."""
    first: dict[int, Any] = {}

    def again(sample: Callable[[int], Any], size: int) -> Any:
        return first.setdefault(size, sample(size))

    return noise(again)


@contextmanager
def clipped_as(whole: Callable[[Any, int, float], Any]) -> Iterator[None]:
    """Replace clipping of records by `whole`(sum of gradients (P,), records, C)."""
    real = steps.stacked_sum

    def broken(chain: Any, loss: Any, flat: Any, x: Any, y: Any, present: Any, clip: float | None) -> Any:
        if clip is None:
            return real(chain, loss, flat, x, y, present, clip)
        total = real(chain, loss, flat, x, y, present, None)
        counts = [y.shape[1]] * len(total) if present is None else np.diff(present.offsets)
        return np.stack([whole(row, int(n), clip) for row, n in zip(total, counts, strict=True)])

    def along(values: Any, clip: float) -> Any:
        return whole(values.sum(axis=0), len(values), clip)[None]

    with patch.object(steps, "stacked_sum", broken), patch.object(zeroth_order, "clipped", along):
        yield


def each_direction_clipped() -> AbstractContextManager[None]:
    """Zeroth-order steps: a record's differences are clipped one by one, not together."""
    return patch.object(zeroth_order, "clipped", lambda values, clip: np.clip(values, -clip, clip))


def unclipped() -> AbstractContextManager[None]:
    """No clipping."""
    return clipped_as(lambda total, records, clip: total)


def mean_clipped() -> AbstractContextManager[None]:
    """The batch's mean gradient (or difference) is clipped, not each record's."""

    def whole(total: Any, records: int, clip: float) -> Any:
        mean = total / max(1, records)
        return total * min(1.0, clip / max(float(np.linalg.norm(mean)), 1e-12))

    return clipped_as(whole)


BUGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "noise x 0.9": weaker,
    "no noise": absent,
    "no clipping": unclipped,
    "batch-mean clipping": mean_clipped,
    "the same seed each round": seeded,
}
ZEROTH_BUGS = BUGS | {"clipping a direction at a time": each_direction_clipped}


def caught(bug: str, mode: str, method: str = "gradient") -> Verdict:
    """The verdict on a plan with a bug."""
    with ZEROTH_BUGS[bug]():
        if method == "dp_zo":
            several = ["training.directions=4"] if bug not in BUGS else []
            return audit(small(mode, *several, method=method), canaries=PROBED_CANARIES, sites=2, seed=1)
        return audit(small(mode), canaries=600, sites=2, seed=1)


def false_alarms(runs: int, methods: Sequence[str] = METHODS) -> Counter[str]:
    """Gates that failed in honest audits, modes and methods in turn."""
    found: Counter[str] = Counter()
    for run in range(runs):
        mode, method = MODES[run % 2], methods[run // 2 % len(methods)]
        canaries = PROBED_CANARIES if method == "dp_zo" else HONEST_CANARIES
        verdict = audit(small(mode, method=method), canaries=canaries, sites=2, seed=run)
        found.update(verdict.failed)
    return found


def main() -> None:
    """Audit bugs and honest runs, print both tables, write the JSON."""
    from report import finish  # tests/bench/report.py
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title="Bugs put into the plan")
    words = ("method", "bug", "mode", "caught by")
    for column in (*words, "noise z", "correlation", "gain", "proven epsilon"):
        table.add_column(column, justify="left" if column in words else "right")
    missed = 0
    for method in METHODS:
        for bug, mode in product(ZEROTH_BUGS if method == "dp_zo" else BUGS, MODES):
            verdict = caught(bug, mode, method)
            missed += verdict.passed
            value = {gate.name: gate.value for gate in verdict.gates}
            table.add_row(
                method,
                bug,
                mode,
                ", ".join(verdict.failed) or "[red]nothing[/]",
                f"{value['noise level']:.1f}",
                f"{value['noise correlation']:.2f}",
                f"{value['canary gain']:.2f}",
                f"{value['epsilon']:.2f} of {verdict.epsilon:.2f}",
            )
    Console(width=140).print(table)
    alarms = false_alarms(arguments.runs)
    figures: list[dict[str, Any]] = [
        {"name": "bugs that got through", "value": missed, "unit": "", "goal": 0},
        {"name": "honest audits", "value": arguments.runs, "unit": ""},
    ]
    figures += [
        {"name": f"false alarms, {gate}", "value": alarms[gate], "unit": "", "goal": max(1, arguments.runs // 100)}
        for gate in ("noise level", "noise shape", "noise correlation", "canary gain", "ledger", "epsilon")
    ]
    for method, mode in product(METHODS, MODES):
        terms = ["training.local_steps=1", "training.rounds=40"] if mode == "shared" else ["training.local_steps=4"]
        config = load_config(None, [f"privacy.mode={mode}", f"training.method={method}", *terms])
        began = time.perf_counter()
        canaries = audit(config, seed=1).canaries
        seconds, what = time.perf_counter() - began, "hybrid model" if method == "gradient" else method
        figures.append({"name": f"{canaries} canaries, {what}, mode {mode}", "value": seconds, "unit": "s", "goal": 10})
    finish("Audit", [{"better": "lower"} | figure for figure in figures], ("torch", "scipy"), arguments.json)
    if missed or max(alarms.values(), default=0) > max(1, arguments.runs // 100):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
