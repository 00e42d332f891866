"""Puts the figures of tests/bench/results/*.json into the README, between the marks that name them.

    python tests/bench/redraw.py [--check]

A mark is `<!-- bench:NAME -->` ... `<!-- /bench -->`; what lies between is replaced by the table of NAME.json. With
--check nothing is written and the exit status says whether the README is up to date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"


def table(name: str) -> str:
    """The figures of one benchmark as a Markdown table, with the machine they were measured on."""
    tree = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    lines = ["| figure | value | goal |", "|---|---:|---:|"]
    for figure in tree["figures"]:
        goal = ""
        if figure["goal"] is not None:
            goal = f"{'≥' if figure['better'] == 'higher' else '≤'} {figure['goal']:g}"
        lines.append(f"| {figure['name']} | {figure['value']:.3g} {figure['unit']} | {goal} |")
    machine = tree["machine"]
    return "\n".join([*lines, "", f"Measured on {machine['cores']} cores ({machine['cpu']})."])


def redrawn(text: str) -> str:
    """The README with every marked table renewed."""
    mark = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
    return mark.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def main() -> None:
    """Renew or check the README."""
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = redrawn(old)
    if "--check" in sys.argv:
        sys.exit(
            0 if old == new else "README.md is not what tests/bench/results says: run python tests/bench/redraw.py"
        )
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
