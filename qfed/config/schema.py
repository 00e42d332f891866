"""What a run's configuration holds: frozen sections, every field documented, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qfed.config.data import DataConfig
from qfed.config.federation import ROBUST, FederationConfig, SecAggConfig
from qfed.config.model import ModelConfig
from qfed.config.privacy import PrivacyConfig
from qfed.config.section import Count, Number, Positive, Section, Whole


class TrainingConfig(Section):
    """What every site does in a round; all of it public and the same for every site."""

    rounds: Count = 15
    """Rounds of the run: one aggregation each."""
    local_steps: Count = 4
    """Optimiser steps of a site in one round."""
    sampling_rate: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Probability q with which each record enters a step (Poisson sampling); 1 takes every record every step."""
    batch_size: Positive = 36
    """Denominator of a site's mean gradient: about sampling_rate x records of a typical site. Public, never counted."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The site's optimiser; its state lives for one round."""
    learning_rate: Positive = 0.2
    """The site's learning rate."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """Momentum of the site's SGD."""


class Failure(Section):
    """A site that fails on purpose in one round of a simulation."""

    site: Annotated[Whole, Field(ge=0)]
    """Index of the site, from 0."""
    round: Count
    """The round, from 1."""
    phase: Literal["train", "unmask"] = "train"
    """Before it uploads, or after (it then vanishes from the committee)."""


Comparison = Literal["twin", "non_private", "no_federation"]


class SimulationConfig(Section):
    """How a simulation runs on this machine; nothing here reaches a deployed site."""

    engine: Literal["inprocess", "ray"] = "inprocess"
    """"inprocess" runs the sites here one after another; "ray" on Flower's Ray runtime (extra qfed[sim])."""
    compare: tuple[Comparison, ...] = ("twin", "non_private", "no_federation")
    """Runs beside the main one: classical twin, without privacy, each site alone."""
    failures: tuple[Failure, ...] = ()
    """Failures to inject into the main run, e.g. [{site = 3, round = 5}]."""


class RunConfig(Section):
    """One run: a training job of one federation."""

    name: str = "breast-cancer"
    """Name of the run, for people."""
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 1
    """Seeds partitions, initial weights and, without privacy, sampling. Keys and privacy noise never use it."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    federation: FederationConfig = FederationConfig()
    secagg: SecAggConfig = SecAggConfig()
    simulation: SimulationConfig = SimulationConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.simulation.failures and self.simulation.engine != "inprocess":
            raise ValueError('simulation.failures are injected by the in-process engine only; use engine = "inprocess"')
        for failure in self.simulation.failures:
            if failure.site >= self.federation.sites or failure.round > self.training.rounds:
                raise ValueError(
                    f"simulation.failures names site={failure.site}, round={failure.round}, but there are "
                    f"{self.federation.sites} sites (from 0) and {self.training.rounds} rounds (from 1)"
                )
        return self

    @model_validator(mode="after")
    def _updates_to_compare(self) -> Self:
        """A robust strategy compares updates; under secure aggregation those of groups, and only if asked for."""
        federation, strategy = self.federation, self.federation.strategy
        hidden = self.secagg.mode == "on"
        if federation.robust and hidden and federation.groups is None:
            raise ValueError(
                f"federation.strategy={strategy!r} compares single updates, which secure aggregation hides from the "
                "aggregator; set federation.groups: sites are drawn into groups of at least three, each is aggregated "
                "securely, and the strategy compares the groups' means (each group's sum is then seen)"
            )
        if federation.groups is None:
            parts, of = federation.sites, "sites"
        else:
            parts, of = federation.groups, "groups"
            if not federation.robust:
                raise ValueError(
                    f"federation.groups={parts} lets the aggregator see each group's sum and serves the strategies "
                    f"{', '.join(ROBUST)} only, got strategy={strategy!r}; leave groups out"
                )
            if not hidden:
                raise ValueError(
                    'federation.groups belongs to secure aggregation; with secagg.mode="off" the strategy compares the '
                    "sites' updates themselves, leave groups out"
                )
            if federation.sites // parts < 3:
                raise ValueError(
                    f"federation.groups={parts} of sites={federation.sites} leaves fewer than three sites in a group, "
                    f"and a sum of two hides nobody's part; at most {federation.sites // 3} groups"
                )
        if federation.robust and self.privacy.mode not in ("local", "off"):
            raise ValueError(
                f"federation.strategy={strategy!r} compares updates one by one, but privacy.mode={self.privacy.mode!r} "
                'makes noise for the sum over all sites; use privacy.mode="local"'
            )
        if parts < federation.least_parts:
            raise ValueError(
                f"federation.strategy={strategy!r} with byzantine={federation.byzantine} compares at least "
                f"{federation.least_parts} updates, got {parts} {of}; use more {of} or a smaller byzantine"
            )
        return self
