"""The Grid of a ServerApp that runs in the SuperLink's own process: straight to its state, no HTTP and no token.

A message is kept until it is answered. A site that was started anew after it had taken a message is asked again; one
that is offline is waited for `patience` seconds, then its message comes back as an error. A reply counts once all its
parts are there.
Cost  polls at least 10 ms apart, on SQLite of three statements each, that take a fifth of the time at most
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any

from flwr.app.message import remove_content_from_message
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError

from qfed._flower import Error, Message, OneRunGrid, Run

NODE_UNAVAILABLE, REPLY_INCOMPLETE = 5, 4
_LEAST_PAUSE, _SHARE = 0.01, 0.2


class Interrupted(Exception):
    """The run was told to stop, or the server is going down."""


@dataclass
class _Asked:
    """A message that waits for its reply; `id` is that of the copy which was sent last."""

    message: Message
    id: str
    sent: float = field(default_factory=time.time)
    reply: Message | None = None
    """The reply's head, while parts of it are on their way."""
    away: float | None = None
    """When its site was first seen offline (monotonic)."""


class LinkGrid(OneRunGrid):
    """Sends and receives for one run; `stop` ends it with Interrupted at the next call."""

    def __init__(self, state: Any, run: Run, *, stop: Event, patience: float) -> None:
        self._state, self._run, self._stop, self._patience = state, run, stop, patience
        self._asked: dict[str, _Asked] = {}
        self._next = 0.0
        """When to look for replies again (monotonic)."""

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are online."""
        self._check()
        return sorted(self._state.get_nodes(self._run.run_id))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to their nodes; the names under which `pull_messages` gives the replies."""
        self._check()
        names = []
        for message in messages:
            name = self._send(message)
            self._asked[name] = _Asked(message, name)
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have come since, an error for a site that is away for too long."""
        self._check()
        self._stop.wait(max(0.0, self._next - time.monotonic()))
        started = time.monotonic()
        wanted = {name: asked for name in set(message_ids) if (asked := self._asked.get(name)) is not None}
        found = [self._answered(name, "the site is not there") for name in self._gone(wanted)]
        waiting = {asked.id: asked for name, asked in wanted.items() if name in self._asked and asked.away is None}
        fresh = {label for label, asked in waiting.items() if asked.reply is None}
        if fresh:
            for reply in self._state.get_message_res(message_ids=fresh, run_id=self._run.run_id):
                waiting[reply.metadata.reply_to_message_id].reply = reply
        for name, asked in wanted.items():
            if asked.reply is not None and name in self._asked and (whole := self._whole(name, asked)) is not None:
                found.append(whole)
        ended = time.monotonic()
        self._next = ended + max(_LEAST_PAUSE, (ended - started) * (1 / _SHARE - 1))
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and pull until all replies are there or `timeout` seconds have passed."""
        names, found = set(self.push_messages(messages)), []
        end = None if timeout is None else time.monotonic() + timeout
        while names and (end is None or time.monotonic() < end):
            for reply in self.pull_messages(names):
                names.discard(reply.metadata.reply_to_message_id)
                found.append(reply)
            self._stop.wait(10 * _LEAST_PAUSE)
        return found

    # -- parts ---------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._stop.is_set():
            raise Interrupted

    def _send(self, message: Message) -> str:
        """Store a message with all its parts; returns its name, also where its node does not exist any more."""
        with no_object_id_recompute():
            name = str(message.object_id)
            message.metadata.__dict__["_message_id"] = name
            parts, tree = get_all_nested_objects(message), get_object_tree(message)
            session = self._state.start_session(self._run.run_id)
            _, missing = self._state.store_message_and_object_tree(remove_content_from_message(message), tree, session)
            for part in missing:
                if not self._state.store_object(self._run.run_id, session, part, parts[part].deflate()):
                    raise OSError("the SuperLink could not store a message")
        return name

    def _gone(self, wanted: dict[str, _Asked]) -> list[str]:
        """Messages whose sites are away for too long; asks those again that were started anew."""
        if not wanted:
            return []
        ids = list({asked.message.metadata.dst_node_id for asked in wanted.values()})
        online = {
            node.node_id: datetime.fromisoformat(node.last_activated_at).timestamp()
            for node in self._state.get_node_info(node_ids=ids, statuses=["online"])
        }
        gone, now = [], time.monotonic()
        for name, asked in wanted.items():
            since = online.get(asked.message.metadata.dst_node_id)
            if since is None:
                asked.away = now if asked.away is None else asked.away
                if now - asked.away >= self._patience:
                    gone.append(name)
                continue
            asked.away = None
            if since > asked.sent and self._lost(asked, since):
                self._drop(asked)
                again = Message(
                    asked.message.content,
                    asked.message.metadata.dst_node_id,
                    asked.message.metadata.message_type,
                    ttl=asked.message.metadata.ttl,
                    group_id=asked.message.metadata.group_id,
                )
                asked.sent, asked.reply, asked.id = time.time(), None, self._send(again)
        return gone

    def _lost(self, asked: _Asked, since: float) -> bool:
        """Whether the site took this message before it was started anew, and cannot answer it any more."""
        taken = _taken_at(self._state, asked.id)
        return taken is None or (bool(taken) and datetime.fromisoformat(taken).timestamp() < since)

    def _whole(self, name: str, asked: _Asked) -> Message | None:
        """The reply, once all its parts have come."""
        head = asked.reply
        if head is None:
            return None
        label, store = head.metadata.message_id, self._state.object_store
        try:
            parts = [tree.object_id for tree in iterate_object_tree(store.get_object_tree(label))]
        except NoObjectInStoreError:
            return self._answered(name, "the reply was given up half-way", REPLY_INCOMPLETE)
        contents = {part: self._state.get_object(self._run.run_id, part) for part in parts}
        if any(content is None for content in contents.values()):
            return self._answered(name, "the reply was given up half-way", REPLY_INCOMPLETE)
        if not all(contents.values()):
            return None
        reply = inflate_object_from_contents(label, contents)
        if not isinstance(reply, Message):
            return self._answered(name, "what came is no message", REPLY_INCOMPLETE)
        reply.metadata.__dict__["_message_id"] = label
        reply.metadata.__dict__["_reply_to_message_id"] = name
        store.delete(label)
        self._drop(self._asked.pop(name))
        return reply

    def _answered(self, name: str, why: str, code: int = NODE_UNAVAILABLE) -> Message:
        """An error in place of a reply that will not come."""
        asked = self._asked.pop(name)
        self._drop(asked)
        reply = Message(Error(code, why), reply_to=asked.message)
        reply.metadata.__dict__["_reply_to_message_id"] = name
        return reply

    def _drop(self, asked: _Asked) -> None:
        self._state.delete_messages(message_ins_ids={asked.id})


def _taken_at(state: Any, name: str) -> str | None:
    """When a message was taken ("": not yet), None when it is gone; Flower's two states share no call for it."""
    if isinstance(state, InMemoryLinkState):
        kept = state.message_ins_store.get(name)
        return None if kept is None else str(kept.metadata.delivered_at)
    row = state.get_valid_message_ins(name)
    return None if row is None else str(row["delivered_at"] or "")
