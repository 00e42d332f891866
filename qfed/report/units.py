"""Figures as people read them: one rule a kind of figure, the same in the terminal and in the report.

Scores  accuracy in per cent with one decimal, root mean square error with four significant digits.
Bytes   decimal multiples (1 kB = 1000 bytes).
Epsilon three significant digits, rounded UP: a guarantee must never look stronger than it is. The float noise of an
        accountant (a relative 1e-9) is dropped first, so that a run calibrated to 3 does not read 3.01.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal
from typing import Literal

Metric = Literal["accuracy", "rmse"]

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
METRIC_NAMES: dict[Metric, str] = {"accuracy": "accuracy", "rmse": "RMSE"}


def score(metric: Metric, value: float) -> str:
    """`94.7 %` or `12.31`."""
    if not math.isfinite(value):
        return "not finite"
    if metric == "accuracy":
        return f"{100 * value:.1f}{NBSP}%"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:#.4g}".rstrip(".")


def epsilon(value: float | None) -> str:
    """`2.98`, rounded up; `none` where there is no guarantee."""
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "unbounded"
    clean = Decimal(f"{value:.9g}")
    if clean == 0:
        return "0"
    last = Decimal(1).scaleb(min(0, clean.adjusted() - 2))
    return f"{clean.quantize(last, rounding=ROUND_CEILING):f}"


def budget(value: float) -> str:
    """`3`: a budget is a round figure of the configuration, shown as it is."""
    return f"{value:g}"


def delta(value: float | None) -> str:
    """`1e-5` with a minus sign, at which no line breaks; `none` where there is no guarantee."""
    if value is None:
        return "none"
    mantissa, _, exponent = f"{value:e}".partition("e")
    if int(exponent) >= -3:
        return f"{value:.3g}"
    return f"{float(mantissa):.3g}e{MINUS}{-int(exponent)}"


def size(count: float) -> str:
    """`812 B`, `5.3 kB`, `1.24 MB`, `3.1 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * factor:
            return (
                f"{count / factor:.3g}{NBSP}{unit}" if count < 999.5 * factor else f"{count / factor:.0f}{NBSP}{unit}"
            )
    return f"{count:.0f}{NBSP}B"


def duration(seconds: float | None) -> str:
    """`340 ms`, `4.2 s`, `41 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds is None:
        return "not measured"
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f}{NBSP}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}{NBSP}s"
    if seconds < 119.5:
        return f"{seconds:.0f}{NBSP}s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60}{NBSP}min"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """`1 round`, `15 rounds`, `1,000 sites`."""
    return f"{number:,}{NBSP}{singular if number == 1 else plural or singular + 's'}"
