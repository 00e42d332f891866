"""A submitted run on disk: what came of it so far, and everything that happened, for people and programs to read.

    RUN/config.toml, federation.json    what was submitted, and the roster it runs under (see RunFolder)
    RUN/state.json      status, why, times; replaced whole
    RUN/events.jsonl    one JSON object a line, appended: {"t": Unix seconds, "event": ..., ...}

    event       submitted, joined, round, final, resumed, stopped, failed, completed, error

It is readable without the server, also while one writes it: a line that was cut off by a crash is left out by readers
and by the next writer.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qfed.config import RunConfig, to_toml
from qfed.errors import ConfigError, StateError
from qfed.federation.files import write_atomically

log = logging.getLogger("qfed.server")

Status = Literal["queued", "running", "completed", "stopped", "failed"]
ENDED = ("completed", "stopped", "failed")


@dataclass(frozen=True)
class State:
    """What a run has come to; times are Unix seconds."""

    status: Status
    name: str
    submitted: float
    started: float | None = None
    finished: float | None = None
    why: str | None = None
    """Why it failed, was stopped, or has not gone on."""

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self.status in ENDED


@dataclass(frozen=True)
class Journal:
    """One run's folder."""

    path: Path

    @property
    def run(self) -> str:
        """The run's identifier."""
        return self.path.name

    @property
    def state(self) -> State:
        """What it has come to."""
        file = self.path / "state.json"
        try:
            return State(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StateError(f"{file} cannot be read ({error}); the run's folder is damaged") from None

    def put(self, **changes: Any) -> State:
        """Change the state."""
        state = replace(self.state, **changes)
        self._write(state)
        return state

    def _write(self, state: State) -> None:
        write_atomically(self.path / "state.json", json.dumps(asdict(state)).encode())

    def tell(self, event: str, **fields: Any) -> None:
        """Append an event."""
        line = json.dumps({"t": round(time.time(), 3), "event": event, **fields}).encode() + b"\n"
        with (self.path / "events.jsonl").open("ab+") as file:
            if end := file.tell():
                file.seek(end - 1)
                if file.read(1) != b"\n":  # a crash, or a full disk, cut the last one off
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def events(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Events from number `after` on; what is no whole line is left out."""
        try:
            lines = (self.path / "events.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        for line in lines[after:]:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def submit(runs: Path, config: RunConfig, federation: bytes) -> Journal:
    """Make the folder of a new run; it appears under its name when everything is in it."""
    run = secrets.token_hex(4)
    draft = runs / f".{run}.draft"
    draft.mkdir(parents=True)
    (draft / "config.toml").write_text(to_toml(config), encoding="utf-8")
    (draft / "federation.json").write_bytes(federation)
    journal = Journal(draft)
    journal._write(State("queued", config.name, round(time.time(), 3)))
    journal.tell("submitted", name=config.name, rounds=config.training.rounds)
    place = draft.rename(runs / run)
    return Journal(place)


def all_runs(runs: Path) -> list[Journal]:
    """Every run whose state can be read, in the order of submission."""
    found = []
    for file in runs.glob("*/state.json"):
        journal = Journal(file.parent)
        if not journal.run.startswith("."):
            try:
                found.append((journal.state.submitted, journal.run, journal))
            except StateError as error:  # one damaged folder is no reason to lose sight of the others
                log.warning("%s", error)
    return [journal for _, _, journal in sorted(found, key=lambda item: item[:2])]


def find(runs: Path, run: str) -> Journal:
    """A run by its identifier or the beginning of it; ConfigError when it is none, or not the only one."""
    names = [journal.run for journal in all_runs(runs)]
    found = [name for name in names if name == run] or [name for name in names if run and name.startswith(run)]
    if len(found) != 1:
        what = f"begins that of {', '.join(found)}" if found else "is no run here"
        raise ConfigError(f"run={run!r} {what}; qfed list shows them all")
    return Journal(runs / found[0])
