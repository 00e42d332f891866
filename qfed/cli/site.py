"""qfed site: a site's own keys and settings. Private keys never leave the folder that they are made in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qfed.cli import enrolment, site_data, site_log
from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed.secagg import PublicIdentity

app = typer.Typer(help="A site's keys and settings: make them, join a federation, check a run.", no_args_is_help=True)
app.command()(site_data.init)
app.command()(enrolment.join)
app.command()(site_data.check)
app.add_typer(site_log.app, name="log")

KEY = "identity.key"


@app.command()
def keygen(
    name: Annotated[str, typer.Argument(help="The site's name in the federation: letters, digits, dots, dashes.")],
    out: Annotated[Path, typer.Option("--out", help="The site's folder.")] = Path(),
) -> None:
    """Make a site's keys: identity.key stays here (mode 0600), NAME.public.json goes to the coordinator."""
    from qfed.federation.coordinator import input_errors
    from qfed.secagg import Identity

    key, public = out / KEY, out / f"{name}.public.json"
    for file in (key, public):
        if file.exists():
            raise ConfigError(f"{file} exists already; keys are never overwritten, name another folder with --out")
    with input_errors():
        identity = Identity.generate(name, node=True)
        out.mkdir(parents=True, exist_ok=True)
        identity.save(key)
        identity.public.save(public)
    typer.echo(f"{name}  {identity.fingerprint()}")
    typer.echo(f"wrote {key} (private, it never leaves this machine) and {public} (send it to the coordinator)")


@app.command()
def fingerprint(
    path: Annotated[Path, typer.Argument(help="identity.key, a public file, or a site's folder.")] = Path(),
) -> None:
    """Show the fingerprint to read to the coordinator over the telephone."""
    identity = _read(path)
    typer.echo(f"{identity.name}  {identity.fingerprint()}")


@app.command()
def export(
    key: Annotated[Path, typer.Argument(help="identity.key, or the site's folder.")],
    public: Annotated[Path, typer.Argument(help="Public file to write.")],
) -> None:
    """Write a site's public file again from its private key."""
    from qfed.federation.coordinator import input_errors

    with input_errors():
        _read(key).save(public)
    typer.echo(f"wrote {public}; send it to the coordinator")


def _read(path: Path) -> PublicIdentity:
    from qfed.federation.coordinator import input_errors
    from qfed.secagg import Identity, PublicIdentity

    file = path / KEY if path.is_dir() else path
    with input_errors():
        return PublicIdentity.load(file) if file.suffix == ".json" else Identity.load(file).public
