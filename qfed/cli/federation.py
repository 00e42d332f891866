"""qfed federation: the coordinator's part, who belongs to a federation and under which terms."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qfed.cli import enrolment
from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed.federation.coordinator import Terms
    from qfed.secagg import Federation, PublicIdentity

app = typer.Typer(help="Create a federation, add and revoke sites, show what it pins.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder, made by: qfed federation init.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="Run configuration (TOML) whose federation and secagg settings to pin.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of these, e.g. secagg.update_clip=2."),
]


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Identifier of the federation: letters, digits, dots, dashes.")],
    sites: Annotated[list[Path], typer.Argument(help="The sites' public files, three or more.")],
    config: Config = None,
    set_: Changes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to make; the federation's name without.")] = None,
    coordinator: Annotated[str, typer.Option("--coordinator", help="Name of the coordinator.")] = "coordinator",
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="HOST:PORT", help="Where sites will reach the aggregator: certifies it too."),
    ] = None,
    hosts: Annotated[
        list[str] | None, typer.Option("--host", help="Another name or address of the aggregator, for its certificate.")
    ] = None,
    locked: enrolment.Locked = False,
) -> None:
    """Create a federation of these sites: pins the policy and signs it with a new coordinator's key.

    With --server also an authority, the aggregator's certificate and the invitation that sites join with.
    """
    from qfed.federation.coordinator import FILE, found, terms_of
    from qfed.federation.invitation import host_and_port

    folder = out or Path(name)
    if server is not None:
        host_and_port(server)
    elif hosts or locked:
        raise ConfigError("--host and --passphrase belong to a certificate; name the aggregator: --server HOST:PORT")
    federation = found(folder, name, _public(sites), terms_of(config, set_ or ()), coordinator)
    typer.echo(_told(federation, list(federation.index)))
    told = f"wrote {folder / FILE}; compare the fingerprints over the telephone"
    typer.echo(told + ("" if server else ", then give every site and the aggregator a copy"))
    if server is not None:
        enrolment.enrol_aggregator(folder, server, hosts, locked)


@app.command()
def add(
    folder: Folder,
    sites: Annotated[list[Path], typer.Argument(help="Public files of the sites to add.")],
    revoke: Annotated[
        list[str] | None, typer.Option("--revoke", help="Revoke this site in the same version, e.g. to renew its keys.")
    ] = None,
    config: Config = None,
    set_: Changes = None,
) -> None:
    """Add sites: signs the next version of the federation file."""
    from qfed.federation.coordinator import amend
    from qfed.federation.enrolment import republish

    new = _public(sites)
    federation = amend(folder, add=new, revoke=revoke or (), terms=_new_terms(folder, config, set_))
    republish(folder)
    typer.echo(_told(federation, [site.name for site in new]))
    typer.echo(_next_step(folder, federation))


@app.command()
def revoke(
    folder: Folder,
    sites: Annotated[list[str], typer.Argument(help="Names of the sites to revoke.")],
    config: Config = None,
    set_: Changes = None,
) -> None:
    """Revoke sites: signs the next version of the federation file without them."""
    from qfed.federation.coordinator import amend
    from qfed.federation.enrolment import republish

    federation = amend(folder, revoke=sites, terms=_new_terms(folder, config, set_))
    republish(folder)
    typer.echo(_told(federation, []))
    typer.echo(_next_step(folder, federation))


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A federation file, or the coordinator's folder.")],
    coordinator: Annotated[
        str | None, typer.Option("--coordinator", help="Fingerprint that the coordinator must have.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Verify a federation file and show its sites, fingerprints, policy and digest."""
    from qfed.federation.coordinator import read

    federation = read(path, coordinator)
    if as_json:
        typer.echo(json.dumps(_as_data(federation), indent=2))
        return
    typer.echo(_told(federation, list(federation.index)))
    typer.echo("policy")
    for term, value, meaning in _terms_of(federation):
        typer.echo(f"  {term:18} {value:>8}  {meaning}")


for _command in (enrolment.ca, enrolment.certify, enrolment.invite):
    app.command()(_command)


def _public(files: list[Path]) -> list[PublicIdentity]:
    from qfed.federation.coordinator import input_errors
    from qfed.secagg import PublicIdentity

    with input_errors():
        return [PublicIdentity.load(file) for file in files]


def _new_terms(folder: Path, config: Path | None, changes: list[str] | None) -> Terms | None:
    from qfed.federation.coordinator import TERMS, terms_of

    return terms_of(config or folder / TERMS, changes or ()) if config or changes else None


def _told(federation: Federation, sites: list[str]) -> str:
    policy, coordinator = federation.policy, federation.coordinator
    most = policy.withstands(len(federation.roster))
    noun, verb = ("site", "colludes") if most == 1 else ("sites", "collude")
    chance = (
        f" (more than {policy.colluders}: but for a chance below 2^-40 an epoch)" if most > policy.colluders else ""
    )
    within = " of one group" if policy.groups > 1 else ""
    lines = [
        f"federation {policy.federation_id}, version {federation.version}: {len(federation.roster)} sites"
        + (f", {policy.groups} groups" if policy.groups > 1 else ""),
        f"digest       {_grouped(federation.digest.hex())}",
        f"coordinator  {coordinator.fingerprint()}  ({coordinator.name})",
        f"an update stays private while at most {most} {noun}{within} {verb} with the aggregator{chance}",
    ]
    width = max((len(name) for name in sites), default=0)
    lines += [f"  {name:{width}}  {federation.site(name).fingerprint()}" for name in sites]
    return "\n".join(lines)


def _next_step(folder: Path, federation: Federation) -> str:
    from qfed.federation.coordinator import FILE
    from qfed.federation.invitation import INVITATION

    files = "invitation.json (sites: qfed site join)" if (folder / INVITATION).exists() else "a copy"
    return (
        f"wrote version {federation.version} to {folder / FILE}; give every site and the aggregator {files}. Runs use "
        f"federation.sites={len(federation.roster)} from now on, and keys are made anew at the next round"
    )


def _grouped(digits: str) -> str:
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


_MEANING = {
    "committee_size": "members whose masks hide an update (with groups: sites of the smallest group)",
    "recoverable_drops": "members that may be away in a round",
    "min_survivors": "sites below which no sum is opened",
    "clip": "bound on the norm of an update",
    "bits": "bits of one encoded coordinate",
    "ring_bits": "sums are taken modulo 2 to this",
    "max_weight": "greatest weight of a site",
    "epoch_rounds": "rounds after which keys are made anew",
    "privacy_unit": "what differential privacy protects",
    "noise_floor": "least noise multiplier",
    "groups": "groups that are summed one by one",
}


def _terms_of(federation: Federation) -> list[tuple[str, str, str]]:
    policy = federation.policy
    return [(f.name, str(getattr(policy, f.name)), _MEANING[f.name]) for f in fields(policy) if f.name in _MEANING]


def _as_data(federation: Federation) -> dict[str, object]:
    return {
        "federation": federation.policy.federation_id,
        "version": federation.version,
        "digest": federation.digest.hex(),
        "coordinator": {"name": federation.coordinator.name, "fingerprint": federation.coordinator.fingerprint()},
        "colluders_tolerated": federation.policy.colluders,
        "policy": federation.policy.to_dict(),
        "sites": [{"name": site.name, "fingerprint": site.fingerprint()} for site in federation.roster],
    }
