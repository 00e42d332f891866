"""What is in the way of a site: its machine, keys, roster, certificates, server, table, ledger and audit log.

Nothing is sent but one question for the server's health, and nothing is written but a probe that is taken away.
Errors  none: findings
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from qfed.config import SiteConfig, load_site
from qfed.data.table import header
from qfed.doctor import machine, network
from qfed.doctor.check import Check, attempt, failed, ok, warning
from qfed.privacy.ledger import Ledger, Limits
from qfed.secagg import Federation, Identity
from qfed.secagg.witness import is_copy
from qfed_client import auditlog


def examine_site(folder: Path, now: Callable[[], datetime]) -> list[Check]:
    """Everything that can be found out at a site."""
    found = machine.versions({**machine.RANGES, **machine.OF_SITES})
    found += attempt("folder", lambda: [machine.disk(folder), machine.file_system(folder)], "name the site's folder")
    found += attempt("site.toml", lambda: ok("site.toml", f"{load_site(folder / 'site.toml').name}"), _JOIN)
    if found[-1].status == "failed":
        return found
    site = load_site(folder / "site.toml")
    found.append(machine.secret(folder / "identity.key"))
    found += attempt("roster", lambda: _roster(folder, site), _JOIN)
    found += attempt("table", lambda: _table(site), "bind your table: [data] in site.toml")
    found += attempt("ledger", lambda: _ledger(folder, site), "restore the ledger, and ask who put another one there")
    if is_copy(folder / "secagg.db"):
        found.append(failed("copy", "this folder was copied or moved since it took part last", _COPY))
    found += attempt("audit log", lambda: _log(folder), "qfed site log verify says more")
    if site.server is None:
        return [*found, failed("server", "site.toml names no server", _JOIN)]
    ca = folder / site.server.ca
    found.append(machine.certificate("authority", ca, now(), authority=True))
    return found + network.reach(site.server.address, ca, now)


_COPY = (
    "run the original; if it is gone for good and this is its newest state, remove secagg.db and the files whose names "
    "begin with it"
)
_JOIN = "join the federation: qfed site join invitation.json"


def _roster(folder: Path, site: SiteConfig) -> list[Check]:
    federation = Federation.load(folder / "federation.json", site.coordinator)
    identity, told = Identity.load(folder / "identity.key"), federation.policy.federation_id
    found = []
    if site.coordinator is None:
        todo = "join with the fingerprint: qfed site join invitation.json --coordinator FINGERPRINT"
        found.append(warning("coordinator", "site.toml pins no coordinator: anybody could sign a roster", todo))
    else:
        found.append(ok("coordinator", f"{federation.coordinator.fingerprint()} signed the roster"))
    if site.name not in federation.index or federation.site(site.name) != identity.public:
        todo = f"send {site.name}.public.json to the coordinator, and join with the invitation that follows"
        return [
            *found,
            failed("keys", f"version {federation.version} of {told} has other keys or no {site.name}", todo),
        ]
    identity.node_key()
    text = f"as in version {federation.version} of {told}, {len(federation.roster)} sites: {identity.fingerprint()}"
    return [*found, ok("keys", text)]


def _table(site: SiteConfig) -> Check:
    if site.data is None:
        return warning(
            "table", "site.toml binds no table", "add [data] to site.toml, then qfed site check --config RUN"
        )
    if site.data.source is None:
        return ok("table", f"a database, by the URL in ${site.data.url_env}; qfed site check --config RUN reads it")
    columns = header(site.data.source)
    return ok(
        "table", f"{site.data.source}: {len(columns)} columns; qfed site check --config RUN says whether they fit"
    )


def _ledger(folder: Path, site: SiteConfig) -> Check:
    file = folder / "ledger.db"
    if not file.exists():
        return ok("ledger", f"none yet: epsilon 0 of {site.policy.epsilon:g} spent")
    with closing(Ledger(file, Limits(site.policy.epsilon, site.policy.delta))) as ledger:
        rows, spent = ledger.verify(), ledger.spent(site.dataset)
        head = next(ledger.heads()).hex()[:16]
    told = f"{rows} rows, chain intact, head {head}: epsilon {spent:.3g} of {site.policy.epsilon:g} spent"
    if spent >= site.policy.epsilon:
        return warning("ledger", told, "the budget is spent: runs on these records will be refused")
    return ok("ledger", told)


def _log(folder: Path) -> list[Check]:
    heads: list[str] = []
    if (folder / "ledger.db").exists():
        with closing(Ledger(folder / "ledger.db", Limits(float("inf"), 1e-5))) as ledger:
            heads = [chain.hex() for chain in ledger.heads()]
    verified = auditlog.verify(folder, heads)
    if verified.problems:
        return [
            failed("audit log", problem, "qfed site log verify; ask who may write here")
            for problem in verified.problems
        ]
    return [ok("audit log", f"{verified.lines} lines, chain intact, head {verified.head[:16] or 'none'}")]
