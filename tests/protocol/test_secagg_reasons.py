"""Every reason for a refusal is asserted by a test; nothing in the list is dead."""

from __future__ import annotations

import re
from pathlib import Path

from qfed.secagg import Reason

TESTS = Path(__file__).parents[1]


def test_every_reason_is_asserted_by_a_test() -> None:
    text = "".join(
        path.read_text()
        for folder in (TESTS / "protocol", TESTS / "unit" / "secagg", TESTS / "vectors")
        for path in folder.glob("*.py")
        if path.name != Path(__file__).name
    )
    named = set(re.findall(r"Reason\.([A-Z_0-9]+)", text))
    missing = [r.name for r in Reason if r.name not in named and f'"{r.value}"' not in text]
    assert missing == []


def test_every_reason_is_given_by_the_code() -> None:
    folder = TESTS.parent / "qfed" / "secagg"
    text = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "reasons.py")
    assert [r.name for r in Reason if f"Reason.{r.name}" not in text] == []
