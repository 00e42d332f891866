"""From a site's folder to its agent: what must be there before a connection is tried, and the lock on the folder.

Two agents of one site would use the same keys and labels twice, so a folder has one at a time (agent.lock).
Errors  ConfigError, MissingExtra, SecAggMisuse: something is missing or wrong here; nothing was sent
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qfed
from qfed._flower.fleet import Clock, Fleet, utc_now
from qfed.config import load_site
from qfed.errors import ConfigError, MissingExtra
from qfed.federation import certificates
from qfed.secagg import Federation, Identity
from qfed.secagg.witness import is_copy
from qfed_client.agent import Agent, App

log = logging.getLogger("qfed.agent")

COPIED = (
    "the folder {folder} was copied or moved here since it took part last. A copy must not run: it would spend the "
    "same privacy budget again, and use keys and labels twice. If the original is gone for good and this is its newest "
    "state, remove secagg.db and the files whose names begin with it: the site joins again with new keys at the next "
    "epoch, and its ledger goes on"
)


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a site's folder for one agent; the system lets go of it when the process ends, however it does."""
    if not (folder / "site.toml").is_file():
        raise ConfigError(f"there is no site.toml in folder={str(folder)!r}; name the site's folder with --site")
    with (folder / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another agent serves folder={str(folder)!r}; a site has one agent") from None
        yield


def agent_for(
    folder: Path, *, clock: Clock = utc_now, app: App | None = None, turn: threading.Lock | None = None
) -> Agent:
    """An agent that is ready to serve; every file that it needs was read once."""
    config = load_site(folder / "site.toml")
    if config.server is None:
        raise ConfigError(
            f"{folder / 'site.toml'} names no aggregator; join first: qfed site join invitation.json --site {folder}"
        )
    authority = folder / config.server.ca
    if not authority.is_file():
        raise ConfigError(
            f"there is no certificate of the aggregator's authority at {authority}; its operator hands it out (ca.crt)"
        )
    try:  # the connection itself decides; this only says why it may fail soon
        soon = certificates.expiry(authority, clock(), authority=True)
    except ConfigError as error:
        soon = str(error)
    if soon is not None:
        log.warning("%s", soon)
    for package in ("torch", "pennylane"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "client")
    if is_copy(folder / "secagg.db"):
        raise ConfigError(COPIED.format(folder=folder))
    identity = Identity.load(folder / "identity.key")
    federation = Federation.load(folder / "federation.json", config.coordinator)
    if federation.site(config.name).fingerprint() != identity.fingerprint():
        raise ConfigError(
            f"{folder / 'identity.key'} is not the key that the federation file has for {config.name}; ask the "
            "coordinator to add this site's public file, or restore the key"
        )
    fleet = Fleet(
        config.server.address,
        authority.read_bytes(),
        identity.node_key(),
        agent=f"qfed/{qfed.__version__}",
        clock=clock,
    )
    return Agent(folder, fleet, app=app, turn=turn, preload=config.preload)
