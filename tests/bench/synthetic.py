"""Simulated data from private counts: how useful, beside independent margins and the classical fits of the same counts.

    python tests/bench/synthetic.py [--json FILE] [--quick] [--seeds N]

Digits of 4 x 4 pixels, odd or even: each seed deals the records anew, three quarters are counted (with noise for the
given epsilon, in classes), a generator is fitted, 4000 records are drawn and a random forest is trained on them and
tested on the quarter that nobody counted (TSTR). "coded" trains and tests on bits, which is all that a generator can
tell; "decoded" on pixel values, as who trains on a file of simulated records does. Every figure is the mean over the
seeds. Times are of fit and draw, imports apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import finish
from rich.console import Console
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


def generators(quick: bool) -> dict[str, Callable[[Any, np.random.Generator], np.ndarray]]:
    """Name -> records of a source."""
    from qfed.generative.synthesizer import Synthesizer
    from qfed.synth.graphical import graphical, installed

    def of(name: str, **settings: str) -> Callable[[Any, np.random.Generator], np.ndarray]:
        def make(source: Any, rng: np.random.Generator) -> np.ndarray:
            config = source.config.synth.model_copy(update=settings)
            return Synthesizer.fit(config, source.release, rng, name=name).sample(RECORDS, rng)

        return make

    found = {
        "independent margins": of("independent"),
        "classical pairwise": of("pairwise"),
        "Boltzmann, sa": of("boltzmann", sampler="sa"),
        "Boltzmann, mock Zephyr": of("boltzmann", sampler="mock", topology="zephyr"),
    }
    if not quick and installed():
        found["mbi (Private-PGM)"] = lambda source, rng: graphical(source.release)(RECORDS, rng)
    return found


def measure(seeds: int, quick: bool) -> tuple[dict[tuple[str, str], Scores], list[float]]:
    """(epsilon, generator) -> scores of every seed; TSTR of the real records' own bits."""
    found: dict[tuple[str, str], Scores] = defaultdict(lambda: defaultdict(list))
    real: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        for seed in range(1, seeds + 1):
            for epsilon in (3.0,) if quick else (3.0, 1.0, None):
                source = sources(seed, epsilon, Path(work))
                judge = Judge(source)
                if epsilon == 3.0:
                    real.append(judge.coded(judge.real))
                for name, make in generators(quick).items():
                    if epsilon != 3.0 and name == "mbi (Private-PGM)":
                        continue
                    rng = np.random.default_rng(seed)
                    began = time.perf_counter()
                    bits = make(source, rng)
                    seconds = time.perf_counter() - began
                    scores = found["none" if epsilon is None else f"{epsilon:g}", name]
                    scores["seconds"].append(seconds)
                    scores["coded"].append(judge.coded(bits))
                    scores["decoded"].append(judge.decoded(bits, rng))
                    scores["tvd2"].append(judge.apart(bits))
                    print(
                        f"seed {seed}, epsilon {epsilon}, {name}: {scores['coded'][-1]:.3f} in {seconds:.1f} s",
                        flush=True,
                    )
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

    def mean(epsilon: str, name: str, key: str = "coded") -> float:
        return statistics.mean(found[epsilon, name][key])

    sa, mock, floor = "Boltzmann, sa", "Boltzmann, mock Zephyr", "independent margins"
    goals = {("3", sa): 0.82, ("3", mock): 0.80}
    out = [{"name": "TSTR, real bits", "value": statistics.mean(real), "unit": "", "better": "higher"}]
    for epsilon, name in found:
        entry = {
            "name": f"TSTR, epsilon {epsilon}, {name}",
            "value": mean(epsilon, name),
            "unit": "",
            "better": "higher",
        }
        out.append(entry | ({"goal": goals[epsilon, name]} if (epsilon, name) in goals else {}))
    for name in (sa, mock):
        gain = mean("3", name) - mean("3", floor)
        out.append({"name": f"{name} above {floor}", "value": gain, "unit": "", "goal": 0.04, "better": "higher"})
        took = max(found["3", name]["seconds"])
        out.append({"name": f"{name}, longest fit", "value": took, "unit": "s", "goal": 60, "better": "lower"})
    return out


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="epsilon 3 only, two seeds, without mbi")
    parser.add_argument("--seeds", type=int, default=None)
    arguments = parser.parse_args()
    found, real = measure(arguments.seeds or (2 if arguments.quick else 5), arguments.quick)
    show(found, real)
    finish(
        "Simulated data",
        figures(found, real),
        ("dimod", "dwave-samplers", "dwave-system", "scikit-learn"),
        arguments.json,
    )


if __name__ == "__main__":
    main()
