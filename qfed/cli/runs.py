"""qfed submit, list, status, logs, stop, resume, fetch: runs of a federation, at its aggregation server.

What changes something goes through the server's private socket; everything else is read from its data directory, also
when no server runs.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qfed.cli.server import DATA, Data
from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed_server.journal import Journal

Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
Run = Annotated[str, typer.Argument(help="The run, or the beginning of its name.")]
_CARD = ("card.json", "MODEL_CARD.md", "card.signatures.json")
_MODEL = ("model.npz", "model.json", *_CARD)
_FILES = ("result.json", "report.html", *_MODEL, "statistics.json", "statistics.npz", "config.toml")
_FOLLOW_PAUSE = 0.3


def submit(
    config: Annotated[Path, typer.Argument(help="Configuration of the run (TOML).")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. privacy.epsilon=1.")
    ] = None,
    data: Data = DATA,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what happens until the run is over.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a run: a configuration, no code. It waits until those before it are over."""
    from qfed.config import load_config, replace, to_toml

    resolved = load_config(config, set_ or ())
    if "sites" not in resolved.federation.model_fields_set:
        from qfed_server.datadir import DataDir

        resolved = replace(resolved, {"federation.sites": len(DataDir(data).federation().roster)})
    if (source := Path(resolved.data.source)).suffix in (".csv", ".parquet"):
        resolved = replace(resolved, {"data.source": source.name})  # each site reads its own
    run = str(_ask(data, "POST", "/qfed/runs", to_toml(resolved).encode())["run"])
    where = "" if data == DATA else f" --data {data}"
    typer.echo(json.dumps({"run": run}) if as_json else f"run {run} submitted; see: qfed status {run}{where}")
    if follow:
        logs(run, data=data, follow=True, as_json=as_json)


def list_(data: Data = DATA, as_json: Json = False) -> None:
    """List all runs."""
    from qfed_server.journal import all_runs

    rows = [{"run": journal.run, **asdict(journal.state), **_progress(journal)} for journal in all_runs(_runs(data))]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for title in ("run", "name", "status", "submitted", "rounds", "score"):
        table.add_column(title, justify="right" if title in ("rounds", "score") else "left")
    for row in rows:
        table.add_row(
            row["run"], escape(row["name"]), row["status"], _when(row["submitted"]),
            f"{row['round']} of {row['rounds']}", "" if row["score"] is None else f"{row['score']:.3f}",
        )  # fmt: skip
    Console().print(table)


def status(
    run: Annotated[str | None, typer.Argument(help="The run; without it the server, its sites and its runs.")] = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Show a run, or the server with its sites."""
    if run is not None:
        _show_run(_find(data, run), as_json)
        return
    server = _ask(data, "GET", "/qfed/server")
    sites = _ask(data, "GET", "/qfed/sites")["sites"]
    if as_json:
        typer.echo(json.dumps({**server, "sites": sites}, indent=2))
        return
    Console().print(
        f"{escape(server['name'])} at {server['address']}, qfed {server['version']}, federation "
        f"{server['federation']} version {server['federation_version']}; run under way: {server['run'] or 'none'}"
    )
    table = Table()
    for title in ("site", "connection", "last seen", "version", "in the run"):
        table.add_column(title)
    for site in sites:
        seen, version = site["last_seen"], site["version"]
        connection = "two agents" if site["copied"] else site["status"]
        table.add_row(
            site["name"], connection, "never" if seen is None else _when(seen), version or "",
            "yes" if site["joined"] else "",
        )  # fmt: skip
    Console().print(table)


def logs(
    run: Run,
    data: Data = DATA,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    as_json: Json = False,
) -> None:
    """Show what happened in a run, one event a line."""
    for event in _events(_find(data, run), follow):
        if as_json:
            typer.echo(json.dumps(event))
            continue
        when, what = event.pop("t"), event.pop("event")
        fields = "  ".join(f"{name}={_short(value)}" for name, value in event.items() if value not in (None, {}, []))
        Console(soft_wrap=True, highlight=False).print(f"{_when(when)}  {what:9}  {escape(fields)}")


def stop(
    run: Run,
    data: Data = DATA,
    why: Annotated[str, typer.Option("--why", help="Reason, for its record.")] = "by the operator",
) -> None:
    """Stop a run; what it spent stays spent."""
    found = _find(data, run).run
    _ask(data, "POST", f"/qfed/runs/{found}/stop", why.encode())
    typer.echo(f"run {found} stops")


def resume(run: Run, data: Data = DATA) -> None:
    """Go on with a run that failed or was stopped, from its last round; what was released is not charged again."""
    found = _find(data, run).run
    _ask(data, "POST", f"/qfed/runs/{found}/resume")
    typer.echo(f"run {found} goes on")


def fetch(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Folder for model, result and report.")],
    data: Data = DATA,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Copy a run's model, result and report."""
    journal = _find(data, run)
    files = [name for name in _FILES if (journal.path / name).exists()]
    if not {"result.json", "statistics.json"} & set(files):
        raise ConfigError(f"run={journal.run} has no result ({journal.state.status}); see: qfed status {journal.run}")
    there = [name for name in files if (out / name).exists()]
    if there and not force:
        raise ConfigError(f"--out {out} holds {', '.join(there)}; name another folder, or replace them: --force")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in files:
            shutil.copyfile(journal.path / name, out / name)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    for name in files:
        typer.echo(out / name)


# -- parts -----------------------------------------------------------------------------------------------------------


def _runs(data: Path) -> Path:
    from qfed_server.datadir import DataDir

    place = DataDir(data)
    place.config()
    return place.runs


def _find(data: Path, run: str) -> Journal:
    from qfed_server.journal import find

    return find(_runs(data), run)


def _events(journal: Journal, follow: bool) -> Iterator[dict[str, Any]]:
    seen = 0
    while True:
        over = journal.state.over
        for event in journal.events(seen):
            seen += 1
            yield event
        if not follow or over:
            return
        time.sleep(_FOLLOW_PAUSE)


def _progress(journal: Journal) -> dict[str, Any]:
    """Rounds that are over, rounds in all, the last score that was told."""
    found: dict[str, Any] = {"round": 0, "rounds": 0, "score": None}
    for event in journal.events():
        if event["event"] == "submitted":
            found["rounds"] = event["rounds"]
        elif event["event"] == "round":
            found["round"] = event["round"]
            found["score"] = event["scored"]["score"] if event["scored"] else found["score"]
        elif event["event"] == "final":
            found["score"] = event["score"]
    return found


def _show_run(journal: Journal, as_json: bool) -> None:
    state = {"run": journal.run, **asdict(journal.state), **_progress(journal)}
    if as_json:
        typer.echo(json.dumps(state, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"run {journal.run}  {escape(state['name'])}: [bold]{state['status']}[/]")
    if state["why"]:
        console.print(f"  because    {escape(state['why'])}")
    console.print(f"  rounds     {state['round']} of {state['rounds']}")
    if state["score"] is not None:
        console.print(f"  score      {state['score']:.4f}")
    for what in ("submitted", "started", "finished"):
        if state[what] is not None:
            console.print(f"  {what:9}  {_when(state[what])}")


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(item)}" for key, item in value.items()) + "}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _ask(data: Path, method: str, target: str, body: bytes = b"") -> dict[str, Any]:
    from qfed_server.ask import ask
    from qfed_server.datadir import DataDir

    place = DataDir(data)
    place.config()
    return ask(place.socket, method, target, body)
