"""Hours and days of a site's policy, over midnight too."""

from __future__ import annotations

from datetime import datetime

import pytest

from qfed.config import SitePolicy
from qfed.errors import ScheduleRefused
from qfed_client.schedule import refuse_outside

NIGHT, DAY = "18:00-06:00", "08:30-17:00"
# 2026-03-02 is a Monday.
CASES: list[tuple[str | None, tuple[str, ...] | None, str, bool]] = [
    (None, None, "2026-03-02 03:00", True),
    (DAY, None, "2026-03-02 08:30", True),
    (DAY, None, "2026-03-02 08:29", False),
    (DAY, None, "2026-03-02 17:00", False),
    (NIGHT, None, "2026-03-02 18:00", True),
    (NIGHT, None, "2026-03-02 05:59", True),
    (NIGHT, None, "2026-03-02 06:00", False),
    (NIGHT, ("mon",), "2026-03-02 20:00", True),
    (NIGHT, ("mon",), "2026-03-03 05:00", True),  # Monday's night
    (NIGHT, ("mon",), "2026-03-02 05:00", False),  # Sunday's night
    (NIGHT, ("mon",), "2026-03-03 19:00", False),
    (None, ("sat", "sun"), "2026-03-07 00:00", True),
    (None, ("sat", "sun"), "2026-03-09 00:00", False),
    (DAY, ("tue",), "2026-03-03 09:00", True),
    (DAY, ("tue",), "2026-03-02 09:00", False),
    ("00:00-00:00", None, "2026-03-02 12:00", True),
]


@pytest.mark.parametrize(("hours", "days", "now", "works"), CASES)
def test_a_site_works_in_its_hours_only(hours: str | None, days: tuple[str, ...] | None, now: str, works: bool) -> None:
    policy = SitePolicy.model_validate({"epsilon": 1.0, "delta": 1e-5, "hours": hours, "days": days})
    at = datetime.fromisoformat(now)
    if works:
        refuse_outside(policy, at)
    else:
        with pytest.raises(ScheduleRefused, match=f"now it is .* {now[-5:]}"):
            refuse_outside(policy, at)


@pytest.mark.parametrize("hours", ["18-06", "25:00-06:00", "18:00", "18:60-06:00"])
def test_hours_that_are_none_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="hours"):
        SitePolicy.model_validate({"epsilon": 1.0, "delta": 1e-5, "hours": hours})
