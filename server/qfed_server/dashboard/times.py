"""Moments and spans as people read them; all clocks here are UTC, and say so."""

from __future__ import annotations

from datetime import UTC, datetime

from qfed.report import units


def ago(t: float | None, now: float) -> str:
    """`just now`, `42 s ago`, `3 min ago`, `5 h ago`, `12 days ago`; `never` for None."""
    if t is None:
        return "never"
    seconds = now - t
    if seconds < 5:
        return "just now"
    if seconds < 90:
        return f"{seconds:.0f}{units.NBSP}s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f}{units.NBSP}min ago"
    if seconds < 129_600:
        return f"{seconds / 3600:.0f}{units.NBSP}h ago"
    return f"{seconds / 86_400:.0f}{units.NBSP}days ago"


def moment(t: float) -> str:
    """`2026-03-01 14:05:09 UTC`."""
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(t: float) -> str:
    """For the datetime attribute of a time element."""
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="seconds")


def day(t: float) -> str:
    """`2026-03-01`."""
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d}"
