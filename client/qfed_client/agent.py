"""The agent of a site: one process (or thread) that waits for the aggregator's messages and answers them.

    join -> (poll -> fetch -> answer -> send)* -> leave

It runs the ClientApp that is installed here and fetches no code. With `preload` torch and all else that every run needs
is loaded beside the serving from the first connection on, without it by the first message; PennyLane always by the
first model that has a circuit.
Whatever breaks on the way (network, server restart, certificate, a login that is refused) is told in the log and tried
again with growing pauses. A reply that was ready is sent again; where a message may have been lost (its delivery was
cut off, or the process was killed) the agent logs in anew, and the aggregator asks again: uploads come from the site's
cache then, and the ledger refuses to train a round twice. An aggregator that was started anew knows nothing of what it
asked before, and has another number for the site: a reply to that is dropped. Of an error, only its type's name leaves
the site.
What there is of process-wide state is the learner's: agents that are threads of one process share a lock (`turn`), so
that one of them computes at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from qfed._flower import Context, Error, Message, RecordDict, name_message
from qfed._flower.fleet import HEARTBEAT_INTERVAL, Fleet
from qfed.errors import LinkError, NotAdmitted, RunOver, StateError, TwoAgents
from qfed.federation import wire
from qfed_client.auditlog import AuditLog
from qfed_client.pace import Backoff, Pace

log = logging.getLogger("qfed.agent")
_BEAT = 0.8 * HEARTBEAT_INTERVAL
_UNTIL_ALONE = 5.0
"""Seconds between two tries while another agent speaks for the site; regular, as the aggregator listens for silence."""


class App(Protocol):
    """What answers messages; called by the thread that serves, and by no other."""

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply to a message."""

    def load(self) -> None:
        """Get ready for messages; called at most once, from a thread of its own."""

    def close(self, folder: Path) -> None:
        """No more messages come for the site of this folder."""


class InstalledApp:
    """The ClientApp that is installed with this package; imported by `load`, or else by the first message."""

    _used = False

    def __call__(self, message: Message, context: Context) -> Message:
        """Load it if need be, and answer."""
        from qfed_client.app import app

        self._used = True
        reply: Message = app(message, context)
        return reply

    def load(self) -> None:
        """Import it, and torch with it; a message that comes meanwhile waits for that."""
        import qfed_client.app  # noqa: F401

    def close(self, folder: Path) -> None:
        """Close the site's durable state."""
        if self._used:
            from qfed_client.app import close_site

            close_site(folder)


class Agent:
    """One site's agent. `serve` returns when `stop` has been called and the message at hand is answered."""

    def __init__(
        self,
        folder: Path,
        fleet: Fleet,
        *,
        app: App | None = None,
        turn: threading.Lock | None = None,
        backoff: Backoff | None = None,
        preload: bool = False,
    ) -> None:
        self._folder, self._fleet, self._app = folder.resolve(), fleet, app or InstalledApp()
        self._turn = turn or threading.Lock()
        self._backoff = backoff or Backoff()
        self._pace = Pace(time.monotonic())
        self._audit = AuditLog(self._folder)
        self._stop = threading.Event()
        self._reply: tuple[Message, float] | None = None
        self._joined = False
        self._node: int | None = None
        self._loader: threading.Thread | None = None
        if preload:
            self._loader = threading.Thread(target=self._load, name=f"app of {self._folder.name}", daemon=True)

    def stop(self) -> None:
        """Ask the agent to leave; from any thread or a signal handler."""
        self._stop.set()

    @property
    def loading(self) -> bool:
        """Whether the app is being loaded, which nothing can cut short."""
        return self._loader is not None and self._loader.is_alive()

    def serve(self) -> None:
        """Take part until `stop`."""
        beat = threading.Thread(target=self._beat, name=f"heartbeat of {self._folder.name}", daemon=True)
        beat.start()
        try:
            while not self._stop.is_set():
                try:
                    pause = self._step()
                    self._backoff.succeeded()
                except (LinkError, StateError) as error:
                    pause = self._backoff.pause()
                    if isinstance(error, TwoAgents):
                        self._joined, pause = False, _UNTIL_ALONE
                        log.error("%s. Trying again in %.1f s", str(error).rstrip("."), pause)
                    elif isinstance(error, NotAdmitted) and self._joined:
                        self._joined = False  # if the login is refused as well, that is told
                        log.info("%s does not know this connection any more; logging in anew", self._fleet.address)
                    else:
                        log.warning("%s. Trying again in %.1f s", str(error).rstrip("."), pause)
                self._stop.wait(pause)
        finally:
            self._stop.set()
            self._leave()
            beat.join(HEARTBEAT_INTERVAL)

    # -- coming and going ----------------------------------------------------------------------------------------

    def _join(self) -> None:
        node = self._fleet.activate()
        if self._reply is not None and node != self._node:
            log.info("a reply is dropped: the aggregator was started anew and asks again")
            self._reply = None
        self._joined, self._node = True, node
        self._audit.append({"what": "connected", "server": self._fleet.address})
        log.info("connected to %s", self._fleet.address)
        if self._loader is not None and self._loader.ident is None:
            self._loader.start()

    def _load(self) -> None:
        started = time.monotonic()
        try:
            self._app.load()
        except Exception:  # the first message meets it again, and its sender is told
            log.exception("what answers messages cannot be loaded")
        else:
            log.info("ready for messages: loaded in %.1f s", time.monotonic() - started)

    def _leave(self) -> None:
        if self._fleet.active:
            with suppress(LinkError, StateError):
                self._fleet.deactivate()
                head = self._audit.append({"what": "disconnected", "server": self._fleet.address}, anchor=True)
                log.info("disconnected from %s; the audit log ends with %s", self._fleet.address, head)
        self._fleet.close()
        self._app.close(self._folder)

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            if self._joined:
                try:
                    self._fleet.heartbeat()
                except LinkError as error:  # the next question for messages meets it too, and tells
                    log.debug("no heartbeat: %s", error)

    # -- messages ------------------------------------------------------------------------------------------------

    def _step(self) -> float:
        """One question, and the answer to what came; seconds to wait before the next."""
        if not self._joined:
            self._join()
        if self._reply is not None:
            self._send()
        asked = time.monotonic()
        try:
            envelope = self._fleet.pull()
            if envelope is None:
                return self._pace.pause(time.monotonic(), time.monotonic() - asked)
            message = self._fleet.fetch(envelope)
            self._fleet.confirm(message)
        except RunOver as error:
            log.info("a message is dropped: %s", error)
            return 0.0
        except LinkError:
            self._joined = False  # a message is handed out once: log in anew, so that one that was lost is sent again
            raise
        self._work(message)
        self._send()
        self._pace.came(time.monotonic())
        return 0.0

    def _work(self, message: Message) -> None:
        """Make the reply to a message."""
        context = Context(
            run_id=message.metadata.run_id,
            node_id=message.metadata.dst_node_id,
            node_config={"qfed-site": str(self._folder), "qfed-warm": "yes"},
            state=RecordDict(),
            run_config={},
        )
        started = time.monotonic()
        try:
            with self._turn:
                reply = self._app(message, context)
        except Exception as error:  # whatever an app does must not end the agent
            log.exception("%s failed", message.metadata.message_type)
            reply = Message(Error(wire.SITE_FAILED, type(error).__name__), reply_to=message)
        name_message(reply, reply.object_id)
        self._reply = reply, time.monotonic() - started

    def _send(self) -> None:
        """Send the reply that is ready; it stays ready until it has arrived."""
        assert self._reply is not None  # noqa: S101  both callers have just made or seen it
        reply, seconds = self._reply
        about = reply.metadata
        try:
            sent = self._fleet.reply(reply, seconds)
        except RunOver as error:
            log.info("a reply is dropped: %s", error)
            self._reply = None
            return
        self._reply = None
        asked = about.reply_to_message_id[:16]
        self._audit.append(
            {"what": "sent", "type": about.message_type, "round": about.group_id, "message": asked, "bytes": sent}
        )
        log.info("%s of round %s: answered in %.2f s, %d bytes", about.message_type, about.group_id, seconds, sent)
