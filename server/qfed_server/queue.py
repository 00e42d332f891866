"""Runs one after another, in the order of submission, each on the federation as it is; they survive the server.

One at a time: a site's agent answers one message after another and its ledger is charged round by round, so two runs
at once would be no faster, would meet each other's deadlines, and would open sums over cohorts that differ by whoever
was busy. What is in runs/ decides what is to be done, so a server that was killed goes on by itself: first with the
run that was under way, from its last checkpoint, then with those that wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread

from qfed._flower import Context, RecordDict
from qfed._flower.link_grid import Interrupted
from qfed._flower.superlink import STORAGE, SuperLink
from qfed.errors import ConfigError, QfedError, StateError
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed_server.app import app
from qfed_server.conduct import facts_of, hand_over
from qfed_server.journal import Journal, all_runs

log = logging.getLogger("qfed.server")
_RETRY = 5.0


class Queue:
    """The runs in a folder, worked off by a thread of its own."""

    def __init__(
        self, runs: Path, link: SuperLink, *, patience: float, on_sites: Callable[[frozenset[str]], None]
    ) -> None:
        self._runs, self._link, self._patience, self._on_sites = runs, link, patience, on_sites
        self._wake, self._closing, self._lock = Event(), Event(), Lock()
        self._current: tuple[str, Event] | None = None
        self._thread = Thread(target=self._work, name="runs", daemon=True)

    def start(self) -> None:
        """Begin with what is there."""
        self._thread.start()

    def wake(self) -> None:
        """A run was submitted."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether runs are worked off."""
        return self._thread.is_alive()

    @property
    def current(self) -> str | None:
        """The run that is under way."""
        current = self._current
        return None if current is None else current[0]

    def stop(self, journal: Journal, why: str) -> None:
        """End a run; the model of its last round stays."""
        with self._lock:
            if journal.state.over:
                raise ConfigError(f"run={journal.run} is over already ({journal.state.status})")
            journal.put(status="stopped", why=why, finished=round(time.time(), 3))
            if self._current is not None and self._current[0] == journal.run:
                self._current[1].set()
            else:
                journal.tell("stopped", why=why)

    def resume(self, journal: Journal) -> None:
        """Go on with a run that failed or was stopped: after its last checkpoint, under the plan that it began with."""
        with self._lock:
            if not journal.state.over or journal.state.status == "completed":
                raise ConfigError(f"run={journal.run} has not failed, and was not stopped ({journal.state.status})")
            if self._current is not None and self._current[0] == journal.run:
                raise ConfigError(f"run={journal.run} is still being brought to its end; ask again in a moment")
            if (folder := RunFolder(journal.path)).begun and (state := folder.checkpoint()).status == "stopped":
                folder.save(replace(state, status="running"))
            journal.put(status="queued" if journal.state.started is None else "running", why=None, finished=None)
        self.wake()

    def close(self, seconds: float = 30.0) -> None:
        """Let go of the run that is under way; the next server goes on with it."""
        self._closing.set()
        self._wake.set()
        if (current := self._current) is not None:
            current[1].set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            journal = self._next()
            if journal is None:
                self._wake.wait()
                continue
            try:
                self._one(journal)
            except STORAGE as error:
                log.error(
                    "run=%s cannot go on, its state cannot be written (%s); make room, it is tried again every %g s",
                    journal.run, str(error).partition("\n")[0], _RETRY,
                )  # fmt: skip
                self._closing.wait(_RETRY)
            except Exception:
                log.exception("run=%s cannot go on; it is tried again every %g s", journal.run, _RETRY)
                self._closing.wait(_RETRY)

    def _next(self) -> Journal | None:
        waiting = [journal for journal in all_runs(self._runs) if not journal.state.over]
        return min(waiting, key=lambda journal: journal.state.status != "running", default=None)

    def _one(self, journal: Journal) -> None:
        stop = Event()
        with self._lock:
            if journal.state.over:
                return
            resumed = journal.state.status == "running"
            journal.put(status="running", started=journal.state.started or round(time.time(), 3), why=None)
            self._current = journal.run, stop
        folder = RunFolder(journal.path)
        try:
            if self._closing.is_set():
                return
            try:
                if resumed:
                    done = folder.checkpoint().round if folder.begun else 0
                    journal.tell("resumed", round=done)
                    log.info("run=%s goes on after round %d", journal.run, done)
                status, why = self._attempt(journal, folder, stop)
            except StateError as error:
                log.error("run=%s failed: %s", journal.run, error)
                status, why = "failed", str(error)
        finally:
            self._on_sites(frozenset())
            with self._lock:
                self._current = None
        if status is None:
            return
        with self._lock:
            journal.tell(status, **({} if why is None else {"why": why}))
            journal.put(status=status, why=why, finished=round(time.time(), 3))

    def _attempt(self, journal: Journal, folder: RunFolder, stop: Event) -> tuple[str | None, str | None]:
        """How the run ended, and why; None when it is to go on later."""
        grid = self._link.begin(journal.run, stop=stop, patience=self._patience)
        completed = False
        run_config: dict[str, bool | float | int | str] = {
            "qfed-run": str(folder.path), "qfed-deployed": "yes", "qfed-grace": self._patience,
        }  # fmt: skip
        try:
            with _told(journal, folder, self._on_sites):
                app(grid, Context(grid.run.run_id, 1, {}, RecordDict(), run_config))
            completed = folder.checkpoint().status == "completed"
        except Interrupted:
            if self._closing.is_set() and not journal.state.over:
                return None, None
            self._link.end(completed=False)
            self._hand_over(journal, folder)
            return "stopped", journal.state.why
        except STORAGE:
            raise  # the disk's fault, not the run's
        except QfedError as error:
            log.error("run=%s failed: %s", journal.run, error)
            return "failed", str(error)
        except Exception as error:
            log.exception("run=%s failed", journal.run)
            return "failed", f"{type(error).__name__}: {error}"
        finally:
            self._link.end(completed=completed)
        return ("completed", None) if completed else ("stopped", "too many rounds failed in a row; see its events")

    def _hand_over(self, journal: Journal, folder: RunFolder) -> None:
        """Result and model of a run that was stopped, if the sites are there to pack them."""
        stop = Event()
        with self._lock:
            self._current = journal.run, stop
            if self._closing.is_set():
                return
        try:
            hand_over(self._link.begin(journal.run, stop=stop, patience=self._patience), folder, grace=self._patience)
        except (QfedError, Interrupted) as error:
            log.warning("run=%s was stopped and leaves no result: %s", journal.run, str(error) or "the server stops")


class _Teller(logging.Handler):
    """Turns the aggregator's progress records into events."""

    def __init__(self, tell: Callable[[str, Checkpoint], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage(), record.qfed)  # type: ignore[attr-defined]


@contextmanager
def _told(journal: Journal, folder: RunFolder, on_sites: Callable[[frozenset[str]], None]) -> Iterator[None]:
    spent: dict[int, float] | None = None

    def tell(event: str, state: Checkpoint) -> None:
        nonlocal spent
        if spent is None:
            facts = facts_of(folder)
            spent = {} if facts is None else dict(facts.epsilon)
        if event == "final":
            if state.final is not None:
                journal.tell("final", **state.final.model_dump())
            return
        last = state.rounds[-1]
        before = state.rounds[-2].metrics if len(state.rounds) > 1 else state.initial
        journal.tell(
            "round",
            round=last.round,
            status=last.status,
            survivors=last.survivors,
            failure=last.failure,
            dropouts={dropout.site: dropout.reason for dropout in last.dropouts},
            # Sites score the model that they are sent: what is new with this round is the score of the one before.
            scored=None if before is None else {"round": last.round - 1, "score": before.score, "loss": before.loss},
            epsilon=spent.get(last.round),
            bytes_up=last.bytes_up,
            bytes_down=last.bytes_down,
            seconds={phase: round(took, 3) for phase, took in last.seconds.items()},
        )
        on_sites(frozenset(state.taken_part))

    logger, handler = logging.getLogger("qfed.progress"), _Teller(tell)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
