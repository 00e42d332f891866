"""A study of data efficiency for people: a verdict in words, a table, a picture, one page of HTML.

study.json   everything as data          study.png   accuracy against real records, a panel a data set
study.html   verdict, picture and table in one file that asks nobody for anything
Errors  MissingExtra without matplotlib or jinja2
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qfed.federation.efficiency import DataSet, Gain, StudyResult
from qfed.federation.files import write_atomically
from qfed.report import units
from qfed.report.figure import MAIN, MUTED, OTHER, figure_of, png, write_pictured
from qfed.report.page import templates
from qfed.report.table import plain

_COLOURS = {"hybrid": MAIN, "twin": OTHER}
_DASHES = ("-", "--", ":", "-.", (0, (1, 1, 4, 1)))
TITLE = "How much real data simulated records save"


def verdicts(result: StudyResult) -> tuple[str, ...]:
    """What the study says, a sentence or two for each data set and model, computed from the intervals."""
    found = []
    for data in result.sets:
        for model in ("hybrid", "twin"):
            for curve in data.curves:
                if curve.model == model and curve.generator is not None:
                    gains = data.gains(model, curve.generator)
                    found.append(f"{data.source}, {model}: records simulated by {curve.generator} {_said(gains)}.")
        found.append(f"{data.source}: {_models(data)}.")
    return tuple(found)


def budget_sentence(result: StudyResult) -> str:
    """How the budget was spent."""
    budget = result.budget
    return (
        f"Every arm spends epsilon {budget.epsilon:g} at delta {units.delta(budget.delta)} in all, whatever it does "
        "with the records: an arm without simulated records trains with all of it; one with them spends "
        f"{budget.share:.0%} of the privacy on the release (epsilon {budget.release:.2f} by itself) and the rest on "
        f"training ({budget.training:.2f}). The largest epsilon in a ledger of this study: {budget.most_spent:.4f}."
    )


def caveat(result: StudyResult) -> str:
    """What the figures stand on."""
    few = "" if len(result.seeds) >= 5 else " Too few seeds to conclude from: this shows that the study runs."
    return (
        f"Means over {units.count(len(result.seeds), 'seed')} with 95 % t intervals; differences are paired by seed, "
        f"and their intervals hold for all numbers of records together (Bonferroni).{few} Nothing here shows a quantum "
        "advantage: compare the hybrid with its twin, and every generator with independent margins."
    )


def _said(gains: tuple[Gain, ...]) -> str:
    """`help up to N = 87 (+31.3 points at 20); from 380 on no difference beyond noise`."""
    helps, hurts = ([g for g in gains if g.finding == kind] for kind in ("helps", "hurts"))
    if not helps and not hurts:
        return "make no difference beyond noise at any number of real records"
    parts = []
    for word, some in (("help", helps), ("hurt", hurts)):
        if some:
            best = max(some, key=lambda g: abs(g.difference.mean))
            parts.append(
                f"{word} at N = {_numbers(some)} ({_points(best.difference.mean)} at {best.records:,}, interval "
                f"{_points(best.difference.low)} to {_points(best.difference.high)})"
            )
    if rest := [g for g in gains if g.finding == "no difference"]:
        parts.append(f"make no difference beyond noise at N = {_numbers(rest)}")
    return "; ".join(parts)


def _models(data: DataSet) -> str:
    """How the hybrid does against its twin, both on real records alone, where their intervals part."""
    pairs = list(zip(data.curve("hybrid", None).points, data.curve("twin", None).points, strict=True))
    ahead = [a.records for a, b in pairs if a.band.low > b.band.high]
    behind = [a.records for a, b in pairs if a.band.high < b.band.low]
    if not ahead and not behind:
        return "on real records alone, the hybrid and its classical twin do not differ beyond noise"
    said = []
    if ahead:
        said.append(f"the hybrid is ahead of its twin at N = {', '.join(f'{n:,}' for n in ahead)}")
    if behind:
        said.append(f"the hybrid is behind its twin at N = {', '.join(f'{n:,}' for n in behind)}")
    return "on real records alone, " + "; ".join(said)


def _numbers(gains: list[Gain]) -> str:
    return ", ".join(f"{gain.records:,}" for gain in gains)


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def study_page(result: StudyResult) -> RenderableType:
    """The study as one page of text."""
    parts: list[RenderableType] = [Text(TITLE, style="bold")]
    for data in result.sets:
        table = Table(box=box.SIMPLE_HEAD, title=f"{data.source}: accuracy by real records", title_justify="left")
        table.add_column("model", no_wrap=True)
        for point in data.curves[0].points:
            table.add_column(f"{point.records:,}", justify="right", no_wrap=True)
        for curve in data.curves:
            table.add_row(curve.label, *(f"{point.band.mean:.3f}" for point in curve.points))
        parts.append(table)
    parts += [Text(plain(f"- {line}")) for line in verdicts(result)]
    parts += [Text(""), Text(plain(budget_sentence(result))), Text(plain(caveat(result)), style="dim")]
    return Group(*parts)


def write_study(result: StudyResult, folder: Path) -> tuple[Path, ...]:
    """Write study.json, study.png and study.html into `folder`, made if need be; their paths."""
    picture = study_picture(result)
    written = write_pictured(folder, "study", result.model_dump(mode="json"), picture)
    return (*written, write_atomically(folder / "study.html", _html(result, picture).encode()))


def study_picture(result: StudyResult) -> bytes:
    """Accuracy against real records with bands, a panel a data set."""
    figure, axes = figure_of(len(result.sets))
    for pane, data in zip(axes, result.sets, strict=True):
        generators = [curve.generator for curve in data.curves if curve.model == "hybrid"]
        for curve in data.curves:
            x = [point.records for point in curve.points]
            bands = [point.band for point in curve.points]
            colour, dash = _COLOURS[curve.model], _DASHES[generators.index(curve.generator) % len(_DASHES)]
            pane.plot(x, [b.mean for b in bands], linestyle=dash, color=colour, linewidth=2, label=curve.label)
            pane.fill_between(x, [b.low for b in bands], [b.high for b in bands], color=colour, alpha=0.1, linewidth=0)
        pane.set_xscale("log")
        ticks = [point.records for point in data.curves[0].points]
        pane.set_xticks(ticks, [f"{n:,}" for n in ticks])
        pane.minorticks_off()
        pane.set(title=data.source, xlabel="real records")
    axes[0].set_ylabel("accuracy on held-out records")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False, fontsize=9)
    about = f"Private training at epsilon {result.budget.epsilon:g}, with and without private simulated records"
    figure.suptitle(about, color=MUTED, fontsize=11)
    figure.set_size_inches(max(4.6 * len(result.sets), 7), 4.4)
    return png(figure)


def _html(result: StudyResult, picture: bytes) -> str:
    view: dict[str, Any] = {
        "result": result,
        "title": TITLE,
        "verdicts": verdicts(result),
        "budget": budget_sentence(result),
        "caveat": caveat(result),
        "picture": base64.b64encode(picture).decode(),
    }
    return str(templates("qfed.report").get_template("study.html.j2").render(view))
