"""What an aggregator must know after a crash to go on with the round that was under way, under the same label.

    RUN/epoch.json   last epoch that was begun; first round of the one in RUN/epoch.bin; survivors of the open round
    RUN/epoch.bin    the epoch (see ServerEpoch.to_bytes), with groups each one's; nothing secret from the aggregator

    begin (number on disk) -> set-up -> keep -> uploads -> fix (survivors on disk) -> unmask -> checkpoint

A round that was cut off is not asked for under a new label. In modes shared and site a site's part has only a share of
the noise, and what protects it is that one sum of it is opened: the same parts summed over other survivors would give
their difference, a few sites' parts alone. And drawn anew, they would be a second release, on a second charge. Under
the old label both are out of the question: a site sends the bytes that it has sent (or trains, if it was not asked),
and a committee member opens its masks for one set of survivors, whatever the aggregator says. So the resumed round is
the same release as the one that was cut off, and its model is the one that it would have had.

If that fails (a survivor is gone, the files are lost, the federation changed) the round has failed: the model stays,
what the sites were charged stays charged, once, and the run goes on with the next round within its plan. A run of one
release only (synthesis.py) has no next round: its epoch is kept, and the round is tried again under its label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qfed.errors import StateError
from qfed.federation.files import write_atomically


@dataclass(frozen=True)
class KeptEpoch:
    """An epoch as it was set up."""

    first_round: int
    bodies: tuple[bytes, ...]


class EpochMemory:
    """The files in a run's folder; each step is on disk when it returns."""

    def __init__(self, folder: Path) -> None:
        self._file, self._body = folder / "epoch.json", folder / "epoch.bin"
        self._known: dict[str, Any] = {"last": 0, "first_round": None, "fixed": None}
        if self._file.exists():
            try:
                self._known |= json.loads(self._file.read_text(encoding="utf-8"))
            except (OSError, ValueError, TypeError) as error:
                raise StateError(f"{self._file} cannot be read ({error}); start the run anew") from None

    def begin(self, round: int) -> int:
        """The number of a new epoch, greater than every one before, and at least its first round."""
        self._put(last=max(round, self._known["last"] + 1), first_round=None, fixed=None)
        return int(self._known["last"])

    def keep(self, first_round: int, bodies: Sequence[bytes]) -> None:
        """Remember an epoch whose set-up is done."""
        write_atomically(self._body, b"".join(len(body).to_bytes(8, "big") + body for body in bodies))
        self._put(first_round=first_round)

    def epoch(self) -> KeptEpoch | None:
        """The epoch that was kept last, None when none was or another one was begun since."""
        if self._known["first_round"] is None or not self._body.exists():
            return None
        return KeptEpoch(int(self._known["first_round"]), tuple(_split(self._body.read_bytes())))

    def give_up(self) -> None:
        """Go on with no epoch that was: the next round begins another."""
        if self._known["first_round"] is not None:
            self._put(first_round=None, fixed=None)

    def fix(self, round: int, survivors: Sequence[str]) -> None:
        """Remember of whom the sum of `round` is, before anybody is asked to open it."""
        self._put(fixed=[round, list(survivors)])

    def survivors(self, round: int) -> tuple[str, ...] | None:
        """Who was fixed for `round`; None when nobody was."""
        fixed = self._known["fixed"]
        return tuple(fixed[1]) if fixed and fixed[0] == round else None

    def _put(self, **changes: Any) -> None:
        self._known |= changes
        write_atomically(self._file, json.dumps(self._known).encode())


def _split(data: bytes) -> Iterator[bytes]:
    while data:
        size = int.from_bytes(data[:8], "big")
        yield data[8 : 8 + size]
        data = data[8 + size :]
