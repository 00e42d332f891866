"""The in-process engine: Flower's Grid over a ClientApp in this very process, without SuperLink or Ray.

Every message is copied before it is handed over (mods may change what they get), a ClientApp that raises becomes an
error reply, and a site told to fail does. With `prepare` the app is shown all training messages of a round before the
first is delivered, so that it can do together what the sites would do one after the other; each site still gets its own
message and gives its own reply. Cost: one function call a message.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qfed._flower import (
    ClientApp,
    Context,
    Error,
    Message,
    OneRunGrid,
    RecordDict,
    Run,
    ServerApp,
    assume_identity,
    name_message,
)
from qfed.federation import wire

CLIENT_APP_RAISED = 2
SITE_UNREACHABLE = 4

Fails = Callable[[int, Message], bool]
Prepare = Callable[[Sequence[tuple[Message, Context]]], None]
"""The training messages of one round that will be delivered, each with its site's context."""


class InProcessGrid(OneRunGrid):
    """Delivers to `sites` nodes, numbered by partition; `fails(index, message)` makes a site vanish for a message."""

    def __init__(
        self,
        client_app: ClientApp,
        sites: int,
        run_config: dict[str, str],
        fails: Fails | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        rng = random.Random(sites)
        self._app, self._fails, self._prepare = client_app, fails, prepare
        self._run = Run.create_empty(rng.getrandbits(63))
        assume_identity(self._run.run_id)
        self._contexts: dict[int, Context] = {}
        for index in range(sites):
            node: dict[str, bool | float | int | str] = {"partition-id": index, "num-partitions": sites}
            node_id = rng.getrandbits(63)
            self._contexts[node_id] = Context(self._run.run_id, node_id, node, RecordDict(), dict(run_config))
        self._waiting: dict[str, Message] = {}
        self._lost: dict[str, bool] = {}
        """Messages that have met `fails`, and what it said; asked once for each."""
        self._shown: set[str] = set()

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
        if self._vanishes(message):
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

    def _vanishes(self, message: Message) -> bool:
        name, context = message.metadata.message_id, self._contexts[message.metadata.dst_node_id]
        if self._fails is None:
            return False
        if name not in self._lost:
            self._lost[name] = self._fails(int(context.node_config["partition-id"]), message)
        return self._lost[name]

    def _show(self, first: Message) -> None:
        """Let the app prepare `first` and every message like it that waits."""
        about = first.metadata
        if self._prepare is None or about.message_type != wire.TRAIN or about.message_id in self._shown:
            return
        alike = [
            message
            for message in [first, *self._waiting.values()]
            if (message.metadata.message_type, message.metadata.group_id) == (about.message_type, about.group_id)
        ]
        self._shown = {message.metadata.message_id for message in alike}
        reached = [message for message in alike if not self._vanishes(message)]
        self._prepare([(message, self._contexts[message.metadata.dst_node_id]) for message in reached])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver the next of the messages and return its reply; nothing when all have been pulled."""
        wanted = set(message_ids)
        name = next((name for name in self._waiting if name in wanted), None)
        if name is None:
            return []
        message = self._waiting.pop(name)
        self._show(message)
        return [self._deliver(message)]

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
    prepare: Prepare | None = None,
) -> None:
    """Run both apps to the end in this process; an exception of the ServerApp is raised here."""
    grid = InProcessGrid(client_app, sites, client_config, fails, prepare)
    server_app(grid, Context(grid.run.run_id, 1, {}, RecordDict(), dict(server_config)))
