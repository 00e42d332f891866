"""From a coordinator's folder to a site's: what is handed to the aggregator and to every site, and how a site joins.

At the coordinator, besides what `qfed.federation.coordinator` keeps there:
    ca.crt, ca.key       the authority of the aggregator's certificate (none with an operator's own)
    invitation.json      for every site
    aggregator/          to be the aggregator's data folder: federation.json, server.toml,
                         tls/ (ca.crt, server.crt, server.key)
At a site:
    federation.json, ca.crt   out of the invitation
    site.toml                 coordinator's pin and [server] set; the rest, comments included, stays as it is

Errors  ConfigError, in one line with the way out
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from qfed.config import load_site
from qfed.errors import ConfigError
from qfed.federation import certificates
from qfed.federation.coordinator import FILE, KEY, input_errors, read
from qfed.federation.files import write_atomically
from qfed.federation.invitation import INVITATION, Invitation
from qfed.federation.site_draft import draft_site
from qfed.secagg import Federation, Identity

AGGREGATOR, TLS, SITE, SITE_KEY = "aggregator", "tls", "site.toml", "identity.key"


def invite(folder: Path, server: str, ca: Path | None = None) -> Invitation:
    """Write the invitation of a coordinator's folder; `ca` is an operator's own authority."""
    authority = ca or folder / certificates.CA
    certificates.read(authority)
    pem = authority.read_text(encoding="ascii")
    with input_errors():
        invitation = Invitation.create(read(folder), server, pem, Identity.load(folder / KEY))
        invitation.save(folder / INVITATION)
    return invitation


def republish(folder: Path) -> None:
    """After a change of roster or authority: the aggregator's copy and the invitation follow."""
    if (folder / AGGREGATOR).is_dir():
        with input_errors():
            write_atomically(folder / AGGREGATOR / FILE, (folder / FILE).read_bytes())
    if (folder / INVITATION).exists():
        old = Invitation.load(folder / INVITATION)
        with input_errors():
            coordinator = Identity.load(folder / KEY)
            Invitation.create(read(folder), old.server, _latest(folder, old.ca), coordinator).save(folder / INVITATION)


def join(folder: Path, invitation: Invitation) -> tuple[Federation, bool]:
    """Write an invitation, whose coordinator was compared, into a site's folder; whether site.toml is new."""
    federation = invitation.federation
    with input_errors():
        identity = Identity.load(folder / SITE_KEY)
        identity.node_key()
    name = identity.name
    if name not in federation.index or federation.site(name) != identity.public:
        told = "with other keys" if name in federation.index else "not"
        raise ConfigError(
            f"{name} is {told} in version {federation.version} of {federation.policy.federation_id}; send "
            f"{name}.public.json (qfed site export) to the coordinator, and ask for the invitation that follows"
        )
    _refuse_older(folder / FILE, federation)
    text, new = _settings(folder / SITE, name, invitation)
    with input_errors():
        write_atomically(folder / FILE, federation.to_text().encode())
        write_atomically(folder / certificates.CA, invitation.ca.encode())
        write_atomically(folder / SITE, text.encode())
    load_site(folder / SITE)
    return federation, new


def _latest(folder: Path, ca: str) -> str:
    """The PEM of our own authority if that, before it was renewed perhaps, is whose `ca` is; else `ca`."""
    file = folder / certificates.CA
    if not file.exists():
        return ca
    ours, theirs = certificates.read(file)[0], x509.load_pem_x509_certificates(ca.encode())[0]
    return file.read_text(encoding="ascii") if ours.public_key() == theirs.public_key() else ca


def _refuse_older(file: Path, federation: Federation) -> None:
    if not file.exists():
        return
    held = read(file)
    if held.policy.federation_id == federation.policy.federation_id and held.version > federation.version:
        raise ConfigError(
            f"the invitation is of version {federation.version}, {file} of version {held.version}; ask the coordinator "
            "for the latest one"
        )


def _settings(file: Path, name: str, invitation: Invitation) -> tuple[str, bool]:
    """The text of site.toml with the invitation in it, and whether it is a first draft."""
    pin = invitation.federation.coordinator.fingerprint()
    server = {"address": invitation.server, "ca": certificates.CA}
    import tomlkit  # an extra of sites, and a coordinator has none of its own

    new = not file.exists()
    if not new:
        load_site(file)
    tree = tomlkit.parse(draft_site(name) if new else file.read_text(encoding="utf-8"))
    if str(tree["name"]) != name:
        raise ConfigError(
            f"{file} is of the site {tree['name']}, {SITE_KEY} beside it of {name}; use one site's folder"
        )
    held = tree.get("coordinator")
    if held is not None and held != pin:
        raise ConfigError(
            f"{file} trusts the coordinator {held}, the invitation is of {pin}; if there is a new one, take the old "
            "pin out of site.toml first"
        )
    tree["coordinator"] = pin
    section = tree.setdefault("server", tomlkit.table())
    section.update(server)
    return tomlkit.dumps(tree), new
