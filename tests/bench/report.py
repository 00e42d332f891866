"""How every benchmark ends: a table for people, and the JSON of the house format.

{"figures": [{"name", "value", "unit", "goal", "better"}], "machine": {...}, "versions": {...}}
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def met(figure: dict[str, Any]) -> bool | None:
    """Whether a figure reaches its goal; None when it has none."""
    if figure.get("goal") is None:
        return None
    return bool(
        figure["value"] >= figure["goal"] if figure["better"] == "higher" else figure["value"] <= figure["goal"]
    )


def finish(title: str, figures: Sequence[dict[str, Any]], packages: Iterable[str], file: Path | None) -> None:
    """Print the figures as a table and write them to `file`; one that misses its goal stays as it is."""
    table = Table(title=title)
    for column in ("figure", "value", "unit", "goal", ""):
        table.add_column(column, justify="right" if column in ("value", "goal") else "left")
    for figure in figures:
        goal, reached = figure.get("goal"), met(figure)
        sign = "" if goal is None else ("≥ " if figure["better"] == "higher" else "≤ ")
        verdict = "" if reached is None else ("[green]met[/]" if reached else "[red]missed[/]")
        shown = "" if goal is None else f"{sign}{goal:g}"
        table.add_row(figure["name"], f"{figure['value']:.4g}", figure["unit"], shown, verdict)
    Console(width=120).print(table)
    if file is None:
        return
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    machine = {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    versions = {name: metadata.version(name) for name in packages}
    file.parent.mkdir(parents=True, exist_ok=True)
    tree = {"figures": [{"goal": None, **figure} for figure in figures], "machine": machine, "versions": versions}
    file.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
