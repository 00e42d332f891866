"""Figures of a run as tiles and rows: what the templates show, in the report's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qfed.report import units
from qfed.report.page import Tile
from qfed.report.units import NBSP
from qfed_server.dashboard.runs import Run
from qfed_server.status import SiteStatus

STATUS_WORDS = {
    "queued": "waiting for its turn",
    "running": "under way",
    "completed": "completed",
    "stopped": "stopped",
    "failed": "failed",
    "unreadable": "unreadable",
}


@dataclass(frozen=True)
class SiteRow:
    """One site of the overview's table."""

    site: SiteStatus
    rounds: int | None
    """Rounds of the run under way that it is in the aggregate of; None without such a run."""
    trouble: str | None
    """Why it is not in the last round's aggregate."""


@dataclass(frozen=True)
class RunSite:
    """One site over a run."""

    name: str
    rounds: int
    drops: int
    last_drop: str | None
    epsilon: tuple[float, float] | None
    """Spent over all runs, and the budget; None where the site does not tell."""
    up: int
    down: int


def metric_name(run: Run) -> str:
    """`Accuracy` or `RMSE`."""
    name = units.METRIC_NAMES[run.metric]
    return name[0].upper() + name[1:]


def score(run: Run) -> str:
    """The newest score, or that there is none."""
    if not run.trains:
        return "no model"
    return units.score(run.metric, run.score.score) if run.score else "not yet"


def spent(run: Run) -> str:
    """Epsilon so far."""
    if not run.private:
        return "none"
    if run.epsilon is not None:
        return units.epsilon(run.epsilon)
    return "0" if run.done == 0 else "not told"


def spent_share(run: Run) -> float | None:
    """Epsilon spent over the budget, at most 1; None where it is not known."""
    if not run.private or run.epsilon is None:
        return None
    return min(1.0, run.epsilon / run.config.privacy.epsilon)


def about(run: Run) -> str:
    """What is trained and how it is protected, in one line."""
    if run.settings is None:
        return "The configuration of this run cannot be read."
    config = run.settings
    if not run.trains:
        what = f"Release of pair counts, once, from {config.data.source}"
    elif config.model.kind == "hybrid":
        size = f"{units.count(config.model.wires, 'qubit')}, {units.count(config.model.layers, 'layer')}"
        what = f"Hybrid model ({size}) on {config.data.source}"
    else:
        what = f"Classical model on {config.data.source}"
    if run.private:
        privacy = f"{config.privacy.unit}-level differential privacy, mode {config.privacy.mode}"
    else:
        privacy = "no differential privacy"
    hidden = "secure aggregation" if config.secagg.mode == "on" else "updates in clear"
    strategy = f"; strategy {config.federation.strategy}" if run.trains else ""
    return f"{what}; {privacy}; {hidden}{strategy}."


def tiles(run: Run, now: float) -> tuple[Tile, ...]:
    """Score, epsilon, rounds, sites of the last round, bytes a site, time."""
    start = run.initial
    before = f"{units.score(run.metric, start.score)} before training" if start else "first score after round 2"
    on = f"on {units.count(run.score.records, 'held-out record')}; " if run.score else ""
    if run.trains:
        found = [Tile("score", metric_name(run), score(run), on + before)]
    else:
        there = "statistics.npz" in run.files
        told = "to be downloaded below" if there else "not there yet"
        found = [Tile("score", "Pair counts", "released" if there else "not yet", told)]
    if run.private:
        budget = units.budget(run.config.privacy.epsilon)
        delta = run.result.privacy.delta if run.result else run.config.privacy.delta
        found.append(Tile("epsilon", "Epsilon spent", spent(run), f"of {budget}, with delta{NBSP}{units.delta(delta)}"))
    else:
        found.append(Tile("epsilon", "Privacy", "none", "no differential privacy", alarm=True))
    note = f"{units.count(run.failed, 'round')} failed" if run.failed else "none failed"
    found.append(Tile("rounds", "Rounds", f"{run.done} of {run.planned}", note))
    last = run.rounds[-1] if run.rounds else None
    if last is None:
        found.append(Tile("survivors", "Sites in the last round", "none", "no round is over yet"))
    else:
        away = units.count(len(last.dropouts), "site") + " dropped out" if last.dropouts else "nobody dropped out"
        value = f"{last.survivors} of {max(run.config.federation.sites, last.survivors + len(last.dropouts))}"
        found.append(Tile("survivors", "Sites in the last round", value, away, alarm=last.status == "failed"))
    traffic = list(run.state.traffic.values()) if run.state else []
    up, down = sum(up for up, _ in traffic), sum(down for _, down in traffic)
    each = units.size((up + down) / len(traffic)) if traffic else "0"
    found.append(Tile("bytes", "Bytes per site", each, f"{units.size(up)} up and {units.size(down)} down, all sites"))
    took = (run.ended or now) - run.began
    found.append(Tile("time", "Time", units.duration(max(0.0, took)), _remaining(run)))
    return tuple(found)


def _remaining(run: Run) -> str:
    if not run.under_way:
        return "from submission to the end"
    took = [sum(record.seconds.values()) for record in run.rounds]
    left = run.planned - run.done
    if not any(took):
        return "since it was submitted"
    return f"about {units.duration(left * sum(took) / len(took))} to go"


def site_rows(sites: Sequence[SiteStatus], run: Run | None) -> list[SiteRow]:
    """The sites, those away first."""
    last = run.rounds[-1] if run and run.rounds else None
    troubles = {drop.site: drop.reason for drop in last.dropouts} if last else {}
    taken = run.state.taken_part if run and run.state else None
    rows = [SiteRow(s, None if taken is None else taken.get(s.name, 0), troubles.get(s.name)) for s in sites]
    return sorted(rows, key=lambda row: (row.site.status == "online", row.site.name))


def run_sites(run: Run) -> list[RunSite]:
    """The sites of a run, by name."""
    state = run.state
    if state is None:
        return []
    drops: dict[str, list[str]] = {}
    for record in run.rounds:
        for drop in record.dropouts:
            drops.setdefault(drop.site, []).append(f"round {record.round}: {drop.reason}")
    found = []
    for name in sorted({*state.traffic, *state.taken_part, *drops}):
        up, down = state.traffic.get(name, (0, 0))
        mine = drops.get(name, [])
        told = state.spent.get(name)
        found.append(
            RunSite(name, state.taken_part.get(name, 0), len(mine), mine[-1] if mine else None, told, up, down)
        )
    return found
