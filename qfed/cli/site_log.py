"""qfed site log: read a site's audit log, and check that nobody changed it."""

from __future__ import annotations

import json
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Show and verify the audit log of a site.", no_args_is_help=True)
Folder = Annotated[Path, typer.Option("--site", help="The site's folder.")]
_FIXED = ("n", "t", "what", "prev", "hash")


@app.command()
def show(
    site: Folder = Path(),
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="So many lines from the end.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are.")] = False,
) -> None:
    """Show what the site received, decided, charged and sent."""
    from qfed_client.auditlog import lines

    for _, value in deque(lines(site), maxlen=last):
        if value is None:
            continue
        if as_json:
            typer.echo(json.dumps(value))
        else:
            rest = "  ".join(f"{key}={value[key]}" for key in value if key not in _FIXED)
            typer.echo(f"{value.get('n', '?'):>6}  {str(value.get('t', ''))[:19]}  {value.get('what', '?'):9} {rest}")


@app.command()
def verify(
    site: Folder = Path(),
    head: Annotated[
        str | None, typer.Option("--head", help="A hash that was noted elsewhere; it must be in the log.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check the chain from its first line, against its anchor and against the ledger."""
    from qfed_client import auditlog

    found = auditlog.verify(site, _ledger_heads(site), head)
    if as_json:
        fields = {"lines": found.lines, "head": found.head, "problems": found.problems, "notes": found.notes}
        typer.echo(json.dumps(fields, indent=2))
    else:
        typer.echo(f"{site / auditlog.FILE}: {found.lines} lines, head {found.head or 'none'}")
        for note in found.notes:
            typer.echo(f"note: {note}")
        for problem in found.problems:
            typer.echo(f"problem: {problem}")
        if not found.problems:
            typer.echo("intact: no line was changed, taken out or put in, and the end is the one that was noted")
            typer.echo("who may write this folder can write all of it anew; a head kept elsewhere finds that (--head)")
    if found.problems:
        raise typer.Exit(1)


def _ledger_heads(site: Path) -> list[str]:
    """Heads that the site's ledger has had, the present one first; none without a ledger."""
    from qfed.privacy.ledger import Ledger, Limits

    if not (site / "ledger.db").exists():
        return []
    with closing(Ledger(site / "ledger.db", Limits(float("inf"), 1e-5))) as ledger:
        return [chain.hex() for chain in ledger.heads()]
