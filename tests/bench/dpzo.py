"""DP-ZO on a simulated device with shots and readout error: accuracy, shots, and what parameter shift would take.

    python tests/bench/dpzo.py [--json FILE] [--quick]

Three sites train the default hybrid model at epsilon 3, delta 1e-5 through the plan of mode shared and the encoding
that secure aggregation masks: 100 steps of about 48 records, two circuits a record and step, 20 shots each, every bit
read wrong with probability 0.03 (PennyLane's default.mixed). Scores are those of exact circuits on held-out records,
the mean over seeds that settings were not chosen on. Shuffled labels leave nothing to learn: whoever scores above the
majority then leaks from the test set.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import one_round  # tests/bench/accuracy.py
from report import finish  # tests/bench/report.py

from qfed.config import RunConfig, load_config, replace
from qfed.data import Records, SiteData, load, partition
from qfed.federation.averaging import tail_mean
from qfed.federation.contribution import unfolded
from qfed.federation.device_use import circuits_of_a_record
from qfed.federation.local import learner_for
from qfed.federation.optimizers import State, server_step
from qfed.privacy.ledger import Ledger, Limits
from qfed.quantum.spending import Meter, counted_by
from qfed.simulation.arms import pooled

SEEDS = (11, 12, 13, 14, 15)
SITES, STEPS, RECORDS, SHOTS = 3, 100, 48, 20
SETTINGS = (
    "training.method=dp_zo", f"training.rounds={STEPS}", "training.learning_rate=0.4", "training.smoothing=0.3",
    "privacy.epsilon=3.0", "privacy.clip_norm=1.0", f"federation.sites={SITES}", "simulation.compare=[]",
    "quantum.device=default.mixed", f"quantum.shots={SHOTS}", "quantum.noise.readout_error=0.03",
)  # fmt: skip
GOALS = {"breast_cancer": 0.87, "digits 0/1": 0.92}
MOST_SHOTS = 250_000


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


def federate(config: RunConfig, folder: Path, *, shuffled: bool = False) -> tuple[float, float, Meter]:
    """Accuracy of the final model, share of the majority among held-out records, and what ran on the device."""
    data: Sequence[SiteData] = partition(load(config.data), config.data, SITES, config.seed)
    if shuffled:
        data = _shuffled(data, np.random.default_rng(config.seed))
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
    return pooled(learner, final, data).score, float(np.bincount(held_out).max() / len(held_out)), meter


def _shuffled(data: Sequence[SiteData], rng: np.random.Generator) -> list[SiteData]:
    """Labels of the training records permuted over all sites."""
    labels = rng.permutation(np.concatenate([site.train.y for site in data]))
    cuts = np.split(labels, np.cumsum([len(site.train) for site in data])[:-1])
    return [SiteData(Records(site.train.x, y), site.test, site.name) for site, y in zip(data, cuts, strict=True)]


def figures(folder: Path, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """DP-ZO of both tasks; what `hardware.py` shows as well."""
    for task, goal in GOALS.items():
        found = [federate(config_of(task, folder, seed), folder) for seed in seeds]
        scores = [score for score, _, _ in found]
        shots = statistics.mean(meter.spent().shots for _, _, meter in found)
        name = f"DP-ZO {task}, epsilon 3"
        yield {"name": name, "value": statistics.mean(scores), "unit": "", "goal": goal, "better": "higher"}
        yield {"name": f"{name}: worst of {len(seeds)} seeds", "value": min(scores), "unit": "", "better": "higher"}
        yield {"name": f"{name}: shots", "value": shots, "unit": "", "goal": MOST_SHOTS, "better": "lower"}
        circuits = statistics.mean(meter.spent().circuits for _, _, meter in found)
        yield {"name": f"{name}: circuits", "value": circuits, "unit": "", "better": "lower"}
        config = config_of(task, folder, seeds[0])
        shift = STEPS * RECORDS * circuits_of_a_record(replace(config, {"training.method": "gradient"}))
        about = f"{name}: circuits of parameter shift for as many records and steps"
        yield {"name": about, "value": shift, "unit": "", "better": "lower"}
        luck = [federate(config_of(task, folder, seed), folder, shuffled=True) for seed in seeds[:3]]
        above = statistics.mean(score - majority for score, majority, _ in luck)
        about = f"{name}: shuffled labels above the majority"
        yield {"name": about, "value": above, "unit": "", "goal": 0.05, "better": "lower"}


def main() -> None:
    """Run both tasks, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = list(figures(Path(folder), SEEDS[:1] if arguments.quick else SEEDS))
    finish("DP-ZO on a noisy device", found, ("qfed", "torch", "pennylane"), arguments.json)


if __name__ == "__main__":
    main()
