"""Problems on an annealer's own graph: every spin a chain of qubits, every coupling on a coupler that exists.

    physical h = h / (beta |chain|) on each qubit of a chain,   physical J = J / beta on the couplers between two chains
    chain      J = -strength on its own couplers; uniform torque compensation of each problem, at least `LEAST_STRENGTH`

beta = `INVERSE_TEMPERATURE` is the guess at the device's effective inverse temperature, in its units of J: it only sets
where training starts, which then learns what gives the wanted moments. After a fit the true one is estimated (see
`Boltzmann.describe`). Coefficients are never rescaled by the device (auto_scale off): scaling that follows each problem
would change the temperature from step to step. What the device's ranges cannot hold is cut at `bounds` by the training.
A broken chain is read by majority; of two equal halves, the chain's first qubit decides, which favours neither value.
Graphs are complete over the spins: clique embeddings of Boothby, King, Roy, Quantum Inf. Process. 15, 495 (2016).
`simulated_system` is dwave-system's MockDWaveSampler on the graph of a full Advantage2 (Zephyr Z12) or Advantage
(Pegasus P16); its own sampler is steepest descent, of no law, so an anneal down to `FREEZE_OUT` takes its place, which
is not the guess above, as a device's would not be.
Shapes  as in annealers.py      Cost  the anneal of n chains; an embedding some 0.1 s
Errors  ConfigError for more spins than the graph holds, or a chain strength beyond the device's range
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qfed.config import SynthConfig
from qfed.errors import ConfigError
from qfed.generative.annealers import Spins, problem, seed_of, spins_of
from qfed.generative.statistics import Floats

INVERSE_TEMPERATURE = 3.0
FREEZE_OUT = 4.0
LEAST_STRENGTH = 0.3
GRAPHS: Mapping[str, list[int]] = {"zephyr": [12, 4], "pegasus": [16]}

Embedding = Mapping[int, tuple[int, ...]]


class System(Protocol):
    """An annealer: its graph and ranges, and how a problem on its qubits is run."""

    name: str
    sampler: Any
    """dimod's structured sampler."""

    def submitting(self, qubits: int, reads: int, rng: np.random.Generator) -> AbstractContextManager[dict[str, Any]]:
        """Around one problem on so many qubits: yields what the sampler is called with; may refuse."""

    def done(self, samples: Any) -> None:
        """Take note of an answer."""

    def report(self) -> dict[str, Any]:
        """What is known of it, in JSON's types."""


class SimulatedSystem:
    """mock: the graph of a whole annealer, its anneal simulated here."""

    def __init__(self, topology: str) -> None:
        from dwave.samplers import SimulatedAnnealingSampler
        from dwave.system.testing import MockDWaveSampler

        self.name = f"simulated {topology.capitalize()}"
        self._how: dict[str, Any] = {
            "beta_range": [0.05, FREEZE_OUT],
            "beta_schedule_type": "linear",
            "num_sweeps": 200,
            "randomize_order": True,
            "proposal_acceptance_criteria": "Gibbs",
        }
        self.sampler = MockDWaveSampler(
            topology_type=topology,
            topology_shape=GRAPHS[topology],
            substitute_sampler=SimulatedAnnealingSampler(),
            parameter_warnings=False,
        )

    @contextmanager
    def submitting(self, qubits: int, reads: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Reads, and a fresh seed for the anneal."""
        self.sampler.substitute_kwargs = {**self._how, "seed": seed_of(rng)}
        yield {"num_reads": reads, "answer_mode": "raw"}

    def done(self, samples: Any) -> None:
        """Nothing to note."""

    def report(self) -> dict[str, Any]:
        """The schedule."""
        return {"sampler": "mock", "freeze_out": FREEZE_OUT, "sweeps": self._how["num_sweeps"]}


class EmbeddedAnnealer:
    """All-to-all problems of `bits` spins on a system's graph; keeps statistics of its chains."""

    def __init__(self, system: System, bits: int, chain_strength: float | None = None) -> None:
        from dwave.system import FixedEmbeddingComposite

        self._system, self._bits, self._given = system, bits, chain_strength
        self.embedding = clique_embedding(system.sampler.to_networkx_graph(), bits, system.name)
        self._sampler = FixedEmbeddingComposite(system.sampler, self.embedding)
        ranges = system.sampler.properties
        self._most = float(-ranges.get("extended_j_range", ranges["j_range"])[0])
        if chain_strength is not None and chain_strength > self._most:
            raise ConfigError(
                f"synth.chain_strength={chain_strength:g} is beyond the range of {system.name}; "
                f"use at most {self._most:g}, or leave it out"
            )
        shortest = min(len(chain) for chain in self.embedding.values())
        self.bounds: tuple[float, float] | None = (
            INVERSE_TEMPERATURE * shortest * min(abs(end) for end in ranges["h_range"]),
            INVERSE_TEMPERATURE * min(abs(end) for end in ranges["j_range"]),
        )
        self._reads, self._broken, self._strength = 0, np.zeros(bits), 0.0

    def draw(self, fields: Floats, couplings: Floats, reads: int, rng: np.random.Generator) -> Spins:
        """Samples (reads, n)."""
        physical = problem(fields / INVERSE_TEMPERATURE, couplings / INVERSE_TEMPERATURE)
        self._strength = self._chain_strength(physical)
        qubits = sum(len(chain) for chain in self.embedding.values())

        def read(samples: Any, chains: Sequence[Any]) -> tuple[Spins, npt.NDArray[np.int64]]:
            values, broken = read_chains(samples, chains)
            self._broken += broken.sum(0)
            return values, np.arange(len(values))

        how = {"chain_strength": self._strength, "chain_break_method": read, "return_embedding": False}
        with self._system.submitting(qubits, reads, rng) as chosen:
            found = self._sampler.sample(physical, **how, **chosen)
            spins = spins_of(found, self._bits)  # waits for a remote answer
            self._system.done(found)
        self._reads += len(spins)
        return spins

    def report(self) -> dict[str, Any]:
        """The system, the embedding and how often chains broke."""
        lengths = [len(chain) for chain in self.embedding.values()]
        broken = self._broken / max(self._reads, 1)
        return {
            **self._system.report(),
            "system": self._system.name,
            "topology": self._system.sampler.properties["topology"]["type"],
            "qubits": sum(lengths),
            "longest_chain": max(lengths),
            "chain_strength": self._strength,
            "reads": self._reads,
            "chain_breaks": float(broken.mean()),
            "worst_chain_breaks": float(broken.max()),
        }

    def _chain_strength(self, physical: Any) -> float:
        if self._given is not None:
            return self._given
        from dwave.embedding.chain_strength import uniform_torque_compensation

        return float(np.clip(uniform_torque_compensation(physical), LEAST_STRENGTH, self._most))


def simulated_system(config: SynthConfig, bits: int) -> EmbeddedAnnealer:
    """synth.sampler = "mock"."""
    return EmbeddedAnnealer(SimulatedSystem(config.topology), bits, config.chain_strength)


def clique_embedding(graph: Any, bits: int, name: str) -> Embedding:
    """Chains of qubits for `bits` spins that are all coupled; always the same ones on the same graph."""
    from minorminer.busclique import find_clique_embedding

    found: Embedding = find_clique_embedding(bits, graph, seed=1, use_cache=False)
    if len(found) != bits:
        raise ConfigError(
            f"no clique of {bits} spins fits on {name} with {len(graph)} qubits; code fewer bits, or use "
            'synth.sampler = "sa"'
        )
    return found


def read_chains(samples: Any, chains: Sequence[Any]) -> tuple[Spins, npt.NDArray[np.bool_]]:
    """A value (reads, n) for every chain, and which chains were broken (reads, n)."""
    from dimod import as_samples

    values, labels = as_samples(samples)
    place = {name: at for at, name in enumerate(labels)}
    spins = np.empty((len(values), len(chains)), np.int8)
    broken = np.empty(spins.shape, np.bool_)
    for at, chain in enumerate(chains):
        qubits = values[:, [place[qubit] for qubit in chain]]
        total = qubits.sum(1, dtype=np.int64)
        spins[:, at] = np.where(2 * total + qubits[:, 0] > 0, 1, -1)
        broken[:, at] = np.abs(total) != len(chain)
    return spins, broken
