"""The audit trail: what happened to runs, who signed in, what an administrator did; newest first.

    DIR/dashboard.jsonl        sign-ins and administrators' actions, appended and synced, one JSON object a line (0600)
    DIR/runs/RUN/events.jsonl  each run's progress

The sites keep their own, hash-chained audit logs; this one is the aggregator's side, and its owner could rewrite it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qfed.report import units
from qfed_server.dashboard.runs import Event, Run, read_events

FILE = "dashboard.jsonl"


@dataclass(frozen=True)
class Entry:
    """One line of the trail: `run` is None for what concerns no run; `bad` asks for attention."""

    t: float
    what: str
    detail: str
    run: str | None
    title: str
    bad: bool


class Trail:
    """The dashboard's own events; safe to write from several threads."""

    def __init__(self, data: Path, clock: Callable[[], float]) -> None:
        self._file, self._clock, self._lock = data / FILE, clock, threading.Lock()

    def note(self, event: str, **facts: Any) -> None:
        """Append an event, durably."""
        line = json.dumps({"t": round(self._clock(), 3), "event": event, **facts}) + "\n"
        with self._lock:
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as out:
                out.write(line)
                out.flush()
                os.fsync(out.fileno())

    @property
    def events(self) -> tuple[Event, ...]:
        """What was noted, oldest first."""
        return read_events(self._file)


def entries(events: Sequence[Event], runs: Sequence[Run]) -> list[Entry]:
    """Everything, newest first."""
    found = [_entry(each, None) for each in events]
    found += [_entry(each, run) for run in runs for each in run.events]
    return sorted(found, key=lambda entry: -entry.t)


_WORDS = {
    "submitted": "run submitted",
    "waiting": "waiting for sites",
    "joined": "sites joined",
    "final": "final model scored",
    "completed": "run completed",
    "stopped": "run stopped",
    "resumed": "run resumed",
    "failed": "run failed",
    "error": "run failed",
    "signed in": "signed in",
    "refused": "sign-in refused",
    "signed out": "signed out",
    "stop asked": "asked to stop a run",
    "submit asked": "submitted a run",
    "action failed": "an action failed",
}
_BAD = {"failed", "error", "refused", "stopped", "action failed"}
_LONGEST = 400


def _entry(event: Event, run: Run | None) -> Entry:
    what, facts = _WORDS.get(event.event, event.event), dict(event.facts)
    name = run.name if run else facts.pop("run", None)
    bad = event.event in _BAD
    if event.event == "round":
        bad = facts.get("status") == "failed"
        what, detail = _round(facts, run)
    elif event.event == "joined":
        detail = _joined(facts)
    else:
        detail = "; ".join(_fact(key, value) for key, value in facts.items() if value is not None)
    detail = detail if len(detail) <= _LONGEST else detail[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return Entry(event.t, what, detail, name if isinstance(name, str) else None, run.title if run else "", bad)


def _round(facts: Mapping[str, Any], run: Run | None) -> tuple[str, str]:
    """A round in words: how it went, who was away, what the model before it scored."""
    what = f"round {facts.get('round', '')} {'failed' if facts.get('status') == 'failed' else 'over'}"
    told = [str(facts["failure"])] if facts.get("failure") else [_fact("sites", facts.get("survivors", "unknown"))]
    away = facts.get("dropouts")
    if isinstance(away, Mapping) and away:
        told.append("dropped out: " + ", ".join(f"{site} ({why})" for site, why in away.items()))
    scored = facts.get("scored")
    if isinstance(scored, Mapping) and isinstance(score := scored.get("score"), float) and run is not None:
        told.append(
            f"{units.METRIC_NAMES[run.metric]} after round {scored.get('round')}: {units.score(run.metric, score)}"
        )
    if isinstance(spent := facts.get("epsilon"), float):
        told.append(f"epsilon {units.epsilon(spent)}")
    return what, "; ".join(told)


def _joined(facts: Mapping[str, Any]) -> str:
    sites, refused = facts.get("sites"), facts.get("refused")
    told = ", ".join(map(str, sites)) if isinstance(sites, list) else ""
    if isinstance(refused, Mapping) and refused:
        told += "; not: " + ", ".join(f"{site} ({why})" for site, why in refused.items())
    return told


def _fact(key: str, value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.4g}"
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return str(value) if key in {"why", "error", "failure"} else f"{key} {value}"
