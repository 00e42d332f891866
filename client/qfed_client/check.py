"""A dry run at a site: would this run be agreed to, do the records fit, how long does a step take, what would it cost?

Nothing is sent and nothing is written: the round is trained against a copy of the ledger, and its result thrown away.
Figures depend on private records; they are for the site's own screen.
Errors  ConfigError, DataError for what stops the check; what a check finds is in its result
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qfed.config import DataBinding, RunConfig, SiteConfig, load_config, load_site, replace
from qfed.data import SiteData, hold_out, read_bound
from qfed.data.load import columns_of, encode
from qfed.data.survey import Finding, survey
from qfed.errors import ConfigError, PolicyRefused, QfedError
from qfed.federation.counting import counter_for
from qfed.federation.local import learner_for
from qfed.privacy.ledger import Ledger, Limits
from qfed.secagg import Federation
from qfed_client.floor import refuse_below
from qfed_client.schedule import refuse_outside

_RUN = "check"


@dataclass(frozen=True)
class Trial:
    """One round on local records: seconds, and epsilon of the data set before the run and after all of it."""

    seconds: float | None
    spent: float
    committed: float | None
    refused: str | None


@dataclass(frozen=True)
class Checked:
    """What a dry run found; `ok` when the site would take part and could."""

    site: SiteConfig
    run: RunConfig
    rows: int
    train: int | None
    test: int | None
    columns: tuple[Finding, ...]
    refusals: tuple[str, ...]
    trial: Trial | None
    reading: float
    """Seconds that reading the table took."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What must change before the site can take part."""
        found = [finding.problem for finding in self.columns if finding.problem is not None]
        refused = [] if self.trial is None or self.trial.refused is None else [self.trial.refused]
        return (*found, *self.refusals, *refused)

    @property
    def ok(self) -> bool:
        """Whether nothing must change."""
        return not self.problems


def check(folder: Path, config_file: Path, *, now: datetime) -> Checked:
    """Check the site in `folder` against the run in `config_file`."""
    site = load_site(folder / "site.toml")
    run = _as_submitted(load_config(config_file), folder, site)
    if site.data is None:
        raise ConfigError(f"{folder / 'site.toml'} binds no table; give it [data] with source or url_env")
    refusals = _refusals(folder, site, run, now)
    columns, target = columns_of(run.data)
    started = time.monotonic()
    table = read_bound(site.data, [*(column.name for column in columns), target.name])
    findings, data = survey(table, run.data), None
    if all(finding.problem is None for finding in findings):
        data = hold_out(encode(table, run.data).records, run.data.test_fraction, site.dataset)
    reading = time.monotonic() - started
    trial = None if data is None or refusals else _try(folder, site, run, data)
    train, test = (None, None) if data is None else (len(data.train), len(data.test))
    return Checked(site, run, table.rows, train, test, findings, refusals, trial, reading)


def _as_submitted(run: RunConfig, folder: Path, site: SiteConfig) -> RunConfig:
    """The run with as many sites as the roster has, as qfed submit does it, unless its file says how many."""
    file = folder / "federation.json"
    if "sites" in run.federation.model_fields_set or not file.exists():
        return run
    return replace(run, {"federation.sites": len(Federation.load(file, site.coordinator).roster)})


def describe_source(binding: DataBinding) -> str:
    """The table in words, without a database's URL."""
    if binding.source is not None:
        return binding.source
    what = f"table {binding.table}" if binding.table is not None else "a query"
    return f"{what} of the database in ${binding.url_env}"


def _refusals(folder: Path, site: SiteConfig, run: RunConfig, now: datetime) -> tuple[str, ...]:
    """What the site's policy says to the run; a refusal of each kind that there is."""
    found: list[str] = []
    try:
        refuse_outside(site.policy, now)
    except PolicyRefused as error:
        found.append(f"{type(error).__name__}: {error}")
    file = folder / "federation.json"
    if not file.exists():
        raise ConfigError(
            f"there is no {file}, whose terms a run must have; join the federation first (qfed site join), or copy the "
            "file that its coordinator hands out"
        )
    try:
        refuse_below(site.policy, run, Federation.load(file, site.coordinator).policy)
    except PolicyRefused as error:
        found.append(f"{type(error).__name__}: {error}")
    return tuple(found)


def _try(folder: Path, site: SiteConfig, run: RunConfig, data: SiteData) -> Trial:
    """Train one round against a copy of the ledger."""
    limits = Limits(site.policy.epsilon, site.policy.delta)
    with tempfile.TemporaryDirectory(prefix="qfed-check-") as place:
        copy = Path(place) / "ledger.db"
        if (folder / "ledger.db").exists():
            with (
                closing(sqlite3.connect((folder / "ledger.db").resolve().as_uri() + "?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        with closing(Ledger(copy, limits, durable=False)) as ledger:
            spent = ledger.spent(site.dataset)
            private = ledger if run.privacy.mode != "off" else None
            try:
                for round in range(1, min(run.training.rounds, 2) + 1):  # the first compiles, the second is timed
                    started = time.monotonic()
                    _one_round(run, data, private, site.dataset, round)
            except QfedError as error:
                return Trial(None, spent, None, f"{type(error).__name__}: {error}")
            return Trial(time.monotonic() - started, spent, ledger.committed(site.dataset), None)


def _one_round(run: RunConfig, data: SiteData, ledger: Ledger | None, dataset: str, round: int) -> None:
    if run.kind == "synthesize":
        counter_for(run).contribute(lambda: data.train, ledger=ledger, dataset=dataset, run=_RUN, round=round)
    else:
        learner = learner_for(run)
        learner.contribute(learner.start, lambda: data.train, ledger=ledger, dataset=dataset, run=_RUN, round=round)
