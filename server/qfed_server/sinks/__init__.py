"""A run's figures in other people's tools: read from the run folders as they grow, handed to sinks, each figure once.

    figures(run)   ->  per series (score, loss, epsilon, survivors, bytes/up, ...) points (round, value, Unix seconds)
    Follower       hands a sink what it has not had; what it had is kept in DIR/tracked-SINK.json, replaced after each
                   run of a pass, so a crash in between repeats at most the points of one run in one pass

A sink gets what the aggregator's operator sees anyway (qfed.report): nothing of a single site's update or records. Who
reads the sink sees the scores and the configuration, so choose where it lies as you choose who gets the dashboard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qfed.errors import StateError
from qfed.federation.files import write_atomically
from qfed_server.dashboard.runs import Run, Runs


@dataclass(frozen=True)
class Point:
    """One figure after one round."""

    series: str
    round: int
    value: float
    t: float


class Sink(Protocol):
    """Where figures go. Its calls for one run come in order; a crash may repeat the last ones."""

    @property
    def name(self) -> str:
        """Of the file that remembers what it had."""

    def begin(self, run: Run) -> None:
        """A run that it has not seen; again after a crash."""

    def put(self, run: Run, points: Sequence[Point]) -> None:
        """New points."""

    def end(self, run: Run) -> None:
        """The run is over."""


def figures(run: Run) -> Iterator[Point]:
    """Every figure known so far; rounds rise within a series."""
    times = {each.facts.get("round"): each.t for each in run.events if each.event == "round"}
    scored = max((record.round for record in run.rounds if record.metrics), default=0)
    if run.initial is not None:
        yield Point("score", 0, run.initial.score, run.began)
        yield Point("loss", 0, run.initial.loss, run.began)
    for record in run.rounds:
        t = times.get(record.round, run.changed)
        if record.metrics is not None and record.round <= scored:
            yield Point("score", record.round, record.metrics.score, t)
            yield Point("loss", record.round, record.metrics.loss, t)
        if record.epsilon is not None:
            yield Point("epsilon", record.round, record.epsilon, t)
        yield Point("survivors", record.round, record.survivors, t)
        yield Point("dropouts", record.round, len(record.dropouts), t)
        yield Point("failed", record.round, record.status == "failed", t)
        yield Point("bytes/up", record.round, record.bytes_up, t)
        yield Point("bytes/down", record.round, record.bytes_down, t)
        for phase, seconds in record.seconds.items():
            yield Point(f"seconds/{phase}", record.round, seconds, t)


class Follower:
    """Keeps one sink up to date with a data directory."""

    def __init__(self, data: Path, runs: Runs, sink: Sink) -> None:
        self._runs, self._sink = runs, sink
        self._file = data / f"tracked-{sink.name}.json"
        self._had: dict[str, dict[str, int]] = {}
        if self._file.exists():
            try:
                self._had = {run: dict(had) for run, had in json.loads(self._file.read_bytes()).items()}
            except (ValueError, AttributeError, TypeError) as error:
                raise StateError(
                    f"{self._file} cannot be read ({error}); remove it, and {sink.name} gets every figure again"
                ) from None

    def look(self) -> int:
        """One pass; how many points went out."""
        sent = 0
        for run in reversed(self._runs.all()):
            if run.status in {"queued", "unreadable"}:
                continue
            had = self._had.get(run.name)
            if had is not None and _OVER in had:
                continue
            if had is None:
                self._sink.begin(run)
                had = {}
            new = [point for point in figures(run) if point.round > had.get(point.series, -1)]
            if new:
                self._sink.put(run, new)
                sent += len(new)
            latest = {**had, **_latest(new)}
            if not run.under_way:
                self._sink.end(run)
                latest[_OVER] = 1
            if latest != self._had.get(run.name):
                self._had[run.name] = latest
                write_atomically(self._file, json.dumps(self._had).encode(), secret=True)
        return sent


_OVER = "(over)"


def _latest(points: Sequence[Point]) -> Mapping[str, int]:
    return {point.series: point.round for point in points}
