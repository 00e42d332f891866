"""What devices cost: a table in TOML that users edit; qfed ships list prices with the date and place they were read at.

    price = per_task x circuits + per_shot x shots + per_second x seconds of the processor

An annealer's problems count as circuits and its reads as shots. Simulators on this machine cost nothing. A device that
the table does not have has no price (None), which is not the same as none to pay.   Errors  ConfigError
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field

from qfed.config.section import Number, Section

SHIPPED = "prices.toml"

Rate = Annotated[Number, Field(ge=0)]


class Price(Section):
    """What one device costs."""

    match: str
    """Shell pattern for DEVICE:TARGET."""
    name: str
    """For people."""
    per_task: Rate = 0.0
    """For each circuit or problem."""
    per_shot: Rate = 0.0
    """For each shot or read."""
    per_second: Rate = 0.0
    """For each second of the processor."""
    as_of: str
    """When the vendor listed it."""
    source: str
    """Where it was read."""
    currency: str = "USD"
    """Of all three."""

    def of(self, circuits: int, shots: int, seconds: float = 0.0) -> float:
        """What so much costs."""
        return self.per_task * circuits + self.per_shot * shots + self.per_second * seconds


class PriceTable(Section):
    """A file of prices."""

    currency: str = "USD"
    """Of all prices."""
    price: tuple[Price, ...] = ()
    """The first that matches counts."""

    def price_of(self, device: str, target: str = "") -> Price | None:
        """The price of a device and the processor behind it; None when the table has none."""
        key = f"{device}:{target}"
        found = next((price for price in self.price if fnmatchcase(key, price.match)), None)
        return None if found is None else found.model_copy(update={"currency": self.currency})


def shipped_prices() -> Path:
    """The table that comes with qfed, to read or to copy."""
    return Path(str(files("qfed.config") / SHIPPED))
