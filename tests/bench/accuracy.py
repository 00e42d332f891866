"""Accuracy under differential privacy: modes shared and local, hybrid model and classical twin, mean of five seeds.

    python tests/bench/accuracy.py [--json FILE] [--only TEXT] [--quick] [--search] [--state FILE]

A run is that of `qfed simulate` without the masks, which cancel in the sum to the last bit (tests hold that): every
site's plan releases its part (ledger, clipping, noise, integers), parts are added in the ring, decoded, and the server
optimiser steps. The arm "float" adds the same noise as real numbers, to show what integers cost.

Seeds 1 to 5 are reported (partition, initial weights); noise is the operating system's, and where a run takes a second
each seed is run REPEATS times, since 115 held-out records are few. Everything that was chosen (CHOSEN) was chosen among
settings like those of `--search` on the seeds 101 to 104 or 108. What has been run is kept in the state file, a line a
run, so a bench that was cut off goes on; figures that have not been run yet are left out. `--quick`: one seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import finish  # tests/bench/report.py

from qfed.config import RunConfig, load_config
from qfed.data import SiteData, load, partition
from qfed.federation.averaging import tail_mean
from qfed.federation.contribution import layout_of, mean_update, policy_of
from qfed.federation.local import Learner, experiment_rng, learner_for
from qfed.federation.optimizers import State, server_step
from qfed.privacy.grid import GRID_STEPS
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.shares import Shares
from qfed.secagg import decode, encode
from qfed.simulation.arms import pooled

SEEDS, CHOOSING = (1, 2, 3, 4, 5), tuple(range(101, 109))
EPSILONS = (1, 3, 8)
TASKS: Mapping[str, tuple[str, ...]] = {
    "digits, Dirichlet 0.5, 10 sites": (
        "data.source=digits",
        "data.partition=dirichlet",
        "federation.sites=10",
        "training.batch_size=144",
    ),
    "breast_cancer, 5 sites": ("data.source=breast_cancer", "federation.sites=5", "training.batch_size=91"),
}
GOALS: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("digits, Dirichlet 0.5, 10 sites", "shared"): (0.91, 0.945, 0.95),
    ("digits, Dirichlet 0.5, 10 sites", "local"): (0.64, 0.88, 0.93),
    ("breast_cancer, 5 sites", "shared"): (0.955, 0.965, 0.97),
}
Setting = tuple[str, ...]
_DIGITS, _CANCER = TASKS
REPEATS = {_DIGITS: 1, _CANCER: 4}


def _steps(rounds: int, clip: float, rate: float, *more: str) -> Setting:
    return (
        "model.architecture=kernel",
        f"training.rounds={rounds}",
        f"privacy.clip_norm={clip}",
        f"training.learning_rate={rate}",
        *more,
    )


def _digits(rounds: int, rate: float, *more: str) -> Setting:
    return _steps(rounds, 1.0, rate, "data.features=gradient_histogram", *more)


def _cancer(rounds: int, clip: float, rate: float) -> Setting:
    return _steps(rounds, clip, rate, "model.angle_limit=0.8", "model.layers=1")


_OWN = ("federation.weighting=uniform", "secagg.update_clip=200")
"""Mode local: the mean over sites is that over records, and the bound on an update does not cut its noise."""
CHOSEN: Mapping[tuple[str, str, str], Sequence[Setting]] = {
    (_DIGITS, "shared", "hybrid"): (_digits(20, 6.0), _digits(40, 6.0), _digits(80, 6.0)),
    (_DIGITS, "shared", "twin"): (_digits(20, 6.0), _digits(40, 6.0), _digits(80, 6.0)),
    (_DIGITS, "local", "hybrid"): (_digits(15, 6.0, *_OWN), _digits(20, 6.0, *_OWN), _digits(40, 6.0, *_OWN)),
    (_DIGITS, "local", "twin"): (_digits(15, 6.0, *_OWN), _digits(20, 6.0, *_OWN), _digits(40, 6.0, *_OWN)),
    (_CANCER, "shared", "hybrid"): (_cancer(60, 0.5, 6.0), _cancer(80, 1.0, 6.0), _cancer(80, 0.5, 16.0)),
    (_CANCER, "shared", "twin"): (_cancer(60, 0.5, 3.0), _cancer(80, 1.0, 6.0), _cancer(40, 0.5, 16.0)),
}
"""Task, mode, kind -> settings for epsilon 1, 3, 8."""


def federate(config: RunConfig, *, real: bool = False) -> float:
    """The accuracy of the final model on all held-out records; `real` adds noise as real numbers."""
    data = partition(load(config.data), config.data, config.federation.sites, config.seed)
    learner = learner_for(config)
    vector, tail = learner.start, None
    state: State = {}
    fast = Path("/dev/shm")  # noqa: S108  ledgers that nobody keeps need no disk
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as folder:
        limits = Limits(config.privacy.epsilon, config.privacy.delta)
        ledgers = [Ledger(Path(folder) / f"{index}.db", limits) for index in range(len(data))]
        for round in range(1, config.training.rounds + 1):
            update = one_round(learner, vector, data, ledgers, round, real=real)
            vector, state = server_step(config.federation, vector, update, round, state)
            tail = tail_mean(config.training, tail, vector, round)
        for ledger in ledgers:
            ledger.close()
    final = vector if tail is None else tail.astype(np.float32)
    return pooled(learner, final, data).score


def one_round(
    learner: Learner, vector: np.ndarray, data: Sequence[SiteData], ledgers: Sequence[Ledger], round: int, *, real: bool
) -> np.ndarray:
    """The mean update of one round, through the encoding that secure aggregation would mask."""
    config = learner.config
    policy = policy_of(config, "bench")
    layout = layout_of(config, policy, learner.parameters, learner.metric, train=True)
    zeros = {block.name: np.zeros(block.size) for block in layout.blocks}
    total, plain = np.zeros(layout.size, policy.dtype), np.zeros(learner.parameters)
    for site, ledger in zip(data, ledgers, strict=True):
        blocks = learner.contribute(
            vector, lambda site=site: site.train, ledger=ledger, dataset=site.name, run="bench", round=round
        )  # fmt: skip
        if real:
            plain += blocks["part"]
            continue
        rng = experiment_rng(config.seed, site.name, round)
        total += encode(layout, {**zeros, **blocks}, rng, policy, config.federation.sites)
    sums = {"part": plain} if real else decode(layout, total, len(data))
    update = mean_update(config, sums, len(data))
    return np.zeros(learner.parameters) if update is None else update


def real_hide(self: Shares, values: np.ndarray, clip_norm: float) -> np.ndarray:
    """Shares.hide without integers: an experiment, private to no standard of this library."""
    noise = np.random.default_rng().normal(size=len(values)) * self.stddev(len(values))
    return values * (GRID_STEPS / clip_norm) + noise


def settings(task: str, mode: str, kind: str, epsilon: float, chosen: Setting, seed: int) -> RunConfig:
    """The configuration of one run."""
    private = (f"privacy.mode={mode}", f"privacy.epsilon={epsilon}", f"seed={seed}", f"model.kind={kind}")
    return load_config(None, [*TASKS[task], *private, *chosen])


class Made:
    """Runs that have been made, a JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._known = {tuple(entry["key"]): entry["accuracy"] for entry in map(json.loads, lines)}

    def mean(self, configs: Sequence[RunConfig], repeats: int, *, real: bool = False) -> float:
        """Mean accuracy of the runs, each repeated."""
        return statistics.mean(self.accuracy(c, real=real, repeat=r) for c in configs for r in range(repeats))

    def accuracy(self, config: RunConfig, *, real: bool = False, repeat: int = 0) -> float:
        """The run's accuracy, from the file or by running it now."""
        key = (config.model_dump_json(), ("float" if real else "integer") + (f" {repeat}" if repeat else ""))
        if key not in self._known:
            begin, hide = time.monotonic(), Shares.hide
            try:
                if real:
                    Shares.hide = real_hide  # type: ignore[assignment,method-assign]
                self._known[key] = federate(config, real=real)
            finally:
                Shares.hide = hide  # type: ignore[method-assign]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "accuracy": self._known[key]}) + "\n")
            seconds = time.monotonic() - begin
            about = f"{config.privacy.mode} {config.model.kind} epsilon {config.privacy.epsilon:g} seed {config.seed}"
            print(f"{self._known[key]:.4f}  {seconds:5.1f} s  {about} {config.data.source}", file=sys.stderr)
        return self._known[key]


def space(task: str, mode: str, kind: str, epsilon: float) -> Iterator[Setting]:
    """What `--search` tries: steps, bound and learning rate, on the model that is chosen for the task."""
    model = CHOSEN[task, mode, kind][EPSILONS.index(int(epsilon))]
    kept = tuple(item for item in model if not item.startswith(("training.rounds", "training.learning", "privacy.cl")))
    for rounds, clip, rate in itertools.product((20, 40, 80), (0.5, 1.0), (2.0, 6.0, 16.0)):
        yield (*kept, f"training.rounds={rounds}", f"privacy.clip_norm={clip}", f"training.learning_rate={rate}")


def search(made: Made, only: str) -> None:
    """Print the best settings of each cell, by the mean over the seeds that are not reported."""
    for task, mode, kind in CHOSEN:
        for epsilon in EPSILONS:
            if only not in f"{task} {mode} {kind} epsilon {epsilon}":
                continue
            found = [
                (statistics.mean(made.accuracy(settings(task, mode, kind, epsilon, s, seed)) for seed in CHOOSING), s)
                for s in space(task, mode, kind, epsilon)
            ]
            for accuracy, setting in sorted(found, reverse=True)[:3]:
                print(f"{accuracy:.4f}  {task} {mode} {kind} epsilon {epsilon}: {setting}")


def main() -> None:
    """Run what is missing, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "qfed-accuracy.jsonl")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose name holds it, e.g. 'shared hybrid'")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--search", action="store_true", help="choose settings on other seeds; prints the best")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = Made(arguments.state)
    if arguments.search:
        search(made, arguments.only)
        return
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    figures: list[dict[str, Any]] = []
    for (task, mode, kind), by_epsilon in CHOSEN.items():
        for place, (epsilon, setting) in enumerate(zip(EPSILONS, by_epsilon, strict=True)):
            name = f"{task}, {mode}, {kind}, epsilon {epsilon}"
            if arguments.only not in name.replace(",", ""):
                continue
            runs = [settings(task, mode, kind, epsilon, setting, seed) for seed in seeds]
            value = made.mean(runs, REPEATS[task])
            goal = GOALS[task, mode][place] if (task, mode) in GOALS else None
            figures.append({"name": name, "value": value, "unit": "", "goal": goal, "better": "higher"})
            if mode == "shared" and kind == "twin":
                apart = abs(value - made.mean(runs, REPEATS[task], real=True))
                figures.append(
                    {"name": f"{name}: integers against floats", "value": apart, "unit": "", "goal": 0.01,
                     "better": "lower"}
                )  # fmt: skip
    figures += [figure for task, mode in GOALS for figure in behind(figures, task, mode)]
    finish("Accuracy under differential privacy", figures, ("qfed", "torch", "pennylane"), arguments.json)


def behind(figures: Sequence[Mapping[str, Any]], task: str, mode: str) -> Iterator[dict[str, Any]]:
    """How far the hybrid model is behind its twin, at each epsilon that both were run at."""
    values = {figure["name"]: figure["value"] for figure in figures}
    for epsilon in EPSILONS:
        hybrid, twin = (values.get(f"{task}, {mode}, {kind}, epsilon {epsilon}") for kind in ("hybrid", "twin"))
        if hybrid is not None and twin is not None:
            name = f"{task}, {mode}, epsilon {epsilon}: hybrid behind its twin"
            yield {"name": name, "value": twin - hybrid, "unit": "", "goal": 0.01, "better": "lower"}


if __name__ == "__main__":
    main()
