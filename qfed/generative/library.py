"""The generators by name: what each is, where it comes from, which extra it needs.

    generator = create(config)          # of a SynthConfig; or create(config, "independent") for a comparison
    generator.fit(counts, rng)          # PairCounts in, nothing else of the data
    bits = generator.sample(1000, rng)  # (1000, n) uint8

Errors  ConfigError for a name that is not here, MissingExtra when its packages are not installed
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from qfed.config import SynthConfig
from qfed.errors import ConfigError
from qfed.generative.statistics import Bits, PairCounts

State = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
"""What a fitted generator is: JSON's types, and arrays by name."""

Progress = Callable[[int, int], None]
"""Called with the steps done and all steps."""


def silent(done: int, total: int) -> None:
    """Tell nobody."""


class Generator(Protocol):
    """A model of coded records."""

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """One that is not fitted yet."""

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Fit to released counts; returns itself."""

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records (count, n)."""

    def describe(self) -> dict[str, Any]:
        """What it is and how the fit went, in JSON's types; "generator" is its name."""

    def state(self) -> State:
        """All that `restore` needs to sample again."""

    @classmethod
    def restore(cls, config: SynthConfig, state: State) -> Self:
        """The fitted generator that `state` came from."""


@dataclass(frozen=True)
class Entry:
    """One generator, in words."""

    title: str
    source: str
    place: str
    """module:class"""


LIBRARY: Mapping[str, Entry] = MappingProxyType(
    {
        "independent": Entry(
            "independent bits with the released one-way margins",
            "the floor that every other generator has to beat",
            "qfed.generative.independent:Independent",
        ),
        "pairwise": Entry(
            "classical pairwise fit: maximum entropy given all pairs up to 16 bits, Chow-Liu tree beyond",
            "Chow, Liu, IEEE Trans. Inf. Theory 14, 462 (1968); Jaynes, Phys. Rev. 106, 620 (1957)",
            "qfed.generative.pairwise:Pairwise",
        ),
        "boltzmann": Entry(
            "fully visible Boltzmann machine, its moments from an annealer (D-Wave)",
            "Ackley, Hinton, Sejnowski, Cogn. Sci. 9, 147 (1985); Benedetti et al., Phys. Rev. A 94, 022308 (2016)",
            "qfed.generative.boltzmann:Boltzmann",
        ),
        "born": Entry(
            "tree-started Born machine, a circuit (Rigetti)",
            "Benedetti et al., npj Quantum Inf. 5, 45 (2019)",
            "qfed.generative.born:Born",
        ),
        "rbm": Entry(
            "restricted Boltzmann machine with hidden units: local, from the records themselves, without privacy",
            "Hinton, Neural Computation 14, 1771 (2002)",
            "qfed.generative.rbm:RestrictedBoltzmann",
        ),
    }
)


def create(config: SynthConfig, name: str | None = None) -> Generator:
    """The generator `name`, or that of the configuration, not fitted."""
    return kind(name or config.generator).of(config)


def kind(name: str) -> type[Generator]:
    """The class of a generator; imports its module."""
    if name not in LIBRARY:
        raise ConfigError(f"generator={name!r} is none of {', '.join(LIBRARY)}")
    module, _, attribute = LIBRARY[name].place.partition(":")
    found: type[Generator] = getattr(importlib.import_module(module), attribute)
    return found
