"""How much real data simulated records save: accuracy against the number of real records, under one privacy budget.

    g = (sum_i clip(grad_i, C) + N(0, (sigma C)^2 I) + sum_j grad(simulated record j)) / (N + M)

For each seed a third of the records is held out and N of the others are all that exists. An arm without simulated
records spends its whole budget on training; an arm with them first releases pair counts of its N records (kind
"synthesize"), fits a generator, adds M of its samples, and trains with what is left of the budget. Simulated records
are post-processing of the release: their gradients need no clipping and no noise.
The budget is split exactly: all releases are Gaussian mechanisms without sampling, whose 1 / sigma^2 add up. Release
and training are charged to one ledger, which refuses to go past the total; all of it goes through `qfed.privacy.plan`.
One trusted party holds the N records; mode shared gives its accuracy to a federation.
Departures from a run: N is the public denominator (a study's N is known), no secure aggregation.
Cost  a second or less a training, release or fit (boltzmann: several a class)      Errors  ConfigError
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from qfed.config import RunConfig, load_config, replace
from qfed.data import Coding, Records, load
from qfed.federation.counting import counter_for
from qfed.federation.efficiency import Budget, Curve, DataSet, Point, StudyResult
from qfed.federation.statement import privacy_statement
from qfed.federation.synthesis import COUNTS, coding_of, release_of
from qfed.generative.library import create
from qfed.generative.release import Release
from qfed.models import build, loss, score
from qfed.privacy.accounting import Releases, accounted, calibrate, epsilon_of
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import LocalPlan, Task, plan_for
from qfed.privacy.steps import MakeOptimizer, flat, write
from qfed.simulation.folder import versions

MODELS = ("hybrid", "twin")
RUN, DATASET = "study", "study"
_ROOM = 1 + 1e-6
"""More noise than the budget needs, for what integers and searches add."""
_MEANS = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
SETTINGS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "breast_cancer": ((), (f"coding.columns={[f'mean {name}' for name in _MEANS]}",)),
    "digits": (("model.wires=6",), ("coding.pool=2",)),
}
"""Model and coding of each data set, where they are not the defaults: few coded features keep the release small."""
FEWEST = {"breast_cancer": 20, "digits": 60, "wine": 15}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Study:
    """What is studied."""

    sources: tuple[str, ...] = ("breast_cancer", "digits", "wine")
    generators: tuple[str, ...] = ("independent", "pairwise")
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    points: int = 5
    epsilon: float = 3.0
    delta: float = 1e-5
    share: float = 0.5
    simulated: int = 500
    steps: int = 40


def study(settings: Study, progress: Progress = lambda done, of: None, processes: int = 1) -> StudyResult:
    """Run every arm at every number of records with every seed, in this process or in several."""
    began, sets = time.monotonic(), []
    every = {source: grid(*_amounts(settings, source), settings.points) for source in settings.sources}
    places = [(source, count, seed) for source, counts in every.items() for count in counts for seed in settings.seeds]
    scores: dict[tuple[str, str, str | None, int], list[float]] = {}
    most = 0.0
    for done, (place, (arms, spent)) in enumerate(zip(places, _worlds(settings, places, processes), strict=True), 1):
        source, count, _ = place
        for (model, generator), accuracy in arms:
            scores.setdefault((source, model, generator, count), []).append(accuracy)
        most = max(most, spent)
        progress(done, len(places))
    for source, counts in every.items():
        coding = _prepared(settings, source)[1]
        curves = tuple(
            Curve(
                model=model,
                generator=generator,
                points=tuple(Point(records=n, scores=tuple(scores[source, model, generator, n])) for n in counts),
            )
            for model in MODELS
            for generator in (None, *settings.generators)
        )
        sets.append(DataSet(source=source, bits=len(coding.names), features=coding.schema.inputs, curves=curves))
    return StudyResult(
        seeds=settings.seeds,
        simulated=settings.simulated,
        steps=settings.steps,
        budget=budget_of(settings, most),
        sets=tuple(sets),
        versions=versions(),
        seconds=time.monotonic() - began,
    )


Arms = list[tuple[tuple[str, str | None], float]]
"""(model, generator) and its accuracy, of each arm."""


def _worlds(settings: Study, places: Sequence[tuple[str, int, int]], processes: int) -> Iterator[tuple[Arms, float]]:
    """What `_world` gives at each place, in their order."""
    if processes == 1:
        yield from (_world(settings, *place) for place in places)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        waiting = [pool.submit(_world, settings, *place) for place in places]
        try:
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _world(settings: Study, source: str, count: int, seed: int) -> tuple[Arms, float]:
    """All arms of one seed at one number of records, and the largest epsilon of their ledgers."""
    config, coding, records = _prepared(settings, source)
    spent = [0.0]
    return list(World(settings, config, coding, records, count, seed, spent).arms()), spent[0]


@lru_cache(maxsize=4)
def _prepared(settings: Study, source: str) -> tuple[RunConfig, Coding, Records]:
    """A data set's configuration, coding and records, read once a process."""
    config = config_of(source, settings)
    return config, coding_of(config), load(config.data).records


def _amounts(settings: Study, source: str) -> tuple[int, int]:
    """Most and fewest real records; a third of all is held out."""
    records = len(_prepared(settings, source)[2])
    return records - records // 3, FEWEST.get(source, 20)


def config_of(source: str, settings: Study, *, release: bool = False) -> RunConfig:
    """The run that every arm is a variant of, or (`release`) that of its release."""
    model, coding = SETTINGS.get(source, ((), ()))
    privacy = ["privacy.mode=local", f"privacy.epsilon={settings.epsilon}", f"privacy.delta={settings.delta}"]
    same = [f"data.source={source}", *privacy, *coding]
    if release:
        return load_config(None, ["kind=synthesize", *same])
    steps = ["training.rounds=1", f"training.local_steps={settings.steps}", "training.momentum=0.5"]
    return load_config(None, [*same, *steps, "training.learning_rate=2.0", *model])


def grid(most: int, fewest: int, points: int) -> tuple[int, ...]:
    """Numbers of real records, evenly spaced on a logarithmic scale, all records the last."""
    return tuple(sorted({round(n) for n in np.geomspace(min(fewest, most), most, points)}))


@lru_cache(maxsize=4)
def noises(settings: Study) -> tuple[float, float, float]:
    """Noise multipliers: of training alone, of the release, of training beside the release."""
    once = calibrate(settings.epsilon, accounted(settings.delta), 1.0, 1) * _ROOM
    steps = math.sqrt(settings.steps)
    return once * steps, once / math.sqrt(settings.share), once * steps / math.sqrt(1 - settings.share)


def budget_of(settings: Study, spent: float) -> Budget:
    """The budget in figures."""
    _, release, training = noises(settings)
    delta = accounted(settings.delta)
    return Budget(
        epsilon=settings.epsilon,
        delta=settings.delta,
        release=epsilon_of([Releases(1.0, release, 1)], delta),
        training=epsilon_of([Releases(1.0, training, settings.steps)], delta),
        share=settings.share,
        most_spent=spent,
    )


@dataclass(frozen=True)
class World:
    """One seed at one number of real records: nothing else exists, but the records held out to test on."""

    settings: Study
    config: RunConfig
    coding: Coding
    records: Records
    count: int
    seed: int
    spent: list[float]
    """The largest epsilon of any ledger so far."""

    def arms(self) -> Iterable[tuple[tuple[str, str | None], float]]:
        """(model, generator) and the accuracy of each arm."""
        rng = np.random.default_rng([self.seed, 0])
        order = rng.permutation(len(self.records))
        held_out = len(order) // 3
        test, real = (_taken(self.records, part) for part in (order[:held_out], order[held_out:][: self.count]))
        alone, counted, beside = noises(self.settings)
        limits = Limits(self.settings.epsilon, self.settings.delta)
        with tempfile.TemporaryDirectory(prefix="qfed-study-") as folder:
            ledger, paid = Path(folder) / "alone.db", Path(folder) / "paid.db"
            with closing(Ledger(paid, limits, durable=False)) as book:
                release = self._release(real, counted, book)
            made = {name: self._simulated(release, name) for name in self.settings.generators}
            for model in MODELS:
                for generator in (None, *self.settings.generators):
                    file = ledger.with_name(f"{model}-{generator}.db")
                    if generator is not None:
                        shutil.copyfile(paid, file)  # a world in which the release was made
                    with closing(Ledger(file, limits, durable=False)) as book:
                        added = None if generator is None else made[generator]
                        accuracy = self._trained(model, real, test, added, alone if added is None else beside, book)
                        self.spent[0] = max(self.spent[0], book.spent(DATASET))
                    yield (model, generator), accuracy

    def _release(self, real: Records, noise_multiplier: float, book: Ledger) -> Release:
        """Pair counts of the real records, charged to `book`."""
        config = config_of(self.config.data.source, self.settings, release=True)
        config = replace(config, {"privacy.noise_multiplier": noise_multiplier})
        counter = counter_for(config)
        part = counter.contribute(lambda: real, ledger=book, dataset=DATASET, run="release", round=1)[COUNTS]
        statement = privacy_statement(config, 1, counter.spending())
        return release_of(config, self.coding, part.astype(np.float64), 1, statement)

    def _simulated(self, release: Release, name: str) -> Records:
        """`simulated` records from a generator fitted to each class of the release."""
        rng = np.random.default_rng([self.seed, 1])
        amounts = rng.multinomial(self.settings.simulated, release.weights)
        bits = [
            release.join(k, create(self.config.synth, name).fit(part, rng).sample(int(amount), rng))
            for k, (part, amount) in enumerate(zip(release.parts, amounts, strict=True))
            if amount
        ]
        return self.coding.decode(np.concatenate(bits), rng).records

    def _trained(
        self, kind: str, real: Records, test: Records, added: Records | None, noise_multiplier: float, book: Ledger
    ) -> float:
        """Accuracy of a model trained on the real records and those added."""
        simulated = 0 if added is None else len(added)
        config = replace(
            self.config,
            {
                "model.kind": kind,
                "privacy.noise_multiplier": noise_multiplier,
                "training.batch_size": float(self.count + simulated),
            },
        )
        schema, plan = self.coding.schema, plan_for(config)
        assert isinstance(plan, LocalPlan)  # noqa: S101  mode local, by gradients
        model, objective = build(config.model, schema.inputs, schema.outputs, self.seed), loss(schema.task)
        model.train()
        task = Task(flat(model), lambda: _tensors(self.coding.project(real)), book, DATASET, RUN, 1, None)
        optimizer = _sgd(config) if added is None else _with(added, config, model, objective)
        (receipt,) = plan.train_rounds(model, objective, [task], optimizer=optimizer)
        if isinstance(receipt, Exception):
            raise receipt
        write(model, task.weights)
        x, y = _tensors(self.coding.project(test))
        with torch.no_grad():
            right, all_of_them = score(schema.task, model.eval()(x), y)
        return right / all_of_them


def _sgd(config: RunConfig) -> MakeOptimizer:
    training = config.training
    return lambda parameters: torch.optim.SGD(parameters, lr=training.learning_rate, momentum=training.momentum)


def _with(added: Records, config: RunConfig, model: nn.Module, objective: Callable[..., Tensor]) -> MakeOptimizer:
    """SGD whose gradient has the simulated records' in it, added when that of the real ones is final."""
    x, y = _tensors(added)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        (whole,) = parameters
        optimizer = torch.optim.SGD([whole], lr=config.training.learning_rate, momentum=config.training.momentum)

        def add(*_: object) -> None:
            write(model, whole.detach()[0])
            with torch.enable_grad():
                found = torch.autograd.grad(objective(model(x), y).sum(), trained)
            gradient = torch.cat([g.reshape(-1) for g in found]) / config.training.batch_size
            assert whole.grad is not None  # noqa: S101  the plan has set it
            whole.grad += gradient

        optimizer.register_step_pre_hook(add)
        return optimizer

    return make


def _taken(records: Records, places: np.ndarray) -> Records:
    return Records(records.x[places], records.y[places])


def _tensors(records: Records) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(records.x)), torch.from_numpy(np.ascontiguousarray(records.y))
