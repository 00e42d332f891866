"""A run on a real federation, from what was submitted to what a simulation would leave behind.

    join -> initial model from the sites -> rounds (rounds.py) -> result.json, model.npz, model.json, card, report.html
         -> one release (synthesis.py) -> statistics.npz, statistics.json, result.json, report.html

The aggregator has no torch. What it cannot compute (the initial model, what the plan costs, the files of a model) it
asks all sites that joined for: it follows from the configuration alone, so they agree, and the answer that most of them
give is taken. What nobody told it stays out of the result: records and ledgers of single sites.
Cost  two small messages a site beyond those of the rounds, and the final model once to one site
"""

from __future__ import annotations

import io
import json
import logging
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np

from qfed._flower import Grid
from qfed.config import RunConfig
from qfed.errors import QuorumLost, RemoteProtocolError, StateError
from qfed.federation import wire
from qfed.federation.card import write_card
from qfed.federation.facts import Facts
from qfed.federation.files import write_atomically
from qfed.federation.result import RunResult
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.federation.statement import privacy_statement
from qfed.federation.synthesis import COUNTS
from qfed.report import write_report, write_result
from qfed.secagg import Federation
from qfed_server.history import site_records, versions
from qfed_server.memory import EpochMemory
from qfed_server.rounds import Cohort, gather, quorum_of, run_rounds
from qfed_server.synthesis import conclude_synthesis, run_synthesis
from qfed_server.witness import aggregator_identity

log = logging.getLogger("qfed.server")

Tell = Callable[..., None]
"""Called with an event and its fields (see journal.py)."""

_PAUSE = 0.25
_POINTS = 32
"""Rounds of which the sites tell epsilon beforehand; each may cost an accountant a moment."""


def conduct(grid: Grid, folder: RunFolder, tell: Tell, *, grace: float, began: float) -> None:
    """Run the federation of `folder` to its end, or go on where it was cut off; QuorumLost when nothing came of it.

    Waits for a quorum of sites to be online before it begins and before each round, however long that takes, since
    nothing is spent meanwhile; when there is one, for the others at most `grace` seconds. `began` is when the run
    was begun first (Unix seconds).
    """
    memory = EpochMemory(folder.path)
    _wait_for_quorum(grid, folder, tell)
    cohort = gather(grid, folder, memory, wait=grace)
    tell("joined", sites=list(cohort.exchange.sites), refused=dict(cohort.refused))
    config = cohort.config
    if config.kind == "synthesize":
        if not folder.begun:
            folder.begin(folder.run, np.empty(0, np.float32), COUNTS, 1.0)
        try:
            run_synthesis(grid, folder, cohort, memory, before=lambda: _wait_for_quorum(grid, folder, tell), wait=grace)
        except QuorumLost as error:
            raise QuorumLost(
                f"{error}. When the sites are back, `qfed resume {folder.run}` asks for the same release again at no "
                "further cost; another run is another release, and is charged"
            ) from None
        conclude_synthesis(folder, config, {"total": round(time.time() - began, 3)})
        return
    if not folder.begun:
        facts, vector = _ask_facts(cohort, folder.run, config.training.rounds, -(-config.training.rounds // _POINTS))
        write_atomically(folder.path / "facts.json", facts.to_text().encode())
        folder.begin(folder.run, vector, facts.metric, facts.unit)
    try:
        cohort = run_rounds(
            grid, folder, cohort, memory, before=lambda: _wait_for_quorum(grid, folder, tell), wait=grace
        )
    except QuorumLost as error:
        if not any(record.status == "aggregated" for record in folder.checkpoint().rounds):
            raise
        log.warning("the run stops with the last good model: %s", error)
    _conclude(cohort, folder, {"total": round(time.time() - began, 3)})


def hand_over(grid: Grid, folder: RunFolder, *, grace: float) -> None:
    """Write what a run that was stopped has come to; nothing if no round was aggregated."""
    if folder.begun and any(record.status == "aggregated" for record in folder.checkpoint().rounds):
        _conclude(gather(grid, folder, wait=grace), folder, {})


def _wait_for_quorum(grid: Grid, folder: RunFolder, tell: Tell) -> None:
    told = False
    while (online := len(list(grid.get_node_ids()))) < (quorum := quorum_of(folder)):
        if not told:
            tell("waiting", online=online, quorum=quorum)
            log.info("run=%s waits: %d sites are online, it takes %d", folder.run, online, quorum)
            told = True
        time.sleep(_PAUSE)


def facts_of(folder: RunFolder) -> Facts | None:
    """What the sites told of a run that has begun."""
    file = folder.path / "facts.json"
    return Facts.from_text(file.read_text(encoding="utf-8")) if file.exists() else None


def _ask_facts(cohort: Cohort, run: str, rounds: int, every: int) -> tuple[Facts, np.ndarray]:
    """Facts and initial model (P,), as most of the sites tell them."""
    exchange = cohort.exchange
    asked: dict[str, wire.Fields] = {site: {"run": run, "rounds": rounds, "every": every} for site in exchange.sites}
    told: dict[str, tuple[str, bytes]] = {}

    def take(site: str, fields: Mapping[str, wire.Field]) -> None:
        answer = str(fields["facts"]), bytes(fields["model"])  # type: ignore[arg-type]
        wire.vector_from_bytes(answer[1], Facts.from_text(answer[0]).parameters)
        told[site] = answer

    answers = exchange.ask("join", wire.INITIAL, asked, round=0, accept=take, facts=str, model=bytes)
    if not told:
        why = "; ".join(f"{site}: {reason}" for site, reason in sorted(answers.missing.items())[:5])
        raise QuorumLost(f"no site could build the run's model: {why}")
    ((facts, model), count), *_ = Counter(told.values()).most_common()
    if others := sorted(site for site, answer in told.items() if answer != (facts, model)):
        log.warning("%d sites agree on the initial model, these do not: %s", count, ", ".join(others))
    found = Facts.from_text(facts)
    return found, wire.vector_from_bytes(model, found.parameters)


def _conclude(cohort: Cohort, folder: RunFolder, seconds: dict[str, float]) -> None:
    """Write what is handed over; the result comes last, so that where it is, everything is."""
    state, config = folder.checkpoint(), cohort.config
    facts, _ = _ask_facts(cohort, folder.run, len(state.rounds), 1)
    result = _result(folder.run, config, state, facts, seconds)
    about, archive = _ask_model(cohort, folder.run, config, facts, state.vector)
    write_atomically(folder.path / "model.json", about.encode())
    write_atomically(folder.path / "model.npz", archive)
    signer = aggregator_identity(folder.path.parent / "witness")
    federation = Federation.load(folder.federation_file)
    write_card(folder.path, result, datetime.now(UTC), federation=federation, signer=signer)
    write_report(result, folder.path)
    write_result(result, folder.path)


def _ask_model(cohort: Cohort, run: str, config: RunConfig, facts: Facts, vector: np.ndarray) -> tuple[str, bytes]:
    """The files of the final model, from the first site whose answer holds exactly this model."""
    body = wire.vector_to_bytes(vector)
    for site in cohort.exchange.sites:
        asked: dict[str, wire.Fields] = {site: {"run": run, "model": body}}
        answers = cohort.exchange.ask("model", wire.MODEL, asked, round=0, about=str, archive=bytes)
        for fields in answers.fields.values():
            about, archive = str(fields["about"]), bytes(fields["archive"])  # type: ignore[arg-type]
            try:
                _check_model(about, archive, config, facts, vector)
            except RemoteProtocolError as error:
                log.warning("site=%s packed another model than asked: %s", site, error)
            else:
                return about, archive
    raise StateError("no site packed the final model; it is in checkpoint.npz, start the server again to ask anew")


def _check_model(about: str, archive: bytes, config: RunConfig, facts: Facts, vector: np.ndarray) -> None:
    """RemoteProtocolError unless the files hold this model: its configuration, schema and every parameter."""
    try:
        tree = json.loads(about)
        names = [part["name"] for part in tree["parameters"]]
        with np.load(io.BytesIO(archive), allow_pickle=False) as parts:
            found = np.concatenate([parts[name].ravel() for name in names])
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RemoteProtocolError(f"it cannot be read ({type(error).__name__})") from None
    if found.dtype != np.float32 or not np.array_equal(found, vector.astype(np.float32)):
        raise RemoteProtocolError("its parameters are others")
    if tree["model"] != config.model.model_dump(mode="json") or tree["schema"] != facts.schema:
        raise RemoteProtocolError("its configuration or schema is another")


def _result(run: str, config: RunConfig, state: Checkpoint, facts: Facts, seconds: dict[str, float]) -> RunResult:
    epsilon: Mapping[int, float] = dict(facts.epsilon)
    rounds = tuple(record.model_copy(update={"epsilon": epsilon.get(record.round)}) for record in state.rounds)
    scored = [record.metrics for record in rounds if record.metrics is not None]
    final = state.final or (scored[-1] if scored else state.initial)
    if final is None:
        raise QuorumLost("no round told a score, so nothing is known of the model; it is in checkpoint.npz")
    return RunResult(
        status="completed" if state.status == "completed" and state.final is not None else "stopped",
        run=run,
        config=config,
        versions=versions(),
        task=facts.task,
        metric=facts.metric,
        parameters=facts.parameters,
        initial=state.initial,
        rounds=rounds,
        final=final,
        privacy=privacy_statement(config, len(rounds), facts.spending),
        sites=site_records(state),
        seconds=seconds,
    )
