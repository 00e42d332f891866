"""`report.html`: one file that holds everything it shows, and asks nobody for anything.

No script, no font, no picture from anywhere; a content-security policy in the page forbids what the template does not
have. Every text that comes with the result goes through jinja2's autoescaping; the SVG of qfed.report.plots is the only
markup that passes as it is. The same result gives the same bytes.

Cost    about 0.1 s a plot, six to eight plots.
Errors  MissingExtra without jinja2 or matplotlib (`pip install 'qfed[server]'`).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qfed.config import to_toml
from qfed.errors import MissingExtra
from qfed.federation.files import write_atomically
from qfed.federation.result import RoundRecord, RunResult
from qfed.report import guarantee, plots, units, words
from qfed.report.units import NBSP

REPORT_FILE = "report.html"
FEW_SITES = 20
"""Up to this many sites the table stands open; beyond, a summary does and the table is folded."""
FEW_NAMES = 6
"""Up to this many dropped-out sites of one reason are named in the table's row; beyond, they are folded."""


@dataclass(frozen=True)
class Tile:
    """A key figure of the first screen."""

    key: str
    label: str
    value: str
    note: str
    alarm: bool = False


@dataclass(frozen=True)
class Bar:
    """A row of a bar table; `share` in [0, 1] is its length."""

    label: str
    value: str
    share: float


@dataclass(frozen=True)
class Key:
    """A legend entry: CSS variable of the colour, dash pattern, words."""

    variable: str
    dashes: str
    label: str
    value: str
    shape: str = "line"


@dataclass(frozen=True)
class Span:
    """Smallest, middle and largest of a figure over the sites."""

    label: str
    low: str
    middle: str
    high: str


def write_report(result: RunResult, folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into an existing folder and return its path."""
    return write_atomically(Path(folder) / REPORT_FILE, render(result).encode())


def render(result: RunResult) -> str:
    """The page as text."""
    return fill("report.html.j2", _view(result))


def templates(package: str, **options: Any) -> Any:
    """The environment of a package's templates: escaped, strict about names; MissingExtra without jinja2."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra("jinja2", "server") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def fill(template: str, view: Mapping[str, Any]) -> str:
    """A page of one of the templates."""
    environment = templates("qfed.report", keep_trailing_newline=True)
    return str(environment.get_template(template).render(view))


def _view(result: RunResult) -> dict[str, Any]:
    private = result.privacy.mode != "off"
    return {
        "result": result,
        "units": units,
        "sentence": words.sentence(result),
        "notices": guarantee.notices(result),
        "tiles": tiles(result),
        "verdicts": words.verdicts(result),
        "caveat": words.CAVEAT,
        "no_comparisons": words.NO_COMPARISONS,
        "model_name": words.model_name(result),
        "metric_name": units.METRIC_NAMES[result.metric],
        "gaps": [words.signed_gap(result, comparison.metrics) for comparison in result.comparisons],
        "score_svgs": [plots.score_plot(result, frame) for frame in plots.FRAMES] if result.rounds else [],
        "score_keys": score_keys(result),
        "epsilon_svgs": [plots.epsilon_plot(result, frame) for frame in plots.FRAMES] if private else [],
        "traffic_svgs": [plots.traffic_plot(result, frame) for frame in plots.FRAMES] if result.rounds else [],
        "budget": units.budget(result.config.privacy.epsilon),
        "budget_dashes": _dashes("budget"),
        "up": units.size(sum(record.bytes_up for record in result.rounds)),
        "down": units.size(sum(record.bytes_down for record in result.rounds)),
        "facts": guarantee.facts(result),
        "spans": spans(result),
        "few_sites": len(result.sites) <= FEW_SITES,
        "few_names": FEW_NAMES,
        "dropped": [_by_reason(record) for record in result.rounds],
        "phases": bars(summed(record.seconds for record in result.rounds)),
        "volumes": bars(summed(record.bytes for record in result.rounds), units.size),
        "parts": bars({name: took for name, took in result.seconds.items() if name != "total"}),
        "toml": to_toml(result.config),
    }


def tiles(result: RunResult) -> tuple[Tile, ...]:
    """Score, epsilon, survivors and rounds, bytes per site, time."""
    metric = units.METRIC_NAMES[result.metric]
    start = "" if result.initial is None else f"; {units.score(result.metric, result.initial.score)} before training"
    of = f"on {units.count(result.final.records, 'held-out record')}{start}"
    found = [Tile("score", metric[0].upper() + metric[1:], units.score(result.metric, result.final.score), of)]
    if result.privacy.mode == "off":
        found.append(Tile("epsilon", "Privacy", "none", "no differential privacy", alarm=True))
    else:
        budget = units.budget(result.config.privacy.epsilon)
        note = f"of {budget} budgeted, with delta{NBSP}{units.delta(result.privacy.delta)}"
        found.append(Tile("epsilon", "Epsilon spent", units.epsilon(result.privacy.epsilon), note))
    good = sum(record.status == "aggregated" for record in result.rounds)
    failed = len(result.rounds) - good
    survivors = [record.survivors for record in result.rounds if record.status == "aggregated"]
    mean = f"{statistics.fmean(survivors):.3g}" if survivors else "no"
    note = f"{mean} of {units.count(len(result.sites), 'site')} in a good round on average"
    if failed:
        note += f"; {units.count(failed, 'round')} failed"
    found.append(Tile("rounds", "Good rounds", f"{good} of {len(result.rounds)}", note))
    if result.sites:
        each = units.size(result.bytes_per_site / max(1, len(result.rounds)))
        note = f"sent and received; {each} a round"
        found.append(Tile("bytes", "Bytes per site", units.size(result.bytes_per_site), note))
    total = result.seconds.get("total")
    note = "whole run, comparisons included" if result.comparisons else "whole run"
    found.append(Tile("time", "Time", units.duration(total), note))
    return tuple(found)


def score_keys(result: RunResult) -> tuple[Key, ...]:
    """The legend of the score plot, with each curve's final score."""
    value = units.score(result.metric, result.final.score)
    found = [Key("main", _dashes("main"), f"{words.model_name(result)} (this run)", value)]
    for comparison in result.comparisons:
        value = units.score(result.metric, comparison.metrics.score)
        label = comparison.label if comparison.rounds else f"{comparison.label} (final)"
        found.append(Key(comparison.kind.replace("_", "-"), _dashes(comparison.kind), label, value))
    if any(record.status == "failed" for record in result.rounds):
        found.append(Key("alarm", "", "failed round", "", shape="area"))
    return tuple(found)


def spans(result: RunResult) -> tuple[Span, ...]:
    """Smallest, median and largest of each figure over the sites, where it is known."""
    columns: list[tuple[str, list[float], Any]] = [
        ("records to train on", [s.train_records for s in result.sites if s.train_records is not None], _whole),
        ("records held out", [s.test_records for s in result.sites if s.test_records is not None], _whole),
        ("rounds", [s.rounds for s in result.sites], _whole),
        ("epsilon", [s.epsilon for s in result.sites if s.epsilon is not None], units.epsilon),
        ("sent", [s.bytes_up for s in result.sites], units.size),
        ("received", [s.bytes_down for s in result.sites], units.size),
    ]
    return tuple(
        Span(label, show(min(values)), show(statistics.median(values)), show(max(values)))
        for label, values, show in columns
        if values
    )


def bars(values: Mapping[str, float], told: Callable[[float], str] = units.duration) -> tuple[Bar, ...]:
    """Rows of a bar table, longest first; `told` puts a value into words."""
    longest = max(values.values(), default=0.0)
    ordered = sorted(values.items(), key=lambda item: -item[1])
    return tuple(Bar(name, told(value), value / longest if longest > 0 else 0.0) for name, value in ordered)


def summed(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Each phase's figure over all rounds."""
    total: dict[str, float] = {}
    for phases in rounds:
        for phase, value in phases.items():
            total[phase] = total.get(phase, 0.0) + value
    return total


def _by_reason(record: RoundRecord) -> list[tuple[str, list[str]]]:
    """Reasons, the most frequent first, and the sites that each one took out."""
    found: dict[str, list[str]] = {}
    for dropout in record.dropouts:
        found.setdefault(dropout.reason, []).append(dropout.site)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def _dashes(kind: str) -> str:
    return " ".join(f"{length:g}" for length in plots.DASHES[kind])


def _whole(value: float) -> str:
    return f"{value:,.0f}"
