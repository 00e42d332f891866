"""DP-ZO on a simulated device with shots and readout error: accuracy, shots, and what parameter shift would take.

    python tests/bench/dpzo.py [--json FILE] [--quick]

Three sites train the default hybrid model at epsilon 3, delta 1e-5 through the plan of mode shared and the encoding
that secure aggregation masks: 100 steps of about 48 records, two circuits a record and step, 20 shots each, every bit
read wrong with probability 0.03 (PennyLane's default.mixed). Scores are those of exact circuits on held-out records,
the mean over seeds that settings were not chosen on.

Control with shuffled labels: nothing is left to learn, so whoever scores above the majority leaks from the test set.
Chance is that of the permutation here, not of the held-out records: zeros and ones lie so far apart that a model which
learned nothing calls nearly all of one kind alike, right for most or for few of both kinds. Accuracy after one
permutation has a standard deviation of .2, so a few say nothing. Each of `PERMUTATIONS` has a split of its own; they
run on exact circuits (a sharper eye than a noisy device's, and twenty times quicker); intervals are Student's over
permutations. Two questions: how far above the majority can it be (the upper limit), and does balanced accuracy differ
from 1/2, its mean for whatever does not depend on the held-out labels (the lower limit)? Held-out labels that get into
training show at once (tests/unit/simulation/test_shuffled_labels.py).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from accuracy import one_round  # tests/bench/accuracy.py
from report import finish  # tests/bench/report.py
from scipy.stats import ttest_1samp

from qfed.config import RunConfig, load_config, replace
from qfed.data import Records, SiteData, load, partition
from qfed.federation.averaging import tail_mean
from qfed.federation.contribution import unfolded
from qfed.federation.device_use import circuits_of_a_record
from qfed.federation.local import learner_for
from qfed.federation.optimizers import State, server_step
from qfed.privacy.ledger import Ledger, Limits
from qfed.quantum.spending import Meter, counted_by
from qfed.simulation.arms import in_kernel, pooled

SEEDS = (11, 12, 13, 14, 15)
SITES, STEPS, RECORDS, SHOTS = 3, 100, 48, 20
SETTINGS = (
    "training.method=dp_zo", f"training.rounds={STEPS}", "training.learning_rate=0.4", "training.smoothing=0.3",
    "privacy.epsilon=3.0", "privacy.clip_norm=1.0", f"federation.sites={SITES}", "simulation.compare=[]",
    "quantum.device=default.mixed", f"quantum.shots={SHOTS}", "quantum.noise.readout_error=0.03",
)  # fmt: skip
GOALS = {"breast_cancer": 0.87, "digits 0/1": 0.92}
MOST_SHOTS = 250_000
FIRST_PERMUTATION, PERMUTATIONS = 100, 40


def config_of(task: str, folder: Path, seed: int) -> RunConfig:
    """The run of one seed; the sampling rate makes a step of about `RECORDS` records over all sites."""
    file = None if task == "breast_cancer" else zeros_and_ones(folder)
    config = load_config(file, [*SETTINGS, f"seed={seed}"])
    data = partition(load(config.data), config.data, SITES, seed)
    rate = RECORDS / sum(len(site.train) for site in data)
    return replace(config, {"training.sampling_rate": rate, "training.batch_size": RECORDS / SITES})


def zeros_and_ones(folder: Path) -> Path:
    """A configuration for the handwritten zeros and ones of scikit-learn's digits, 8 x 8."""
    from sklearn.datasets import load_digits

    file, digits = folder / "digits.toml", load_digits()
    if file.exists():
        return file
    chosen = digits.target < 2
    names = [f"p{place}" for place in range(64)]
    with (folder / "digits.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow([*names, "digit"])
        writer.writerows(
            [*pixels.astype(int).tolist(), int(digit)]
            for pixels, digit in zip(digits.data[chosen], digits.target[chosen], strict=True)
        )
    columns = "".join(f'[[data.columns]]\nname = "{name}"\nlow = 0\nhigh = 16\n' for name in names)
    head = '[data]\nsource = "digits.csv"\ntarget = {name = "digit", classes = ["0", "1"]}\n'
    file.write_text(head + columns, encoding="utf-8")
    return file


@dataclass(frozen=True)
class Outcome:
    """A run's end: accuracy on held-out records, the share of the majority there, accuracy averaged over classes."""

    score: float
    majority: float
    balanced: float
    meter: Meter
    cpu: float


def federate(config: RunConfig, folder: Path, data: Sequence[SiteData] | None = None) -> Outcome:
    """Train on `data` (default: the configuration's own) and score the final model."""
    began = time.process_time()
    data = data or sites_of(config)
    learner, meter = learner_for(config), Meter(config.quantum.device)
    vector, tail = learner.start, None
    kept: State = {}
    with tempfile.TemporaryDirectory(dir=folder) as place, counted_by(meter):
        limits = Limits(config.privacy.epsilon, config.privacy.delta)
        ledgers = [Ledger(Path(place) / f"{index}.db", limits, durable=False) for index in range(SITES)]
        for round in range(1, config.training.rounds + 1):
            update = one_round(learner, vector, data, ledgers, round, real=False)
            move = unfolded(config, update, "bench", round, learner.parameters)
            vector, kept = server_step(config.federation, vector, move, round, kept)
            tail = tail_mean(config.training, tail, vector, round)
        for ledger in ledgers:
            ledger.close()
    final = vector if tail is None else tail.astype(np.float32)
    held_out = np.concatenate([site.test.y for site in data])
    classes, counts = np.unique(held_out, return_counts=True)
    recalls = [pooled(learner, final, [_of_class(site, each) for site in data]).score for each in classes]
    score = pooled(learner, final, data).score
    majority = float(counts.max() / counts.sum())
    return Outcome(score, majority, statistics.fmean(recalls), meter, time.process_time() - began)


def sites_of(config: RunConfig) -> Sequence[SiteData]:
    """The records of each site."""
    return partition(load(config.data), config.data, SITES, config.seed)


def _of_class(site: SiteData, label: Any) -> SiteData:
    mine = site.test.y == label
    return SiteData(site.train, Records(site.test.x[mine], site.test.y[mine]), site.name)


def shuffled(data: Sequence[SiteData], rng: np.random.Generator) -> list[SiteData]:
    """Labels of the training records permuted over all sites."""
    labels = rng.permutation(np.concatenate([site.train.y for site in data]))
    cuts = np.split(labels, np.cumsum([len(site.train) for site in data])[:-1])
    return [SiteData(Records(site.train.x, y), site.test, site.name) for site, y in zip(data, cuts, strict=True)]


@dataclass(frozen=True)
class Interval:
    """A mean over permutations with Student's 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of independent values, two at least."""
        if len(set(values)) == 1:
            return cls(values[0], values[0], values[0])
        limits = ttest_1samp(values, 0.0).confidence_interval(0.95)
        return cls(statistics.fmean(values), float(limits.low), float(limits.high))


@dataclass(frozen=True)
class Control:
    """What training on shuffled labels comes to."""

    above: Interval
    """Accuracy less the share of the majority."""
    informed: Interval
    """Balanced accuracy less 1/2: 0 in the mean unless held-out labels are known."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.informed.low > 0:
            return "labels of held-out records leak: balanced accuracy is above 1/2 beyond noise"
        return f"{'not ' if self.above.low <= 0 else ''}above the majority rate beyond noise"


def control(
    task: str, folder: Path, seeds: Iterable[int], prepare: Callable[..., Sequence[SiteData]] = shuffled
) -> Control:
    """Train on what `prepare` makes of each seed's sites (`shuffled`), on exact circuits."""
    found = []
    for seed in seeds:
        config = config_of(task, folder, seed)
        config = replace(config, in_kernel(config))
        found.append(federate(config, folder, prepare(sites_of(config), np.random.default_rng(seed))))
    return Control(
        Interval.of([each.score - each.majority for each in found]),
        Interval.of([each.balanced - 0.5 for each in found]),
    )


def figures(folder: Path, seeds: Sequence[int], permutations: int = PERMUTATIONS) -> Iterator[dict[str, Any]]:
    """DP-ZO of both tasks; what `hardware.py` shows as well."""
    for task, goal in GOALS.items():
        found = [federate(config_of(task, folder, seed), folder) for seed in seeds]
        scores = [each.score for each in found]
        spent = [each.meter.spent() for each in found]
        name = f"DP-ZO {task}, epsilon 3"
        yield {"name": name, "value": statistics.mean(scores), "unit": "", "goal": goal, "better": "higher"}
        worst = f"{name}: worst of {len(seeds)} seeds"
        yield {"name": worst, "value": min(scores), "unit": "", "goal": goal, "better": "higher"}
        shots = statistics.mean(each.shots for each in spent)
        yield {"name": f"{name}: shots", "value": shots, "unit": "", "goal": MOST_SHOTS, "better": "lower"}
        circuits = statistics.mean(each.circuits for each in spent)
        yield {"name": f"{name}: circuits", "value": circuits, "unit": "", "better": "lower"}
        config = config_of(task, folder, seeds[0])
        shift = STEPS * RECORDS * circuits_of_a_record(replace(config, {"training.method": "gradient"}))
        about = f"{name}: circuits of parameter shift for as many records and steps"
        yield {"name": about, "value": shift, "unit": "", "better": "lower"}
        cpu = statistics.mean(each.cpu for each in found)
        yield {"name": f"{name}: CPU time of a run", "value": cpu, "unit": "s", "better": "lower"}
        blind = control(task, folder, range(FIRST_PERMUTATION, FIRST_PERMUTATION + permutations))
        print(f"{task}, {permutations} permutations of the labels: {blind.verdict}", flush=True)
        about = f"{name}, labels shuffled {permutations} times"
        above, informed = blind.above, blind.informed
        rows: list[tuple[str, float, float | None]] = [
            ("accuracy above the majority", above.mean, None),
            ("accuracy above the majority, upper 95 % limit", above.high, 0.05),
            ("balanced accuracy above 1/2, lower 95 % limit", informed.low, 0.0),
            ("balanced accuracy above 1/2, upper 95 % limit", informed.high, None),
        ]
        for row, value, most in rows:
            yield {"name": f"{about}: {row}", "value": value, "unit": "", "goal": most, "better": "lower"}


def main() -> None:
    """Run both tasks, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, five permutations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        terms = (SEEDS[:1], 5) if arguments.quick else (SEEDS, PERMUTATIONS)
        found = list(figures(Path(folder), *terms))
    finish("DP-ZO on a noisy device", found, ("qfed", "torch", "pennylane"), arguments.json)


if __name__ == "__main__":
    main()
