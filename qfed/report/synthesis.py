"""What people look at after a run of kind "synthesize": `report.html`, and the table on the terminal.

The page is made as that of a trained model is (page.py): one file, nothing fetched, every text escaped.
Errors  MissingExtra without jinja2
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qfed.config import to_toml
from qfed.federation.files import write_atomically
from qfed.federation.synthesis_result import SynthesisResult
from qfed.generative.release import Release
from qfed.report import guarantee, units
from qfed.report.page import REPORT_FILE, Bar, Tile, bars, fill
from qfed.report.table import notice_panels, plain
from qfed.report.units import NBSP


def write_synthesis_report(result: SynthesisResult, release: Release, folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into an existing folder and return its path."""
    return write_atomically(Path(folder) / REPORT_FILE, render_synthesis(result, release).encode())


def render_synthesis(result: SynthesisResult, release: Release) -> str:
    """The page as text."""
    return fill("synthesis.html.j2", _view(result, release))


def synthesis_table(result: SynthesisResult) -> RenderableType:
    """Notices, what was released and what it cost."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for tile in _tiles(result):
        grid.add_row(plain(tile.label.lower()), plain(f"{tile.value} ({tile.note})"))
    return Group(*notice_panels(result), Text(result.config.name, style="bold"), grid)


def _view(result: SynthesisResult, release: Release) -> dict[str, Any]:
    record = result.round
    return {
        "result": result,
        "units": units,
        "sentence": _sentence(result),
        "notices": guarantee.notices(result),
        "tiles": _tiles(result),
        "margins": _margins(release),
        "facts": guarantee.facts(result),
        "dropped": () if record is None else record.dropouts,
        "phases": bars({} if record is None else record.seconds),
        "volumes": bars({} if record is None else record.bytes, units.size),
        "toml": to_toml(result.config),
    }


def _sentence(result: SynthesisResult) -> str:
    if result.privacy.mode == "off":
        privacy = "without differential privacy"
    else:
        privacy = (
            f"with differential privacy of each record (epsilon {units.epsilon(result.privacy.epsilon)}, delta "
            f"{units.delta(result.privacy.delta)})"
        )
    survivors = 0 if result.round is None else result.round.survivors
    return (
        f"One release of pair counts of {units.count(len(result.bits), 'bit')} a record over "
        f"{units.count(survivors, 'site')}, {privacy}: what simulated records are made of."
    )


def _tiles(result: SynthesisResult) -> tuple[Tile, ...]:
    """Records, epsilon, noise, sites, bytes, time."""
    of = f"{len(result.records)} classes counted apart, " if result.apart else ""
    note = f"{of}noise of {result.records_stddev:.3g} in each" if result.records_stddev else f"{of}exact"
    found = [Tile("records", "Records, as released", f"{sum(result.records):,.0f}", note)]
    if result.privacy.mode == "off":
        found.append(Tile("epsilon", "Privacy", "none", "no differential privacy", alarm=True))
    else:
        budget = units.budget(result.config.privacy.epsilon)
        note = f"of {budget} budgeted, with delta{NBSP}{units.delta(result.privacy.delta)}"
        found.append(Tile("epsilon", "Epsilon spent", units.epsilon(result.privacy.epsilon), note))
        note = f"standard deviation in a cell of a pair's table, in records; {result.sums:,} numbers released"
        found.append(Tile("noise", "Noise", f"{result.cell_stddev:.3g}", note))
    survivors = 0 if result.round is None else result.round.survivors
    found.append(Tile("sites", "Sites", f"{survivors} of {len(result.sites)}", "in the sum"))
    if result.sites:
        each = sum(site.bytes_up + site.bytes_down for site in result.sites) / len(result.sites)
        found.append(Tile("bytes", "Bytes per site", units.size(each), "sent and received"))
    found.append(Tile("time", "Time", units.duration(result.seconds.get("total")), "whole run"))
    return tuple(found)


def _margins(release: Release) -> list[tuple[str, tuple[Bar, ...]]]:
    found = []
    for part, pattern in zip(release.parts, release.patterns, strict=True):
        held = ", ".join(f"{name}: {'yes' if bit else 'no'}" for name, bit in zip(release.fixed, pattern, strict=True))
        ones = zip(part.bits, part.ones, strict=True)
        rows = tuple(Bar(name, f"{100 * share:.1f}{NBSP}%", float(share)) for name, share in ones)
        found.append((f"{held or 'All records'}: about {part.records:,.0f}", rows))
    return found
