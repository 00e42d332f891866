"""The attack table says what the tests do."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from attack_table import TABLE, TESTS, Attack, table

import qfed.secagg


@cache
def functions(file: Path) -> dict[str, str]:
    """Source of each test in a file, decorators included."""
    text = file.read_text()
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("attack", TABLE, ids=lambda attack: attack.name)
def test_each_attack_has_a_test_that_asserts_its_outcome(attack: Attack) -> None:
    source = functions(TESTS / attack.file).get(attack.test)
    assert source is not None, f"{attack.file} has no {attack.test}"
    if not isinstance(attack.outcome, str):
        assert [reason.name for reason in attack.outcome if f"Reason.{reason.name}" not in source] == []


def test_the_table_in_the_argument_is_the_one_that_the_command_prints() -> None:
    text = (Path(qfed.secagg.__file__).parent / "SECURITY.md").read_text()
    assert "\n".join(table()) in text
