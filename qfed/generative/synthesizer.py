"""A release and the generators fitted to its parts: what `qfed synth fit` makes and `qfed synth sample` reads.

    class k ~ records_k / sum records,     bits ~ generator_k,     joined with the bits of class k

    model.json, model.npz             configuration, descriptions; each generator's arrays as K.NAME
    statistics.json, statistics.npz   the release (release.py), with its privacy statement
    spending.db                       what a remote device was asked for, fit and samples together

All of it is post-processing of the release: no record is read, no privacy is spent.
Shapes  records as bits (N, n + t)      Errors  ConfigError for a folder that holds no such model, and the generators'
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from qfed.config import SynthConfig
from qfed.errors import ConfigError, SpendingCapReached
from qfed.generative import leap
from qfed.generative.library import Generator, Progress, create, kind, silent
from qfed.generative.rbm import RestrictedBoltzmann
from qfed.generative.release import Release, read_arrays, write_arrays
from qfed.generative.rigetti import backends
from qfed.generative.statistics import Bits, PairCounts
from qfed.quantum.spending import counted_by, current_meter

FORMAT = "qfed generator 1"
MODEL = "model"
SPENDING = "spending.db"


@dataclass(frozen=True, eq=False)
class Synthesizer:
    """One generator for each part of a release."""

    config: SynthConfig
    name: str
    release: Release
    generators: tuple[Generator, ...]
    account: Path | None = None
    """File that keeps what a remote device was asked for."""

    @classmethod
    def fit(
        cls,
        config: SynthConfig,
        release: Release,
        rng: np.random.Generator,
        *,
        name: str | None = None,
        progress: Progress = silent,
        account: Path | None = None,
    ) -> Self:
        """Fit the configured generator (or `name`) to every part."""
        chosen = name or config.generator
        count = len(release.parts)
        _refuse_too_many_reads(config, chosen, count)
        fitted: list[Generator] = []
        with _counted(config, chosen, account):
            for at, (part, own) in enumerate(zip(release.parts, rng.spawn(count), strict=True)):

                def tell(done: int, total: int, at: int = at) -> None:
                    progress(at * total + done, count * total)

                fitted.append(create(config, chosen).fit(part, own, tell))
        progress(1, 1)
        return cls(config, chosen, release, tuple(fitted), account)

    @classmethod
    def fit_records(
        cls,
        config: SynthConfig,
        bits: Bits,
        names: Sequence[str],
        rng: np.random.Generator,
        progress: Progress = silent,
    ) -> Self:
        """Fit the RBM to coded records (N, n + t) themselves; the release says that nothing is protected."""
        machine = RestrictedBoltzmann.of(config)
        with _counted(config, "rbm", None):
            machine.fit_records(bits, rng, progress)
        return cls(config, "rbm", Release.of(PairCounts.exact(bits, names)), (machine,))

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records (count, n + t), of every class as many as its share gives."""
        if count < 1:
            raise ConfigError(f"expected at least one record, got count={count}")
        of_part = rng.multinomial(count, self.release.weights)
        with _counted(self.config, self.name, self.account):
            drawn = [
                self.release.join(at, generator.sample(int(of_part[at]), rng))
                for at, generator in enumerate(self.generators)
                if of_part[at]
            ]
        return rng.permutation(np.concatenate(drawn))

    def describe(self) -> dict[str, Any]:
        """Every part's generator, in JSON's types."""
        parts = [
            {"fixed": dict(zip(self.release.fixed, pattern.tolist(), strict=True)), **generator.describe()}
            for pattern, generator in zip(self.release.patterns, self.generators, strict=True)
        ]
        return {"generator": self.name, "parts": parts, "privacy": dict(self.release.privacy)}

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write model and release into `folder`; their paths."""
        states = [generator.state() for generator in self.generators]
        arrays = {f"{at}.{key}": array for at, (_, own) in enumerate(states) for key, array in own.items()}
        about = {
            "format": FORMAT,
            "generator": self.name,
            "config": self.config.model_dump(mode="json"),
            "states": [tree for tree, _ in states],
            "description": self.describe(),
        }
        return (*write_arrays(Path(folder), MODEL, about, arrays), *self.release.save(folder))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote."""
        place = Path(folder)
        about, arrays = read_arrays(place, MODEL, FORMAT)
        release = Release.load(place)
        try:
            config, name = SynthConfig.model_validate(about["config"]), str(about["generator"])
            generators = []
            for at, tree in enumerate(about["states"]):
                own = {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{at}.")}
                generators.append(kind(name).restore(config, (tree, own)))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{place / MODEL}.json holds no usable generator: {error}; fit it again") from None
        if len(generators) != len(release.parts):
            raise ConfigError(
                f"{place} holds {len(generators)} generators for {len(release.parts)} parts; fit it again"
            )
        return cls(config, name, release, tuple(generators), place / SPENDING)


def _remote(config: SynthConfig, name: str) -> bool:
    if name == "born":
        return config.born.backend in backends.REMOTE
    return name in ("boltzmann", "rbm") and config.sampler == "qpu"


def _refuse_too_many_reads(config: SynthConfig, name: str, parts: int) -> None:
    """A fit whose reads are known to pass the cap is not begun."""
    needed = parts * (config.steps + 1) * config.reads
    if name != "born" and _remote(config, name) and needed > config.most_shots:
        raise SpendingCapReached(
            f"this fit takes {needed:,} reads ({parts} parts x {config.steps} steps and a check x {config.reads:,}), "
            f"but synth.most_shots={config.most_shots:,}; nothing was submitted; use fewer steps or reads, or raise it"
        )


@contextmanager
def _counted(config: SynthConfig, name: str, account: Path | None) -> Iterator[None]:
    """Everything within on one account, unless somebody counts already."""
    if not _remote(config, name) or current_meter() is not None:
        yield
        return
    if account is not None:
        account.parent.mkdir(parents=True, exist_ok=True)
    meter_for = backends.meter_for if name == "born" else leap.meter_for
    with counted_by(meter_for(config, file=account)):
        yield
