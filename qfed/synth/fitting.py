"""From a source to a folder with a fitted generator.

DIR/model.json, model.npz             the generator (qfed.generative.synthesizer)
DIR/statistics.json, statistics.npz   the release that it was fitted to
DIR/config.toml                       the configuration: data, coding, seed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qfed.config import RunConfig, load_config, to_toml
from qfed.errors import ConfigError
from qfed.federation.files import write_atomically
from qfed.federation.synthesis import coding_of
from qfed.generative.library import Progress, silent
from qfed.generative.synthesizer import SPENDING, Synthesizer
from qfed.synth.records import Fitted
from qfed.synth.source import CONFIG, NO_PRIVACY, read_source, real_records


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
    if source is None or not source.is_dir():
        config = load_config(source, overrides)
        if config.synth.generator == "rbm":
            return _from_records(config, no_privacy, out, progress)
    found = read_source(source, overrides, no_privacy=no_privacy, ledger=ledger, budget=budget, out=out)
    rng = np.random.default_rng(found.config.seed)
    synthesizer = Synthesizer.fit(found.config.synth, found.release, rng, progress=progress, account=out / SPENDING)
    return _written(found.config, synthesizer, out, found.told)


def _from_records(config: RunConfig, no_privacy: bool, out: Path, progress: Progress) -> Fit:
    if not (no_privacy or config.synth.no_privacy):
        raise ConfigError(
            'synth.generator="rbm" trains on the records themselves and protects nobody; say --no-privacy, or use '
            'generator = "boltzmann", which sees private counts only'
        )
    coding = coding_of(config)
    bits = coding.encode(real_records(config)[0])
    rng = np.random.default_rng(config.seed)
    synthesizer = Synthesizer.fit_records(config.synth, bits, coding.names, rng, progress)
    return _written(config, synthesizer, out, NO_PRIVACY)


def _written(config: RunConfig, synthesizer: Synthesizer, out: Path, told: str) -> Fit:
    synthesizer.save(out)
    write_atomically(out / CONFIG, to_toml(config).encode())
    return Fit(Fitted(out, config, synthesizer), told)
