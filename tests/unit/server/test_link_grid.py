"""The ServerApp's Grid on the state of a real SuperLink, with nodes played here: who is asked again, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from qfed._flower import Error, Message
from qfed._flower.link_grid import Interrupted, LinkGrid
from qfed._flower.superlink import SuperLink
from qfed.federation import wire


class Lab:
    """A SuperLink with one run, and nodes without agents."""

    def __init__(self, path: Path | None) -> None:
        self.stop = Event()
        self.link = SuperLink(path)
        self.state = self.link._state
        self.grid = self.link.begin("abc", stop=self.stop, patience=0.2)

    def node(self, *, online: bool = True) -> int:
        node = self.link.register(ec.generate_private_key(ec.SECP384R1()).public_key())
        if online:
            assert self.state.activate_node(node, 15)
        return node

    def take(self, node: int) -> Message:
        """The next message for a node, as the fleet API hands it out."""
        (head,) = self.state.get_message_ins(node_id=node, limit=1)
        return head  # type: ignore[no-any-return]

    def reply(self, to: Message, *, parts: bool = True) -> None:
        """A node's reply: its head, and its parts."""
        from flwr.app.message import remove_content_from_message
        from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

        message = Message(wire.pack({"site": "a"}), reply_to=to)
        message.metadata.__dict__["_message_id"] = message.object_id
        session = self.state.start_session(self.grid.run.run_id)
        tree, objects = get_object_tree(message), get_all_nested_objects(message)
        stored, _ = self.state.store_message_and_object_tree(remove_content_from_message(message), tree, session)
        self.accepted = stored
        self.rest = lambda: [
            self.state.store_object(self.grid.run.run_id, session, name, item.deflate())
            for name, item in objects.items()
        ]
        if parts:
            self.rest()

    def ask(self, node: int) -> str:
        (name,) = self.grid.push_messages(
            [Message(wire.pack({"run": "abc"}), node, wire.HELLO, ttl=60.0, group_id="0")]
        )
        return name

    def pull(self, name: str) -> list[Message]:
        return list(self.grid.pull_messages([name]))


@pytest.fixture(params=["disk", "memory"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """One SuperLink a test."""
    lab = Lab(tmp_path / "superlink.db" if request.param == "disk" else None)
    yield lab
    lab.link.close()


def patiently(pull: Callable[[], list[Message]]) -> list[Message]:
    for _ in range(200):
        if found := pull():
            return found
    raise AssertionError("nothing came")


def test_a_reply_counts_once_all_its_parts_are_there(lab: Lab) -> None:
    node = lab.node()
    name = lab.ask(node)
    assert lab.pull(name) == []
    lab.reply(lab.take(node), parts=False)
    assert lab.pull(name) == [], "its head came, its content has not"
    lab.rest()
    (reply,) = lab.pull(name)
    assert wire.unpack(reply, site=str) == {"site": "a"}
    assert (reply.metadata.reply_to_message_id, reply.metadata.src_node_id) == (name, node)
    assert lab.pull(name) == [], "once"


def test_a_site_that_is_away_is_waited_for_and_given_up(lab: Lab) -> None:
    node = lab.node()
    name = lab.ask(node)
    lab.state.deactivate_node(node)
    assert lab.pull(name) == []
    (reply,) = patiently(lambda: lab.pull(name))
    assert reply.has_error()
    assert reply.error.reason == "the site is not there"
    assert reply.metadata.src_node_id == node


def test_a_site_that_was_started_anew_is_asked_again(lab: Lab) -> None:
    """It had taken the message and died with it; what was not taken is not sent twice."""
    node, other = lab.node(), lab.node()
    name, idle = lab.ask(node), lab.ask(other)
    first = lab.take(node)
    for restarted in (node, other):
        assert lab.state.activate_node(restarted, 15), "while it counts as online: the same key, so the same site"
    assert lab.pull(name) == lab.pull(idle) == []
    second = lab.take(node)
    assert second.metadata.message_id != first.metadata.message_id
    lab.reply(second)
    assert wire.unpack(patiently(lambda: lab.pull(name))[0], site=str) == {"site": "a"}
    lab.take(other)
    assert lab.state.get_message_ins(node_id=other, limit=1) == [], "handed out once"


def test_a_late_reply_of_an_earlier_run_is_refused(lab: Lab) -> None:
    node = lab.node()
    lab.ask(node)
    message = lab.take(node)
    lab.link.end(completed=False)
    lab.reply(message)
    assert not lab.accepted
    lab.grid = lab.link.begin("abc", stop=lab.stop, patience=0.2)
    name = lab.ask(node)
    assert lab.pull(name) == []


def test_one_who_never_connected_gets_an_error_in_the_end(lab: Lab) -> None:
    node = lab.node(online=False)
    assert node not in list(lab.grid.get_node_ids())
    name = lab.ask(node)
    assert patiently(lambda: lab.pull(name))[0].has_error()


def test_errors_come_back_as_errors(lab: Lab) -> None:
    node = lab.node()
    name = lab.ask(node)
    message = lab.take(node)
    reply = Message(Error(100, "PolicyRefused"), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

    session = lab.state.start_session(lab.grid.run.run_id)
    lab.state.store_message_and_object_tree(reply, get_object_tree(reply), session)
    for part, item in get_all_nested_objects(reply).items():
        lab.state.store_object(lab.grid.run.run_id, session, part, item.deflate())
    (found,) = patiently(lambda: lab.pull(name))
    assert (found.error.code, found.error.reason) == (100, "PolicyRefused")


def test_a_run_that_is_told_to_stop_stops_at_the_next_call(lab: Lab) -> None:
    node = lab.node()
    name = lab.ask(node)
    lab.stop.set()
    for call in (lambda: lab.pull(name), lambda: lab.ask(node), lambda: list(lab.grid.get_node_ids())):
        with pytest.raises(Interrupted):
            call()


def test_a_revoked_node_is_let_in_no_more(lab: Lab) -> None:
    node = lab.node()
    lab.link.unregister(node)
    assert not lab.state.activate_node(node, 15)
    assert lab.link.nodes() == ()


def test_nothing_of_a_run_is_left_when_it_ends(lab: Lab) -> None:
    """Neither messages nor their parts, whatever had become of them; the sites stay."""
    nodes = [lab.node() for _ in range(3)]
    names = [lab.ask(node) for node in nodes]
    lab.reply(lab.take(nodes[0]))
    lab.reply(lab.take(nodes[1]), parts=False)
    assert len(lab.pull(names[0])) == 1
    lab.link.end(completed=False)
    assert lab.state.num_message_ins() == lab.state.num_message_res() == len(lab.state.object_store) == 0
    assert {node.id for node in lab.link.nodes()} == set(nodes)
    assert isinstance(lab.link.begin("def", stop=Event(), patience=1.0), LinkGrid)


def test_nothing_of_an_earlier_run_is_left_when_the_server_starts_again(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "superlink.db")
    node = lab.node()
    lab.ask(node)
    lab.link.close()  # as a kill leaves it: the run is still under way in the database
    again = SuperLink(tmp_path / "superlink.db")
    assert again._state.get_message_ins(node_id=node, limit=1) == []
    assert [node.id for node in again.nodes()] == [node]
    assert isinstance(again.begin("def", stop=Event(), patience=1.0), LinkGrid)
    again.close()
