"""What integer noise costs: the sampler beside OpenDP's, and a site's part of one step of mode shared.

    python tests/bench/privacy.py [--json FILE] [--quick]

Medians over repetitions, one thread. OpenDP (pip install opendp) is optional; without it that comparison is left out
and said to be. Its sampler is exact in rationals and one at a time, which is what its figure is the price of.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from report import finish  # tests/bench/report.py

from qfed.privacy.discrete import discrete_gaussian
from qfed.privacy.shares import Shares

STDDEVS = (10.0, 1e3, 1e4, 7e4, 1e6)
GOAL_RATE = 5e6


def seconds(work: Callable[[], Any], repetitions: int) -> float:
    """Median wall time of one call, after one that warms up."""
    work()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def opendp_sampler(stddev: float) -> Callable[[int], Any] | None:
    """OpenDP's discrete Gaussian on a vector of zeros, or None where it is not installed."""
    if find_spec("opendp") is None:
        return None
    import opendp.prelude as dp  # type: ignore[import-not-found,unused-ignore]

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    noise = dp.m.make_gaussian(*space, stddev)
    return lambda size: noise([0] * size)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer samples and repetitions")
    arguments = parser.parse_args()
    size, repetitions = (1 << 17, 3) if arguments.quick else (1 << 20, 9)
    figures: list[dict[str, Any]] = []

    def tell(name: str, value: float, unit: str, goal: float | None = None, better: str = "lower") -> None:
        figures.append({"name": name, "value": value, "unit": unit, "goal": goal, "better": better})

    for stddev in STDDEVS:
        noise = discrete_gaussian(stddev)
        rate = size / seconds(lambda noise=noise: noise.sample(size), repetitions)  # type: ignore[misc]
        tell(f"samples a second, stddev {stddev:g}", rate, "1/s", GOAL_RATE, "higher")
        tell(f"statistical distance of a sample, stddev {stddev:g}", noise.distance, "", 6.5e-15)
        if stddev == 1e4:
            ours = 1 / rate
    other = opendp_sampler(1e4)
    if other is None:
        print("OpenDP is not installed, so it is left out: pip install opendp")
    else:
        few = 200 if arguments.quick else 2000
        theirs = seconds(lambda: other(few), 3) / few
        tell("OpenDP's sampler, stddev 10000", 1e6 * theirs, "us a sample")
        tell("ratio OpenDP / ours, stddev 10000", theirs / ours, "x", 28 / 0.26, "higher")
    for parameters in (100, 10_000):
        shares, gradient = Shares(26.0, 6, 10, 32), np.random.default_rng(1).normal(size=parameters)
        taken = seconds(lambda shares=shares, gradient=gradient: shares.hide(gradient, 1.0), 4 * repetitions)  # type: ignore[misc]
        tell(f"encode and noise {parameters} coordinates", 1e6 * taken, "us")
    finish("Integer noise", figures, ("numpy", "cryptography"), arguments.json)


if __name__ == "__main__":
    main()
