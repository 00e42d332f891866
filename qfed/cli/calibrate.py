"""qfed calibrate: from a budget to noise and back, before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qfed.errors import ConfigError


def calibrate(
    config: Annotated[Path | None, typer.Argument(help="Configuration (TOML); the defaults without one.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. privacy.epsilon=1.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", help="A noise multiplier: say what it gives, not what the budget needs.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for calibration.json and calibration.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Say what a run will cost each site: noise and epsilon in every mode, drops, colluders, people at many sites."""
    from qfed.config import load_config

    resolved = load_config(config, set_ or [])
    if noise is not None and not noise > 0:
        raise ConfigError(
            f"--noise={noise:g}: a noise multiplier is above 0; leave it out to see what the budget needs"
        )
    console = Console(stderr=as_json)
    with console.status("accounting"):
        from qfed.federation.device_use import estimate
        from qfed.privacy.calibration import forecast
        from qfed.report.forecast import forecast_page, write_forecast

        found, device = forecast(resolved, noise), estimate(resolved)
    if as_json:
        tree = found.to_dict() | ({} if device is None else {"device": asdict(device)})
        typer.echo(json.dumps(tree, indent=2, allow_nan=False))
    else:
        console.print(forecast_page(found))
        if device is not None:
            console.print(device.sentence(), style="yellow" if device.exceeds else "", highlight=False)
    if out is not None:
        for path in write_forecast(found, out):
            console.print(f"{path.name}: {path}", soft_wrap=True, highlight=False)
