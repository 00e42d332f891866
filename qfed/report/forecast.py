"""What a run will cost, for people: a page of text and a picture.

calibration.json   everything as data       calibration.png   epsilon against rounds, and against shares and sites
Errors  MissingExtra without matplotlib
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qfed.privacy.forecast import Forecast
from qfed.report.figure import ALARM, INK, MAIN, OTHER, figure_of, png, write_pictured
from qfed.report.units import epsilon as rounded


def forecast_page(found: Forecast) -> RenderableType:
    """The forecast as one page."""
    chosen = found.chosen
    head = (
        f"{found.name}: mode {found.mode}, {found.rounds} rounds, {found.steps} steps with sampling rate "
        f"{found.sampling_rate:g}"
    )
    cost = (
        f"noise multiplier {chosen.noise_multiplier:.4g} costs each site's data set epsilon {rounded(chosen.epsilon)} "
        f"at delta {found.delta:g}, of a budget of {found.budget:g}."
    )
    over = chosen.epsilon > found.budget * (1 + 1e-9)
    modes = Table(title="the same budget in each mode", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("mode", "unit", "noise multiplier", "epsilon", "if aggregation failed", "noise of the mean"):
        modes.add_column(title, justify="left" if title in ("mode", "unit") else "right")
    for mode in found.modes:
        name = Text(mode.mode, style="bold" if mode.mode == found.mode else "")
        alone = "the same" if mode.epsilon_alone is None else rounded(mode.epsilon_alone)
        modes.add_row(
            name, mode.unit, f"{mode.noise_multiplier:.4g}", rounded(mode.epsilon), alone, f"{mode.mean_noise:.3g}"
        )
    parts: list[RenderableType] = [
        Text(head, style="bold"),
        Text(cost, style="bold red" if over else ""),
        modes,
        Text("noise of the mean: standard deviation over all sites, over C / B (mode site: over C).", style="dim"),
        Text(""),
    ]
    if found.mode != "local":
        cohort = found.cohort
        parts.append(Text("n_min: " + cohort.verdict + ".", style="" if cohort.safe else "yellow"))
        parts.append(Text(_cases(found)))
    parts.append(Text(_person(found)))
    return Group(*parts)


def _cases(found: Forecast) -> str:
    """What is left when fewer shares count than were planned for."""
    left = dict(zip(found.cohort.left.x, found.cohort.left.epsilon, strict=True))
    fewer = [int(k) for k in sorted(left, reverse=True) if k < found.cohort.honest]
    shown = [*fewer[:1], *([1] if 1 in fewer[1:] else [])]
    told = "; ".join(f"{k} {'share' if k == 1 else 'shares'} alone: epsilon {rounded(left[k])}" for k in shown)
    return f"If more collude or drop than that: {told}." if told else ""


def _person(found: Forecast) -> str:
    curve = next((c for c in found.person_curves if c.label == f"mode {found.mode}"), None)
    if curve is None:
        return ""
    told = ", ".join(f"{int(k)}: {rounded(e)}" for k, e in zip(curve.x, curve.epsilon, strict=True))
    return f"A person with one record at each of so many sites has epsilon {told}."


def write_forecast(found: Forecast, folder: Path) -> tuple[Path, ...]:
    """Write calibration.json and calibration.png into `folder`, made if need be; their paths."""
    return write_pictured(folder, "calibration", found.to_dict(), forecast_picture(found))


def forecast_picture(found: Forecast) -> bytes:
    """epsilon against rounds, against shares of the noise that count, and for a person at several sites."""
    figure, axes = figure_of(3)
    for curve, colour in zip(found.rounds_curves, (MAIN, OTHER), strict=False):
        axes[0].plot(curve.x, curve.epsilon, color=colour, linewidth=2, label=curve.label)
    axes[0].axhline(found.budget, color=ALARM, linewidth=1.4, dashes=(4, 3))
    axes[0].axvline(found.rounds, color=INK, linewidth=1, dashes=(1.5, 2))
    axes[0].set(title="after so many rounds", xlabel="rounds", ylabel=f"epsilon at delta {found.delta:g}")
    axes[0].legend(frameon=False, fontsize=7.5)
    left = found.cohort.left
    axes[1].plot(left.x, left.epsilon, "o-", color=MAIN, linewidth=2, markersize=4)
    axes[1].axvline(found.cohort.honest, color=INK, linewidth=1, dashes=(1.5, 2))
    axes[1].axhline(found.budget, color=ALARM, linewidth=1.4, dashes=(4, 3))
    axes[1].set(title="shared noise: shares that count", xlabel="sites whose noise nobody else knows", ylabel="epsilon")
    for person, colour in zip(found.person_curves, (MAIN, OTHER), strict=True):
        axes[2].plot(person.x, person.epsilon, "o-", color=colour, linewidth=2, markersize=4, label=person.label)
    axes[2].set(title="a person with records at several sites", xlabel="sites", ylabel="epsilon")
    axes[2].set_xticks(found.person_curves[0].x)
    axes[2].legend(frameon=False, fontsize=8)
    for each in axes:
        each.set_ylim(bottom=0)
    return png(figure)
