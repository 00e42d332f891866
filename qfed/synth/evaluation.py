"""Simulated records against real ones: the numbers of `qfed synth evaluate`, as data.

    rows    real records that were counted · the simulated records · independent margins · classical pairwise fit ·
            mbi's graphical model (when it is installed), the last three fitted to the same release here

Everything about real records is computed where they are, exactly, and is not private: it stays on this machine.
Cost  a forest, a linear and a hybrid model a row      Errors  ConfigError, DataError
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qfed.config import RunConfig, load_config
from qfed.data import Coding, Records
from qfed.errors import ConfigError, ShapeError
from qfed.federation.synthesis import coding_of
from qfed.generative.library import Progress, silent
from qfed.generative.release import Release
from qfed.generative.statistics import Bits
from qfed.generative.synthesizer import Synthesizer
from qfed.synth.fidelity import Nearest, margins_apart, nearest_records
from qfed.synth.graphical import graphical, installed
from qfed.synth.records import ENDINGS, Fitted, read_about, read_records
from qfed.synth.source import real_records
from qfed.synth.usefulness import usefulness

REAL, INDEPENDENT, PAIRWISE, GRAPHICAL = (
    "real records",
    "independent margins",
    "classical pairwise",
    "mbi (Private-PGM)",
)
STAYS = (
    "Computed from real records without noise: it is not covered by the privacy statement and stays on this machine."
)


@dataclass(frozen=True, eq=False)
class Row:
    """One training set: how like the counted records, how useful."""

    name: str
    tvd1: float
    tvd2: float
    scores: Mapping[str, float]
    bits: Bits
    """Its records, (N, n)."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What there is to know; `rows` begin with the real records, the simulated ones follow."""

    name: str
    generator: str
    rows: tuple[Row, ...]
    held_out: tuple[float, float]
    """TVD1, TVD2 between held-out and counted real records: the part of a row's distance that is chance."""
    nearest: Nearest
    privacy: Mapping[str, Any]
    description: Mapping[str, Any]
    counted_bits: Bits
    side: int | None
    """Pixels of a side, where the records are square images of one bit a pixel."""
    notes: tuple[str, ...]

    @property
    def simulated(self) -> Row:
        """The row of the simulated records."""
        return self.rows[1]

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types, without any record."""
        rows = [{"name": r.name, "tvd1": r.tvd1, "tvd2": r.tvd2, "scores": dict(r.scores)} for r in self.rows]
        return {
            "format": "qfed evaluation of simulated records 1",
            "name": self.name,
            "generator": self.generator,
            "rows": rows,
            "held_out": {"tvd1": self.held_out[0], "tvd2": self.held_out[1]},
            "nearest": dataclasses.asdict(self.nearest),
            "privacy": dict(self.privacy),
            "description": dict(self.description),
            "notes": list(self.notes),
        }


def evaluate(
    synthetic: Path,
    *,
    real: Path | None = None,
    records: int = 4000,
    seed: int = 1,
    quick: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate a file of simulated records, or `records` drawn from a fitted model's folder.

    `real` is a file of real records in the configured schema, or a configuration; without it, the records that the
    model's own configuration names. They are split as the configuration says. `quick` leaves out the hybrid model for
    what is only compared, and mbi, which takes half a minute to compile.
    """
    fitted: Fitted | None = None
    if synthetic.is_dir():
        loaded = fitted = Fitted.load(synthetic)
        config, about = loaded.config, loaded.synthesizer.describe()
        drawn = loaded.draw(records, np.random.default_rng(seed))
    elif synthetic.suffix in ENDINGS:
        about, config = read_about(synthetic)
        drawn = read_records(synthetic, coding_of(config))
        place = Path(about["model"])
        if (place / "model.json").exists():
            fitted = Fitted.load(place)
    else:
        raise ConfigError(f"{synthetic} is neither a folder of `qfed synth fit` nor a .csv or .parquet file")
    coding = coding_of(config)
    counted, held_out = (coding.project(part) for part in real_records(_with_real(config, coding, real)))
    rng = np.random.default_rng(seed)
    release = None if fitted is None else fitted.synthesizer.release
    others = _others(config, coding, release, len(drawn), rng, quick)
    bits, schema = coding.encode_projected(counted), coding.schema
    rows: list[Row] = []
    sources: list[tuple[str, Callable[[], Records]]] = [
        (REAL, lambda: counted),
        (f"simulated ({about['generator']})", lambda: drawn),
        *others,
    ]
    for at, (name, make) in enumerate(sources):
        made = make()
        own = coding.encode_projected(made)
        model = None if quick and at > 1 else config.model
        scores = usefulness(made, held_out, schema.task, schema.outputs, model, seed)
        rows.append(Row(name, *margins_apart(own, bits), scores, own))
        progress(at + 1, len(sources))
    return Evaluation(
        name=config.name,
        generator=str(about["generator"]),
        rows=tuple(rows),
        held_out=margins_apart(coding.encode_projected(held_out), bits),
        nearest=nearest_records(rows[1].bits, bits, coding.encode_projected(held_out), rng),
        privacy=about["privacy"],
        description={"parts": about["parts"]},
        counted_bits=bits,
        side=_side(coding),
        notes=_notes(release, quick),
    )


def _others(
    config: RunConfig, coding: Coding, release: Release | None, count: int, rng: np.random.Generator, quick: bool
) -> list[tuple[str, Callable[[], Records]]]:
    """The comparisons that the release allows: each with a function that makes its records."""
    if release is None:
        return []

    def of(name: str) -> Callable[[], Records]:
        def make() -> Records:
            return coding.decode(Synthesizer.fit(config.synth, release, rng, name=name).sample(count, rng), rng).records

        return make

    found = [(INDEPENDENT, of("independent")), (PAIRWISE, of("pairwise"))]
    if installed() and not quick:
        found.append((GRAPHICAL, lambda: coding.decode(graphical(release)(count, rng), rng).records))
    return found


def _notes(release: Release | None, quick: bool) -> tuple[str, ...]:
    if release is None:
        return ("The model's folder is not here, so nothing was fitted to the same counts for comparison.", STAYS)
    if quick:
        return ("Quick: mbi's graphical model was left out, and the hybrid model of what is only compared.", STAYS)
    if not installed():
        return ("mbi is not installed, so its graphical model is not among the comparisons.", STAYS)
    return (STAYS,)


def _with_real(config: RunConfig, coding: Coding, real: Path | None) -> RunConfig:
    if real is None:
        return config
    if real.suffix == ".toml":
        other = load_config(real)
        if coding_of(other).names != coding.names:
            raise ShapeError(f"{real} codes other bits than the simulated records; use the configuration of their run")
        return other
    if not config.data.columns:
        raise ConfigError(
            f"the simulated records are of the embedded data set {config.data.source!r}, which brings its own real "
            "records; leave --real out"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"source": str(real)})})


def _side(coding: Coding) -> int | None:
    free = len(coding.names) - len(coding.target_names)
    side = round(free**0.5)
    pixels = side > 2 and side**2 == free == len(coding.schema.features)
    return side if pixels and len({name.rstrip("0123456789_.>") for name in coding.schema.features}) == 1 else None
