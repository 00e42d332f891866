"""How long an agent waits: between two questions for messages, and before it tries a broken connection again.

    poll     pause = (t / 10) between 20 ms and 3 s, at least twice the last answer's time; t = time since a message
    retry    pause = 0.5 s x 2^k up to 60 s, times a random factor in [0.5, 1] so that sites do not come back at once

So a message waits for at most a tenth of the silence before it, an idle site asks every 3 s, and a slow aggregator is
asked less. Units: seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

_SHORTEST, _LONGEST, _SHARE = 0.02, 3.0, 0.1
_FIRST_RETRY, _LAST_RETRY = 0.5, 60.0


@dataclass
class Pace:
    """Pauses between polls, by the time since the last message."""

    last: float
    """Time of the last message, by the clock that `pause` is told."""

    def came(self, now: float) -> None:
        """A message came."""
        self.last = now

    def pause(self, now: float, answered_in: float) -> float:
        """Seconds to wait now, when the last question took `answered_in`."""
        return min(_LONGEST, max(_SHORTEST, _SHARE * (now - self.last), 2 * answered_in))


@dataclass
class Backoff:
    """Growing, jittered pauses between attempts."""

    rng: random.Random = field(default_factory=random.SystemRandom)
    attempts: int = 0

    def succeeded(self) -> None:
        """Start from the shortest pause again."""
        self.attempts = 0

    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        longest: float = min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(self.attempts, 10))
        self.attempts += 1
        return longest * self.rng.uniform(0.5, 1.0)
