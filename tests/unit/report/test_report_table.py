"""The table at the end of a simulation."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from qfed.federation.result import RunResult
from qfed.report import final_table

Make = Callable[..., RunResult]


def printed(result: RunResult, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(final_table(result))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_holds_the_figures(make_result: Make) -> None:
    rows = [line.split() for line in printed(make_result()).splitlines()]
    assert ["hybrid", "model", "(this", "run)", "151", "94.7", "%", "3.00"] in rows
    assert ["classical", "twin", "148", "95.6", "%", "3.00"] in rows
    assert ["without", "privacy", "151", "98.2", "%", "none"] in rows
    assert ["each", "site", "alone", "151", "82.5", "%", "3.00"] in rows
    assert ["privacy", "epsilon", "3.00,", "delta", "1e-5", "(budget", "3),", "whole", "run"] in rows
    assert ["bytes", "per", "site", "59.7", "kB", "sent", "and", "received"] in rows
    assert ["rounds", "15", "rounds,", "1", "failed"] in rows
    assert ["time", "41", "s"] in rows


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits(make_result: Make, width: int) -> None:
    result = make_result(name="n" * 100)
    label = result.comparisons[0].model_copy(update={"label": "x" * 120})
    text = printed(result.model_copy(update={"comparisons": (label,)}), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("x") >= 120, "nothing is cut off"
    assert text.count("n") >= 100


def test_names_are_not_markup(make_result: Make) -> None:
    result = make_result(name="[red]run[/red]")
    label = result.comparisons[0].model_copy(update={"label": "[/bold] [link=x]y[/link]"})
    text = printed(result.model_copy(update={"comparisons": (label,)}))
    assert "[red]run[/red]" in text
    assert "[/bold] [link=x]y[/link]" in text


def test_what_is_off_is_loud(make_result: Make) -> None:
    text = printed(make_result(private=False, secagg=False))
    assert (
        text.index("Differential privacy is OFF") < text.index("Secure aggregation is OFF") < text.index("parameters")
    )
    assert ["privacy", "none"] in [line.split() for line in text.splitlines()]


def test_without_comparisons_it_says_what_cannot_be_said(make_result: Make) -> None:
    assert "Nothing was run beside this model" in printed(make_result(comparisons=()))


def test_regression_shows_rmse(make_result: Make) -> None:
    rows = [line.split() for line in printed(make_result(task="regression")).splitlines()]
    assert ["model", "parameters", "RMSE", "epsilon"] in rows
    assert ["hybrid", "model", "(this", "run)", "151", "12.35", "3.00"] in rows
