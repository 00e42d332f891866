"""qfed ledger: what a site's privacy ledger says."""

from __future__ import annotations

import typer

app = typer.Typer(help="Read a site's privacy ledger.", no_args_is_help=True)
