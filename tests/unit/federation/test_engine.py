"""The in-process Grid behaves as Flower's Grids do: copies, errors, replies pulled once."""

from __future__ import annotations

import pytest

from qfed._flower import ClientApp, Context, Message, ServerApp
from qfed.errors import RemoteProtocolError
from qfed.federation import wire
from qfed.federation.engine import InProcessGrid, run_in_process


def echo_app() -> ClientApp:
    app = ClientApp()

    @app.query("join")
    def join(message: Message, context: Context) -> Message:
        fields = wire.unpack(message, run=str, config=str)
        if fields["run"] == "raise":
            raise RuntimeError("a record's value 42 in the text")
        message.content["qfed"]["config"] = "changed by the site"
        return Message(
            wire.pack({"site": f"{context.node_config['partition-id']} of {fields['run']}"}), reply_to=message
        )

    return app


def ask(grid: InProcessGrid, run: str) -> tuple[list[Message], list[Message]]:
    messages = [Message(wire.pack({"run": run, "config": "c"}), node, wire.JOIN) for node in grid.get_node_ids()]
    return messages, list(grid.send_and_receive(messages))


def test_every_node_answers_and_replies_name_their_message() -> None:
    grid = InProcessGrid(echo_app(), 3, {})
    messages, replies = ask(grid, "r")
    assert [wire.unpack(reply, site=str)["site"] for reply in replies] == ["0 of r", "1 of r", "2 of r"]
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in messages]
    assert [reply.metadata.src_node_id for reply in replies] == [m.metadata.dst_node_id for m in messages]


def test_a_site_gets_a_copy_of_the_message() -> None:
    messages, _ = ask(InProcessGrid(echo_app(), 1, {}), "r")
    assert messages[0].content["qfed"]["config"] == "c"


def test_what_an_app_raises_becomes_an_error_reply_without_its_text() -> None:
    _, replies = ask(InProcessGrid(echo_app(), 1, {}), "raise")
    assert replies[0].has_error()
    assert "42" not in replies[0].error.reason
    assert "Error" in replies[0].error.reason


def test_a_reply_is_pulled_once() -> None:
    grid = InProcessGrid(echo_app(), 1, {})
    names = list(
        grid.push_messages([Message(wire.pack({"run": "r", "config": ""}), next(iter(grid.get_node_ids())), wire.JOIN)])
    )
    assert len(list(grid.pull_messages(names))) == 1
    assert list(grid.pull_messages(names)) == []


def test_a_site_told_to_fail_does_not_get_the_message() -> None:
    grid = InProcessGrid(echo_app(), 3, {}, fails=lambda index, message: index == 1)
    _, replies = ask(grid, "r")
    assert [reply.has_error() for reply in replies] == [False, True, False]


def test_the_server_apps_exception_is_raised() -> None:
    app = ServerApp()

    @app.main()
    def main(grid: InProcessGrid, context: Context) -> None:
        assert context.run_config["qfed-run"] == "here"
        raise KeyError("told")

    with pytest.raises(KeyError, match="told"):
        run_in_process(app, echo_app(), 2, {"qfed-run": "here"}, {})


def test_fields_must_be_exactly_those_expected() -> None:
    _, replies = ask(InProcessGrid(echo_app(), 1, {}), "r")
    with pytest.raises(RemoteProtocolError, match="exactly"):
        wire.unpack(replies[0], site=bytes)
    with pytest.raises(RemoteProtocolError, match="exactly"):
        wire.unpack(replies[0], site=str, more=int)
