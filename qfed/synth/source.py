"""Where a fit's counts come from: a federated release, or a private release of one's own records, made here.

    a folder         statistics.npz and .json of a run of kind "synthesize" (or of an earlier fit): nothing is spent
    a configuration  records are read, counted and released once by `privacy.plan` in mode local: all of the noise is
                     added here, the ledger beside the data is charged before anything is released (but after records
                     that do not fit the schema were refused, so that a wrong file costs nothing)

Without noise only where somebody says --no-privacy; the release's statement then says so wherever it goes.
Errors  ConfigError, BudgetExhausted when the ledger of the records holds no such release any more
"""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qfed.config import EMBEDDED, DataConfig, PrivacyConfig, RunConfig, load_config
from qfed.data import Coding, Records, load, partition
from qfed.errors import BudgetExhausted, ConfigError
from qfed.federation.counting import counter_for
from qfed.federation.statement import privacy_statement
from qfed.federation.synthesis import COUNTS, coding_of, release_of
from qfed.generative.release import STATISTICS, Release
from qfed.privacy.accounts import account
from qfed.privacy.filter import Limits
from qfed.privacy.ledger import Ledger

CONFIG = "config.toml"
DATASET = account("local")
NO_PRIVACY = "NO PRIVACY: made from exact counts of real records, nothing about them is protected"


@dataclass(frozen=True, eq=False)
class Source:
    """A release and the configuration that says what its bits mean."""

    config: RunConfig
    release: Release
    told: str
    """Where it came from, and what was spent."""

    @property
    def coding(self) -> Coding:
        """How bits become records."""
        return coding_of(self.config)


def unprotected(release: Release) -> bool:
    """Whether the counts have no noise."""
    return bool(release.privacy.get("mode", "off") == "off")


def read_source(
    path: Path | None, overrides: list[str], *, no_privacy: bool, ledger: Path | None, budget: float | None, out: Path
) -> Source:
    """The release that SOURCE names or describes."""
    if path is not None and path.is_dir():
        source = _released(path, overrides)
    else:
        source = release_here(
            load_config(path, overrides), no_privacy=no_privacy, ledger=ledger, budget=budget, out=out
        )
    if unprotected(source.release) and not no_privacy:
        raise ConfigError(f"{path} holds exact counts, which protect nobody; say --no-privacy to use them all the same")
    return source


def _released(folder: Path, overrides: list[str]) -> Source:
    if not (folder / f"{STATISTICS}.json").exists():
        raise ConfigError(
            f'{folder} holds no {STATISTICS}.json; name the folder of a run of kind="synthesize" or of an earlier fit, '
            "or a configuration"
        )
    release = Release.load(folder)
    config = load_config(folder / CONFIG, overrides)
    if coding_of(config).names != release.names:
        raise ConfigError(
            f"{folder / CONFIG} codes {len(coding_of(config).names)} bits other than the {len(release.names)} that "
            f"{STATISTICS}.json counts; keep the files of one run together, and data and coding as they were"
        )
    return Source(config, release, f"the release in {folder}; nothing more is spent")


def release_here(
    config: RunConfig, *, no_privacy: bool, ledger: Path | None = None, budget: float | None = None, out: Path
) -> Source:
    """Count this configuration's training records here, through the privacy plan."""
    if config.privacy.mode == "off" and not no_privacy:
        raise ConfigError('privacy.mode="off" protects nobody; say --no-privacy to count without noise')
    privacy = PrivacyConfig(
        mode="off" if no_privacy else "local",
        epsilon=config.privacy.epsilon,
        delta=config.privacy.delta,
        noise_multiplier=None if no_privacy else config.privacy.noise_multiplier,
    )
    plain = RunConfig(
        name=config.name, kind="synthesize", seed=config.seed, data=config.data, coding=config.coding, privacy=privacy,
        synth=config.synth,
    )  # fmt: skip
    counter = counter_for(plain)
    run = secrets.token_hex(8)  # every fit of a configuration is a release of its own
    counted = real_records(config)[0]  # what is wrong with the records is told before they are charged
    if no_privacy:
        part = counter.contribute(lambda: counted, ledger=None, dataset=DATASET, run=run, round=1)
        told = NO_PRIVACY
    else:
        place = ledger or ledger_of(config.data, out)
        place.parent.mkdir(parents=True, exist_ok=True)
        limits = Limits(config.privacy.epsilon if budget is None else budget, config.privacy.delta)
        with closing(Ledger(place, limits)) as book:
            before = book.spent(DATASET)
            try:
                part = counter.contribute(lambda: counted, ledger=book, dataset=DATASET, run=run, round=1)
            except BudgetExhausted:
                raise BudgetExhausted(
                    f"the ledger {place} says epsilon {before:.3g} of {limits.epsilon:g} spent, which leaves no room "
                    f"for a release at privacy.epsilon={config.privacy.epsilon:g}; fit again to an earlier release, "
                    "which costs nothing (qfed synth fit FOLDER), release at a smaller epsilon, or raise --budget"
                ) from None
            told = (
                f"a release made here; the ledger {place} says epsilon {book.spent(DATASET):.3g} of "
                f"{limits.epsilon:g} spent in all"
            )
    statement = privacy_statement(plain, 1, counter.spending()).model_copy(
        update={"secure_aggregation": "none needed: the counts were made where the records are"}
    )
    total = np.asarray(part[COUNTS], dtype=np.float64)
    return Source(config, release_of(plain, counter.coding, total, 1, statement), told)


def ledger_of(data: DataConfig, out: Path) -> Path:
    """Where releases of these records are charged: beside the file; for embedded data, in the fit's folder."""
    if data.source in EMBEDDED:
        return out / "ledger.db"
    return Path(data.source).with_name(f"{Path(data.source).name}.ledger.db")


def real_records(config: RunConfig) -> tuple[Records, Records]:
    """The records of all sites, as the configuration splits them: those that are counted, those held out."""
    sites = partition(load(config.data), config.data, config.federation.sites, config.seed)
    train, test = ([getattr(site, which) for site in sites] for which in ("train", "test"))
    return _joined(train), _joined(test)


def _joined(parts: list[Records]) -> Records:
    return Records(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))
