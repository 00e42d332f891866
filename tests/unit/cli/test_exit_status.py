"""What `qfed` returns to the shell: 0 done, 1 a run failed, 2 a mistake in the input, 130 interrupted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import qfed.simulation
from qfed.cli.app import main
from qfed.errors import BudgetExhausted, ConfigError, PolicyRefused, QuorumLost, StateError

QUORUM = "3 of 5 sites [joined]"


def status(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["qfed", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "expected"),
    [(QuorumLost(QUORUM), 1), (StateError("s"), 1), (PolicyRefused("p"), 1), (BudgetExhausted("b"), 2),
     (ConfigError("c"), 2)],
)  # fmt: skip
def test_errors_are_one_paragraph_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, expected: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(qfed.simulation, "simulate", fail)
    assert status(monkeypatch, "simulate", "--quiet") == expected
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_interruption_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qfed.simulation, "simulate", interrupted)
    assert status(monkeypatch, "simulate", "--quiet", "--out", "o") == 130
    told = capsys.readouterr().err
    assert "INCOMPLETE" in told
    assert "Traceback" not in told
    assert status(monkeypatch, "simulate", "--quiet") == 130
    assert capsys.readouterr().err == "interrupted\n", "nothing was being written"


@pytest.mark.parametrize("arguments", [["simulat"], ["simulate", "--sett", "a=1"], ["config", "shown"]])
def test_a_misspelt_command_or_option_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert status(monkeypatch, *arguments) == 2
    assert arguments[1 if len(arguments) > 1 else 0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["simulate", "--epsilon", "1"], "--set privacy.epsilon=..."),
        (["calibrate", "--rounds", "5"], "--set training.rounds=..."),
        (["simulate", "--local-steps=5"], "--set training.local_steps=..."),
        (["simulate", "--set", "epsilon=1"], "did you mean 'privacy.epsilon'?"),
    ],
)
def test_a_setting_that_is_given_as_an_option_is_told_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], way_out: str
) -> None:
    assert status(monkeypatch, *arguments) == 2
    assert way_out in capsys.readouterr().err


def test_an_option_that_is_no_setting_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(monkeypatch, "list", "--epsilon", "1") == 2
    assert "--set" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["run", "table", "ledgers", "noise", "public", "site data"])
def test_the_wrong_thing_is_told_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "ledgers").mkdir(parents=True)
    for name in ("run/config.toml", "run/ledgers/site-0.db", "t.csv"):
        (tmp_path / name).write_text("a,b\n")
    arguments, way_out = {
        "run": (["simulate", "run"], "name run/config.toml, which is in it"),
        "table": (["simulate", "t.csv"], "qfed config init my.toml --from t.csv"),
        "ledgers": (["ledger", "show", "run"], "e.g. run/ledgers/site-0.db"),
        "noise": (["calibrate", "--noise", "-1"], "--noise=-1: a noise multiplier is above 0"),
        "public": (["federation", "init", "study", "run", "run", "run"], "public file, NAME.public.json"),
        "site data": (["site", "init", "s", "--name", "a", "--data", "u.csv"], "there is no file --data u.csv"),
    }[what]
    assert status(monkeypatch, *arguments) == 2
    assert way_out in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "s").exists()


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(qfed.simulation, "simulate", bug)
    monkeypatch.setattr(sys, "argv", ["qfed", "simulate", "--quiet"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_version_and_help_are_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["--help"], ["simulate", "--help"], ["config", "show"]):
        assert not status(monkeypatch, *arguments)
        assert capsys.readouterr().out
