"""How long an agent waits: quick while messages come, slow when idle, ever slower and never in step when refused."""

from __future__ import annotations

import random

import pytest

from qfed_client.pace import Backoff, Pace


@pytest.mark.parametrize(
    ("silence", "answered_in", "pause"),
    [(0.0, 0.001, 0.02), (1.0, 0.001, 0.1), (10.0, 0.001, 1.0), (1e6, 0.001, 3.0), (0.0, 0.5, 1.0), (0.0, 60.0, 3.0)],
)
def test_a_poll_waits_a_tenth_of_the_silence_within_bounds(silence: float, answered_in: float, pause: float) -> None:
    pace = Pace(last=100.0)
    assert pace.pause(100.0 + silence, answered_in) == pytest.approx(pause)


def test_a_message_makes_polls_quick_again() -> None:
    pace = Pace(last=0.0)
    assert pace.pause(1000.0, 0.0) == 3.0
    pace.came(1000.0)
    assert pace.pause(1000.1, 0.0) == 0.02


def test_retries_grow_to_a_minute_and_start_over_after_success() -> None:
    backoff = Backoff(random.Random(1))
    pauses = [backoff.pause() for _ in range(20)]
    longest = [min(60.0, 0.5 * 2**attempt) for attempt in range(20)]
    assert all(top / 2 <= pause <= top for pause, top in zip(pauses, longest, strict=True))
    backoff.succeeded()
    assert backoff.pause() <= 0.5


def test_two_sites_do_not_come_back_at_the_same_time() -> None:
    first, second = Backoff(random.Random(1)), Backoff(random.Random(2))
    assert [first.pause() for _ in range(8)] != [second.pause() for _ in range(8)]
