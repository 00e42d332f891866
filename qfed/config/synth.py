"""Simulated data: which generator is fitted to the released counts, and where its samples come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qfed.config.born import BornConfig
from qfed.config.section import Count, Flag, Number, Positive, Section

GENERATORS = ("independent", "pairwise", "boltzmann", "born", "rbm")


class SynthConfig(Section):
    """Simulated data from released pair counts."""

    generator: Literal["independent", "pairwise", "boltzmann", "born", "rbm"] = "boltzmann"
    """"boltzmann": Boltzmann machine on an annealer (D-Wave); "born": tree-started circuit (Rigetti); "pairwise": the
    classical fit of the same counts; "independent": one-way margins only. "rbm" has hidden units, needs the records
    themselves and so is for local use without privacy."""
    classes: Literal["apart", "together"] = "apart"
    """"apart" counts pairs within each class of the target and fits one generator a class (every record enters one
    class only, so the noise is the same); "together" treats the target's bits as any other."""
    sampler: Literal["sa", "sqa", "mock", "qpu"] = "sa"
    """Boltzmann machine: "sa" simulated annealing, "sqa" simulated quantum annealing, "mock" the topology of an
    annealer simulated with a real embedding, "qpu" a D-Wave system (DWAVE_API_TOKEN or dwave.conf)."""
    topology: Literal["zephyr", "pegasus"] = "zephyr"
    """Sampler mock: the simulated annealer's topology; qpu: the one to ask for when no solver is named."""
    solver: str | None = None
    """Sampler qpu: name of the D-Wave system; leave out for any that is online with this topology."""
    steps: Count = 80
    """Gradient steps of the training."""
    reads: Count = 500
    """Samples that the annealer draws in one step."""
    learning_rate: Positive = 0.15
    """Step size at the start; it falls to 0 along a cosine."""
    weight_decay: Annotated[Number, Field(ge=0)] = 1e-3
    """Generator rbm: strength of the quadratic penalty on its weights."""
    prior: Positive = 0.2
    """Generators boltzmann and pairwise: how strong couplings are expected to be, in units of kT; weaker ones shrink
    towards independence as far as the known noise and the number of records explain them, much stronger ones hardly."""
    chain_strength: Positive | None = None
    """Coupling inside a chain of qubits; leave out for uniform torque compensation."""
    annealing_time: Positive = 20.0
    """Sampler qpu: microseconds of one anneal."""
    hidden: Count = 48
    """Generator rbm: hidden units."""
    most_shots: Count = 200_000
    """Sampler qpu, and born.backend braket or pyquil: reads or shots that a fit and its samples may use; the next call
    that would pass it is not made."""
    most_seconds: Positive = 60.0
    """Sampler qpu: seconds of access time to the system that may be used, by the solver's own estimate beforehand and
    its charge afterwards."""
    shrink: Annotated[Number, Field(ge=0)] = 1.5
    """Generator born, and the tree of pairwise beyond 16 bits: pairs whose covariance is below this many standard
    deviations of its noise count as independent."""
    no_privacy: Flag = False
    """Allow counts without noise; every output then says that nothing is protected."""
    born: BornConfig = BornConfig()
    """Generator born: its training, and where its circuit runs."""
