"""What is in the way of the aggregation server: its machine, data directory, certificates, roster, runs, and itself.

Nothing is changed; a server that runs is asked over its private socket and at its public address.
Errors  none: findings
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import qfed
from qfed.doctor import machine, network
from qfed.doctor.check import Check, attempt, failed, ok, warning
from qfed.federation import certificates
from qfed.secagg import Identity
from qfed_server.ask import NoServer, ask
from qfed_server.datadir import DataDir
from qfed_server.journal import all_runs


def examine_server(path: Path, now: Callable[[], datetime]) -> list[Check]:
    """Everything that can be found out at the aggregator."""
    place = DataDir(path)
    found = machine.versions(machine.RANGES)
    found += attempt("folder", lambda: [machine.disk(path), machine.file_system(path)], "name the data directory")
    found += attempt("server.toml", lambda: ok("server.toml", f"sites connect to {place.config().address}"), _MADE)
    if found[-1].status == "failed":
        return found
    found += attempt("roster", lambda: _roster(place), "get a copy of the coordinator's federation.json")
    found.append(machine.secret(place.tls(certificates.KEY)))
    found += attempt(
        "certificate", lambda: _certificate(place, now()), "qfed federation certify FOLDER, at the coordinator"
    )
    if place.tls(certificates.CA).exists():
        found.append(machine.certificate("authority", place.tls(certificates.CA), now(), authority=True))
    found += attempt("witness", lambda: _witness(place), "restore runs/witness from the backup")
    found += attempt("runs", lambda: _runs(place), "move a damaged run's folder away, and keep it")
    return found + attempt("server", lambda: _running(place, now), "see the server's log")


_MADE = "make the data directory: qfed federation init --server (its folder aggregator), or qfed server init"


def _roster(place: DataDir) -> list[Check]:
    federation = place.federation()
    told = f"{federation.policy.federation_id}, version {federation.version}, {len(federation.roster)} sites"
    found = [ok("roster", f"{told}, signed by {federation.coordinator.fingerprint()}")]
    without = [site.name for site in federation.roster if site.node is None]
    if without:
        todo = "these sites make new keys (qfed site keygen), and the coordinator puts them in their place"
        found.append(failed("node keys", f"none of {', '.join(without)}: they cannot connect", todo))
    else:
        found.append(ok("node keys", "every site has one"))
    return found


def _certificate(place: DataDir, now: datetime) -> Check:
    soon = place.check_certificate(now)
    about = certificates.facts(certificates.read(place.tls(certificates.CERTIFICATE))[0])
    told = f"for {', '.join(about.hosts)}, until {about.not_after:%Y-%m-%d}; chain, host name and key fit"
    mine = [text for text in soon if "server.crt" in text]
    return warning("certificate", told, mine[0].split("; ", 1)[-1]) if mine else ok("certificate", told)


def _witness(place: DataDir) -> Check:
    key = place.runs / "witness" / "aggregator.key"
    if not key.exists():
        return ok("witness", "no keys of the aggregator's own yet; they are made with the first run")
    return ok("witness", f"the aggregator signs as {Identity.load(key).fingerprint()}")


def _runs(place: DataDir) -> Check:
    states = [journal.state.status for journal in all_runs(place.runs)] if place.runs.exists() else []
    counted = ", ".join(f"{states.count(status)} {status}" for status in dict.fromkeys(states))
    return ok("runs", counted or "none yet")


def _running(place: DataDir, now: Callable[[], datetime]) -> list[Check]:
    try:
        about = ask(place.socket, "GET", "/qfed/server")
    except NoServer:
        todo = f"start it: qfed server --data {place.path}"
        return [warning("server", "none runs on this data directory", todo)]
    found = [ok("server", f"version {about['version']}, runs")]
    if about["version"] != qfed.__version__:
        todo = "restart the server after an update"
        found = [warning("server", f"runs version {about['version']}, installed is {qfed.__version__}", todo)]
    for site in ask(place.socket, "GET", "/qfed/sites")["sites"]:
        if site["copied"]:
            todo = "call the site: its folder was copied and runs twice; neither is served until one is stopped"
            found.append(failed("copy", f"two agents speak for {site['name']}", todo))
    # From here the public name may lead elsewhere (NAT, a proxy): worth a look, not a failure of the server.
    outside = network.reach(place.config().address, place.tls(certificates.CA), now)
    return found + [
        warning(check.name, check.told, f"seen from this machine: {check.todo}") if check.status == "failed" else check
        for check in outside
    ]
