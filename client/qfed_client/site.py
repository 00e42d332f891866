"""A site: one folder that holds its settings, keys, records and durable state, and its say in every message.

site.toml         name, data set, policy (see qfed.config.SiteConfig)
identity.key      private keys, never leave the site
federation.json   roster and pinned policy, handed out of band
records.npz       the records
ledger.db         privacy spent, by data set
ledger-witness.json   what the aggregator countersigned of it
secagg.db         labels, epoch keys, cached uploads
spending.db       circuits and shots run on quantum devices, by run (only where there are any)
runs/RUN.toml     configurations of the runs it agreed to
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch

from qfed.config import RunConfig, SiteConfig, load_config, load_site
from qfed.data import SiteData, hold_out, load_bound
from qfed.errors import LocalProtocolError, RemoteProtocolError, ResourcesRefused
from qfed.federation import wire
from qfed.federation.contribution import layout_of, policy_of
from qfed.federation.counting import Counter, counter_for
from qfed.federation.device_use import meter_for
from qfed.federation.local import Job, Learner, experiment_rng, learner_for
from qfed.federation.statement import Spending
from qfed.models import model_files
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import LocalPlan, OpenPlan
from qfed.quantum.spending import Caps, Meter, counted_by
from qfed.quantum.time_limit import TimeLimit, limited
from qfed.secagg import ClientSession, ClientStore, Federation, GroupedSession, Identity, Layout, client_session, encode
from qfed_client.floor import refuse_below
from qfed_client.schedule import refuse_outside
from qfed_client.witness import LedgerWitness


class Site:
    """A site's folder, opened. Keep it open between messages only where no other process serves the same folder.

    Only a `simulated` site may send updates in clear, and only if its policy lets it; one that is deployed never does.
    A simulated site does not wait for the disk either: its state survives the process, but not a loss of power.
    Sites of a simulation spend from one account of device use, `spending`; a deployed site has its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        simulated: bool = False,
        spending: Path | None = None,
        now: Callable[[], datetime] = datetime.now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self._simulated, self._now, self._clock = folder, simulated, now, clock
        self._written = _version(folder)
        self._spending = spending or folder / "spending.db"
        self.config: SiteConfig = load_site(folder / "site.toml")
        self._federation = self._read_federation()
        limits = Limits(self.config.policy.epsilon, self.config.policy.delta)
        self._store = ClientStore(folder / "secagg.db", durable=not simulated)
        self._ledger = Ledger(folder / "ledger.db", limits, durable=not simulated)
        self._threads = 1 if simulated else self.config.policy.threads or os.cpu_count() or 1
        if not simulated and self.config.policy.threads is not None:
            torch.set_num_threads(self.config.policy.threads)
        self.witness = LedgerWitness(
            folder / "ledger-witness.json",
            self._ledger,
            self._federation.policy.federation_id,
            self.config.name,
            durable=not simulated,
        )
        self._sessions: dict[str, ClientSession | GroupedSession] = {}
        self._runs: dict[str, RunConfig] = {}
        self._slow: dict[str, float] = {}
        self._opened: tuple[tuple[str, int], Callable[[], SiteData]] | None = None

    def close(self) -> None:
        """Close the durable state."""
        self._store.close()
        self._ledger.close()

    def ledger_head(self) -> str:
        """The ledger's head, in hex; it changes with every charge."""
        return next(self._ledger.heads()).hex()

    def spent(self) -> float:
        """Epsilon charged to the site's data set so far."""
        return self._ledger.spent(self.config.dataset)

    def told(self) -> str:
        """What the aggregator is told of that: [epsilon, budget] as JSON, or nothing, as the policy says."""
        policy = self.config.policy
        return json.dumps([self.spent(), policy.epsilon]) if policy.tell_epsilon else ""

    @property
    def outdated(self) -> bool:
        """Whether site.toml was changed since this site was opened; open it anew then."""
        return _version(self.folder) != self._written

    def _read_federation(self) -> Federation:
        return Federation.load(self.folder / "federation.json", self.config.coordinator)

    @cached_property
    def _identity(self) -> Identity:
        return Identity.load(self.folder / "identity.key")

    def join(self, run: str, config_toml: str) -> str:
        """Agree to a run, or refuse it (PolicyRefused) before any record is read; the site's name.

        A federation file that was replaced since is taken up here; its store refuses a version older than one used.
        """
        refuse_outside(self.config.policy, self._now())
        if (federation := self._read_federation()).digest != self._federation.digest:
            self._federation = federation
            self._sessions.clear()
        file = self._run_file(run)
        file.parent.mkdir(exist_ok=True)
        draft = file.with_suffix(".asked")
        draft.write_text(config_toml, encoding="utf-8")
        try:
            config = load_config(draft)
            self._check(config)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        self._runs[run] = config
        return self.config.name

    def _admit_work(self, run: str) -> None:
        """Refuse to train or score now; before anything is charged or read."""
        refuse_outside(self.config.policy, self._now())
        most = self.config.policy.most_seconds
        if most is not None and (took := self._slow.get(run, 0.0)) > most:
            told = "was stopped" if math.isinf(took) else f"took this machine {took:.1f} s"
            raise ResourcesRefused(f"a round of run={run} {told}, and the policy allows {most:g} s (most_seconds)")

    def _check(self, config: RunConfig) -> None:
        refuse_below(self.config.policy, config, self._federation.policy, simulated=self._simulated)

    def _run_file(self, run: str) -> Path:
        if not run.isalnum():  # it becomes a file's name, and comes from the aggregator
            raise RemoteProtocolError(f"a run's identifier is letters and digits, got run={run!r}")
        return self.folder / "runs" / f"{run}.toml"

    def _run(self, run: str) -> RunConfig:
        if run not in self._runs:
            file = self._run_file(run)
            if not file.exists():
                raise LocalProtocolError(f"this site has not agreed to run={run!r}")
            config = load_config(file)
            self._check(config)  # settings may have changed since it agreed
            self._runs[run] = config
        return self._runs[run]

    def _meter(self, run: str, config: RunConfig) -> Meter | None:
        """The account that a run's circuits are charged to; None where no device runs them."""
        policy, prices = self.config.policy, self.config.prices
        return meter_for(
            config,
            run,
            self._spending,
            # A table that the run names is a file of whoever started it, here only in a simulation.
            config.quantum.prices if self._simulated else str(self.folder / prices) if prices else None,
            Caps(policy.most_shots, policy.most_price),
        )

    def _session(self, run: str) -> ClientSession | GroupedSession:
        if run not in self._sessions:
            self._sessions[run] = client_session(
                self._identity, self._federation, self._store, run, threads=self._threads
            )
        return self._sessions[run]

    def initial(self, run: str, rounds: int, every: int) -> tuple[str, bytes]:
        """Facts of a run (see qfed.federation.facts) and its initial model (P,) float32; no record is read."""
        config = self._run(run)
        if not (1 <= rounds <= config.training.rounds and 1 <= every <= rounds):
            raise RemoteProtocolError(
                f"a run of {config.training.rounds} rounds was asked about with rounds={rounds}, every={every}"
            )
        learner = learner_for(config)
        return learner.facts(rounds, every).to_text(), wire.vector_to_bytes(learner.start)

    def packed(self, run: str, model: bytes) -> tuple[str, bytes]:
        """model.json and model.npz of a model of the run, which an aggregator cannot make; no record is read."""
        config = self._run(run)
        learner = learner_for(config)
        return model_files(config.model, learner.schema.to_dict(), wire.vector_from_bytes(model, learner.parameters))

    def protocol(self, run: str, body: bytes) -> bytes:
        """Answer a message of secure aggregation."""
        self._run(run)
        return self._session(run).handle(body)

    def prepare(self, run: str, round: int, model: bytes, request: bytes) -> tuple[Learner, Job] | None:
        """The training that `contribute` will do for this message, None when there is none to do.

        Makes the checks of `contribute` that come before training, and raises what it would.
        """
        config = self._run(run)
        if config.kind == "synthesize":
            return None
        learner = learner_for(config)
        if not isinstance(learner.plan, LocalPlan | OpenPlan) or not config.quantum.on_kernel:
            return None  # a plan that trains no model of the site's own, or a device that each site pays for itself
        session = self._session(run) if learner.config.secagg.mode == "on" else None
        if session is not None:
            session.round_of(request)
            if session.cached_upload(request) is not None:
                return None
        self._admit_work(run)
        vector = wire.vector_from_bytes(model, learner.parameters)
        records = self._records(learner, run, round)
        ledger = self._ledger if learner.config.privacy.mode != "off" else None
        return learner, Job(vector, lambda: records().train, ledger, self.config.dataset, run, round)

    def _records(self, learner: Learner | Counter, run: str, round: int) -> Callable[[], SiteData]:
        """The records in a round, opened once by whoever asks first: training, after it has charged the ledger."""
        if self._opened is None or self._opened[0] != (run, round):
            self._opened = (run, round), cache(lambda: self._read(learner))
        return self._opened[1]

    def _read(self, learner: Learner | Counter) -> SiteData:
        """The records under a run's schema: from the site's own table, or (simulated) from the file dealt to it."""
        if (binding := self.config.data) is None:
            return SiteData.load(self.folder / self.config.records, learner.schema)
        data = learner.config.data
        return hold_out(load_bound(binding, data).records, data.test_fraction, self.config.dataset)

    def contribute(self, run: str, round: int, model: bytes, request: bytes, *, train: bool) -> bytes:
        """Train (or only evaluate) and return the encoded, masked vector of this round.

        A redelivered request gets the bytes of the first answer; nothing is trained or masked twice.
        """
        config = self._run(run)
        secure = config.secagg.mode == "on"
        session = self._session(run) if secure else None
        if session is not None:
            session.round_of(request)  # refuses a label that is stale or belongs elsewhere, before any record is read
            if (cached := session.cached_upload(request)) is not None:
                return cached
        self._admit_work(run)
        policy = policy_of(config, self._federation.policy.federation_id)
        limit = TimeLimit(self.config.policy.most_seconds, f"a round of run={run}", clock=self._clock)
        try:
            with limited(limit):
                if config.kind == "synthesize":
                    layout, values = self._counts(config, run, round, train=train)
                else:
                    learner = learner_for(config)
                    with counted_by(self._meter(run, config)):
                        values = self._values(learner, run, round, model, train=train)
                    layout = layout_of(config, policy, learner.parameters, learner.metric, train=train)
        except ResourcesRefused:
            self._slow[run] = math.inf
            raise
        self._slow[run] = max(self._slow.get(run, 0.0), limit.elapsed)
        seed = self.config.rounding_seed
        rounding = (
            np.random.default_rng() if seed is None else experiment_rng(seed, f"{self.config.name}/rounding", round)
        )
        vector = encode(layout, values, rounding, policy, config.federation.sites)
        return session.upload(request, vector) if session is not None else vector.tobytes()

    def _counts(
        self, config: RunConfig, run: str, round: int, *, train: bool
    ) -> tuple[Layout, Mapping[str, np.ndarray]]:
        """What a run that synthesizes takes of this site, once: counts of the records that it would train on."""
        if not train:
            raise RemoteProtocolError(f'run={run} is of kind "synthesize": there is no model to evaluate')
        counter = counter_for(config)
        records = self._records(counter, run, round)
        self._opened = None
        ledger = self._ledger if config.privacy.mode != "off" else None
        return counter.layout, counter.contribute(
            lambda: records().train, ledger=ledger, dataset=self.config.dataset, run=run, round=round
        )

    def spending(self, run: str) -> Spending:
        """What a run that this site agreed to costs by its plan; it depends on the configuration alone."""
        config = self._run(run)
        if config.kind == "synthesize":
            return counter_for(config).spending()
        return learner_for(config).spending(config.training.rounds)

    def _values(self, learner: Learner, run: str, round: int, model: bytes, *, train: bool) -> Mapping[str, np.ndarray]:
        """The blocks of a contribution (see qfed.federation.contribution), before encoding."""
        config = learner.config
        vector = wire.vector_from_bytes(model, learner.parameters)
        blocks: dict[str, np.ndarray] = {}

        records = self._records(learner, run, round)
        self._opened = None  # the round's records stay in memory no longer than its answer takes
        name = self.config.dataset
        if train:
            ledger = self._ledger if config.privacy.mode != "off" else None
            blocks |= learner.contribute(
                vector, lambda: records().train, ledger=ledger, dataset=name, run=run, round=round
            )
        return blocks | learner.score(
            vector, lambda: records().test, ledger=self._ledger, dataset=name, run=run, round=round, train=train
        )


def _version(folder: Path) -> tuple[int, int]:
    """Changes whenever site.toml is written."""
    about = (folder / "site.toml").stat() if (folder / "site.toml").exists() else None
    return (0, 0) if about is None else (about.st_mtime_ns, about.st_size)
