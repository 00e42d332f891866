"""An audit's verdict for people: one page of text, a picture, and JSON beside them.

audit.json   everything as data            audit.png   noise level, canary scores, epsilon claimed and proven
Errors  MissingExtra without matplotlib
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qfed.privacy.audit.verdict import Verdict
from qfed.report.figure import ALARM, INK, MAIN, MUTED, figure_of, png, write_pictured

_OK, _BAD = Text("passed", style="green"), Text("FAILED", style="bold red")


def audit_page(verdict: Verdict) -> RenderableType:
    """The verdict as one page; fits 80 columns."""
    colour, word = ("green", "PASSED") if verdict.passed else ("red", "FAILED")
    parts: list[RenderableType] = [Text(f"Privacy audit of {verdict.name}: {word}", style=f"bold {colour}")]
    parts.append(
        Text(
            f"mode {verdict.mode}, method {verdict.method}, unit {verdict.unit}: {verdict.canaries} canaries at "
            f"{verdict.sites} sites, {verdict.rounds} rounds, {verdict.releases} releases, noise multiplier "
            f"{verdict.noise_multiplier:.4g}, sampling rate {verdict.sampling_rate:g}, {verdict.seconds:.1f} s"
        )
    )
    gates = Table(box=box.SIMPLE_HEAD)
    for title in ("gate", "value", "between", "and", ""):
        gates.add_column(title, justify="left" if title in ("gate", "") else "right", no_wrap=True)
    for gate in verdict.gates:
        gates.add_row(gate.name, f"{gate.value:.4g}", _limit(gate.low), _limit(gate.high), _OK if gate.passed else _BAD)
    parts.append(gates)
    parts += [Text(f"{gate.name}: {gate.means}.", style="red") for gate in verdict.gates if not gate.passed]
    bounds = Table(box=box.SIMPLE_HEAD)
    for title in ("epsilon", f"at delta {verdict.delta:g}", "by"):
        bounds.add_column(title, justify="right" if "delta" in title else "left")
    bounds.add_row("claimed by the plan", f"{verdict.epsilon:.3f}", "the accountant: at most")
    for bound in verdict.bounds:
        bounds.add_row(f"proven, {bound.name}", f"{bound.epsilon:.3f}", bound.source)
    parts.append(bounds)
    if verdict.membership is not None:
        attack = verdict.membership
        parts.append(
            Text(
                f"Membership inference on the final model alone ({attack.models} reference models, {attack.records} "
                f"records): AUC {attack.auc:.3f}, where 0.5 is guessing."
            )
        )
    parts.append(Text(meaning(verdict), style="dim"))
    return Group(*parts)


def meaning(verdict: Verdict) -> str:
    """What the verdict says and what it cannot."""
    percent = f"{100 * verdict.confidence:g} %"
    if not verdict.passed:
        return (
            "At least one gate failed: do not rely on the claimed epsilon until the cause is found. An honest "
            "implementation fails a gate about once in ten thousand audits; run it again to tell chance from fault."
        )
    return (
        f"The releases are what the plan charges for, as far as canaries can tell. Proven epsilon is a lower bound "
        f"({percent} confidence): the truth lies between it and the claim. An audit can find faults; it proves none "
        "absent."
    )


def write_audit(verdict: Verdict, folder: Path) -> tuple[Path, ...]:
    """Write audit.json and audit.png into `folder`, made if need be; their paths."""
    return write_pictured(folder, "audit", verdict.to_dict(), audit_picture(verdict))


def audit_picture(verdict: Verdict) -> bytes:
    """Noise level of each release, scores of canaries in and out, epsilon claimed and proven; the attack's ROC."""
    attack = verdict.membership
    figure, axes = figure_of(4 if attack else 3)
    _levels(axes[0], verdict)
    _scores(axes[1], verdict)
    _epsilons(axes[2], verdict)
    if attack is not None:
        axes[3].plot([0, 1], [0, 1], color=MUTED, linewidth=1, dashes=(4, 3))
        axes[3].plot(attack.false_positive_rate, attack.true_positive_rate, color=MAIN, linewidth=2)
        axes[3].set(title=f"membership inference, AUC {attack.auc:.2f}", xlabel="false positives", ylabel="true")
    return png(figure)


def _levels(axes: Any, verdict: Verdict) -> None:
    axes.plot(np.arange(1, len(verdict.levels) + 1), verdict.levels, ".", color=MAIN, markersize=4)
    axes.axhline(1, color=INK, linewidth=1)
    axes.set(title="noise, measured over claimed", xlabel="release", ylabel="standard deviation")
    low, high = min(0.8, *verdict.levels), max(1.2, *verdict.levels)
    axes.set_ylim(low - 0.02, high + 0.02)


def _scores(axes: Any, verdict: Verdict) -> None:
    both = np.array([*verdict.scores_in, *verdict.scores_out])
    bins = np.linspace(both.min(), both.max(), 31)
    axes.hist(verdict.scores_out, bins=bins, color=MUTED, alpha=0.6, label="not in the data")
    axes.hist(verdict.scores_in, bins=bins, color=MAIN, alpha=0.6, label="in the data")
    axes.set(title="canary scores", xlabel="mean release, over the clip norm", ylabel="canaries")
    axes.legend(frameon=False, fontsize=9)


def _epsilons(axes: Any, verdict: Verdict) -> None:
    names = ["claimed", *(bound.name for bound in verdict.bounds)]
    values = [verdict.epsilon, *(bound.epsilon for bound in verdict.bounds)]
    place = np.arange(len(names))[::-1]
    colours = [INK, *(ALARM if bound.binding and bound.epsilon > verdict.epsilon else MAIN for bound in verdict.bounds)]
    axes.barh(place, values, color=colours, height=0.6)
    axes.set_yticks(place, names)
    axes.set(title="epsilon: claimed (at most), proven (at least)", xlabel=f"epsilon at delta {verdict.delta:g}")


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
