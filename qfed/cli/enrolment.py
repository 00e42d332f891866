"""qfed federation ca|certify|invite and qfed site join: certificates, and the one file that brings a site in."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed.federation.authority import Authority
    from qfed.secagg import Federation

PASSPHRASE = "QFED_CA_PASSPHRASE"  # noqa: S105 the name of a variable

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder, made by: qfed federation init.")]
Locked = Annotated[
    bool, typer.Option("--passphrase", help=f"Encrypt ca.key; asked for, or taken from {PASSPHRASE} if that is set.")
]


def ca(
    folder: Folder,
    permit: Annotated[
        list[str] | None,
        typer.Option("--permit", metavar="DOMAIN|NETWORK", help="Limit the authority to these (name constraints)."),
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Renew its dates; the key and old certificates stay.")] = False,
    locked: Locked = False,
) -> None:
    """Make the certificate authority that sites trust for their aggregator (ca.crt, ca.key)."""
    from qfed.federation.certificates import facts
    from qfed.federation.enrolment import republish

    authority = opened(folder).renewed(_now()) if renew else create_authority(folder, permit, locked)
    if renew:
        republish(folder)
    about = facts(authority.certificate)
    typer.echo(f"authority    {about.subject}, until {about.not_after:%Y-%m-%d}\nfingerprint  {about.fingerprint}")
    typer.echo(f"wrote {folder / 'ca.crt'}; next: qfed federation certify {folder} HOST")


def certify(
    folder: Folder,
    hosts: Annotated[
        list[str] | None, typer.Argument(help="Names and addresses that sites connect to; those of before without.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write, the server's tls/; FOLDER/aggregator/tls without."),
    ] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make a new server.key too.")] = False,
    request: Annotated[
        Path | None, typer.Option("--request", help="Sign this request (CSR, PEM); its key stays where it is.")
    ] = None,
    days: Annotated[int, typer.Option("--days", help="Days that it is valid.")] = 397,
) -> None:
    """Issue the aggregator's certificate, or renew it (same key, same hosts unless told otherwise)."""
    from qfed.federation.certificates import CERTIFICATE, facts, read
    from qfed.federation.enrolment import AGGREGATOR, TLS

    place = out or folder / AGGREGATOR / TLS
    authority = opened(folder)
    if request is not None:
        authority.sign_request(request, place, hosts or (), _now(), days=days)
        renewed = False
    else:
        renewed = authority.certify(place, hosts or (), _now(), new_key=new_key, days=days)
    about = facts(read(place / CERTIFICATE)[0])
    typer.echo(f"{'renewed' if renewed else 'issued'} {place / CERTIFICATE}: {', '.join(about.hosts)}")
    typer.echo(f"valid until {about.not_after:%Y-%m-%d}; put {place} into the server's data folder as tls/")


def invite(
    folder: Folder,
    server: Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where sites reach the aggregator.")],
    ca: Annotated[
        Path | None, typer.Option("--ca", help="PEM of another authority, when the certificate is not ours.")
    ] = None,
) -> None:
    """Write invitation.json: what every site joins with (roster, policy, server, authority; signed)."""
    from qfed.federation.enrolment import invite as write

    told_next(folder, write(folder, server, ca).federation)


def join(
    invitation: Annotated[Path, typer.Argument(help="The coordinator's invitation.json.")],
    site: Annotated[Path, typer.Option("--site", help="The site's folder.")] = Path(),
    coordinator: Annotated[
        str | None,
        typer.Option("--coordinator", help="Fingerprint that the coordinator read to you over the telephone."),
    ] = None,
) -> None:
    """Join a federation, or take up its next version: checks the invitation, writes what a site needs of it."""
    from qfed.federation.enrolment import join as write
    from qfed.federation.invitation import Invitation, fingerprint_of

    if coordinator is None:
        Invitation.load(invitation)
        if not sys.stdin.isatty():
            raise ConfigError(
                "whose invitation is it? let the coordinator read out the fingerprint (qfed federation show), and give "
                "it: --coordinator 'ten groups of four'"
            )
        coordinator = typer.prompt("the coordinator's fingerprint, as read out over the telephone")
    checked = Invitation.load(invitation, fingerprint_of(coordinator))
    federation, new = write(site, checked)
    typer.echo(
        f"joined {federation.policy.federation_id}, version {federation.version}: {len(federation.roster)} sites, "
        f"server {checked.server}"
    )
    typer.echo(f"wrote federation.json, ca.crt and site.toml in {site}")
    if new:
        typer.echo("site.toml is a first draft: its [policy] is this site's own decision, read it before you start")
    typer.echo(f"next: qfed doctor --site {site}, then qfed client --site {site}")


def enrol_aggregator(folder: Path, server: str, hosts: list[str] | None, locked: bool) -> None:
    """What qfed federation init does more when it knows the server: authority, certificate, invitation."""
    from qfed.config import ServerConfig, to_toml
    from qfed.federation.coordinator import read
    from qfed.federation.enrolment import AGGREGATOR, TLS, republish
    from qfed.federation.enrolment import invite as write
    from qfed.federation.files import write_atomically
    from qfed.federation.invitation import host_and_port

    host, port = host_and_port(server)
    create_authority(folder, None, locked).certify(folder / AGGREGATOR / TLS, [host, *(hosts or [])], _now())
    settings = to_toml(ServerConfig(address=server, port=port))
    write_atomically(folder / AGGREGATOR / "server.toml", settings.encode())
    write(folder, server)
    republish(folder)
    told_next(folder, read(folder))


def told_next(folder: Path, federation: Federation) -> None:
    """Say who gets what."""
    typer.echo(f"wrote {folder / 'invitation.json'}: send it to every site, which joins with")
    typer.echo(f"  qfed site join invitation.json --coordinator '{federation.coordinator.fingerprint()}'")
    typer.echo("  (read the ten groups out over the telephone, half a minute; do not send them along)")
    if (folder / "aggregator").is_dir():
        typer.echo(f"and {folder / 'aggregator'}: the aggregator's data folder, holds its private key; move it there")


def create_authority(folder: Path, permit: list[str] | None, locked: bool) -> Authority:
    """A new authority named after the federation."""
    from qfed.config import environment
    from qfed.federation.authority import Authority
    from qfed.federation.coordinator import FILE, read

    name = read(folder).policy.federation_id if (folder / FILE).exists() else folder.resolve().name
    passphrase = environment(PASSPHRASE)
    if locked and passphrase is None:
        passphrase = typer.prompt("passphrase of ca.key", hide_input=True, confirmation_prompt=True)
    return Authority.create(folder, name, _now(), passphrase=passphrase, permit=permit or ())


def opened(folder: Path) -> Authority:
    """The authority of a folder, asking for its passphrase where there is one and somebody to ask."""
    from qfed.config import environment
    from qfed.federation.authority import Authority

    passphrase = environment(PASSPHRASE)
    if passphrase is None and Authority.locked(folder) and sys.stdin.isatty():
        passphrase = typer.prompt("passphrase of ca.key", hide_input=True)
    return Authority.open(folder, passphrase)


def _now() -> datetime:
    return datetime.now(UTC)
