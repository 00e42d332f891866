"""Pictures as PNG files, for what stands beside a report: panels in a row, one style.

Shapes  a panel is about 4.6 x 3.4 inches at 110 dots an inch      Errors  MissingExtra without matplotlib
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfed.errors import MissingExtra
from qfed.federation.files import write_atomically

INK, MUTED, GRID, MAIN, OTHER, ALARM = "#1b1f24", "#6b7280", "#e5e7eb", "#0f62a8", "#c05621", "#b42318"


def figure_of(panels: int) -> tuple[Any, list[Any]]:
    """A figure with `panels` axes side by side."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "server") from error
    figure = Figure(figsize=(4.6 * panels, 3.4), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color=GRID, linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


def png(figure: Any) -> bytes:
    """The figure's PNG, the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def write_pictured(folder: Path, name: str, tree: Mapping[str, Any], picture: bytes) -> tuple[Path, ...]:
    """Write NAME.json and NAME.png into `folder`, made if need be; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    return (
        write_atomically(folder / f"{name}.json", text.encode()),
        write_atomically(folder / f"{name}.png", picture),
    )
