"""qfed site init|check: a site's settings, and a dry run of a run against them and its records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed_client.check import Checked

Folder = Annotated[Path, typer.Option("--site", help="The site's folder.")]


def init(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")] = Path(),
    name: Annotated[str | None, typer.Option("--name", help="The site's name; that of its keys without.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The site's table, a .csv or .parquet file.")] = None,
) -> None:
    """Write a first site.toml with every setting explained; one that is there is never touched."""
    from qfed.config import load_site
    from qfed.federation.coordinator import input_errors
    from qfed.federation.files import write_atomically
    from qfed.federation.site_draft import draft_site
    from qfed.secagg import Identity

    file, key = folder / "site.toml", folder / "identity.key"
    if file.exists():
        raise ConfigError(f"{file} exists already; edit it, or move it away")
    if name is None:
        if not key.exists():
            raise ConfigError(
                f"there are no keys in {folder} that would name the site; give --name, or make them first"
            )
        with input_errors():
            name = Identity.load(key).name
    if data is not None and not data.is_file():
        raise ConfigError(f"there is no file --data {data}; name the table, or leave --data out and bind it in {file}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, draft_site(name, None if data is None else _named(data, folder)).encode())
    load_site(file)
    typer.echo(f"wrote {file}; read it, bind your table under [data], and decide on [policy]")
    typer.echo(f"next: qfed site check --site {folder} --config RUN.toml")


def _named(data: Path, folder: Path) -> str:
    """A table in the site's folder goes where the folder is moved or mounted; another stays where it is."""
    table, place = data.resolve(), folder.resolve()
    return table.relative_to(place).as_posix() if table.is_relative_to(place) else str(table)


def check(
    config: Annotated[
        Path | None, typer.Option("--config", help="The run's configuration (TOML), from whoever submits it.")
    ] = None,
    site: Folder = Path(),
) -> None:
    """Dry run on local records: schema, policy, one step's time, cost of the budget. Nothing is sent or written."""
    from datetime import datetime

    from qfed.config import load_site
    from qfed.data.table import header
    from qfed_client.check import check as dry_run
    from qfed_client.check import describe_source

    if config is None:
        settings = load_site(site / "site.toml")
        if settings.data is None or settings.data.source is None:
            raise ConfigError("name the run to check against with --config RUN.toml: it says which columns it wants")
        columns = ", ".join(f"{name} ({kind})" for name, kind in header(settings.data.source))
        typer.echo(f"{settings.name}: {describe_source(settings.data)} has the columns {columns}")
        typer.echo("give --config RUN.toml for more: a run says which columns it wants")
        return
    found = dry_run(site, config, now=datetime.now())
    _show(found)
    if not found.ok:
        raise typer.Exit(1)


def _show(found: Checked) -> None:
    from qfed_client.check import describe_source

    console = Console(highlight=False, soft_wrap=True)
    assert found.site.data is not None  # noqa: S101  a check without a table raises
    console.print(f"[bold]{escape(found.site.name)}[/] against the run [bold]{escape(found.run.name)}[/]")
    console.print("What follows depends on private records. It was sent to nobody; keep it at this site.\n")
    table = Table(title=f"{escape(describe_source(found.site.data))}: {found.rows} records", title_justify="left")
    for title in ("column", "expected", "empty", "out of range"):
        table.add_column(title, justify="right" if title in ("empty", "out of range") else "left")
    for finding in found.columns:
        style = "red" if finding.problem else ""
        figures = ("" if n is None else str(n) for n in (finding.empty, finding.outside))
        table.add_row(escape(finding.name), escape(finding.expected), *figures, style=style)
    console.print(table)
    if any(finding.outside for finding in found.columns):
        console.print("Values out of range are clipped to it in training.")
    if found.train is not None:
        console.print(f"{found.train} records to train on, {found.test} held out; read in {found.reading:.2f} s")
    if found.trial is not None and found.trial.seconds is not None:
        rounds = found.run.training.rounds
        console.print(f"a round takes {found.trial.seconds:.2f} s of training here; the run has {rounds}")
        _show_budget(console, found)
    console.print()
    for problem in found.problems:
        console.print(f"[red]refused[/] {escape(problem)}")
    console.print("[green]this site would take part[/]" if found.ok else "this site would not take part as it is")


def _show_budget(console: Console, found: Checked) -> None:
    trial, policy = found.trial, found.site.policy
    assert trial is not None  # noqa: S101  the caller has looked
    if found.run.privacy.mode == "off" or trial.committed is None:
        console.print("the run has no differential privacy: it costs no budget and protects nothing")
        return
    console.print(
        f"budget of {escape(found.site.dataset)}: epsilon {trial.spent:.3g} of {policy.epsilon:g} spent, "
        f"{trial.committed:.3g} after this run (delta {policy.delta:g})"
    )
