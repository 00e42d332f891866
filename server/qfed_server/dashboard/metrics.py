"""/metrics for Prometheus: sites, rounds, accuracy, epsilon, bytes, seconds, drops, refusals, certificates, disk.

Everything is read anew at each scrape from what lies on disk and from the live list, so nothing is lost or counted
twice when the server restarts. Runs under way and the RECENT newest others are told, since label
values must not grow for ever. Names, units and meanings are FAMILIES, which the Grafana dashboard's test reads too.

Source  naming: prometheus.io/docs/practices/naming (base units, _total for what only grows).
Cost    one pass over the runs told.      Errors  MissingExtra without prometheus-client
"""

from __future__ import annotations

import shutil
from collections import Counter as Count
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import qfed
from qfed.errors import MissingExtra
from qfed_server.dashboard.health import CERTIFICATES, expiry
from qfed_server.dashboard.runs import Event, Run, Status
from qfed_server.status import Presence, SiteStatus

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

RECENT = 10
_RUN = ("run", "name")
_DENIED = {"path": "denied_requests", "size": "oversized_requests"}
Kind = Literal["gauge", "counter"]
FAMILIES: dict[str, tuple[Kind, str, tuple[str, ...]]] = {
    "qfed_build_info": ("gauge", "Version of qfed; the value is always 1", ("version",)),
    "qfed_server_up": ("gauge", "Whether the server answers (1 or 0); sites are told only while it does", ()),
    "qfed_sites": ("gauge", "Sites of the roster by status", ("status",)),
    "qfed_site_online": ("gauge", "Whether a site polled lately (1 or 0)", ("site",)),
    "qfed_site_last_seen_timestamp_seconds": ("gauge", "When a site was heard of last", ("site",)),
    "qfed_runs": ("gauge", "Runs in the data directory by status", ("status",)),
    "qfed_run_rounds_planned": ("gauge", "Rounds that the run was asked for", _RUN),
    "qfed_run_rounds_done": ("gauge", "Rounds that are over, failed ones included", _RUN),
    "qfed_run_rounds_failed": ("gauge", "Rounds that failed", _RUN),
    "qfed_run_survivors": ("gauge", "Sites in the last round's aggregate", _RUN),
    "qfed_run_score": ("gauge", "Newest score: accuracy in [0, 1], or RMSE in the target's unit", (*_RUN, "metric")),
    "qfed_run_loss": ("gauge", "Newest mean loss a held-out record", _RUN),
    "qfed_run_epsilon": ("gauge", "Epsilon spent so far; absent where it is not known", _RUN),
    "qfed_run_epsilon_budget": ("gauge", "Epsilon that the run may spend", _RUN),
    "qfed_run_bytes": ("counter", "Bytes between all sites and the aggregator", (*_RUN, "direction")),
    "qfed_run_site_bytes": ("counter", "Bytes between a site and the aggregator", (*_RUN, "site", "direction")),
    "qfed_site_epsilon": ("gauge", "Epsilon that a site's records have spent, where the site tells it", ("site",)),
    "qfed_site_epsilon_budget": ("gauge", "Epsilon that a site's records may spend, where it tells it", ("site",)),
    "qfed_run_phase_seconds": ("counter", "Wall seconds of a phase over all rounds", (*_RUN, "phase")),
    "qfed_run_drops": ("counter", "Rounds in which a site dropped out", (*_RUN, "site")),
    "qfed_denied_requests": ("counter", "Requests that the public listener refused", ("reason",)),
    "qfed_sign_ins": ("counter", "Attempts to sign in to the dashboard", ("outcome",)),
    "qfed_certificate_expiry_timestamp_seconds": ("gauge", "When a certificate ends", ("file",)),
    "qfed_disk_free_bytes": ("gauge", "Room left where the data directory lies", ()),
    "qfed_disk_size_bytes": ("gauge", "Size of the file system where the data directory lies", ()),
}
"""Name (a counter's without its _total) -> kind, help, labels."""

Sample = tuple[str, tuple[str, ...], float]


def exposition(
    data: Path,
    sites: Sequence[SiteStatus] | None,
    about: Mapping[str, Any],
    runs: Sequence[Run],
    events: Sequence[Event],
) -> tuple[bytes, str]:
    """The text that Prometheus scrapes, and its media type.

    `sites` is None while the server does not answer, `about` what it says of itself, `events` are the dashboard's own.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
        from prometheus_client.registry import Collector
    except ImportError as error:
        raise MissingExtra("prometheus-client", "server") from error

    class Now(Collector):
        def collect(self) -> Iterable[Metric]:
            return families([*_place(data, runs, events), *_server(sites, about), *_of_runs(_told(runs))])

    registry = CollectorRegistry()
    registry.register(Now())
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def families(samples: Iterable[Sample]) -> list[Any]:
    """Samples as prometheus-client's families, in the order of FAMILIES."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    made = {
        name: (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
        for name, (kind, text, labels) in FAMILIES.items()
    }
    for name, labels, value in samples:
        made[name].add_metric(labels, value)
    return list(made.values())


def _told(runs: Sequence[Run]) -> list[Run]:
    readable = [run for run in runs if run.status != "unreadable"]
    return [run for run in readable if run.under_way] + [run for run in readable if not run.under_way][:RECENT]


def _server(sites: Sequence[SiteStatus] | None, about: Mapping[str, Any]) -> Iterable[Sample]:
    yield "qfed_server_up", (), sites is not None
    for reason, key in _DENIED.items():
        if key in about:
            yield "qfed_denied_requests", (reason,), float(about[key])
    if sites is None:
        return
    by_status = Count(site.status for site in sites)
    for presence in get_args(Presence):
        yield "qfed_sites", (presence,), by_status[presence]
    for site in sites:
        yield "qfed_site_online", (site.name,), site.status == "online"
        if site.last_seen is not None:
            yield "qfed_site_last_seen_timestamp_seconds", (site.name,), site.last_seen


def _place(data: Path, runs: Sequence[Run], events: Sequence[Event]) -> Iterable[Sample]:
    yield "qfed_build_info", (qfed.__version__,), 1
    statuses = Count(run.status for run in runs)
    for status in get_args(Status):
        yield "qfed_runs", (status,), statuses[status]
    asked = Count(event.event for event in events)
    yield "qfed_sign_ins", ("accepted",), asked["signed in"]
    yield "qfed_sign_ins", ("refused",), asked["refused"]
    for file in CERTIFICATES:
        end = expiry(data / "tls" / file)
        if end is not None:
            yield "qfed_certificate_expiry_timestamp_seconds", (file,), end
    disk = shutil.disk_usage(data)
    yield "qfed_disk_free_bytes", (), disk.free
    yield "qfed_disk_size_bytes", (), disk.total


def _of_runs(runs: Sequence[Run]) -> Iterable[Sample]:
    spent: dict[str, tuple[float, float]] = {}
    for run in sorted(runs, key=lambda run: run.changed):
        spent |= run.state.spent if run.state else {}
    for site, (epsilon, budget) in spent.items():
        yield "qfed_site_epsilon", (site,), epsilon
        yield "qfed_site_epsilon_budget", (site,), budget
    for run in runs:
        which = (run.name, run.title)
        yield "qfed_run_rounds_planned", which, run.planned
        yield "qfed_run_rounds_done", which, run.done
        yield "qfed_run_rounds_failed", which, run.failed
        yield "qfed_run_survivors", which, run.rounds[-1].survivors if run.rounds else 0
        if run.score is not None:
            yield "qfed_run_score", (*which, run.metric), run.score.score
            yield "qfed_run_loss", which, run.score.loss
        if run.private:
            yield "qfed_run_epsilon_budget", which, run.config.privacy.epsilon
            if run.epsilon is not None:
                yield "qfed_run_epsilon", which, run.epsilon
        yield "qfed_run_bytes", (*which, "up"), sum(record.bytes_up for record in run.rounds)
        yield "qfed_run_bytes", (*which, "down"), sum(record.bytes_down for record in run.rounds)
        for site, (up, down) in (run.state.traffic if run.state else {}).items():
            yield "qfed_run_site_bytes", (*which, site, "up"), up
            yield "qfed_run_site_bytes", (*which, site, "down"), down
        seconds: Count[str] = Count()
        drops: Count[str] = Count()
        for record in run.rounds:
            seconds.update(record.seconds)
            drops.update(drop.site for drop in record.dropouts)
        for phase, value in seconds.items():
            yield "qfed_run_phase_seconds", (*which, phase), value
        for site, rounds in drops.items():
            yield "qfed_run_drops", (*which, site), rounds
