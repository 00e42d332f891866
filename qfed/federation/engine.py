"""The in-process engine: Flower's Grid over a ClientApp in this very process, without SuperLink or Ray.

Every message is copied before it is handed over (mods may change what they get), a ClientApp that raises becomes an
error reply, and a site told to fail does. Cost: one function call a message.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from qfed._flower import (
    ClientApp,
    Context,
    Error,
    Grid,
    Message,
    RecordDict,
    Run,
    ServerApp,
    assume_identity,
    name_message,
)

CLIENT_APP_RAISED = 2
SITE_UNREACHABLE = 4

Fails = Callable[[int, Message], bool]


class InProcessGrid(Grid):
    """Delivers to `sites` nodes, numbered by partition; `fails(index, message)` makes a site vanish for a message."""

    def __init__(
        self, client_app: ClientApp, sites: int, run_config: dict[str, str], fails: Fails | None = None
    ) -> None:
        rng = random.Random(sites)
        self._app, self._fails = client_app, fails
        self._run = Run.create_empty(rng.getrandbits(63))
        assume_identity(self._run.run_id)
        self._contexts: dict[int, Context] = {}
        for index in range(sites):
            node: dict[str, bool | float | int | str] = {"partition-id": index, "num-partitions": sites}
            node_id = rng.getrandbits(63)
            self._contexts[node_id] = Context(self._run.run_id, node_id, node, RecordDict(), dict(run_config))
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Take another run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message for one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, in the order of their partitions."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; each is delivered when its reply is pulled, so replies never pile up in memory."""
        names = []
        for message in messages:
            name_message(message, uuid.uuid4().hex)
            names.append(message.metadata.message_id)
            self._waiting[names[-1]] = message
        return names

    def _deliver(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        if self._fails is not None and self._fails(int(context.node_config["partition-id"]), message):
            reply = Message(Error(SITE_UNREACHABLE, "site unreachable"), reply_to=message)
        else:
            handed = Message(
                copy.deepcopy(message.content), message.metadata.dst_node_id, message.metadata.message_type
            )
            handed.metadata.__dict__.update(message.metadata.__dict__)
            try:
                reply = self._app(handed, context)
            except Exception as error:  # noqa: BLE001  what an app raises must not end the aggregator, as in deployment
                reply = Message(Error(CLIENT_APP_RAISED, type(error).__name__), reply_to=message)
        name_message(reply, uuid.uuid4().hex)
        return reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver the next of the messages and return its reply; nothing when all have been pulled."""
        wanted = set(message_ids)
        name = next((name for name in self._waiting if name in wanted), None)
        return [] if name is None else [self._deliver(self._waiting.pop(name))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and pull until all replies are there."""
        names = list(self.push_messages(messages))
        return [reply for _ in names for reply in self.pull_messages(names)]


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    sites: int,
    server_config: dict[str, Any],
    client_config: dict[str, str],
    fails: Fails | None = None,
) -> None:
    """Run both apps to the end in this process; an exception of the ServerApp is raised here."""
    grid = InProcessGrid(client_app, sites, client_config, fails)
    server_app(grid, Context(grid.run.run_id, 1, {}, RecordDict(), dict(server_config)))
