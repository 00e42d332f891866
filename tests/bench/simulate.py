"""The engines side by side: the in-process Grid and Flower's Ray runtime, running the same two apps.

    python tests/bench/simulate.py [--json FILE] [--quick]

The apps do nothing (a site returns 4 kB): the engine is what is timed. Each contender has a process of its own;
engines alternate and figures are medians over the repetitions. "First result" is from the start of that process, with
imports, to the end of the first round; "overhead a round" is the median time of the rounds after it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 6


def child(engine: str, sites: int) -> None:
    """Run `ROUNDS` no-op rounds and print their end times."""
    from qfed._flower import ClientApp, Context, Grid, Message, ServerApp, run_on_ray
    from qfed.federation import wire
    from qfed.federation.engine import run_in_process
    from qfed_server.exchange import Exchange

    client, server = ClientApp(), ServerApp()
    ends: list[float] = []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        return Message(wire.pack({"body": os.urandom(4096), "head": bytes(32), "spent": ""}), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        while len(nodes := list(grid.get_node_ids())) < sites:
            time.sleep(0.01)
        exchange = Exchange(grid, {str(node): node for node in nodes}, 300.0)
        for number in range(1, ROUNDS + 1):
            body = {"body": os.urandom(4096)}
            answers = exchange.ask("train", wire.TRAIN, dict.fromkeys(exchange.sites, body), round=number, body=bytes)
            if answers.missing:
                raise RuntimeError(f"round {number}: {list(answers.missing.items())[:2]}")
            ends.append(time.time())

    if engine == "inprocess":
        run_in_process(server, client, sites, {}, {})
    else:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder)
            (bundle / "pyproject.toml").write_text(
                '[project]\nname = "bench"\nversion = "0"\n[tool.flwr.app]\npublisher = "qfed"\n'
                '[tool.flwr.app.components]\nserverapp = "a:b"\nclientapp = "a:b"\n'
                '[tool.flwr.app.config]\nkey = "value"\n'
            )
            run_on_ray(server, client, sites, {}, bundle)
    print("RESULT " + json.dumps({"ends": ends}))


def measure(engine: str, sites: int) -> dict[str, float]:
    """Seconds to the first result, seconds a further round, peak MB of the whole process tree."""
    start = time.time()
    done = subprocess.Popen(
        [sys.executable, __file__, "--child", engine, str(sites)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0.0
    while done.poll() is None:
        peak = max(peak, tree_memory(done.pid))
        time.sleep(0.05)
    out, err = done.communicate()
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{engine} with {sites} sites failed:\n{err[-2000:]}")
    ends = json.loads(lines[0].removeprefix("RESULT "))["ends"]
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return {"first": ends[0] - start, "round": statistics.median(steps), "memory": peak}


def tree_memory(pid: int) -> float:
    """Resident MB (proportional share) of a process and all its descendants; 0 where /proc cannot be read."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) / 1024
            waiting += [
                int(c) for task in Path(f"/proc/{one}/task").iterdir() for c in (task / "children").read_text().split()
            ]
        except OSError:
            continue
    return total


def main() -> None:
    """Measure, print the table, write the JSON."""
    from report import finish  # tests/bench/report.py

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one repetition, no Ray at 1000 sites")
    parser.add_argument("--child", nargs=2, metavar=("ENGINE", "SITES"))
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]))
        return
    sizes, repetitions = ((10, 100) if arguments.quick else (10, 100, 1000)), (1 if arguments.quick else 3)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for sites in sizes:
        for _ in range(1 if sites == 1000 else repetitions):
            for engine in ("inprocess", "ray"):
                found.setdefault((engine, sites), []).append(measure(engine, sites))
    if arguments.quick:
        found["inprocess", 1000] = [measure("inprocess", 1000)]

    def median(engine: str, sites: int, key: str) -> float:
        return statistics.median(run[key] for run in found[engine, sites])

    figures = []
    for engine, sites in found:
        for key, unit, name in (
            ("first", "s", "first result"),
            ("round", "s", "overhead a round"),
            ("memory", "MB", "memory"),
        ):
            value = median(engine, sites, key)
            figures.append(
                {"name": f"{engine}, {sites} sites: {name}", "value": value, "unit": unit, "better": "lower"}
            )
    for sites in sizes:
        for key, goal, name in (
            ("round", 20, "overhead a round"),
            ("first", 10, "first result"),
            ("memory", None, "memory"),
        ):
            ratio = median("ray", sites, key) / median("inprocess", sites, key)
            judged = goal if sites == 100 or key == "first" else None
            figures.append(
                {
                    "name": f"ray / inprocess, {sites} sites: {name}",
                    "value": ratio,
                    "unit": "x",
                    "goal": judged,
                    "better": "higher",
                }
            )
    finish("Engines: in-process Grid and Flower's Ray runtime", figures, ("flwr", "ray"), arguments.json)


if __name__ == "__main__":
    main()
