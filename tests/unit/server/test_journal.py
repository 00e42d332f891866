"""Runs on disk: whole or not there, readable while they are written, and after a crash in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import small

from qfed.errors import ConfigError, StateError
from qfed_server.journal import Journal, all_runs, find, submit


def test_a_submitted_run_is_there_as_a_whole(tmp_path: Path) -> None:
    journal = submit(tmp_path, small(), b"{}")
    assert len(journal.run) == 8
    assert journal.run.isalnum(), "it is part of every label, and a file's name at the sites"
    assert journal.state.status == "queued"
    assert not journal.state.over
    assert [event["event"] for event in journal.events()] == ["submitted"]
    assert sorted(path.name for path in journal.path.iterdir()) == [
        "config.toml", "events.jsonl", "federation.json", "state.json",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [journal.run], "no draft is left"


def test_a_run_that_was_half_submitted_is_none(tmp_path: Path) -> None:
    draft = tmp_path / ".12345678.draft"
    draft.mkdir()
    (draft / "state.json").write_text("{}")
    (tmp_path / "witness").mkdir()
    assert all_runs(tmp_path) == []


def test_events_survive_a_line_that_was_cut_off(tmp_path: Path) -> None:
    journal = submit(tmp_path, small(), b"{}")
    journal.tell("round", round=1)
    with (journal.path / "events.jsonl").open("ab") as file:
        file.write(b'{"t": 1, "event": "rou')
    assert [event["event"] for event in journal.events()] == ["submitted", "round"]
    journal.tell("resumed", round=1)
    assert [event["event"] for event in journal.events()] == ["submitted", "round", "resumed"]
    assert next(journal.events(after=1))["event"] == "round"


def test_the_state_is_changed_field_by_field(tmp_path: Path) -> None:
    journal = submit(tmp_path, small(), b"{}")
    journal.put(status="running", started=5.0)
    state = journal.put(status="failed", why="no site")
    assert (state.status, state.started, state.why, state.over) == ("failed", 5.0, "no site", True)
    assert Journal(journal.path).state == state
    (journal.path / "state.json").write_text('{"status": ')
    with pytest.raises(StateError, match="damaged"):
        _ = journal.state
    other = submit(tmp_path, small(), b"{}")
    assert all_runs(tmp_path) == [other], "one damaged folder does not hide the others"


def test_a_run_is_found_by_the_beginning_of_its_name(tmp_path: Path) -> None:
    one = submit(tmp_path, small(), b"{}")
    while (other := submit(tmp_path, small(), b"{}")).run[0] == one.run[0]:
        pass
    assert find(tmp_path, one.run[:1] if len(all_runs(tmp_path)) == 2 else one.run) == one
    assert find(tmp_path, other.run) == other
    for name in ("", "zz", "../" + one.run):
        with pytest.raises(ConfigError, match="qfed list"):
            find(tmp_path, name)
