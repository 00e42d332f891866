"""One run of a simulation through the whole path, and the runs beside it that put its score into proportion.

twin            the classical twin (or the hybrid, when the main run is the twin), everything else equal
non_private     without differential privacy: what privacy costs
no_federation   every site alone with its own records and the same budget: what federating brings
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from qfed._flower import Message, run_on_ray
from qfed.config import Failure, RunConfig, replace
from qfed.data import Records, SiteData
from qfed.errors import QuorumLost
from qfed.federation import wire
from qfed.federation.averaging import tail_mean
from qfed.federation.contribution import Evaluation, policy_of, target_unit, unfolded
from qfed.federation.engine import run_in_process
from qfed.federation.local import Job, Learner, learner_for
from qfed.federation.optimizers import State, server_step
from qfed.federation.result import Comparison, Score
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.privacy.accounts import account
from qfed.privacy.ledger import Ledger, Limits
from qfed.simulation.provision import FEDERATION, Keys, make_keys, provision

# Named by reference, as Flower names an app's components: the library does not import the packages above it.
SERVER_APP, CLIENT_APP = "qfed_server.app:app", "qfed_client.app:app"
PREPARE_ROUND, CLOSE_SITES = "qfed_client.app:prepare_round", "qfed_client.app:close_sites"

SPENDING = "spending.db"
LABELS = {
    "twin": "classical twin",
    "hybrid": "hybrid",
    "non_private": "without privacy",
    "no_federation": "each site alone",
}


@dataclass(frozen=True)
class Arm:
    """A finished run: last checkpoint, each site's spent epsilon (by index), the learner it used."""

    state: Checkpoint
    spent: tuple[float | None, ...]
    learner: Learner


def component(reference: str) -> Any:
    """Load `module:attribute`."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def run_arm(config: RunConfig, run: str, data: Sequence[SiteData], keys: Keys, folder: Path) -> Arm:
    """Run ServerApp and ClientApp over freshly provisioned sites in `folder`, to the end.

    What its sites run on a device is charged to one account, `folder`/spending.db.
    """
    learner = learner_for(config)
    place = RunFolder.create(folder / "run", run, config, learner.start, learner.metric, target_unit(config))
    keys.federation.save(place.federation_file)
    provision(folder / "sites", config, data, keys)
    try:
        run_apps(config, place, folder)
    except QuorumLost:
        if place.checkpoint().final is None and not place.checkpoint().rounds:
            raise  # nothing was learned; a run that stopped later has a model and a history to show
    state = place.checkpoint()
    return Arm(
        state, tuple(spent_at(config, folder / "sites" / f"{i:04d}", n) for i, n in enumerate(keys.names)), learner
    )


def run_apps(config: RunConfig, place: RunFolder, folder: Path) -> None:
    """Run ServerApp and ClientApp over the sites in `folder`/sites, on the engine that the configuration names."""
    server_config, client_config = {"qfed-run": str(place.path)}, {"qfed-sites": str(folder / "sites")}
    client_config["qfed-spending"] = str(folder / SPENDING)
    server_app, client_app, sites = component(SERVER_APP), component(CLIENT_APP), config.federation.sites
    try:
        if config.simulation.engine == "ray":
            bundle = folder / "bundle"
            _write_bundle(bundle, client_config)
            run_on_ray(server_app, client_app, sites, server_config, bundle)
        else:
            fails = _failures(config.simulation.failures)
            warm = {**client_config, "qfed-warm": "yes"}
            run_in_process(server_app, client_app, sites, server_config, warm, fails, component(PREPARE_ROUND))
    finally:
        component(CLOSE_SITES)()


def _write_bundle(folder: Path, client_config: dict[str, str]) -> None:
    folder.mkdir()
    project = {
        "project": {"name": "qfed-run", "version": "0.1.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "qfed",
                    "components": {"serverapp": SERVER_APP, "clientapp": CLIENT_APP},
                    "config": client_config,
                }
            }
        },
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project), encoding="utf-8")


def _failures(failures: Sequence[Failure]) -> Callable[[int, Message], bool] | None:
    """Which messages a simulated site does not answer: its training, or all that follows its upload in that round."""
    if not failures:
        return None
    planned = {(failure.site, str(failure.round), failure.phase) for failure in failures}
    uploaded: set[tuple[int, str]] = set()

    def fails(index: int, message: Message) -> bool:
        kind, label = message.metadata.message_type, message.metadata.group_id
        if kind == wire.TRAIN:
            uploaded.add((index, label))
            return (index, label, "train") in planned
        return (index, label) in uploaded and (index, label, "unmask") in planned

    return fails


def spent_at(config: RunConfig, site: Path, dataset: str) -> float | None:
    """Epsilon by a simulated site's own ledger; None without privacy."""
    if config.privacy.mode == "off":
        return None
    ledger = Ledger(site / "ledger.db", Limits(config.privacy.epsilon, config.privacy.delta))
    try:
        return ledger.spent(account(dataset, config.privacy.unit))
    finally:
        ledger.close()


def compare(kind: str, config: RunConfig, run: str, data: Sequence[SiteData], keys: Keys, folder: Path) -> Comparison:
    """Run one comparison; `config` is the main run's. Injected failures belong to the main run alone.

    So does its device: comparisons run in the kernel, which costs nothing.
    """
    config = replace(config, {"simulation.failures": []} | in_kernel(config))
    if kind == "no_federation":
        return _each_alone(config, run, data, keys.names, folder)
    other = "twin" if config.model.kind == "hybrid" else "hybrid"
    changed = replace(config, {"model.kind": other} if kind == "twin" else _open(config))
    if policy_of(changed, FEDERATION) != keys.federation.policy:
        keys = make_keys(changed, data)
    arm = run_arm(changed, run, data, keys, folder)
    if arm.state.final is None:
        raise QuorumLost(f"the comparison {kind!r} lost its quorum; leave it out with simulation.compare")
    plan = arm.learner.plan
    return Comparison(
        kind=kind,
        label=LABELS[other if kind == "twin" else kind],
        parameters=arm.learner.parameters,
        metrics=arm.state.final,
        epsilon=plan.epsilon(config.training.rounds),
        rounds=_curve(arm.state),
    )


def in_kernel(config: RunConfig) -> dict[str, Any]:
    """What takes a configuration's circuits from its device to the kernel."""
    return {} if config.quantum.on_kernel else {"quantum": {}}


def _open(config: RunConfig) -> dict[str, Any]:
    """What makes a configuration the same without privacy.

    Shared noise is for a sum in which every site weighs one. Without clipping, mode shared's learning rate may be far
    too large, so a site's step is held to the length that clipped gradients allow.
    """
    off: dict[str, Any] = {"privacy.mode": "off", "privacy.private_metrics": False}
    if config.privacy.shares_noise:
        off["federation.weighting"] = "uniform"
    if config.privacy.mode == "shared":
        off["secagg.update_clip"] = config.training.learning_rate * config.privacy.clip_norm
    return off


def _curve(state: Checkpoint) -> tuple[float, ...]:
    """Score after each round; a round that nobody scored keeps the score before it, as it kept the model."""
    scores: list[float] = []
    last = state.initial
    for record in state.rounds:
        last = record.metrics or last
        if last is not None:
            scores.append(last.score)
    return tuple(scores)


def _each_alone(
    config: RunConfig, run: str, data: Sequence[SiteData], names: Sequence[str], folder: Path
) -> Comparison:
    """Each site trains its own model for as many rounds; the mean of their scores on all sites' held-out records.

    A site that is alone has nobody to share noise with: it adds all of it (mode local), with the same budget a record.
    """
    if config.privacy.shares_noise:
        config = replace(config, {"privacy.mode": "local", "privacy.noise_multiplier": None})
    learner = learner_for(config)
    private = config.privacy.mode != "off"
    folder.mkdir(parents=True)
    limits = Limits(config.privacy.epsilon, config.privacy.delta)
    vectors = [learner.start] * len(names)
    states: list[State] = [{}] * len(names)
    tails: list[np.ndarray | None] = [None] * len(names)
    with ExitStack() as opened:
        ledgers = [
            opened.enter_context(closing(Ledger(folder / f"{name}.db", limits))) if private else None for name in names
        ]
        for round in range(1, config.training.rounds + 1):
            jobs = [
                Job(vector, _reader(site), ledger, name, run, round)
                for vector, site, ledger, name in zip(vectors, data, ledgers, names, strict=True)
            ]
            for place, outcome in enumerate(learner.train_many(jobs)):
                if isinstance(outcome, Exception):
                    raise outcome
                move = unfolded(config, outcome, run, round, len(vectors[place]))
                vectors[place], states[place] = server_step(
                    config.federation, vectors[place], move, round, states[place]
                )
                tails[place] = tail_mean(config.training, tails[place], vectors[place], round)
    finals = [vector if tail is None else tail.astype(np.float32) for vector, tail in zip(vectors, tails, strict=True)]
    metrics = [pooled(learner, vector, data) for vector in finals]
    mean = metrics[0].model_copy(
        update={
            "score": float(np.mean([m.score for m in metrics])),
            "loss": float(np.mean([m.loss for m in metrics])),
        }
    )
    return Comparison(
        kind="no_federation",
        label=LABELS["no_federation"],
        parameters=learner.parameters,
        metrics=mean,
        epsilon=learner.plan.epsilon(config.training.rounds),
    )


def pooled(learner: Learner, vector: np.ndarray, data: Sequence[SiteData]) -> Score:
    """The score of a model (P,) on all sites' held-out records, computed here and not through the protocol."""
    sums = [learner.evaluate(vector, site.test, on_device=False) for site in data]
    total = Evaluation(sum(s.score for s in sums), sum(s.loss for s in sums), sum(s.records for s in sums))
    return total.means(learner.metric, target_unit(learner.config))


def _reader(site: SiteData) -> Callable[[], Records]:
    return lambda: site.train
