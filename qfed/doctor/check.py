"""One thing that was looked at: alright, a warning, or failed with what to do. No check prints a secret.

Errors  none: whatever a check runs into is its finding
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from qfed.errors import QfedError

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """A finding: what was looked at, how it stands, and what to do if it is not alright."""

    name: str
    status: Status
    told: str
    todo: str = ""


def ok(name: str, told: str) -> Check:
    """Alright."""
    return Check(name, "ok", told)


def warning(name: str, told: str, todo: str) -> Check:
    """Works now, and wants to be looked at."""
    return Check(name, "warning", told, todo)


def failed(name: str, told: str, todo: str) -> Check:
    """Is in the way of a run."""
    return Check(name, "failed", told, todo)


def attempt(name: str, look: Callable[[], Check | Sequence[Check]], todo: str) -> list[Check]:
    """The findings of `look`; an error of qfed's or of the operating system is one that failed."""
    try:
        found = look()
    except QfedError as error:
        return [failed(name, str(error), todo)]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return [failed(name, f"{where}{error.strerror or error}", todo)]
    return [found] if isinstance(found, Check) else list(found)


def healthy(found: Sequence[Check]) -> bool:
    """Whether nothing failed; warnings are no failure."""
    return all(check.status != "failed" for check in found)
