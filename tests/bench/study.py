"""The study of data efficiency as figures: accuracy with few and with all real records, and what simulated ones change.

    python tests/bench/study.py [--json FILE] [--quick]

What `qfed study data-efficiency` runs (--generator names other generators, again for several), in two processes. With
--json it draws the picture too.
Gains are paired by seed; those whose interval (see qfed/federation/efficiency.py) has 0 in it are marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from report import finish  # tests/bench/report.py
from rich.console import Console
from rich.progress import Progress

from qfed.federation.efficiency import StudyResult
from qfed.report.efficiency import study_page, study_picture
from qfed.simulation.efficiency import Study, study


def figures(result: StudyResult) -> Iterator[dict[str, Any]]:
    """Accuracy of each model on real records alone, and the gain of each generator, at every number of records."""
    for data in result.sets:
        for curve in data.curves:
            gains = () if curve.generator is None else data.gains(curve.model, curve.generator)
            for place, point in enumerate(curve.points):
                name = f"{data.source}, N = {point.records:,}, {curve.label}"
                if curve.generator is None:
                    yield {"name": name, "value": point.band.mean, "unit": "", "better": "higher"}
                    continue
                gain = gains[place]
                sure = "" if gain.finding != "no difference" else " (within noise)"
                value = 100 * gain.difference.mean
                yield {"name": f"{name}: gain{sure}", "value": value, "unit": "points", "better": "higher"}
    spent = result.budget.most_spent
    yield {"name": "largest epsilon of a ledger", "value": spent, "unit": "", "goal": result.budget.epsilon,
           "better": "lower"}  # fmt: skip


def main() -> None:
    """Run the study, print its page, write the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="two seeds, three numbers of records, one generator")
    parser.add_argument("--generator", action="append", help="default: independent, pairwise")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--points", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick:
        settings = Study(generators=("independent",), seeds=(1, 2), points=3, simulated=200)
    else:
        generators = tuple(arguments.generator or Study().generators)
        settings = Study(generators=generators, seeds=tuple(range(1, arguments.seeds + 1)), points=arguments.points)
    with Progress(console=Console(stderr=True)) as display:
        bar = display.add_task("worlds", total=None)
        result = study(settings, lambda done, of: display.update(bar, completed=done, total=of), processes=2)
    Console(width=120).print(study_page(result))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.with_name("study.png").write_bytes(study_picture(result))
    finish("Data efficiency", list(figures(result)), ("qfed", "torch", "scipy"), arguments.json)


if __name__ == "__main__":
    main()
