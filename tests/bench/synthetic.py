"""Simulated data from private counts: how useful, beside independent margins and the classical fits of the same counts.

    python tests/bench/synthetic.py [--json FILE] [--quick] [--seeds N]

Digits of 4 x 4 pixels, odd or even: each seed deals the records anew, three quarters are counted (with noise for the
given epsilon, in classes), a generator is fitted, 4000 records are drawn and a random forest is trained on them and
tested on the quarter that nobody counted (TSTR). "coded" trains and tests on bits, which is all that a generator can
tell; "decoded" on pixel values, as who trains on a file of simulated records does. Every figure is the mean over the
seeds: ten at epsilon 3, five of them for what takes longer and for epsilon 1 and exact counts. Gains are paired by
seed. Times are of fit and draw, in one of two processes; CPU seconds tell how much of them is a busy machine's.

The strength of the prior (synth.prior, see qfed/generative/prior.py) and the sweeps of the simulated annealer were
chosen on the seeds 101 to 120, whose splits and noise are other than these.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from report import finish
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

RECORDS = 4000
TREES = 200
DIGITS = (
    "name=digits",
    "data.source=digits",
    "data.test_fraction=0.25",
    "coding.pool=2",
    "coding.levels=[0.4]",
    'coding.classes={even=["0","2","4","6","8"],odd=["1","3","5","7","9"]}',
)
Scores = dict[str, list[float]]


def sources(seed: int, epsilon: float | None, work: Path) -> Any:
    """The digits of one seed, counted once; epsilon None counts exactly."""
    from qfed.config import load_config
    from qfed.synth.source import release_here

    settings = [*DIGITS, f"seed={seed}", *([f"privacy.epsilon={epsilon}"] if epsilon else [])]
    place = work / f"{seed}-{epsilon}"
    return release_here(load_config(None, settings), no_privacy=epsilon is None, out=place)


class Judge:
    """Real records of one source: a forest trained on bits is tested on those held out."""

    def __init__(self, source: Any) -> None:
        from qfed.synth.source import real_records

        self.coding = source.coding
        counted, held_out = (self.coding.project(part) for part in real_records(source.config))
        self.held_out, self.bits = held_out, self.coding.encode_projected(held_out)
        self.real = self.coding.encode_projected(counted)

    def coded(self, bits: np.ndarray) -> float:
        """TSTR on bits."""
        from sklearn.ensemble import RandomForestClassifier

        inputs = bits.shape[1] - len(self.coding.target_names)
        forest = RandomForestClassifier(TREES, random_state=0).fit(bits[:, :inputs], bits[:, inputs])
        return float(forest.score(self.bits[:, :inputs], self.bits[:, inputs]))

    def decoded(self, bits: np.ndarray, rng: np.random.Generator) -> float:
        """TSTR on values."""
        from sklearn.ensemble import RandomForestClassifier

        made = self.coding.decode(bits, rng).records
        forest = RandomForestClassifier(TREES, random_state=0).fit(made.x, made.y)
        return float(forest.score(self.held_out.x, self.held_out.y))

    def apart(self, bits: np.ndarray) -> float:
        """TVD of pairs to the counted records."""
        from qfed.synth.fidelity import margins_apart

        return margins_apart(bits, self.real)[1]


FLOOR, CLASSICAL, SA, MOCK, MBI = (
    "independent margins",
    "classical pairwise",
    "Boltzmann, sa",
    "Boltzmann, mock Zephyr",
    "mbi (Private-PGM)",
)
MAKERS: dict[str, tuple[str, dict[str, str]]] = {
    FLOOR: ("independent", {}),
    CLASSICAL: ("pairwise", {}),
    SA: ("boltzmann", {"sampler": "sa"}),
    MOCK: ("boltzmann", {"sampler": "mock", "topology": "zephyr"}),
}


def made(source: Any, name: str, rng: np.random.Generator) -> np.ndarray:
    """Records of a generator that is fitted to a source."""
    from qfed.generative.synthesizer import Synthesizer
    from qfed.synth.graphical import graphical

    if name == MBI:
        return graphical(source.release)(RECORDS, rng)
    generator, settings = MAKERS[name]
    config = source.config.synth.model_copy(update=settings)
    return Synthesizer.fit(config, source.release, rng, name=generator).sample(RECORDS, rng)


@dataclass(frozen=True)
class Cell:
    """One release and what is fitted to it."""

    seed: int
    epsilon: float | None
    names: tuple[str, ...]


def measured(cell: Cell) -> tuple[float, dict[str, dict[str, float]]]:
    """TSTR of the real records' own bits, and the scores of every generator."""
    with tempfile.TemporaryDirectory() as work:
        source = sources(cell.seed, cell.epsilon, Path(work))
    judge, found = Judge(source), {}
    for name in cell.names:
        rng = np.random.default_rng(cell.seed)
        began, cpu = time.perf_counter(), time.process_time()
        bits = made(source, name, rng)
        took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        scores = {"coded": judge.coded(bits), "decoded": judge.decoded(bits, rng), "tvd2": judge.apart(bits)}
        found[name] = took | scores
    return judge.coded(judge.real), found


def cells(seeds: int, quick: bool) -> list[Cell]:
    """Epsilon 3 with every seed; mock, epsilon 1 and exact counts with half as many, mbi with two."""
    from qfed.synth.graphical import installed

    fewer = range(1, (seeds if quick else -(-seeds // 2)) + 1)
    more = {seed: (MOCK, *((MBI,) if installed() and not quick and seed in fewer[:2] else ())) for seed in fewer}
    found = [Cell(seed, 3.0, (FLOOR, CLASSICAL, SA, *more.get(seed, ()))) for seed in range(1, seeds + 1)]
    if not quick:
        found += [Cell(seed, epsilon, (FLOOR, CLASSICAL, SA)) for epsilon in (1.0, None) for seed in fewer]
    return found


def measure(seeds: int, quick: bool) -> tuple[dict[tuple[str, str], Scores], list[float]]:
    """(epsilon, generator) -> scores of every seed; TSTR of the real records' own bits."""
    found: dict[tuple[str, str], Scores] = defaultdict(lambda: defaultdict(list))
    real: list[float] = []
    wanted = cells(seeds, quick)
    with (
        ProcessPoolExecutor(2, get_context("spawn")) as pool,
        Progress(*Progress.get_default_columns(), console=Console(stderr=True)) as display,
    ):
        for cell, (own, scores) in display.track(
            zip(wanted, pool.map(measured, wanted), strict=True), total=len(wanted), description="releases"
        ):
            if cell.epsilon == 3.0:
                real.append(own)
            for name, values in scores.items():
                for key, value in values.items():
                    found["none" if cell.epsilon is None else f"{cell.epsilon:g}", name][key].append(value)
    return found, real


def show(found: dict[tuple[str, str], Scores], real: list[float]) -> None:
    """Everything, as a table."""
    table = Table(title=f"digits 4 x 4, odd or even; real bits {statistics.mean(real):.3f}; mean (standard error)")
    for column in ("epsilon", "generator", "TSTR coded", "TSTR decoded", "TVD 2-way", "seconds"):
        table.add_column(column, justify="left" if column == "generator" else "right")
    for (epsilon, name), scores in found.items():
        spread = statistics.stdev(scores["coded"]) / len(scores["coded"]) ** 0.5 if len(scores["coded"]) > 1 else 0.0
        mean = {key: statistics.mean(values) for key, values in scores.items()}
        table.add_row(
            epsilon, name, f"{mean['coded']:.3f} ({spread:.3f})", f"{mean['decoded']:.3f}", f"{mean['tvd2']:.4f}",
            f"{mean['seconds']:.1f}",
        )  # fmt: skip
    Console(width=120).print(table)


def figures(found: dict[tuple[str, str], Scores], real: list[float]) -> list[dict[str, Any]]:
    """The figures of issue 7's D-Wave part, and what stands beside them."""
    goals = {("3", SA): 0.82, ("3", MOCK): 0.80}
    out = [{"name": "TSTR, real bits", "value": statistics.mean(real), "unit": "", "better": "higher"}]
    for (epsilon, name), scores in found.items():
        label, values = f"TSTR, epsilon {epsilon}, {name}", scores["coded"]
        entry = {"name": label, "value": statistics.mean(values), "unit": "", "better": "higher"}
        out.append(entry | ({"goal": goals[epsilon, name]} if (epsilon, name) in goals else {}))
        if len(values) > 1:
            spread = statistics.stdev(values) / len(values) ** 0.5
            out.append({"name": f"{label}: standard error", "value": spread, "unit": "", "better": "lower"})
    for name in (SA, MOCK):
        mine = found["3", name]
        gain = statistics.mean(a - b for a, b in zip(mine["coded"], found["3", FLOOR]["coded"], strict=False))
        out += [
            {"name": f"{name} above {FLOOR}", "value": gain, "unit": "", "goal": 0.04, "better": "higher"},
            {"name": f"{name}, longest fit", "value": max(mine["seconds"]), "unit": "s", "goal": 60, "better": "lower"},
            {"name": f"{name}, CPU of a fit", "value": statistics.mean(mine["cpu"]), "unit": "s", "better": "lower"},
        ]
    return out


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="epsilon 3 only, two seeds, without mbi")
    parser.add_argument("--seeds", type=int, default=None, help="default: 10")
    arguments = parser.parse_args()
    found, real = measure(arguments.seeds or (2 if arguments.quick else 10), arguments.quick)
    show(found, real)
    finish(
        "Simulated data",
        figures(found, real),
        ("dimod", "dwave-samplers", "dwave-system", "scikit-learn"),
        arguments.json,
    )


if __name__ == "__main__":
    main()
