"""`qfed server`: one process that holds the SuperLink, both listeners and the runs, from its data directory alone.

    checks -> lock -> sockets -> SuperLink -> registry -> runs -> listeners -> (until SIGTERM or SIGINT) -> clean stop

Everything that can be wrong with what was put into the directory is told before anything is started. Killed at any
moment, it goes on with the same command: connections are made again by the sites, runs from their last checkpoint.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import qfed
from qfed.errors import ConfigError, StateError
from qfed.federation.files import write_atomically
from qfed_server.admission import admitted
from qfed_server.datadir import DataDir
from qfed_server.journal import all_runs, find, submit
from qfed_server.status import SiteStatus

log = logging.getLogger("qfed.server")

_BEAT = 5.0
_DAY = 86400.0


class Server:
    """The server on a data directory; what its operator may ask of it is a Desk (control.py). `serve` runs it."""

    def __init__(self, path: Path) -> None:
        self.place = DataDir(path)
        self.config = self.place.config()
        self.started = time.time()

    def serve(self, stop: Event, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set; `ready` is called when both listeners answer."""
        place, config = self.place, self.config
        place.check_writable()
        with place.locked():
            place.federation()
            for warning in place.check_certificate():
                log.warning("%s", warning)
            place.runs.mkdir(exist_ok=True)
            from qfed_server.listeners import bind_private, bind_public

            with bind_public(config.listen, config.port) as public, bind_private(place.socket) as private:
                try:
                    self._serve(public, private, stop, ready)
                finally:
                    place.socket.unlink(missing_ok=True)

    def _serve(self, public: Any, private: Any, stop: Event, ready: Callable[[], None]) -> None:
        # Only now: these take a second and a half, and a mistake above is told without them.
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from qfed._flower.superlink import STORAGE, SuperLink
        from qfed_server.control import routes
        from qfed_server.dashboard import MOUNT
        from qfed_server.instances import Instances
        from qfed_server.listeners import FleetOnly, Listeners, Split, bind_public
        from qfed_server.queue import Queue
        from qfed_server.registry import Registry

        place, config = self.place, self.config
        # After the import: Flower's logger has a handler of its own then, and calls a late reply an error.
        flower = logging.getLogger("flwr")
        flower.handlers.clear()
        flower.setLevel(logging.INFO if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL)
        link = SuperLink(place.database if config.connections == "disk" else None)
        self._registry = Registry(place, link, self._taken_up)
        self._queue = Queue(place.runs, link, patience=config.patience, on_sites=self._joined)
        self._public = FleetOnly(
            link.fleet, config.largest_message << 20, self._registry.logged_in, Instances(self._registry.copied)
        )
        listeners = Listeners()
        dashboard = self._dashboard()
        own = Starlette(routes=[*routes(self), Mount(MOUNT, dashboard)])
        listeners.add(self._public, public, certificate=place.tls("server.crt"), key=place.tls("server.key"))
        listeners.add(Split(link.app, own), private)
        if config.dashboard is not None:
            listeners.add(dashboard, bind_public("127.0.0.1", config.dashboard))
        listeners.start()
        self._queue.start()
        log.info("serving sites on %s:%d, the operator on %s", config.listen, config.port, place.socket)
        ready()
        beat = day = time.monotonic()
        try:
            while not stop.wait(min(config.poll, _BEAT)):
                try:
                    self._registry.look()
                    if time.monotonic() - beat >= _BEAT:
                        beat = time.monotonic()
                        link.keep_alive()
                        self._registry.note()
                except STORAGE as error:
                    log.error("the server cannot write its state (%s); make room", str(error).partition("\n")[0])
                if time.monotonic() - day >= _DAY:
                    day = time.monotonic()
                    self._look_at_certificates()
                if not listeners.alive or not self._queue.alive:
                    raise StateError("a part of the server has ended by itself; see its log, and start it again")
        finally:
            log.info("stopping")
            self._queue.close()
            with suppress(*STORAGE):
                self._registry.note(leaving=True)
            listeners.stop()
            link.close()

    def _look_at_certificates(self) -> None:
        """Tell of an end that is near; one that has come stops no run that its sites are still connected for."""
        try:
            for warning in self.place.check_certificate():
                log.warning("%s", warning)
        except ConfigError as error:
            log.error("%s", error)

    def _dashboard(self) -> Any:
        from qfed_server.dashboard import make_app

        return make_app(self.place.path, self.sites, self, admin=self.config.dashboard_admin)

    def _taken_up(self, file: bytes) -> None:
        """A newer federation file: runs that are not over go on under it."""
        for journal in all_runs(self.place.runs):
            if not journal.state.over:
                write_atomically(journal.path / "federation.json", file)

    def _joined(self, sites: frozenset[str]) -> None:
        self._registry.joined = sites

    # -- what an operator may do ---------------------------------------------------------------------------------

    def submit(self, config: str) -> str:
        """See Desk."""
        self._registry.look()
        checked = admitted(config, self._registry.federation)
        waiting = sum(not journal.state.over for journal in all_runs(self.place.runs))
        if waiting >= self.config.most_queued:
            raise ConfigError(f"{waiting} runs wait already (most_queued in server.toml); stop some, or wait")
        journal = submit(self.place.runs, checked, self.place.federation_file.read_bytes())
        self._queue.wake()
        log.info("run=%s submitted: %s", journal.run, checked.name)
        return journal.run

    def stop(self, run: str, why: str) -> None:
        """See Desk."""
        self._queue.stop(find(self.place.runs, run), why)

    def resume(self, run: str) -> None:
        """See Desk."""
        self._queue.resume(find(self.place.runs, run))

    def sites(self) -> Sequence[SiteStatus]:
        """See Desk."""
        return self._registry.sites()

    def about(self) -> dict[str, Any]:
        """See Desk."""
        federation = self._registry.federation
        return {
            "name": self.config.name,
            "version": qfed.__version__,
            "address": self.config.address,
            "federation": federation.policy.federation_id,
            "federation_version": federation.version,
            "started": self.started,
            "run": self._queue.current,
            "denied_requests": self._public.denied,
            "oversized_requests": self._public.oversized,
        }


@contextmanager
def signals() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
