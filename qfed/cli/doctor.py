"""qfed doctor: what is in the way of a run, on either side, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed.doctor.check import Check

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor(
    site: Annotated[Path | None, typer.Option("--site", help="A site's folder.")] = None,
    server: Annotated[Path | None, typer.Option("--server", help="A server's data directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check keys, certificates, clock, server, table, disk, versions, ledger; exit status 1 when something failed.

    Without an option, the folder that it is started in.
    """
    from qfed.doctor.check import healthy

    found = _examine(site, server)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy(found), "checks": [asdict(check) for check in found]}, indent=2))
    else:
        _show(found)
    if not healthy(found):
        raise typer.Exit(1)


def _examine(site: Path | None, server: Path | None) -> list[Check]:
    if site is not None and server is not None:
        raise ConfigError("qfed doctor looks at one folder at a time; give --site or --server")
    if site is None and server is None:
        here = Path()
        site = here if (here / "site.toml").exists() or (here / "identity.key").exists() else None
        server = here if site is None and (here / "server.toml").exists() else None
    if site is not None:
        from qfed_client.doctor import examine_site

        return examine_site(site, _now)
    if server is not None:
        from qfed_server.doctor import examine_server

        return examine_server(server, _now)
    raise ConfigError("this folder is neither a site's nor a server's; give --site FOLDER or --server FOLDER")


def _show(found: list[Check]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("check", "", "what was found"):
        table.add_column(title, overflow="fold")
    for check in found:
        told = escape(check.told) + (f"\n[bold]-> {escape(check.todo)}[/]" if check.todo else "")
        table.add_row(check.name, f"[{_STYLES[check.status]}]{check.status}[/]", told)
    Console(highlight=False, soft_wrap=False).print(table)
    counts = {status: sum(check.status == status for check in found) for status in _STYLES}
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))


def _now() -> datetime:
    return datetime.now(UTC)
