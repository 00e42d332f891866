"""When a site works for runs: hours and days of its policy, in its local time.

    hours = "18:00-06:00", days = ["fri", "sat"]     from Friday 18:00 to Saturday 06:00, and the night after

Outside, no run is joined and no record is read. Messages of secure aggregation read none and are answered at any
time, so that a round that began inside is finished for the others.    Errors  ScheduleRefused
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from qfed.config import SitePolicy
from qfed.errors import ScheduleRefused

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def refuse_outside(policy: SitePolicy, now: datetime) -> None:
    """ScheduleRefused unless `now` (local time) lies in the policy's hours, which begin on one of its days."""
    if policy.hours is None and policy.days is None:
        return
    begin, end = (time.fromisoformat(part) for part in (policy.hours or "00:00-00:00").split("-"))
    clock = now.time()
    overnight = end <= begin
    inside = clock >= begin or clock < end if overnight else begin <= clock < end
    began = now - timedelta(days=1) if overnight and clock < begin else now
    if not inside or (policy.days is not None and _DAYS[began.weekday()] not in policy.days):
        days = "" if policy.days is None else f" beginning on {', '.join(policy.days)}"
        raise ScheduleRefused(
            f"this site works for runs at {policy.hours or 'all hours'}{days}, and now it is "
            f"{_DAYS[now.weekday()]} {now:%H:%M}; it takes part again then"
        )
