"""The audit log: what it says of a site's work, what it survives, and which edits it shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from small_runs import RUN, Lab, small
from typer.testing import CliRunner

from qfed._flower import Message
from qfed.cli.app import app
from qfed.config import replace, to_toml
from qfed.errors import StateError
from qfed.federation import wire
from qfed_client.app import close_sites
from qfed_client.auditlog import ANCHOR, FILE, AuditLog, lines, verify


def log_of(folder: Path, entries: int = 5) -> AuditLog:
    log = AuditLog(folder, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for number in range(entries):
        log.append({"what": "received", "type": "train", "bytes": number}, anchor=True)
    return log


def raw(folder: Path) -> list[bytes]:
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def problems(folder: Path) -> tuple[str, ...]:
    return verify(folder).problems


def test_an_honest_log_is_intact_and_its_owner_s_alone(tmp_path: Path) -> None:
    log_of(tmp_path)
    found = verify(tmp_path)
    assert (found.lines, found.problems, found.notes) == (5, (), ())
    assert found.head == json.loads(raw(tmp_path)[-1])["hash"]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    assert [value["n"] for _, value in lines(tmp_path) if value] == [1, 2, 3, 4, 5]
    assert verify(tmp_path / "none").problems == ()


def test_two_writers_make_one_chain(tmp_path: Path) -> None:
    first, second = log_of(tmp_path), AuditLog(tmp_path)
    for number in range(3):
        first.append({"what": "sent", "bytes": number})
        second.append({"what": "decided"})
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 11


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda rows: [rows[0].replace(b'"bytes": 0', b'"bytes": 9'), *rows[1:]], "line 1 was changed"),
        (lambda rows: [*rows[:2], *rows[3:]], "entries 3 to 3 are missing"),
        (lambda rows: rows[2:], "entries 1 to 2 are missing"),
        (lambda rows: rows[:3], "ends with entry 3, but audit.anchor notes entry 5: cut off"),
        (lambda rows: [], "ends with entry 0"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "entries 1 to 1 are missing"),
        (lambda rows: [*rows[:3], rows[1], *rows[3:]], "line 4 (entry 2) does not follow"),
        (lambda rows: [*rows[:3], b"{}\n", *rows[3:]], "line 4 was changed"),
        (lambda rows: [*rows[:3], b"nonsense\n", *rows[3:]], "line 4 was changed"),
    ],
)
def test_an_edit_is_found(tmp_path: Path, edit: object, named: str) -> None:
    log_of(tmp_path)
    (tmp_path / FILE).write_bytes(b"".join(edit(raw(tmp_path))))  # type: ignore[operator]
    assert any(named in problem for problem in problems(tmp_path)), problems(tmp_path)


def test_every_byte_counts(tmp_path: Path) -> None:
    log_of(tmp_path, 2)
    whole = (tmp_path / FILE).read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        (tmp_path / FILE).write_bytes(changed)
        found = verify(tmp_path)
        assert found.problems or found.notes, f"byte {at}"


def test_a_gap_stays_visible_after_the_log_goes_on(tmp_path: Path) -> None:
    log_of(tmp_path)
    (tmp_path / FILE).write_bytes(b"".join(raw(tmp_path)[:3]))
    log_of(tmp_path, 2)
    assert any("entries 4 to 5 are missing" in problem for problem in problems(tmp_path))
    (tmp_path / FILE).unlink()
    log_of(tmp_path, 1)
    assert any("entries 1 to 7 are missing" in problem for problem in problems(tmp_path))


def test_a_half_written_last_line_is_dropped_and_noted(tmp_path: Path) -> None:
    log_of(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    AuditLog(tmp_path).append({"what": "received", "bytes": 17})
    longer = (tmp_path / FILE).read_bytes()
    for cut in range(len(whole) + 1, len(longer)):  # every place where a crash may cut the sixth line
        (tmp_path / FILE).write_bytes(longer[:cut])
        assert verify(tmp_path).problems == ()
        AuditLog(tmp_path).append({"what": "connected"})
        found = [value for _, value in lines(tmp_path) if value]
        assert verify(tmp_path).problems == ()
        assert [value["what"] for value in found[5:]] == ["recovered", "connected"]
        assert found[5]["bytes"] == cut - len(whole)


def test_a_log_written_anew_is_found_by_the_anchor_or_a_head_kept_elsewhere(tmp_path: Path) -> None:
    log_of(tmp_path)
    kept = verify(tmp_path).head
    anchor = (tmp_path / ANCHOR).read_bytes()
    (tmp_path / FILE).unlink()
    (tmp_path / ANCHOR).unlink()
    log = AuditLog(tmp_path)
    for _ in range(5):
        log.append({"what": "received", "bytes": 0}, anchor=True)
    assert problems(tmp_path) == (), "both files written anew: nothing in the folder tells"
    assert verify(tmp_path, head=kept).problems
    (tmp_path / ANCHOR).write_bytes(anchor)
    assert any("written anew" in problem for problem in problems(tmp_path))


def test_nothing_is_logged_after_a_line_that_is_none(tmp_path: Path) -> None:
    log_of(tmp_path)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(StateError, match="it was edited"):
        AuditLog(tmp_path).append({"what": "sent"})


# -- at work ---------------------------------------------------------------------------------------------------------


def deployed(lab: Lab, *messages: tuple[str, dict[str, object]]) -> list[Message]:
    """Give a deployed site these messages."""
    grid = lab.grid()
    node = next(iter(grid.get_node_ids()))
    grid._contexts[node].node_config.update({"qfed-site": str(lab.site(0)), "qfed-warm": "yes"})
    try:
        return [
            reply
            for kind, fields in messages
            for reply in grid.send_and_receive([Message(wire.pack(fields), node, kind)])  # type: ignore[arg-type]
        ]
    finally:
        close_sites()


def entries(folder: Path) -> list[tuple[object, ...]]:
    return [
        (value["what"], value.get("type"), value.get("answer"), value.get("error"))
        for _, value in lines(folder)
        if value
    ]


def test_messages_decisions_and_reasons_are_logged_where_they_were_made(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    asked = {"run": RUN, "config": to_toml(lab.config), "receipt": b""}
    weak = asked | {"config": to_toml(replace(lab.config, {"privacy.mode": "off"}))}
    deployed(lab, (wire.HELLO, {"run": RUN}), (wire.JOIN, asked), (wire.JOIN, weak), (wire.SECAGG, {"x": 1}))
    folder = lab.site(0)
    assert entries(folder) == [
        ("received", "query.hello", None, None),
        ("decided", "query.hello", "accepted", None),
        ("received", "query.join", None, None),
        ("decided", "query.join", "accepted", None),
        ("received", "query.join", None, None),
        ("decided", "query.join", "refused", "ModeRefused"),
        ("received", "query.secagg", None, None),
        ("decided", "query.secagg", "refused", "RemoteProtocolError"),
    ]
    whole = [value for _, value in lines(folder) if value]
    assert "without differential privacy" in whole[5]["why"]
    assert whole[0]["run"] == RUN
    assert verify(folder).problems == ()
    assert not (lab.site(1) / FILE).exists(), "a simulated site keeps no log"


def test_a_charge_is_logged_with_the_ledgers_head_also_when_the_work_failed(tmp_path: Path) -> None:
    """The charge comes before the records are read, so it stands although they cannot be."""
    from qfed.privacy.ledger import Ledger, Limits
    from qfed_client.diary import Diary
    from qfed_client.site import Site

    lab = Lab(tmp_path, small("secagg.mode=off"))
    folder = lab.site(0)
    (folder / "records.npz").unlink()
    grid = lab.grid()
    message = Message(wire.pack({"run": RUN}), next(iter(grid.get_node_ids())), wire.TRAIN)
    site = Site(folder, simulated=True)
    site.join(RUN, to_toml(lab.config))
    diary = Diary(message, folder)
    diary.begin(site)
    with pytest.raises(Exception, match=r"records\.npz"):
        site.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    diary.end(site)
    diary.refused(ValueError("x"), "failed")
    spent = site.spent()
    site.close()
    charge = next(value for _, value in lines(folder) if value and value["what"] == "charge")
    assert charge["epsilon_spent"] == pytest.approx(spent, abs=1e-6)
    ledger = Ledger(folder / "ledger.db", Limits(3.0, 1e-5))
    heads = [chain.hex() for chain in ledger.heads()]
    ledger.close()
    assert charge["ledger"] in heads
    assert verify(folder, heads).problems == verify(folder, heads).notes == ()
    assert any("older copy" in problem for problem in verify(folder, [""]).problems)
    assert any("does not tell of" in note for note in verify(folder, ["00", *heads]).notes)


def test_a_site_does_nothing_that_it_cannot_log(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    (lab.site(0) / FILE).mkdir()
    asked = {"run": RUN, "config": to_toml(lab.config), "receipt": b""}
    (reply,) = deployed(lab, (wire.JOIN, asked))
    assert reply.error.reason == "StateError"
    assert not (lab.site(0) / "runs").exists()


def test_the_commands_show_and_verify(tmp_path: Path) -> None:
    log_of(tmp_path)
    run = CliRunner()
    told = run.invoke(app, ["site", "log", "verify", "--site", str(tmp_path)])
    assert told.exit_code == 0
    assert "5 lines" in told.output
    assert "intact" in told.output
    told = run.invoke(app, ["site", "log", "show", "--site", str(tmp_path), "-n", "2"])
    assert told.output.count("received") == 2
    (tmp_path / FILE).write_bytes(b"".join(raw(tmp_path)[:3]))
    told = run.invoke(app, ["site", "log", "verify", "--site", str(tmp_path), "--json"])
    assert told.exit_code == 1
    assert len(json.loads(told.output)["problems"]) == 1
