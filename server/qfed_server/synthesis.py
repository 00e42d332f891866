"""A run of kind "synthesize": one masked sum of the sites' counts, opened to pair counts.

    cohort -> what the run costs (the sites' plan) -> one round -> statistics.npz, statistics.json -> checkpoint

A site is charged for one release and makes one. If the round fails (killed, too few in time, members lost) it is the
same release that is tried again, under its old label and with the keys of its epoch: who has answered sends the same
bytes, who was not asked yet may still come in, and once survivors were fixed the sum is over them or none. So a try
costs nobody anything twice. `max_failed_rounds` tries follow one another; then the run stops, and `qfed resume` tries
again when the sites are back. A new epoch instead would have other masks over the same part of a site, and two sums of
that part over other survivors differ by a few sites' parts: sites refuse it. When the epoch is lost (its files, a new
federation file) or a fixed survivor is gone for good, another release needs another run, and another charge.
Neither torch nor an accountant is needed: what the plan costs follows from the configuration, and the median of what
the sites say is taken, so that no minority of them sets it.
Errors  QuorumLost when no sum was opened
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

from qfed._flower import Grid
from qfed.config import RunConfig
from qfed.errors import QuorumLost, RemoteProtocolError
from qfed.federation import wire
from qfed.federation.runfolder import RunFolder
from qfed.federation.statement import Spending, privacy_statement
from qfed.federation.synthesis import COUNTS, coding_of, counts_layout, moments_of, release_of
from qfed.federation.synthesis_result import synthesis_result
from qfed.generative.release import STATISTICS, Release
from qfed.report import write_result, write_synthesis_report
from qfed_server.history import round_record, site_records, versions, with_traffic
from qfed_server.memory import EpochMemory
from qfed_server.rounds import Cohort, countersign, gather, progress

log = logging.getLogger("qfed.server")

ROUND = 1


def run_synthesis(
    grid: Grid,
    folder: RunFolder,
    cohort: Cohort | None = None,
    memory: EpochMemory | None = None,
    before: Callable[[], None] = lambda: None,
    wait: float | None = None,
) -> Cohort | None:
    """Run the federation of `folder` to its end; nothing if it has come to it before.

    `memory` is the one that the channel of `cohort` has. `before` is called before each try but the first, `wait` is
    that of `gather`.
    """
    state = folder.checkpoint()
    if state.status == "completed":
        return cohort
    if (folder.path / f"{STATISTICS}.json").exists():  # cut off between the two files
        folder.save(replace(state, round=ROUND, status="completed"))
        return cohort
    memory = memory or EpochMemory(folder.path)
    cohort = cohort or gather(grid, folder, memory, wait=wait)
    failure: str | None = None
    for tried in range(1 + cohort.config.federation.max_failed_rounds):
        try:
            if tried:
                log.warning("the release failed and is tried again under its label: %s", failure)
                before()
                cohort = gather(grid, folder, memory, wait=wait)
            failure = _try(folder, cohort)
        except QuorumLost as error:
            failure = str(error)
        if failure is None:
            return cohort
    raise QuorumLost(
        f"the one release failed: {failure}; nothing was opened, and what it cost the sites that answered is spent, "
        "once"
    )


def _try(folder: RunFolder, cohort: Cohort) -> str | None:
    """Ask for the release, and save what came of it; why it failed, None if it did not."""
    state, config, coding = folder.checkpoint(), cohort.config, coding_of(cohort.config)
    statement = privacy_statement(config, ROUND, _spending(cohort, folder.run))
    layout = counts_layout(config, moments_of(config, coding))
    outcome = cohort.channel.aggregate(wire.TRAIN, ROUND, layout, b"", once=True)
    cohort.witness.note(cohort.exchange.heads)
    if outcome.sums is not None:
        survivors = len(outcome.survivors)
        release_of(config, coding, outcome.sums[COUNTS], survivors, statement).save(folder.path)
        countersign(cohort, outcome.survivors, ROUND)
    traffic = cohort.exchange.take_traffic()
    record = round_record(config, ROUND, outcome, traffic, cohort.refused)
    record = record.model_copy(update={"epsilon": statement.epsilon})
    state = with_traffic(
        replace(
            state,
            round=0 if outcome.sums is None else ROUND,
            rounds=(record,),
            taken_part=dict.fromkeys(outcome.survivors, 1),
            status="stopped" if outcome.sums is None else "completed",
        ),
        traffic,
    )
    folder.save(state)
    progress.info("round", extra={"qfed": state})
    if outcome.sums is not None:
        return None
    sites = [f"{site}: {reason}" for site, reason in list(outcome.dropouts.items())[:5]]
    return "; ".join(filter(None, [outcome.failure, *sites]))


def conclude_synthesis(folder: RunFolder, config: RunConfig, seconds: dict[str, float]) -> None:
    """Write what is handed over beside the counts; the result comes last, so that where it is, everything is."""
    state, release = folder.checkpoint(), Release.load(folder.path)
    result = synthesis_result(
        config, folder.run, state, release, versions=versions(), sites=site_records(state), seconds=seconds
    )
    write_synthesis_report(result, release, folder.path)
    write_result(result, folder.path)


def _spending(cohort: Cohort, run: str) -> Spending:
    """What the plan costs: of each figure the median of what the sites say."""
    told: list[Spending] = []

    def take(site: str, answer: Mapping[str, wire.Field]) -> None:
        told.append(_read(str(answer["plan"])))

    asked: dict[str, wire.Fields] = {site: {"run": run} for site in cohort.exchange.sites}
    missing = cohort.exchange.ask("join", wire.PLAN, asked, round=ROUND, accept=take, plan=str).missing
    if len(told) < cohort.policy.min_survivors:
        why = "; ".join(f"{site}: {reason}" for site, reason in sorted(missing.items())[:5])
        raise QuorumLost(f"{len(told)} sites say what the run costs, {cohort.policy.min_survivors} are needed: {why}")
    return Spending(**{field.name: _median([getattr(each, field.name) for each in told]) for field in fields(Spending)})


def _median(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median_high(there) if 2 * len(there) > len(values) else None


def _read(text: str) -> Spending:
    try:
        tree = json.loads(text)
        if all(value is None or (isinstance(value, float) and value >= 0) for value in tree.values()):
            return Spending(**tree)
    except (ValueError, TypeError, AttributeError):
        pass
    raise RemoteProtocolError("what a run costs is told as figures, by name")
