"""A federation simulated on this machine, from a configuration to a folder of results.

DIR/result.json            everything as data (schema: qfed config schema --result)
DIR/model.npz, model.json  the final model
DIR/card.json, MODEL_CARD.md  what it is, what is promised, where it comes from
DIR/report.html            for people; one file, works offline
DIR/config.toml            the resolved configuration
DIR/ledgers/SITE.db        each site's privacy ledger
DIR/INCOMPLETE             only while the simulation runs, or after it was cut off
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from qfed.config import FEW_SITES, RunConfig, anchored, load_config, to_toml
from qfed.data import SiteData, load, partition
from qfed.errors import ConfigError, QuorumLost
from qfed.federation.card import write_card
from qfed.federation.device_use import estimate, meter_for, use_of
from qfed.federation.files import write_atomically
from qfed.federation.local import learner_for
from qfed.federation.result import Comparison, DeviceUse, RunResult, SiteRecord
from qfed.federation.runfolder import Checkpoint
from qfed.federation.statement import privacy_statement
from qfed.models import save_model, warn_of_plateau
from qfed.report import write_report, write_result
from qfed.simulation.arms import LABELS, SPENDING, Arm, compare, pooled, run_arm
from qfed.simulation.folder import require_extras, result_folder, versions
from qfed.simulation.provision import make_keys
from qfed.simulation.synthesis import synthesize

_log = logging.getLogger("qfed.simulation")


__all__ = ["Step", "simulate", "synthesize"]


@dataclass(frozen=True)
class Step:
    """Where a simulation is: `part` of `parts` is the run `label`, at `round` of `rounds`."""

    part: int
    parts: int
    label: str
    round: int
    rounds: int
    score: float | None = None
    epsilon: float | None = None


Progress = Callable[[Step], None]


def simulate(
    config: RunConfig | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run a whole federation on this machine and return its result.

    `config` is a RunConfig, a TOML file or None for the defaults. With `out` the folder receives result.json, the
    model, report.html and the resolved configuration; an existing one is refused unless `force`. Whatever is wrong with
    the configuration or the data is a ConfigError before anything is written.
    """
    began = time.monotonic()
    resolved = anchored(config) if isinstance(config, RunConfig) else load_config(config)
    if resolved.kind != "train":
        raise ConfigError('kind="synthesize" trains no model; run it with qfed.simulation.synthesize')
    require_extras(resolved, report=out is not None)
    data = partition(load(resolved.data), resolved.data, resolved.federation.sites, resolved.seed)
    _warn_of_denominator(resolved, [len(site.train) for site in data])
    _warn_of_few_sites(resolved)
    _warn_of_unused(resolved)
    learner = learner_for(resolved)  # compiles the circuit and calibrates the noise: what cannot work fails here
    warn_of_plateau(learner.exact, resolved.model)
    if (expected := estimate(resolved)) is not None:
        _log.info("%s", expected.sentence())
    keys = make_keys(resolved, data)
    run = hashlib.sha256(to_toml(resolved).encode()).hexdigest()[:16]
    seconds = {"preparation": time.monotonic() - began}
    with result_folder(out, force) as folder, _one_thread():
        work = folder / "work"
        parts = 1 + len(resolved.simulation.compare)
        start = time.monotonic()
        with _told(progress, resolved, 1, parts, LABELS["twin"] if resolved.model.kind == "twin" else LABELS["hybrid"]):
            arm = run_arm(resolved, run, data, keys, work / "main")
        meter = meter_for(resolved, run, work / "main" / SPENDING, resolved.quantum.prices)
        use = use_of(resolved, meter, arm.state.rounds)
        seconds["main run"] = time.monotonic() - start
        start = time.monotonic()
        comparisons = []
        for part, kind in enumerate(resolved.simulation.compare, 2):
            with _told(progress, resolved, part, parts, LABELS[kind]):
                comparisons.append(compare(kind, resolved, run, data, keys, work / kind))
        seconds["comparisons"] = time.monotonic() - start
        sites = tuple(
            SiteRecord(
                name=name,
                train_records=len(site.train),
                test_records=len(site.test),
                rounds=arm.state.taken_part.get(name, 0),
                epsilon=spent,
                bytes_up=arm.state.traffic.get(name, (0, 0))[0],
                bytes_down=arm.state.traffic.get(name, (0, 0))[1],
            )
            for name, site, spent in zip(keys.names, data, arm.spent, strict=True)
        )
        seconds["total"] = time.monotonic() - began
        result = _result(resolved, run, data, arm, tuple(comparisons), sites, use, seconds)
        if out is not None:
            _write(folder, resolved, arm, result, keys.names)
    return result


def _warn_of_denominator(config: RunConfig, records: Sequence[int]) -> None:
    """Say so when the public denominator is far from what a typical site takes into a step."""
    typical = config.training.sampling_rate * statistics.median(records)
    if not typical / 3 <= config.training.batch_size <= 3 * typical:
        _log.warning(
            "training.batch_size=%g is the denominator of a site's mean gradient, but a typical site takes about %g "
            "records into a step, which makes steps %.3g times as long as meant; use about %g",
            config.training.batch_size,
            typical,
            typical / config.training.batch_size,
            max(1, round(typical)),
        )


def _warn_of_few_sites(config: RunConfig) -> None:
    if config.privacy.mode == "site" and config.federation.sites < FEW_SITES:
        _log.warning(
            "privacy.mode='site' hides each site among federation.sites=%d: expect a poor model below %d sites, and "
            "use privacy.mode='shared' to protect records",
            config.federation.sites,
            FEW_SITES,
        )


def _warn_of_unused(config: RunConfig) -> None:
    """A section that is not heeded is not passed over in silence."""
    for section in ("coding", "synth"):
        if getattr(config, section) != getattr(RunConfig(), section):
            _log.warning('[%s] is for kind="synthesize" and not used by a run that trains', section)


def _result(
    config: RunConfig,
    run: str,
    data: Sequence[SiteData],
    arm: Arm,
    comparisons: tuple[Comparison, ...],
    sites: tuple[SiteRecord, ...],
    use: DeviceUse | None,
    seconds: dict[str, float],
) -> RunResult:
    state, plan = arm.state, arm.learner.plan
    rounds = tuple(record.model_copy(update={"epsilon": plan.epsilon(record.round)}) for record in state.rounds)
    if not any(record.status == "aggregated" for record in rounds):
        why = "; ".join(
            f"{dropout.site}: {dropout.reason}" for record in rounds[-1:] for dropout in record.dropouts[:5]
        )
        raise QuorumLost(f"all {len(rounds)} rounds failed, so nothing was learned; in the last one: {why}")
    # A run that stopped has no round left in which the sites would score the model that it keeps.
    final = state.final or pooled(arm.learner, state.vector, data)
    return RunResult(
        status="completed" if state.status == "completed" and state.final is not None else "stopped",
        run=run,
        config=config,
        versions=versions(),
        task=arm.learner.schema.task,
        metric=arm.learner.metric,
        parameters=arm.learner.parameters,
        initial=state.initial,
        rounds=rounds,
        final=final,
        privacy=privacy_statement(config, len(rounds), arm.learner.spending(len(rounds))),
        sites=sites,
        device=use,
        comparisons=comparisons,
        seconds=seconds,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small models are quicker on one thread of torch; whatever was set before comes back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(folder: Path, config: RunConfig, arm: Arm, result: RunResult, names: tuple[str, ...]) -> None:
    write_atomically(folder / "config.toml", to_toml(config).encode())
    save_model(folder, config.model, arm.learner.schema.to_dict(), arm.state.vector)
    if config.privacy.mode != "off":
        (folder / "ledgers").mkdir()
        for index, name in enumerate(names):
            shutil.copyfile(
                folder / "work" / "main" / "sites" / f"{index:04d}" / "ledger.db", folder / "ledgers" / f"{name}.db"
            )
    write_result(result, folder)
    write_report(result, folder)
    write_card(folder, result, datetime.now(UTC))


class _Teller(logging.Handler):
    """Turns the aggregator's progress records into steps."""

    def __init__(self, tell: Callable[[Checkpoint], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.qfed)  # type: ignore[attr-defined]


@contextmanager
def _told(progress: Progress | None, config: RunConfig, part: int, parts: int, label: str) -> Iterator[None]:
    if progress is None:
        yield
        return
    rounds = config.training.rounds
    plan = learner_for(config).plan

    def tell(state: Checkpoint) -> None:
        scored = [record.metrics.score for record in state.rounds if record.metrics is not None]
        private = label != LABELS["non_private"]
        epsilon = plan.epsilon(state.round) if private and state.round else None
        progress(Step(part, parts, label, state.round, rounds, scored[-1] if scored else None, epsilon))

    logger, handler = logging.getLogger("qfed.progress"), _Teller(tell)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    progress(Step(part, parts, label, 0, rounds))
    try:
        yield
    finally:
        logger.removeHandler(handler)
    progress(Step(part, parts, label, rounds, rounds))
