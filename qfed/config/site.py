"""What a site decides for itself: where its records lie, and what it refuses whatever the aggregator asks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qfed.config.binding import DataBinding
from qfed.config.model import ARCHITECTURES, CIRCUITS, FRAMES
from qfed.config.section import Count, Flag, Fraction, Number, Positive, Section, Whole


class SitePolicy(Section):
    """The site's floor: a run that asks for less protection is refused before any record is read."""

    epsilon: Positive
    """Budget of the data set over all runs."""
    delta: Fraction
    """Failure probability that the budget is meant at."""
    require_privacy: Flag = True
    """Refuse runs without differential privacy."""
    kinds: tuple[Literal["train", "synthesize"], ...] = ("train", "synthesize")
    """Kinds of runs that the site takes part in."""
    modes: tuple[Literal["shared", "local", "site"], ...] = ("shared", "local", "site")
    """Privacy modes that the site takes part in."""
    units: tuple[Literal["record", "site"], ...] = ("record", "site")
    """What a run may protect; a guarantee for whole sites covers each record too."""
    least_noise: Annotated[Number, Field(ge=0)] = 0.0
    """Least noise multiplier of a run, whatever epsilon it comes to."""
    epsilon_alone: Positive | None = None
    """Largest epsilon that may be left if secure aggregation fails entirely (mode shared); no limit if left out."""
    least_survivors: Count = 3
    """Least number of sites that a sum which this site is in may be opened over."""
    least_sites: Count | None = None
    """Least number of sites of a run; no limit beyond those of the federation file if left out."""
    most_rounds: Count | None = None
    """Most rounds of a run; no limit if left out."""
    models: tuple[str, ...] | None = None
    """Models that may be trained, by their names in `qfed models list`, or as architecture/circuit; all if left out.
    A run's classical twin goes by the name of its circuit."""
    most_parameters: Count | None = None
    """Most trainable parameters of a model; no limit if left out. Fewer tell less of the records."""
    most_wires: Count | None = None
    """Most wires of a circuit; memory and time double with each."""
    most_seconds: Positive | None = None
    """Longest time that a round may take this machine. A round that would pass it is stopped between two steps or
    before circuits are submitted, as soon as that is known; what it was charged stays charged, and the run trains no
    further round here. The first round compiles the circuit's kernel, unless `qfed warmup` did."""
    threads: Count | None = None
    """Most threads that training uses; all cores if left out."""
    hours: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] | None = None
    """When runs may be joined and records read, by this machine's local time, e.g. "18:00-06:00"; always if left out.
    Secure aggregation is answered at any time, so that a round that has begun is finished."""
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] | None = None
    """Days on which `hours` begin, e.g. ["sat", "sun"]; every day if left out."""
    require_secagg: Flag = True
    """Refuse runs whose updates would travel in clear; a deployed site refuses them whatever stands here."""
    tell_epsilon: Flag = False
    """Tell the aggregator, with each answer, what this site's records have spent and may spend, over all runs. Where a
    plan's cost depends on how many records there are, it tells about that number too."""
    own_circuits: Flag = False
    """Accept runs whose circuit is code in a file on this site's disk."""
    trust_provider: Flag = False
    """Accept runs on a remote quantum device: its provider gets this site's records, encoded in circuits, which
    differential privacy does not cover."""
    local_devices: tuple[str, ...] = ()
    """PennyLane devices that simulate on this machine, besides those that qfed knows; every other one is remote."""
    most_shots: Count | None = None
    """Most shots that this site runs on devices, over all runs; no limit if left out."""
    most_price: Positive | None = None
    """Most money that this site spends on devices, over all runs, by its price table; no limit if left out."""

    @model_validator(mode="after")
    def _models_exist(self) -> Self:
        known = {*ARCHITECTURES, *(f"{frame}/{circuit}" for frame in FRAMES for circuit in CIRCUITS)}
        if unknown := sorted(set(self.models or ()) - known):
            raise ValueError(f"models: {unknown[0]!r} is none of {', '.join(ARCHITECTURES)}, nor architecture/circuit")
        return self


class ServerAddress(Section):
    """Where the aggregator is, and by which certificate authority it is known."""

    address: Annotated[str, Field(pattern=r"^[^\s/@]+:[0-9]{1,5}$")]
    """Host and port, e.g. "aggregator.example.org:9443"."""
    ca: str = "ca.crt"
    """File of the certificate authority that signs the aggregator's certificate, relative to the folder."""


class SiteConfig(Section):
    """`site.toml` of one site; all other files of the site lie in the same folder."""

    name: str
    """The site's name in the federation file."""
    dataset: str
    """Identifier of its data set in the ledger; the budget belongs to it, not to a run."""
    coordinator: str | None = None
    """Fingerprint of the coordinator who may sign this site's federation file; compare it over the telephone and
    write it here, else whoever can replace the file decides who belongs."""
    data: DataBinding | None = None
    """The site's own table, a file or a database."""
    records: str = "records.npz"
    """Without [data]: file of a simulated site's records, relative to the folder."""
    prices: str | None = None
    """Price table of quantum devices, a file in the folder; the one that comes with qfed if left out."""
    rounding_seed: Whole | None = None
    """Seed of stochastic rounding, for reproducible simulations; leave out for the operating system's entropy."""
    server: ServerAddress | None = None
    """The aggregator that `qfed client` connects to; a simulation has none."""
    preload: Flag = True
    """Load torch and the model code as soon as the agent is connected, so that its first answer comes at once. Without
    it an agent that waits takes a quarter of the memory; the first message then waits for seconds."""
    policy: SitePolicy
