"""The privacy ledger under fire: killed at random moments, raced by four processes, and timed.

    python tests/bench/ledger.py [--json FILE] [--kills 1000]

Four processes serve the same site and race for the same rounds on one file: each charges a round, notes that it now
reads the records (in a file of its own, which outlives it), and settles. One of them at a time is killed (SIGKILL) at a
random moment, and another takes its place. Afterwards every noted read must be a charge of the ledger (else it was
under-counted) and no round may have been read twice (else it was spent twice). Then four processes race to the end of a
budget. Exit status 1 when a count is not zero. A processor that loses power is not simulated.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from report import finish  # tests/bench/report.py

from qfed.errors import BudgetExhausted, PolicyRefused
from qfed.privacy.accounting import Releases, epsilon_of
from qfed.privacy.ledger import Ledger, Limits

DELTA = 1e-5
WORKERS = 4
ROUNDS_A_DATASET = 100
STEP = Releases(1.0, 20.0, 1)
_LONGEST = 900
Work = Callable[[Path, Path, float, int], NoReturn]


def serve(path: Path, notes: Path, epsilon: float, first: int) -> NoReturn:
    """Charge rounds from `first` on, note each read, settle; until the budget ends or the process is killed."""
    status = 1
    try:
        book = Ledger(path, Limits(epsilon, DELTA))
        seen = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in range(first, 10**9):
            dataset, round = divmod(number, ROUNDS_A_DATASET)
            try:
                held = book.reserve(
                    f"d{dataset}", "run", round + 1, STEP, planned_rounds=ROUNDS_A_DATASET, request=b"asked"
                )
            except BudgetExhausted:
                break
            except PolicyRefused:  # another process was first
                continue
            os.write(seen, b"%d\n" % number)  # the records are read now
            book.settle(held, 1, b"answer")
        status = 0
    finally:
        os._exit(status)


def spend(path: Path, notes: Path, epsilon: float, first: int) -> NoReturn:
    """Begin runs of one round, numbered from `first` in steps of WORKERS, on one data set until its budget ends."""
    status = 1
    try:
        book = Ledger(path, Limits(epsilon, DELTA))
        seen = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in range(first, first + WORKERS * 10_000, WORKERS):
            try:
                held = book.reserve("d0", f"run{number}", 1, STEP, planned_rounds=1, request=b"asked")
            except BudgetExhausted:
                status = 0
                break
            os.write(seen, b"%d\n" % number)
            book.settle(held, 1, b"answer")
    finally:
        os._exit(status)


def start(path: Path, notes: Path, epsilon: float = 1e9, first: int = 0, work: Work = serve) -> int:
    """A worker process; its id."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.alarm(_LONGEST)  # it must not outlive a harness that is killed itself
        work(path, notes, epsilon, first)
    return process


def counts(path: Path, notes: list[Path], *, by_run: bool = False) -> tuple[int, int, int]:
    """Rounds that were read, read without a charge, and read more than once."""
    book = Ledger(path, Limits(1e9, DELTA))
    book.verify()
    charged = {
        int(entry.run[3:]) if by_run else int(entry.dataset[1:]) * ROUNDS_A_DATASET + entry.round - 1
        for entry in book.rows()
        if entry.what == "reserve"
    }
    book.close()
    reads = Counter(int(line) for file in notes if file.exists() for line in file.read_text().split())
    return len(reads), len(set(reads) - charged), sum(count - 1 for count in reads.values())


def fire(folder: Path, kills: int, rng: random.Random) -> tuple[int, int, int]:
    """Kill `kills` workers at random moments; see `counts`."""
    path, notes = folder / "ledger.db", [folder / f"reads.{i}" for i in range(kills + WORKERS)]
    Ledger(path, Limits(1e9, DELTA)).close()
    fresh = iter(notes)
    alive = [start(path, next(fresh)) for _ in range(WORKERS)]
    try:
        for _ in range(kills):
            time.sleep(rng.random() * 0.06)
            victim = alive.pop(rng.randrange(len(alive)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            # The next one goes on near where the others are, or it would only be told what is over.
            newest = [int(file.read_text().split()[-1]) for file in notes if file.exists() and file.stat().st_size]
            alive.append(start(path, next(fresh), first=max([0, *newest[-8:]]) - min(3, max([0, *newest[-8:]]))))
    finally:
        for process in alive:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    return counts(path, notes)


def race(folder: Path, epsilon: float) -> tuple[float, int, int]:
    """Four processes race to the end of a budget: epsilon read over the budget, uncharged reads, double reads."""
    path, notes = folder / "race.db", [folder / f"race.{i}" for i in range(WORKERS)]
    Ledger(path, Limits(epsilon, DELTA)).close()
    workers = [start(path, file, epsilon, i, spend) for i, file in enumerate(notes)]
    ends = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in workers]
    if any(ends):
        raise SystemExit(f"a worker of the race failed: {ends}")
    read, uncharged, twice = counts(path, notes, by_run=True)
    return epsilon_of([Releases(1.0, STEP.noise_multiplier, read)], DELTA) / epsilon, uncharged, twice


def reserve_times(folder: Path, rounds: int) -> list[float]:
    """Seconds of each reserve of a run of `rounds` at q = 1."""
    book, found = Ledger(folder / "timed.db", Limits(1e9, DELTA)), []
    for round in range(1, rounds + 1):
        began = time.perf_counter()
        held = book.reserve("d", "run", round, STEP, planned_rounds=rounds, request=b"asked")
        found.append(time.perf_counter() - began)
        book.settle(held, 1, b"answer")
    book.close()
    return found


def main() -> None:
    """Run all three, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read, uncharged, twice = fire(folder, arguments.kills, random.Random(arguments.seed))
        share, race_uncharged, race_twice = race(folder, plan_budget())
        times = reserve_times(folder, ROUNDS_A_DATASET)
    figures = [
        {"name": "kills", "value": arguments.kills, "unit": ""},
        {"name": "rounds read under fire", "value": read, "unit": "rounds"},
        {"name": "reads that were not charged", "value": uncharged + race_uncharged, "unit": "rounds", "goal": 0},
        {"name": "rounds read twice", "value": twice + race_twice, "unit": "rounds", "goal": 0},
        {"name": "race: epsilon read, over the budget", "value": share, "unit": "", "goal": 1.0},
        {"name": "reserve at q = 1, median", "value": 1000 * statistics.median(times), "unit": "ms", "goal": 20},
        {"name": "reserve at q = 1, slowest", "value": 1000 * max(times), "unit": "ms"},
    ]
    finish(
        "Privacy ledger: killed, raced, timed",
        [figure | {"better": "higher" if "kills" in figure["name"] or "under fire" in figure["name"] else "lower"}
         for figure in figures],
        ("dp-accounting",),
        arguments.json,
    )  # fmt: skip
    if uncharged or twice or race_uncharged or race_twice or share > 1 + 1e-9:
        raise SystemExit(1)


def plan_budget() -> float:
    """Epsilon of a plan of one data set: the race's budget admits exactly that."""
    return epsilon_of([Releases(1.0, STEP.noise_multiplier, ROUNDS_A_DATASET)], DELTA)


if __name__ == "__main__":
    main()
