"""Entry point of the command line: gathers the commands, and turns what qfed raises into one paragraph and a status.

Exit status: 0 done, 1 a run or a protocol failed, 2 a mistake in the input, 130 interrupted.
A package adds commands with an entry point in the group `qfed.commands` that names a typer.Typer.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Annotated, NoReturn

import click
import typer
from rich.console import Console
from rich.markup import escape

from qfed.cli import (
    audit,
    calibrate,
    client,
    config,
    dashboard,
    doctor,
    federation,
    ledger,
    model,
    models,
    predict,
    runs,
    server,
    simulate,
    site,
    study,
    synth,
    track,
    warmup,
)
from qfed.errors import ConfigError, MissingExtra, QfedError

_INTERRUPTED = 130

app = typer.Typer(
    name="qfed",
    help="Federated learning of small quantum-classical models, private and encrypted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qfed {version('qfed')}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Federated learning of small quantum-classical models, private and encrypted."""


app.command("simulate")(simulate.simulate)
app.command("audit")(audit.audit)
app.command("client")(client.client)
app.command("calibrate")(calibrate.calibrate)
app.command("predict")(predict.predict)
app.command("warmup")(warmup.warmup)
app.command("track")(track.track)
app.command("doctor")(doctor.doctor)
app.command("dashboard")(dashboard.dashboard)
for _command, _work in (
    ("submit", runs.submit),
    ("list", runs.list_),
    ("status", runs.status),
    ("logs", runs.logs),
    ("stop", runs.stop),
    ("resume", runs.resume),
    ("fetch", runs.fetch),
):
    app.command(_command)(_work)
app.add_typer(config.app, name="config")
app.add_typer(federation.app, name="federation")
app.add_typer(ledger.app, name="ledger")
app.add_typer(model.app, name="model")
app.add_typer(models.app, name="models")
app.add_typer(server.app, name="server")
app.add_typer(site.app, name="site")
app.add_typer(study.app, name="study")
app.add_typer(synth.app, name="synth")
for _plugin in entry_points(group="qfed.commands"):
    app.add_typer(_plugin.load(), name=_plugin.name)


def _fail(error: QfedError) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
    sys.exit(error.exit_status)


def _settings(error: click.NoSuchOption) -> str:
    """How to give what somebody took for an option, where it is a setting of the run: --set privacy.epsilon=..."""
    from qfed.config import RunConfig
    from qfed.config.explain import named

    if error.ctx is None or all("--set" not in parameter.opts for parameter in error.ctx.command.params):
        return ""
    return " or ".join(f"--set {key}=..." for key in named(RunConfig, error.option_name.strip("-").replace("-", "_")))


def main() -> None:
    """Run the command line; the process's exit status is the answer."""
    try:
        status = app(standalone_mode=False)  # a command's typer.Exit, and Ctrl-C as 130, come back as an integer
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(status if isinstance(status, int) else 0)
    except click.NoSuchOption as error:
        if not (settings := _settings(error)):
            error.show()
            sys.exit(2)
        _fail(ConfigError(f"no option {error.option_name}; settings are given as {settings}; see: qfed config schema"))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        writes = any(argument.partition("=")[0] == "--out" for argument in sys.argv)
        left = "; a folder with a file INCOMPLETE in it holds no result" if writes else ""
        Console(stderr=True).print(f"[bold]interrupted[/]{left}")
        sys.exit(_INTERRUPTED)
    except ModuleNotFoundError as error:
        if (missing := MissingExtra.of(error)) is None:
            raise
        _fail(missing)
    except QfedError as error:
        _fail(error)
