"""The aggregator's round loop: broadcast, masked sum, mean, server optimiser, checkpoint.

    D = (sum_i weight_i * update_i) / (sum_i weight_i),  or the noised step of all together       (contribution.py)
        over all sites, or a robust strategy's choice of groups' D
    w <- the server optimiser's step with D                                                        (optimizers.py)
    w <- at the end the mean of the models after the last `averaging` of the rounds               (averaging.py)

A round below its quorum fails: the model stays, the round is over (its labels are burnt and its privacy is spent), and
the run goes on until `max_failed_rounds` in a row. The model of round r is scored in round r + 1 by the sites, on
records they hold out, through the same masked sum; after the last round comes one that only scores.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qfed._flower import Grid
from qfed.config import RunConfig, to_toml
from qfed.config import replace as replace_config
from qfed.errors import ProtocolError, QuorumLost
from qfed.federation import wire
from qfed.federation.averaging import tail_mean
from qfed.federation.contribution import evaluation_of, layout_of, mean_update, unfolded
from qfed.federation.optimizers import State, robust_update, server_step
from qfed.federation.result import RoundRecord, Score
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.secagg import Federation, Policy
from qfed.secagg.transcript import least_sites
from qfed_server.channel import Channel, ClearChannel, Outcome
from qfed_server.exchange import Exchange, Traffic, join
from qfed_server.history import round_record, with_traffic
from qfed_server.memory import EpochMemory
from qfed_server.secure import SecureChannel
from qfed_server.witness import Witness

progress = logging.getLogger("qfed.progress")
log = logging.getLogger("qfed.server")


@dataclass(frozen=True)
class Cohort:
    """The sites that agreed to the run under one version of the federation file."""

    file: bytes
    config: RunConfig
    policy: Policy
    exchange: Exchange
    refused: Mapping[str, str]
    channel: Channel
    witness: Witness


def run_rounds(
    grid: Grid,
    folder: RunFolder,
    cohort: Cohort | None = None,
    memory: EpochMemory | None = None,
    before: Callable[[], None] = lambda: None,
    wait: float | None = None,
) -> Cohort:
    """Run the federation of `folder` to its end, from its last checkpoint; every round ends in a checkpoint.

    When the federation file in the folder is replaced by a newer version, the next round asks the sites anew; sites
    that came later, or had refused, are asked when the next epoch begins. With `memory` a round that was cut off goes
    on under the same label. `before` is called before each round, `wait` is that of `gather`. Returns the
    sites of the last round.
    """
    state, cohort = folder.checkpoint(), cohort or gather(grid, folder, memory, wait=wait)
    if state.status != "running":
        return cohort
    metric, unit = folder.metric
    rounds, parameters = cohort.config.training.rounds, len(state.vector)
    good = [at for at, record in enumerate(state.rounds, 1) if _aggregated(record)]
    failed = len(state.rounds) - (good[-1] if good else 0)
    for round in range(state.round + 1, rounds + 1):
        before()
        try:
            if folder.federation_file.read_bytes() != cohort.file:
                cohort = gather(grid, folder, memory, wait=wait)
            elif cohort.channel.begins(round) and round > 1:
                cohort = _joined_by_others(grid, folder, cohort, memory)
            layout = layout_of(cohort.config, cohort.policy, parameters, metric, train=True)
            outcome = cohort.channel.aggregate(wire.TRAIN, round, layout, wire.vector_to_bytes(state.vector))
        except QuorumLost as error:
            outcome = Outcome(None, (), {}, str(error))
        traffic = cohort.exchange.take_traffic()
        state = _advance(state, cohort.config, folder.run, round, outcome, traffic, cohort.refused, metric, unit)
        folder.save(state)
        cohort.witness.note(cohort.exchange.heads)
        progress.info("round", extra={"qfed": state})
        last = state.rounds[-1]
        failed = 0 if _aggregated(last) else failed + 1
        if failed > cohort.config.federation.max_failed_rounds:
            folder.save(replace(state, status="stopped"))
            sites = [f"{site}: {reason}" for site, reason in list(outcome.dropouts.items())[:5]]
            reasons = "; ".join(filter(None, [last.failure, *sites]))
            raise QuorumLost(
                f"{failed} rounds in a row failed, the last because of: {reasons}; the last good model is kept"
            )
    if state.tail is not None:
        state = replace(state, vector=state.tail.astype(np.float32))
    before()
    layout = layout_of(cohort.config, cohort.policy, parameters, metric, train=False)
    outcome = cohort.channel.aggregate(wire.EVALUATE, rounds + 1, layout, wire.vector_to_bytes(state.vector))
    final = _score(outcome.sums, metric, unit)
    cohort.witness.note(cohort.exchange.heads)
    countersign(cohort, outcome.survivors, rounds + 1)
    state = with_traffic(
        replace(state, final=final, rounds=_scored(state.rounds, final), status="completed"),
        cohort.exchange.take_traffic(),
    )
    folder.save(state)
    progress.info("final", extra={"qfed": state})
    return cohort


def countersign(cohort: Cohort, sites: Iterable[str], round: int) -> None:
    """Give these sites the countersignature of their ledgers' heads."""
    receipts: dict[str, wire.Fields] = {site: {"receipt": cohort.witness.receipt(site)} for site in sites}
    cohort.exchange.ask("join", wire.RECEIPT, receipts, round=round, head=bytes)


def _joined_by_others(grid: Grid, folder: RunFolder, cohort: Cohort, memory: EpochMemory | None) -> Cohort:
    """The cohort with the sites that are there and are not in it yet, if there are any."""
    if set(grid.get_node_ids()) <= cohort.exchange.nodes:
        return cohort
    if memory is not None:
        memory.give_up()
    try:
        return gather(grid, folder, memory, wait=0.0)
    except QuorumLost:
        return cohort


def quorum_of(folder: RunFolder) -> int:
    """Sites that must be there for a round, and for the keys of an epoch if it begins one."""
    federation, config = Federation.from_text(folder.federation_file.read_text(encoding="utf-8")), folder.config
    quorum = _quorum(federation.policy, config, len(federation.roster))
    return max(quorum, least_sites(federation)) if config.secagg.mode == "on" else quorum


def _quorum(policy: Policy, config: RunConfig, sites: int) -> int:
    return max(policy.min_survivors, math.ceil(config.federation.quorum * sites))


def gather(grid: Grid, folder: RunFolder, memory: EpochMemory | None = None, *, wait: float | None = None) -> Cohort:
    """Ask the sites of the federation file's roster for their consent to the run.

    Waits until all are there, or `wait` seconds (None: the deadline).
    """
    file = folder.federation_file.read_bytes()
    federation = Federation.from_text(file.decode())
    policy, config, sites = federation.policy, folder.config, len(federation.roster)
    if config.federation.sites != sites:
        log.warning("the federation has %d sites now, the run began with %d", sites, config.federation.sites)
        config = replace_config(config, {"federation.sites": sites})
    witness = Witness(folder.path.parent / "witness", policy.federation_id)
    exchange, refused = join(
        grid,
        run=folder.run,
        config=to_toml(config),
        roster=federation.index,
        expected=sites,
        quorum=_quorum(policy, config, sites),
        deadline=config.federation.deadline,
        wait=config.federation.deadline if wait is None else wait,
        witness=witness,
    )
    channel: Channel
    if config.secagg.mode == "on":
        channel = SecureChannel(exchange, federation, folder.run, memory)
    else:
        channel = ClearChannel(exchange, policy, folder.run, single=config.federation.robust)
    return Cohort(file, config, policy, exchange, refused, channel, witness)


def _advance(
    state: Checkpoint,
    config: RunConfig,
    run: str,
    round: int,
    outcome: Outcome,
    traffic: Traffic,
    refused: Mapping[str, str],
    metric: str,
    unit: float,
) -> Checkpoint:
    """The state after a round: new model, the score of the model before, and what happened."""
    vector, optimizer, outcome = _step(config, state, run, round, outcome)
    sums = outcome.sums
    before = _score(sums, metric, unit)
    record = round_record(config, round, outcome, traffic, refused)
    taken_part = dict(state.taken_part)
    for site in outcome.survivors:
        taken_part[site] = taken_part.get(site, 0) + 1
    return with_traffic(
        replace(
            state,
            vector=vector,
            optimizer=optimizer,
            tail=tail_mean(config.training, state.tail, vector, round),
            round=round,
            initial=state.initial if any(map(_aggregated, state.rounds)) else state.initial or before,
            rounds=(*_scored(state.rounds, before), record),
            taken_part=taken_part,
        ),
        traffic,
    )


def _step(
    config: RunConfig, state: Checkpoint, run: str, round: int, outcome: Outcome
) -> tuple[NDArray[np.float32], State, Outcome]:
    """The next model and optimiser state; a round of which nothing can be made keeps both and has failed."""
    federation = config.federation
    try:
        if federation.robust:
            found = (mean_update(config, part.sums, len(part.survivors)) for part in outcome.parts if part.sums)
            means = [update for update in found if update is not None]
            update = robust_update(federation, means, round) if means and outcome.sums is not None else None
        else:
            sums = outcome.sums
            update = None if sums is None else mean_update(config, sums, len(outcome.survivors))
        if update is None:
            return state.vector, state.optimizer, outcome
        move = unfolded(config, update, run, round, len(state.vector))
        vector, optimizer = server_step(federation, state.vector, move, round, state.optimizer)
    except ProtocolError as error:
        return state.vector, state.optimizer, replace(outcome, sums=None, survivors=(), failure=str(error))
    return vector, optimizer, outcome


def _score(sums: Mapping[str, np.ndarray] | None, metric: str, unit: float) -> Score | None:
    evaluation = None if sums is None else evaluation_of(sums, metric)
    return None if evaluation is None else evaluation.means(metric, unit)


def _scored(rounds: tuple[RoundRecord, ...], score: Score | None) -> tuple[RoundRecord, ...]:
    """The last aggregated round, and failed ones after it, get the score that their model was given a round later."""
    if score is None:
        return rounds
    last = max((at for at, record in enumerate(rounds) if _aggregated(record)), default=0)
    return rounds[:last] + tuple(record.model_copy(update={"metrics": score}) for record in rounds[last:])


def _aggregated(record: RoundRecord) -> bool:
    return record.status == "aggregated"
