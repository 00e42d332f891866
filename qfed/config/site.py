"""What a site decides for itself: where its records lie, and what it refuses whatever the aggregator asks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qfed.config.binding import DataBinding
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
    most_rounds: Count | None = None
    """Most rounds of a run; no limit if left out."""
    require_secagg: Flag = True
    """Refuse runs whose updates would travel in clear; a deployed site refuses them whatever stands here."""
    own_circuits: Flag = False
    """Accept runs whose circuit is code in a file on this site's disk."""


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
    rounding_seed: Whole | None = None
    """Seed of stochastic rounding, for reproducible simulations; leave out for the operating system's entropy."""
    server: ServerAddress | None = None
    """The aggregator that `qfed client` connects to; a simulation has none."""
    policy: SitePolicy
