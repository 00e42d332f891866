"""What `qfed synth` shows: fits and evaluations on the terminal, evaluation.json, .png and .html.

Every output begins or ends with the privacy statement; without privacy it says so, in red.
Errors  MissingExtra without matplotlib or jinja2
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qfed.federation.files import write_atomically
from qfed.report.figure import write_pictured
from qfed.report.page import fill
from qfed.synth.evaluation import Evaluation
from qfed.synth.picture import evaluation_picture
from qfed.synth.records import Fitted
from qfed.synth.source import NO_PRIVACY
from qfed.synth.usefulness import SCORES

_TITLES = ("training records", "TVD 1-way", "TVD 2-way", *SCORES)


def privacy_line(statement: Mapping[str, Any]) -> Text:
    """One paragraph, the same everywhere."""
    if statement.get("mode", "off") == "off":
        return Text(NO_PRIVACY, style="bold red")
    return Text(privacy_words(statement), style="green")


def privacy_words(statement: Mapping[str, Any]) -> str:
    """The guarantee in a sentence."""
    if statement.get("mode", "off") == "off":
        return NO_PRIVACY
    return (
        f"Private counts: epsilon {statement['epsilon']:.3g}, delta {statement['delta']:g} for {statement['unit']} "
        f"({statement['adjacency']}). Fitting and sampling are post-processing and cost nothing more; an annealer's or "
        "a circuit's randomness adds no privacy."
    )


def fit_page(model: Fitted, told: str) -> RenderableType:
    """A fit's table and statement."""
    about = model.synthesizer.describe()
    table = Table(title=f"{about['generator']} fitted to {len(about['parts'])} part(s)", box=box.SIMPLE_HEAD)
    table.add_column("", style="bold")
    for part, counts in zip(about["parts"], model.synthesizer.release.parts, strict=True):
        held = ", ".join(f"{name} {value}" for name, value in part["fixed"].items())
        table.add_column(f"{held or 'all records'} (about {counts.records:,.0f})", justify="right")
    flat = [
        _flat({key: value for key, value in part.items() if key not in ("generator", "fixed")})
        for part in about["parts"]
    ]
    for key in dict.fromkeys(key for part in flat for key in part):
        table.add_row(key.replace("_", " "), *(_shown(part.get(key)) for part in flat))
    return Group(table, Text(f"Counts: {told}"), privacy_line(about["privacy"]))


def evaluation_page(found: Evaluation) -> RenderableType:
    """The table of generators, the nearest-record check, the statement."""
    table = Table(title=f"Simulated records of {found.name}: trained on them, tested on real ones", box=box.SIMPLE_HEAD)
    for title in _TITLES:
        table.add_column(title, justify="left" if title == _TITLES[0] else "right")
    for at, row in enumerate(found.rows):
        table.add_row(*_cells(found, at), style="bold" if row is found.simulated else "")
    near, parts = found.nearest, []
    parts.append(
        Text(f"Held-out real records lie {found.held_out[0]:.4f} and {found.held_out[1]:.4f} from the counted ones.")
    )
    parts.append(Text(nearest_words(found), style="yellow" if near.share > near.high else ""))
    parts += [Text(note, style="dim") for note in found.notes]
    return Group(table, *parts, privacy_line(found.privacy))


def nearest_words(found: Evaluation) -> str:
    """The nearest-record check in words."""
    near = found.nearest
    verdict = (
        "more than chance: look whether the generator copies" if near.share > near.high else "no sign of copied records"
    )
    return (
        f"Nearest records: {near.share:.1%} of the simulated ones are nearer to a counted than to a held-out record "
        f"({near.low:.1%} to {near.high:.1%} by chance; {verdict}); {near.identical:.1%} have the bits of a counted "
        f"record, {near.identical_held_out:.1%} those of a held-out one."
    )


def write_evaluation(found: Evaluation, folder: Path) -> tuple[Path, ...]:
    """Write evaluation.json, evaluation.png and evaluation.html; their paths."""
    picture = evaluation_picture(found)
    view = {
        "found": found,
        "titles": _TITLES,
        "rows": [_cells(found, at) for at in range(len(found.rows))],
        "picture": base64.b64encode(picture).decode(),
        "nearest": nearest_words(found),
        "private": found.privacy.get("mode", "off") != "off",
        "promise": privacy_words(found.privacy),
    }
    written = write_pictured(folder, "evaluation", found.to_dict(), picture)
    page = fill("evaluation.html.j2", view).encode()
    return (*written, write_atomically(folder / "evaluation.html", page))


def _cells(found: Evaluation, at: int) -> tuple[str, ...]:
    row = found.rows[at]
    apart = ("", "") if at == 0 else (f"{row.tvd1:.4f}", f"{row.tvd2:.4f}")
    return (row.name, *apart, *(f"{row.scores[name]:.3f}" if name in row.scores else "" for name in SCORES))


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value) if isinstance(value, Mapping) else {key: value}
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
