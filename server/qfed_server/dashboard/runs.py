"""Runs as they lie on disk, read for people: never written, and a folder that cannot be read is shown as such.

    DIR/runs/RUN/   config.toml, state.json, events.jsonl, run.json, facts.json, checkpoint.npz; at the end result.json,
                    model.npz, model.json, report.html

Cost    a stat of seven files a run and call; what did not change is not read again.
Errors  none: `Run.status` is "unreadable" and `Run.why` says what is wrong.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from qfed.config import RunConfig, load_config
from qfed.errors import QfedError
from qfed.federation.result import Comparison, RoundRecord, RunResult, Score
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.report import read_result
from qfed.report.units import Metric

Status = Literal["queued", "running", "completed", "stopped", "failed", "unreadable"]
UNDER_WAY = ("queued", "running")
FILES = {
    "report.html": "report",
    "model.npz": "model",
    "MODEL_CARD.md": "model card",
    "statistics.npz": "counts",
    "model.json": "model, described",
    "card.json": "model card, for programs",
    "card.signatures.json": "signatures of the card",
    "statistics.json": "counts, described",
    "result.json": "all figures",
    "config.toml": "configuration",
}
"""What may be downloaded, and what it is."""
FIRST = ("report.html", "model.npz", "MODEL_CARD.md", "statistics.npz")
"""Those that are offered first."""
_WATCHED = ("config.toml", "run.json", "checkpoint.npz", "state.json", "events.jsonl", "result.json", "facts.json")
_ORDER = {"running": 0, "queued": 1}
_LAST_BYTES = 1_000_000


@dataclass(frozen=True)
class Event:
    """One line of `events.jsonl`."""

    t: float
    event: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run, under way or over; what plots and pages draw."""

    name: str
    path: Path
    status: Status
    why: str | None = None
    settings: RunConfig | None = None
    metric: Metric = "accuracy"
    state: Checkpoint | None = None
    result: RunResult | None = None
    events: tuple[Event, ...] = ()
    changed: float = 0.0
    """Unix seconds of the last change of its files."""
    files: tuple[str, ...] = ()
    """Those of FILES that are there."""
    began: float = 0.0
    """Unix seconds of its submission."""
    ended: float | None = None
    """Unix seconds of its end; None while it is under way."""

    @property
    def config(self) -> RunConfig:
        """Its configuration; the defaults where it cannot be read."""
        return self.settings or RunConfig()

    @property
    def title(self) -> str:
        """What its owner called it."""
        return self.settings.name if self.settings else self.name

    @property
    def rounds(self) -> Sequence[RoundRecord]:
        """So far; from the result, which knows more, once there is one."""
        if self.result is not None:
            return self.result.rounds
        return self.state.rounds if self.state else ()

    @property
    def initial(self) -> Score | None:
        """Before training."""
        return self.state.initial if self.state else None

    @property
    def score(self) -> Score | None:
        """Of the newest model that was scored."""
        if self.state and self.state.final:
            return self.state.final
        return next((record.metrics for record in reversed(self.rounds) if record.metrics), self.initial)

    @property
    def comparisons(self) -> Sequence[Comparison]:
        """Runs beside it."""
        return self.result.comparisons if self.result else ()

    @property
    def planned(self) -> int:
        """Rounds that it was asked for; a release of counts is one."""
        return self.config.training.rounds if self.trains else 1

    @property
    def trains(self) -> bool:
        """Whether a model comes of it; else counts."""
        return self.config.kind == "train"

    @property
    def done(self) -> int:
        """Rounds that are over, failed ones included."""
        return self.state.round if self.state else 0

    @property
    def share(self) -> float:
        """How far it is, in [0, 1]."""
        return 1.0 if self.status == "completed" else min(1.0, self.done / max(1, self.planned))

    @property
    def failed(self) -> int:
        """Failed rounds."""
        return sum(record.status == "failed" for record in self.rounds)

    @property
    def private(self) -> bool:
        """Whether it runs under differential privacy."""
        return self.config.privacy.mode != "off"

    @property
    def epsilon(self) -> float | None:
        """Spent so far by a site that took part in every round; None where nobody told the aggregator."""
        if not self.private:
            return None
        if self.result is not None and self.result.privacy.epsilon is not None:
            return self.result.privacy.epsilon
        return next((record.epsilon for record in reversed(self.rounds) if record.epsilon is not None), None)

    @property
    def under_way(self) -> bool:
        """Queued or running."""
        return self.status in UNDER_WAY


class Runs:
    """The runs of a data directory; safe to ask from several threads."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "runs"
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[tuple[tuple[int, int] | None, ...], Run]] = {}

    def all(self) -> list[Run]:
        """Every run: the running first, then those that wait, then the newest first."""
        try:
            names = [each.name for each in self._folder.iterdir()]
        except OSError:
            names = []
        found = [run for run in map(self.get, names) if run is not None]
        return sorted(found, key=lambda run: (_ORDER.get(run.status, 2), -run.began, run.name))

    def get(self, name: str) -> Run | None:
        """One run; None when there is none of that name."""
        path = self._folder / name
        if name != path.name or name.startswith(".") or not name or not (path / "config.toml").exists():
            return None
        stamp = tuple(_stamp(path / file) for file in _WATCHED)
        with self._lock:
            if name in self._seen and self._seen[name][0] == stamp:
                return self._seen[name][1]
        changed = max((mark[0] for mark in stamp if mark), default=0) / 1e9
        run = _read(path, changed)
        with self._lock:
            self._seen[name] = (stamp, run)
        return run


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _read(path: Path, changed: float) -> Run:
    events = read_events(path / "events.jsonl")
    files = tuple(name for name in FILES if (path / name).is_file())
    told = _state(path / "state.json")
    try:
        config = load_config(path / "config.toml")
        folder = RunFolder(path)
        state = folder.checkpoint() if (path / "checkpoint.npz").exists() else None
        if state is not None:
            state = _with_epsilon(state, path / "facts.json")
        metric = folder.metric[0] if (path / "run.json").exists() else "accuracy"
        trained = config.kind == "train" and (path / "result.json").exists()
        result = read_result(path) if trained else None
    except (QfedError, OSError, ValueError, KeyError, TypeError) as error:
        return Run(
            name=path.name,
            path=path,
            status="unreadable",
            why=f"its folder cannot be read: {error}",
            events=events,
            changed=changed,
            files=files,
            began=_time(events, 0, changed),
            ended=changed,
        )
    status = told.status if told else state.status if state else "queued"
    why = told.why if told else None
    if status not in get_args(Status):
        status, why = "unreadable", f"state.json says status={status!r}, which this version does not know"
    return Run(
        name=path.name,
        path=path,
        status=cast("Status", status),
        why=why or _last_error(status, events),
        settings=config,
        metric="rmse" if metric == "rmse" else "accuracy",
        state=state,
        result=result,
        events=events,
        changed=changed,
        files=files,
        began=(told.submitted if told else None) or _time(events, 0, changed),
        ended=None if status in UNDER_WAY else (told.finished if told else None) or _time(events, -1, changed),
    )


def _with_epsilon(state: Checkpoint, facts: Path) -> Checkpoint:
    """With the epsilon that the sites told beforehand; between two points that of the later one, never less."""
    if not facts.exists():
        return state
    points = sorted((int(round), float(spent)) for round, spent in json.loads(facts.read_bytes())["epsilon"])

    def told(record: RoundRecord) -> RoundRecord:
        spent = next((spent for round, spent in points if round >= record.round), None)
        return record if record.epsilon is not None else record.model_copy(update={"epsilon": spent})

    return replace(state, rounds=tuple(map(told, state.rounds)))


@dataclass(frozen=True)
class _Told:
    """What state.json says."""

    status: str
    why: str | None
    submitted: float | None
    finished: float | None


def _state(file: Path) -> _Told | None:
    try:
        tree = json.loads(file.read_bytes())
        times = (None if tree.get(key) is None else float(tree[key]) for key in ("submitted", "finished"))
        return _Told(str(tree["status"]), None if tree.get("why") is None else str(tree["why"]), *times)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _time(events: tuple[Event, ...], which: int, otherwise: float) -> float:
    return events[which].t if events else otherwise


def _last_error(status: str, events: tuple[Event, ...]) -> str | None:
    if status not in {"failed", "stopped"}:
        return None
    told = (each.facts.get("why") or each.facts.get("error") for each in reversed(events))
    return next((str(why) for why in told if why), None)


def read_events(file: Path) -> tuple[Event, ...]:
    """The events of the last megabyte, oldest first; a line that is torn or no event is left out."""
    try:
        with file.open("rb") as lines:
            size = lines.seek(0, 2)
            lines.seek(max(0, size - _LAST_BYTES))
            text = lines.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    found = []
    for line in text.splitlines():
        try:
            tree = json.loads(line)
            event = Event(float(tree.pop("t")), str(tree.pop("event")), tree)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if math.isfinite(event.t):
            found.append(event)
    return tuple(found)
