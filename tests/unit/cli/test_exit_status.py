"""What `qfed` returns to the shell: 0 done, 1 a run failed, 2 a mistake in the input, 130 interrupted."""

from __future__ import annotations

import sys

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
    assert status(monkeypatch, "simulate", "--quiet") == 130
    told = capsys.readouterr().err
    assert "INCOMPLETE" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("arguments", [["simulat"], ["simulate", "--sett", "a=1"], ["config", "shown"]])
def test_a_misspelt_command_or_option_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert status(monkeypatch, *arguments) == 2
    assert arguments[1 if len(arguments) > 1 else 0] in capsys.readouterr().err


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
