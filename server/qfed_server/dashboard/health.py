"""Is everything alright? One verdict over sites, runs, certificates and disk, worst first, in words.

    alarm    needs a hand now: a failed run, too few sites, an expired certificate, a full disk
    caution  something to look at today: a site away, a failed round, a certificate that ends soon
    good     nothing of that

A run needs max(least sites of an epoch, ceil(quorum x sites)) sites, as the protocol and the round loop count it.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qfed.report import units
from qfed.secagg import Federation
from qfed.secagg.transcript import least_sites
from qfed_server.dashboard.runs import Run
from qfed_server.dashboard.times import ago, day
from qfed_server.status import SiteStatus

Level = Literal["good", "caution", "alarm"]
LOW_DISK = 1e9
DAYS_BEFORE = 30
RECENT = 24 * 3600.0
"""A failed run is news for a day."""
CERTIFICATES = {"server.crt": "the server's certificate", "ca.crt": "the federation's certificate authority"}


@dataclass(frozen=True)
class Point:
    """One thing to know; `help` says what to do."""

    level: Level
    text: str
    help: str = ""


@dataclass(frozen=True)
class Health:
    """The verdict: the worst level, a headline, the points behind it."""

    level: Level
    headline: str
    points: tuple[Point, ...]


def judge(
    data: Path,
    sites: Sequence[SiteStatus],
    runs: Sequence[Run],
    federation: Federation | None,
    now: float,
    away: str | None = None,
) -> Health:
    """The verdict right now; `away` says why the server does not answer, when it does not."""
    running = [run for run in runs if run.status == "running"]
    points = [
        *([Point("alarm", "The server does not answer", away)] if away else _sites(sites, running, federation, now)),
        *(point for run in running for point in _running(run, now) if not away),
        *_over(runs, now),
        *_certificates(data, now),
        *_disk(data),
    ]
    points.sort(key=lambda point: ("alarm", "caution", "good").index(point.level))
    level: Level = points[0].level if points else "good"
    online = sum(site.status == "online" for site in sites)
    counted = f"{online} of {units.count(len(sites), 'site')} online" if sites else "no sites yet"
    if away:
        counted, work = "the server does not answer", "what you see is what it left on disk"
    elif running:
        work = ", ".join(f"{run.title} in round {min(run.done + 1, run.planned)} of {run.planned}" for run in running)
    else:
        work = "no run under way"
    start = {"good": "All is well", "caution": "Worth a look", "alarm": "Needs you"}[level]
    return Health(level, f"{start}: {counted}, {work}", tuple(points))


def needed(run: Run, federation: Federation | None, sites: int) -> int:
    """Sites that a run needs."""
    least = least_sites(federation) if federation else 0
    return max(least, math.ceil(run.config.federation.quorum * sites))


def _sites(
    sites: Sequence[SiteStatus], running: Sequence[Run], federation: Federation | None, now: float
) -> list[Point]:
    if not sites:
        text = "No federation file lies in the data directory" if federation is None else "No site is registered"
        return [Point("caution", text, "copy the coordinator's federation.json there")]
    copied = [
        Point(
            "alarm",
            f"Two agents speak for {site.name}: its folder was copied",
            "neither is served until one is stopped",
        )
        for site in sites
        if site.copied
    ]
    away = [site for site in sites if site.status != "online"]
    if not away:
        return copied
    names = ", ".join(_away(site, now) for site in away[:5])
    more = f" and {len(away) - 5} more" if len(away) > 5 else ""
    text = f"Away: {names}{more}"
    online = len(sites) - len(away)
    short = [run for run in running if online < needed(run, federation, len(sites))]
    if short:
        least = max(needed(run, federation, len(sites)) for run in short)
        text = f"The run needs {least} sites and {online} are online. {text}"
        return [*copied, Point("alarm", text, "call the sites that are away")]
    then = "the run goes on without them" if running else "a run waits until enough sites are online"
    return [*copied, Point("caution", text, then)]


def _away(site: SiteStatus, now: float) -> str:
    return f"{site.name} ({'never seen' if site.last_seen is None else f'last seen {ago(site.last_seen, now)}'})"


def _running(run: Run, now: float) -> list[Point]:
    found = []
    limit, row = run.config.federation.max_failed_rounds, 0
    for record in reversed(run.rounds):
        if record.status != "failed":
            break
        row += 1
    if row:
        last = run.rounds[-1].failure or "too few sites answered"
        text = f"{run.title}: {'the last round' if row == 1 else f'the last {row} rounds'} failed ({last})"
        left = limit + 1 - row
        found.append(
            Point("alarm" if left <= 1 else "caution", text, f"it stops after {units.count(left, 'more failed round')}")
        )
    took = [sum(record.seconds.values()) for record in run.rounds if record.seconds]
    usual = statistics.median(took) if took else 0.0
    patience = max(60.0, 5 * usual, run.config.federation.deadline if not took else 0.0)
    if now - run.changed > patience:
        text = f"{run.title}: no progress since {ago(run.changed, now)}"
        usually = f"a round usually takes {units.duration(usual)}" if took else "its first round is not over yet"
        found.append(Point("caution", text, f"{usually}; see qfed logs {run.name}"))
    return found


def _over(runs: Sequence[Run], now: float) -> list[Point]:
    """The newest finished run, if it went wrong lately, and folders that cannot be read."""
    found = [Point("caution", f"{run.name}: {run.why}") for run in runs if run.status == "unreadable"]
    last = next((run for run in runs if run.status in {"completed", "stopped", "failed"}), None)
    if last is None or now - (last.ended or now) > RECENT:
        return found
    when, why = ago(last.ended, now), last.why or "no reason was recorded"
    if last.status == "failed":
        found.append(Point("alarm", f"{last.title} failed {when}: {why}", f"see qfed logs {last.name}"))
    elif last.status == "stopped" and last.rounds and last.rounds[-1].status == "failed":
        text = f"{last.title} stopped {when} after {last.done} of {last.planned} rounds: {why}"
        found.append(Point("caution", text, f"the last good model is kept; see qfed logs {last.name}"))
    return found


def expiry(file: Path) -> float | None:
    """When a certificate ends, in Unix seconds; None where there is none to read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return None


def _certificates(data: Path, now: float) -> list[Point]:
    found = []
    for name, what in CERTIFICATES.items():
        end = expiry(data / "tls" / name)
        if end is None:
            continue
        if end < now:
            found.append(Point("alarm", f"On {day(end)} {what} expired: sites refuse to connect", "renew it"))
        elif end - now < DAYS_BEFORE * 86400:
            found.append(Point("caution", f"On {day(end)} {what} will expire", "renew it before"))
    return found


def _disk(data: Path) -> list[Point]:
    free = shutil.disk_usage(data).free
    if free >= LOW_DISK:
        return []
    level: Level = "alarm" if free < LOW_DISK / 10 else "caution"
    return [Point(level, f"{units.size(free)} of disk are left", "checkpoints need room: remove what is not needed")]
