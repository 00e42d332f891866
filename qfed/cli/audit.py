"""qfed audit: does the implementation keep what the plan promises?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress


def audit(
    target: Annotated[
        Path | None, typer.Argument(help="A run's folder (of qfed simulate --out), or a configuration (TOML).")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field.")] = None,
    canaries: Annotated[
        int | None,
        typer.Option("--canaries", min=64, help="Canaries, each in the data or not; 1000 if left out (dp_zo: 250)."),
    ] = None,
    sites: Annotated[int | None, typer.Option("--sites", min=1, help="Sites to audit; 3 if left out.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds; all of the run's if left out.")] = None,
    membership: Annotated[
        bool, typer.Option("--membership", help="Also attack the final model alone (slower).")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for audit.json and audit.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Audit privacy: canaries through the real plan; exit status 1 when a gate fails."""
    from qfed.config import load_config

    folder = target if target is not None and target.is_dir() else None
    config = load_config(folder / "config.toml" if folder is not None else target, set_ or [])
    console = Console(stderr=as_json)
    with console.status("loading the libraries"):
        from qfed.report.audit import audit_page, write_audit
        from qfed.simulation.audit import audit as run_audit
    with Progress(console=console, transient=True, disable=as_json) as display:
        bar = display.add_task("auditing", total=None)
        verdict = run_audit(
            config,
            folder=folder,
            canaries=canaries,
            sites=sites,
            rounds=rounds,
            membership=membership,
            progress=lambda done, total: display.update(bar, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(verdict.to_dict(), indent=2, allow_nan=False))
    else:
        console.print(audit_page(verdict))
    if out is not None:
        for path in write_audit(verdict, out):
            console.print(f"{path.name}: {path}", soft_wrap=True, highlight=False)
    if not verdict.passed:
        raise typer.Exit(1)
