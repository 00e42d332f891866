"""From a source to a folder with a fitted generator.

DIR/model.json, model.npz             the generator (qfed.generative.synthesizer)
DIR/statistics.json, statistics.npz   the release that it was fitted to
DIR/config.toml                       the configuration: data, coding, seed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qfed.config import to_toml
from qfed.federation.files import write_atomically
from qfed.generative.library import Progress, silent
from qfed.generative.synthesizer import SPENDING, Synthesizer
from qfed.synth.records import Fitted
from qfed.synth.source import CONFIG, read_source


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model, and where its counts came from."""

    model: Fitted
    told: str


def fit_source(
    source: Path | None,
    overrides: list[str],
    *,
    no_privacy: bool = False,
    ledger: Path | None = None,
    budget: float | None = None,
    out: Path,
    progress: Progress = silent,
) -> Fit:
    """Read the source (which may charge a ledger), fit the configured generator and write the folder."""
    found = read_source(source, overrides, no_privacy=no_privacy, ledger=ledger, budget=budget, out=out)
    rng = np.random.default_rng(found.config.seed)
    synthesizer = Synthesizer.fit(found.config.synth, found.release, rng, progress=progress, account=out / SPENDING)
    synthesizer.save(out)
    write_atomically(out / CONFIG, to_toml(found.config).encode())
    return Fit(Fitted(out, found.config, synthesizer), found.told)
