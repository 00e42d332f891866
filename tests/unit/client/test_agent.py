"""An agent on a real SuperLink over TLS, in this process: what it answers, what it survives, what it says is wrong."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qfed._flower import ConfigRecord, Context, Message, RecordDict
from qfed._flower.fleet import Fleet, utc_now
from qfed._flower.link_grid import LinkGrid
from qfed._flower.superlink import SuperLink
from qfed.federation.authority import Authority
from qfed.secagg import Identity
from qfed_client.agent import Agent
from qfed_client.auditlog import lines, verify
from qfed_client.pace import Backoff
from qfed_server.listeners import App as Asgi
from qfed_server.listeners import FleetOnly, Listeners, Receive, Scope, Send, bind_public

pytestmark = [
    pytest.mark.slow,
    # A server that goes down under its clients leaves their connections to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in.*(ocket|Transport):pytest.PytestUnraisableExceptionWarning"
    ),
]
PATIENCE = 60.0
NOW = datetime.now(UTC)


class Quick(Backoff):
    """Retries at once, so that tests need not wait."""

    def pause(self) -> float:
        self.attempts += 1
        return 0.05


class Echo:
    """Answers with what it was asked; can be held, and made to fail."""

    def __init__(self) -> None:
        self.free, self.busy = threading.Event(), threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.answered: list[str] = []
        self.closed: list[Path] = []

    def __call__(self, message: Message, context: Context) -> Message:
        self.busy.set()
        assert self.free.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        self.answered.append(message.metadata.group_id)
        assert context.node_config["qfed-warm"] == "yes"
        return Message(message.content, reply_to=message)

    def load(self) -> None:
        pass

    def close(self, folder: Path) -> None:
        self.closed.append(folder)


class Counted:
    """Notes the paths that are asked for."""

    def __init__(self, app: Asgi) -> None:
        self.app, self.paths = app, set[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.add(scope["path"])
        await self.app(scope, receive, send)


class Lab:
    """A SuperLink behind TLS on loopback, and agents as threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create(folder / "ca", "lab", NOW - timedelta(days=800))
        self.authority.certify(folder / "tls", ["localhost"], NOW)
        self.ca = (folder / "tls" / "ca.crt").read_bytes()
        self.link = SuperLink()
        self.public = Counted(FleetOnly(self.link.fleet, 1 << 26))
        self.listeners: Listeners | None = None
        self.port = 0
        self.agents: list[tuple[Agent, threading.Thread]] = []
        self.up()

    def up(self, tls: str = "tls") -> None:
        self.bound = bound = bind_public("127.0.0.1", self.port)
        self.port = bound.getsockname()[1]
        self.listeners = Listeners()
        place = self.folder / tls
        self.listeners.add(self.public, bound, certificate=place / "server.crt", key=place / "server.key")
        self.listeners.start()

    def down(self) -> None:
        if self.listeners is not None:
            self.listeners.stop()
            self.bound.close()
            self.listeners = None

    def identity(self, name: str, *, known: bool = True) -> tuple[Identity, int]:
        identity = Identity.generate(name, node=True)
        return identity, self.link.register(identity.public.node_key()) if known else 0

    def fleet(self, identity: Identity, host: str = "localhost", **how: Any) -> Fleet:
        return Fleet(f"{host}:{self.port}", how.pop("ca", self.ca), identity.node_key(), agent="qfed/test", **how)

    def agent(self, identity: Identity, app: Any, **how: Any) -> Agent:
        place = self.folder / f"{identity.name}-{len(self.agents)}"
        place.mkdir()
        turn, preload = how.pop("turn", None), how.pop("preload", False)
        agent = Agent(place, self.fleet(identity, **how), app=app, turn=turn, backoff=Quick(), preload=preload)
        thread = threading.Thread(target=agent.serve, name=identity.name)
        thread.start()
        self.agents.append((agent, thread))
        return agent

    def leave(self) -> None:
        for agent, _ in self.agents:
            agent.stop()
        for _, thread in self.agents:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self.agents.clear()

    def status(self, node: int) -> str:
        return next(found.status for found in self.link.nodes() if found.id == node)

    @contextlib.contextmanager
    def run(self) -> Iterator[LinkGrid]:
        stop = threading.Event()
        try:
            yield self.link.begin("run", stop=stop, patience=5.0)
        finally:
            self.link.end(completed=True)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        yield made
    finally:
        made.leave()
        made.down()


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def asked(node: int, body: bytes = b"x", label: str = "1") -> Message:
    return Message(RecordDict({"qfed": ConfigRecord({"body": body})}), node, "query.x", ttl=PATIENCE, group_id=label)


def ask(grid: LinkGrid, *messages: Message) -> list[Message]:
    return list(grid.send_and_receive(messages, timeout=PATIENCE))


def body_of(reply: Message) -> Any:
    return reply.content["qfed"]["body"]  # type: ignore[index]


# -- a quiet day -----------------------------------------------------------------------------------------------------


def test_an_agent_comes_answers_and_leaves_cleanly(lab: Lab) -> None:
    identity, node = lab.identity("a")
    app = Echo()
    agent = lab.agent(identity, app)
    until(lambda: lab.status(node) == "online", "the agent")
    with lab.run() as grid:
        assert [body_of(reply) for reply in ask(grid, asked(node, b"\0" * 100_000))] == [b"\0" * 100_000]
        app.error = ValueError("patient 4711")
        (reply,) = ask(grid, asked(node))
        assert (reply.error.code, reply.error.reason) == (101, "ValueError")
        assert "4711" not in repr(reply)
    agent.stop()
    lab.leave()
    assert lab.status(node) == "offline", "not only after its heartbeats are missed"
    assert app.closed
    folder = lab.folder / "a-0"
    assert verify(folder).problems == ()
    assert [value["what"] for _, value in lines(folder) if value] == ["connected", "sent", "sent", "disconnected"]


def test_no_app_bundle_is_ever_asked_for(lab: Lab) -> None:
    identity, node = lab.identity("a")
    lab.agent(identity, Echo())
    with lab.run() as grid:
        until(lambda: lab.status(node) == "online", "the agent")
        ask(grid, asked(node))
    lab.leave()
    calls = {path.rpartition("/")[2] for path in lab.public.paths}
    assert calls <= {
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "pull-object",
        "confirm-message-received", "push-messages", "push-object",
    }  # fmt: skip
    assert "push-object" in calls


def test_agents_are_threads_of_one_process_and_each_answers_for_itself(lab: Lab) -> None:
    sites = [lab.identity(f"s{index}") for index in range(8)]
    turn = threading.Lock()
    for identity, _ in sites:
        lab.agent(identity, Echo(), turn=turn)
    with lab.run() as grid:
        until(lambda: all(lab.status(node) == "online" for _, node in sites), "all agents")
        replies = ask(grid, *(asked(node, f"to {node}".encode()) for _, node in sites))
        assert {reply.metadata.src_node_id: body_of(reply) for reply in replies} == {
            node: f"to {node}".encode() for _, node in sites
        }


# -- what breaks on the way ------------------------------------------------------------------------------------------


def test_a_reply_that_was_ready_is_sent_after_the_server_came_back(lab: Lab) -> None:
    identity, node = lab.identity("a")
    app = Echo()
    lab.agent(identity, app)
    until(lambda: lab.status(node) == "online", "the agent")
    with lab.run() as grid:
        app.free.clear()
        names = list(grid.push_messages([asked(node, b"late")]))
        assert app.busy.wait(PATIENCE)
        lab.down()
        app.free.set()
        until(lambda: app.answered, "the answer")
        time.sleep(0.2)
        lab.up()
        replies: list[Message] = []
        until(lambda: replies or replies.extend(grid.pull_messages(names)) or replies, "the reply")
        assert body_of(replies[0]) == b"late"
        assert app.answered == ["1"], "worked out once"


def test_a_reply_to_an_aggregator_that_was_started_anew_is_dropped(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """It knows nothing of the message; the agent logs in under its new number and answers what it is asked then."""
    identity, node = lab.identity("a")
    app = Echo()
    lab.agent(identity, app)
    until(lambda: lab.status(node) == "online", "the agent")
    with lab.run() as grid:
        app.free.clear()
        grid.push_messages([asked(node, b"before")])
        assert app.busy.wait(PATIENCE)
    lab.down()
    lab.link = SuperLink()
    lab.public.app = FleetOnly(lab.link.fleet, 1 << 26)
    node = lab.link.register(identity.public.node_key())
    lab.up()
    with caplog.at_level(logging.INFO, "qfed.agent"):
        app.free.set()
        until(lambda: lab.status(node) == "online", "the agent")
        with lab.run() as grid:
            assert body_of(*ask(grid, asked(node, b"after", "2"))) == b"after"
    assert app.answered == ["1", "2"]
    assert "a reply is dropped" in caplog.text
    assert "another federation file" not in caplog.text, "no word of a key that is not known: it is"


def test_the_app_is_loaded_beside_the_serving_once_and_never_holds_up_the_way_out(lab: Lab) -> None:
    identity, node = lab.identity("a")

    class Slow(Echo):
        loads, wait = 0, threading.Event()

        def load(self) -> None:
            self.loads += 1
            assert self.wait.wait(PATIENCE)

    app = Slow()
    agent = lab.agent(identity, app, preload=True)
    until(lambda: lab.status(node) == "online", "the agent, which does not wait for its app")
    with lab.run() as grid:
        assert body_of(*ask(grid, asked(node))) == b"x"
        lab.down()
        lab.up()
        assert body_of(*ask(grid, asked(node, label="2"))) == b"x"
    until(lambda: app.loads, "the load")
    lab.leave()
    assert agent.loading, "the agent has left"
    app.wait.set()
    until(lambda: not agent.loading, "its end")
    assert app.loads == 1, "not with every connection"


def test_an_app_that_cannot_be_loaded_is_told_and_tried_again_by_the_first_message(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    identity, node = lab.identity("a")

    class Broken(Echo):
        def load(self) -> None:
            raise ImportError("no torch")

    lab.agent(identity, Broken(), preload=True)
    until(lambda: "cannot be loaded" in caplog.text, "a word about it")
    with lab.run() as grid:
        assert body_of(*ask(grid, asked(node))) == b"x"


def test_a_server_that_comes_later_is_waited_for(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    identity, node = lab.identity("a")
    lab.down()
    with caplog.at_level(logging.INFO, "qfed.agent"):
        lab.agent(identity, Echo())
        until(lambda: "no connection to localhost" in caplog.text, "a word about it")
        lab.up()
        until(lambda: lab.status(node) == "online", "the agent")
        # The server knows before the agent has its answer and says so.
        until(lambda: "connected to localhost" in caplog.text, "a word about that")


def test_a_site_that_was_killed_comes_back_at_once_and_is_asked_again(lab: Lab) -> None:
    identity, node = lab.identity("a")
    killed = lab.fleet(identity)
    killed.activate()
    with lab.run() as grid:
        names = list(grid.push_messages([asked(node, b"again")]))
        envelope = None
        while envelope is None:
            envelope = killed.pull()
        killed.close()  # no word to the server: its node stays online
        assert lab.status(node) == "online"
        lab.agent(identity, Echo())
        replies: list[Message] = []
        until(lambda: replies or replies.extend(grid.pull_messages(names)) or replies, "the reply")
        assert body_of(replies[0]) == b"again"


def test_a_message_of_a_run_that_ended_is_dropped(lab: Lab) -> None:
    identity, node = lab.identity("a")
    app = Echo()
    lab.agent(identity, app)
    until(lambda: lab.status(node) == "online", "the agent")
    with lab.run() as grid:
        app.free.clear()
        grid.push_messages([asked(node)])
        assert app.busy.wait(PATIENCE)
    app.free.set()
    with lab.run() as grid:
        assert body_of(*ask(grid, asked(node, b"next"))) == b"next"


# -- who is not let in, and what it is told --------------------------------------------------------------------------


def told(lab: Lab, caplog: pytest.LogCaptureFixture, words: str, **how: Any) -> None:
    identity, node = lab.identity("a", known=how.pop("known", True))
    with caplog.at_level(logging.WARNING, "qfed.agent"):
        lab.agent(identity, Echo(), **how)
        until(lambda: words in caplog.text, words)
        lab.leave()
    assert not node or lab.status(node) == "registered"


@pytest.mark.parametrize(("ahead", "side"), [(600, "ahead of"), (20, "ahead of"), (-400, "behind")])
def test_a_wrong_clock_is_told_by_how_much(lab: Lab, caplog: pytest.LogCaptureFixture, ahead: int, side: str) -> None:
    told(lab, caplog, "set the clock", clock=lambda: utc_now() + timedelta(seconds=ahead))
    found = re.search(rf"clock is (\d+) s {side} the", caplog.text)
    assert found is not None, caplog.text
    assert abs(int(found[1]) - abs(ahead)) <= 5


def test_a_clock_that_is_a_little_slow_does_no_harm(lab: Lab) -> None:
    identity, node = lab.identity("a")
    lab.agent(identity, Echo(), clock=lambda: utc_now() - timedelta(seconds=200))
    with lab.run() as grid:
        until(lambda: lab.status(node) == "online", "the agent")
        assert body_of(*ask(grid, asked(node, b"slow"))) == b"slow"


def test_a_site_that_is_not_in_the_roster_is_told_so(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    told(lab, caplog, "node key is not registered", known=False)


def test_a_site_that_is_revoked_while_it_is_connected_is_told_so(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    identity, node = lab.identity("a")
    with caplog.at_level(logging.WARNING, "qfed.agent"):
        lab.agent(identity, Echo())
        until(lambda: lab.status(node) == "online", "the agent")
        lab.link.unregister(node)
        until(lambda: "it was revoked" in caplog.text, "a word about it")


def test_an_expired_certificate_is_told_and_nothing_is_sent(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.down()
    lab.authority.certify(lab.folder / "old", ["localhost"], NOW - timedelta(days=500))
    lab.up("old")
    told(lab, caplog, "has expired")
    assert "Nothing was sent" in caplog.text
    assert lab.public.paths == set()


def test_a_certificate_of_another_authority_or_for_another_host_is_refused(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    Authority.create(lab.folder / "other", "other", NOW).certify(lab.folder / "theirs", ["localhost"], NOW)
    told(lab, caplog, "not signed by the authority", ca=(lab.folder / "theirs" / "ca.crt").read_bytes())
    lab.agents.clear()
    caplog.clear()
    identity, _ = lab.identity("b")
    with caplog.at_level(logging.WARNING, "qfed.agent"):
        lab.agent(identity, Echo(), host="127.0.0.1")
        until(lambda: "is not for this address" in caplog.text, "a word about it")
    assert lab.public.paths == set()
