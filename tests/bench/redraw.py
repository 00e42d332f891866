"""Puts the figures of tests/bench/results/*.json into the README, between the marks that name them, and draws them.

    python tests/bench/redraw.py [--check]

A mark is `<!-- bench:NAME WORDS -->` ... `<!-- /bench -->`; what lies between is replaced by a table of the figures of
NAME.json whose names match the regular expression WORDS (all without it). All figures of all benchmarks go into
tests/bench/results/README.md. With --check nothing is written and the exit status says whether both are up to date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from report import met  # tests/bench/report.py

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"


def table(name: str, words: str = "") -> str:
    """The figures of one benchmark as a Markdown table, with the machine they were measured on."""
    tree = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    lines = ["| figure | value | goal |", "|---|---:|---:|"]
    for figure in tree["figures"]:
        if re.search(words, figure["name"]) is None:
            continue
        goal = ""
        if figure["goal"] is not None:
            goal = f"{'≥' if figure['better'] == 'higher' else '≤'} {figure['goal']:g}"
            goal += "" if met(figure) else " missed"
        lines.append(f"| {figure['name']} | {number(figure['value'])} {figure['unit']} | {goal} |")
    machine = tree["machine"]
    return "\n".join([*lines, "", f"Measured on {machine['cores']} cores ({machine['cpu']})."])


def number(value: float) -> str:
    """Four significant digits, without an exponent where people read one badly."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def redrawn(text: str) -> str:
    """The README with every marked table renewed."""
    mark = re.compile(r"(<!-- bench:(\w+)(?: ([^\n]*?))? -->\n).*?(<!-- /bench -->)", re.DOTALL)
    return mark.sub(lambda found: f"{found[1]}{table(found[2], found[3] or '')}\n{found[4]}", text)


def every_table() -> str:
    """All figures of all benchmarks."""
    head = "# Figures of all benchmarks\n\nWritten by `python tests/bench/redraw.py` from the JSON beside it.\n"
    return "\n".join([head, *(_section(file.stem) for file in sorted(RESULTS.glob("*.json")))])


def _section(name: str) -> str:
    return f"## {name}\n\n`python tests/bench/{name}.py --json FILE`\n\n{table(name)}\n"


def draw_quantum() -> None:
    """Time against qubits and against batch, of every contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tree = json.loads((RESULTS / "quantum.json").read_text(encoding="utf-8"))
    by_wires, by_batch = _curves(tree["figures"])
    figure, panes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for pane, curves, label in zip(
        panes,
        (by_wires, by_batch),
        ("qubits (2 layers, batch 64)", "records in the batch (8 qubits, 2 layers)"),
        strict=True,
    ):
        for name, style in CURVES.items():
            points = sorted(curves.get(name, {}).items())
            if points:
                pane.plot(*zip(*points, strict=True), style[0], color=style[1], label=style[2])
        pane.set(yscale="log", xlabel=label)
        pane.grid(alpha=0.3)
    panes[1].set_xscale("log", base=2)
    panes[0].set_ylabel("ms, forward and per-sample gradients")
    panes[0].set_xticks(sorted({wires for points in by_wires.values() for wires in points}))
    figure.legend(*panes[0].get_legend_handles_labels(), loc="outside lower center", ncol=5, frameon=False)
    figure.suptitle("One core, float32, median; lower is better")
    figure.savefig(RESULTS / "quantum.png", dpi=110)


CURVES = {
    "ours": ("o-", "#0b6e4f", "qfed"),
    "jax": ("s--", "#8250c4", "PennyLane-JAX, jit(vmap(grad))"),
    "torchquantum": ("^--", "#b35900", "TorchQuantum"),
    "vmap": ("d:", "#2f5fc4", "default.qubit under torch.func"),
    "loop": ("x:", "#777777", "TorchLayer, record by record"),
}


def _curves(figures: list[dict[str, Any]]) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    """Milliseconds by contender and qubits, and by contender and batch, at 2 layers."""
    by_wires: dict[str, dict[int, float]] = {}
    by_batch: dict[str, dict[int, float]] = {}
    for figure in figures:
        found = re.fullmatch(r"(\d+) wires, 2 layers(?:, batch (\d+))?: (\w+)", figure["name"])
        if found is None or figure["unit"] != "ms":
            continue
        wires, batch, name = int(found[1]), int(found[2] or 64), found[3]
        if batch == 64:
            by_wires.setdefault(name, {})[wires] = figure["value"]
        if wires == 8 and name in ("ours", "jax", "vmap"):
            by_batch.setdefault(name, {})[batch] = figure["value"]
    return by_wires, by_batch


def main() -> None:
    """Renew or check the README and the list of all figures."""
    readme, everything = ROOT / "README.md", RESULTS / "README.md"
    texts = {readme: redrawn(readme.read_text(encoding="utf-8")), everything: every_table()}
    if "--check" in sys.argv:
        stale = [file.name for file, text in texts.items() if file.read_text(encoding="utf-8") != text]
        sys.exit(f"{stale} are not what tests/bench/results says: run python tests/bench/redraw.py" if stale else 0)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    draw_quantum()


if __name__ == "__main__":
    main()
