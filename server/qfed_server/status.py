"""What the aggregator knows of its sites right now, and what may be asked of its runs.

The live list comes from the SuperLink (who polled when); the dashboard, /metrics and `qfed status` show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Presence = Literal["registered", "online", "offline"]


@dataclass(frozen=True)
class SiteStatus:
    """One site of the roster, as the aggregator sees it."""

    name: str
    """Its name in the federation file."""
    node_id: int | None = None
    """Flower's number for it; None before it is registered."""
    status: Presence = "registered"
    """"registered": never seen; "online": polled lately; "offline": seen before, silent now."""
    last_seen: float | None = None
    """Unix seconds of its last message; None when it was never seen."""
    version: str | None = None
    """Version of qfed that its agent runs; None when it did not say."""
    joined: bool = False
    """Whether it agreed to the run that is under way."""
    copied: bool = False
    """Whether two agents speak for it at once, so that neither is served."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> SiteStatus:
        """From the JSON that `dataclasses.asdict` gave."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


class Control(Protocol):
    """What an administrator may ask for; a QfedError says what is wrong."""

    def submit(self, config: str) -> str:
        """Queue a run of this TOML text; its identifier."""

    def stop(self, run: str, why: str) -> None:
        """End a run after what is under way; the last good model is kept."""

    def about(self) -> Mapping[str, Any]:
        """What serves: `denied_requests` and `oversized_requests` of the public listener among it."""
