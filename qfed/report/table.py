"""What `qfed simulate` prints at the end: the comparison, then what it cost; fits 80 columns.

Names that come with the result are printed as they are: they are never read as rich's markup.
"""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qfed.federation.result import RunResult
from qfed.federation.synthesis_result import SynthesisResult
from qfed.report import units
from qfed.report.guarantee import notices
from qfed.report.words import CAVEAT, NO_COMPARISONS, device_use, model_name, verdicts

_COLOURS = {"better": "green", "worse": "yellow", "equal": "default"}


def final_table(result: RunResult) -> RenderableType:
    """Notices, comparison table, verdicts, then epsilon and delta, bytes per site and time."""
    parts: list[RenderableType] = [*notice_panels(result), _comparison(result)]
    found = verdicts(result)
    for verdict in found:
        line = Text.assemble((verdict.headline, f"bold {_COLOURS[verdict.outcome]}"), ". ", plain(verdict.text))
        parts.append(line)
    parts.append(Text(CAVEAT if found else NO_COMPARISONS, style="dim"))
    parts.append(Text(""))
    parts.append(_costs(result))
    return Group(*parts)


def notice_panels(result: RunResult | SynthesisResult) -> list[Panel]:
    """What a reader must know first, in frames."""
    found = []
    for notice in notices(result):
        colour = "red" if notice.level == "alarm" else "yellow"
        body = Text.assemble((notice.title + "\n", f"bold {colour}"), plain(notice.text))
        found.append(Panel(body, border_style=colour, box=box.HEAVY))
    return found


def _comparison(result: RunResult) -> Table:
    table = Table(title=Text(result.config.name), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold", ratio=1)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column(units.METRIC_NAMES[result.metric], justify="right", no_wrap=True)
    table.add_column("epsilon", justify="right", no_wrap=True)
    table.add_row(
        Text(f"{model_name(result)} (this run)", style="bold"),
        Text(f"{result.parameters:,}", style="bold"),
        Text(plain(units.score(result.metric, result.final.score)), style="bold"),
        Text(units.epsilon(result.privacy.epsilon), style="bold"),
    )
    for comparison in result.comparisons:
        table.add_row(
            Text(comparison.label),
            f"{comparison.parameters:,}",
            plain(units.score(result.metric, comparison.metrics.score)),
            units.epsilon(comparison.epsilon),
        )
    return table


def _costs(result: RunResult) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    failed = sum(record.status == "failed" for record in result.rounds)
    if result.privacy.mode == "off":
        grid.add_row("privacy", Text("none", style="bold red"))
    else:
        spent = f"epsilon {units.epsilon(result.privacy.epsilon)}, delta {units.delta(result.privacy.delta)}"
        grid.add_row("privacy", plain(f"{spent} (budget {units.budget(result.config.privacy.epsilon)}), whole run"))
    rounds = units.count(len(result.rounds), "round")
    grid.add_row("rounds", plain(rounds + (f", {failed} failed" if failed else "")))
    if result.sites:
        grid.add_row("bytes per site", plain(f"{units.size(result.bytes_per_site)} sent and received"))
    if result.device is not None:
        grid.add_row("device", plain(device_use(result.device).removeprefix("on ")))
    grid.add_row("time", plain(units.duration(result.seconds.get("total"))))
    return grid


def plain(text: str) -> str:
    """Ordinary spaces and hyphens: not every terminal has others, and these figures are copied into commands."""
    return text.replace(units.NBSP, " ").replace(units.MINUS, "-")
