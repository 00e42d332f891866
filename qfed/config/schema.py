"""What a run's configuration holds: frozen sections, every field documented, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qfed import collusion
from qfed.config.coding import CodingConfig
from qfed.config.data import DataConfig
from qfed.config.federation import ROBUST, FederationConfig, SecAggConfig
from qfed.config.model import ModelConfig
from qfed.config.privacy import PrivacyConfig
from qfed.config.quantum import QuantumConfig
from qfed.config.section import Count, Number, Positive, Section, Whole
from qfed.config.synth import SynthConfig

FEWEST_SITES, FEW_SITES = 10, 50
"""Mode site: refused below the first, warned of below the second."""


class TrainingConfig(Section):
    """What every site does in a round; all of it public and the same for every site."""

    rounds: Count = 40
    """Rounds of the run: one aggregation each."""
    local_steps: Count = 1
    """Optimiser steps of a site in one round."""
    sampling_rate: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Probability q with which each record enters a step (Poisson sampling); 1 takes every record every step."""
    batch_size: Positive = 45
    """Denominator of a site's mean gradient: about sampling_rate x records of a typical site. Public, never counted."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The site's optimiser; its state lives for one round."""
    learning_rate: Positive = 1.0
    """The site's learning rate; mode shared: that of the step on the sum over all sites."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """Momentum of the site's SGD; in mode shared a site makes no step of its own (see federation.strategy)."""
    averaging: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """Share of the last rounds whose models are averaged into the final one; 0 keeps the last model."""
    method: Literal["gradient", "dp_zo"] = "gradient"
    """"gradient": each record's gradient, clipped. "dp_zo": each record's difference of the loss at two points along a
    public random direction, clipped: two circuits a record instead of two a parameter, for models on quantum devices;
    the noise goes into that number and nothing else about the record leaves."""
    directions: Count = 1
    """dp_zo: directions a step; each costs two more circuits a record."""
    smoothing: Positive = 0.3
    """dp_zo: how far along a direction the two points are, in units of the parameters (a direction's entries are of
    size 1). With shots not much smaller, since their noise is divided by it."""


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


_RELEASE: dict[str, Section] = {
    "training": TrainingConfig(rounds=1),
    "privacy": PrivacyConfig(),
    "federation": FederationConfig(),
    "simulation": SimulationConfig(compare=()),
    "quantum": QuantumConfig(),
}
_HEEDED = {
    "training": (),
    "privacy": ("mode", "epsilon", "delta", "noise_multiplier", "colluders"),
    "federation": ("sites", "quorum", "deadline", "max_failed_rounds", "weighting"),
    "simulation": ("engine", "failures"),
    "quantum": (),
}
"""Fields of these sections that kind = "synthesize" heeds; the others must stand as they are."""


class RunConfig(Section):
    """One run: a training job of one federation."""

    name: str = "breast-cancer"
    """Name of the run, for people."""
    kind: Literal["train", "synthesize"] = "train"
    """"train" trains a model; "synthesize" releases pair counts of coded records once ([coding], [synth]), from which
    simulated records are made: [training] does not apply then, and [model] is what simulated records are tried with."""
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 1
    """Seeds partitions, initial weights and, without privacy, sampling. Keys and privacy noise never use it."""
    data: DataConfig = DataConfig()
    coding: CodingConfig = CodingConfig()
    model: ModelConfig = ModelConfig()
    quantum: QuantumConfig = QuantumConfig()
    training: TrainingConfig = TrainingConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    federation: FederationConfig = FederationConfig()
    secagg: SecAggConfig = SecAggConfig()
    simulation: SimulationConfig = SimulationConfig()
    synth: SynthConfig = SynthConfig()

    @property
    def colluders(self) -> int:
        """c: sites whose share of the noise does not count."""
        federation, secagg, given = self.federation, self.secagg, self.privacy.colluders
        if given is not None:
            return given
        sites = federation.sites // (federation.groups or 1)
        return collusion.assumed(sites, federation.least_survivors, secagg.committee_size, secagg.recoverable_drops)

    @property
    def honest(self) -> int:
        """n_min: sites in every opened sum whose share of the noise nobody else knows."""
        return self.federation.least_survivors - self.colluders

    @model_validator(mode="before")
    @classmethod
    def _one_release(cls, tree: Any) -> Any:
        """A run that synthesizes has one round and no comparisons unless somebody says otherwise, who is refused."""
        if not isinstance(tree, dict) or tree.get("kind") != "synthesize":
            return tree
        tree = dict(tree)
        for section, only in (("training", {"rounds": 1}), ("simulation", {"compare": ()})):
            if isinstance(given := tree.get(section, {}), dict):
                tree[section] = only | given
        return tree

    @model_validator(mode="after")
    def _nothing_is_trained(self) -> Self:
        if self.kind == "train":
            return self
        for section, heeded in _HEEDED.items():
            mine, plain = getattr(self, section), _RELEASE[section]
            for field in type(mine).model_fields:
                if field not in heeded and getattr(mine, field) != getattr(plain, field):
                    raise ValueError(
                        f'kind="synthesize" releases counts once and trains nothing, so {section}.{field} does not '
                        f"apply, got {section}.{field}={getattr(mine, field)!r}; leave it out"
                    )
        if self.privacy.mode == "site":
            raise ValueError(
                'kind="synthesize" protects records (privacy.mode "shared" or "local"), got privacy.mode="site"'
            )
        return self

    @model_validator(mode="after")
    def _privacy_fits(self) -> Self:
        privacy, sites = self.privacy, self.federation.sites
        if privacy.shares_noise and self.secagg.mode == "off":
            raise ValueError(
                f'privacy.mode="{privacy.mode}" hides each site behind the sum over all, which needs secure '
                'aggregation, got secagg.mode="off"; use privacy.mode="local"'
            )
        if privacy.mode == "shared" and self.training.local_steps != 1:
            raise ValueError(
                f'privacy.mode="shared" makes one step a round, got training.local_steps={self.training.local_steps}; '
                "set it to 1 and raise training.rounds"
            )
        if privacy.shares_noise and self.honest < 2:
            raise ValueError(
                f"of the {self.federation.least_survivors} sites that a sum has at least, privacy.colluders="
                f"{self.colluders} leave {self.honest} whose noise counts, and at least 2 must; use fewer colluders, "
                "more sites or a larger federation.quorum"
            )
        if privacy.mode == "site" and sites < FEWEST_SITES and not privacy.few_sites:
            raise ValueError(
                f'privacy.mode="site" hides a whole site among the others, and federation.sites={sites} are too few to '
                f"learn anything then (fewer than {FEWEST_SITES}; {FEW_SITES} or more are sensible); use "
                'privacy.mode="shared", or set privacy.few_sites=true'
            )
        if privacy.private_metrics and privacy.mode == "off":
            raise ValueError('privacy.private_metrics needs privacy, got privacy.mode="off"')
        return self

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
    def _provider_trusted(self) -> Self:
        quantum = self.quantum
        if self.kind == "train" and self.model.kind == "hybrid" and quantum.is_remote and not quantum.trust_provider:
            raise ValueError(
                f"quantum.device={quantum.device!r} sends each record, encoded in the angles of a circuit, to the "
                "device's provider, which differential privacy does not cover; if the provider may see them, set "
                "quantum.trust_provider = true (for a plugin that simulates on this machine: quantum.remote = false)"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        training = self.training
        if training.method == "gradient":
            if training.directions != 1:
                raise ValueError('training.directions belongs to training.method = "dp_zo"; leave it out')
            return self
        if self.privacy.mode == "site":
            raise ValueError(
                'training.method = "dp_zo" protects records, got privacy.mode="site"; use "shared" or "local"'
            )
        if training.optimizer != "sgd":
            raise ValueError(
                f'training.method = "dp_zo" moves along its directions, got training.optimizer={training.optimizer!r}; '
                'use "sgd" (momentum is allowed), or an adaptive federation.strategy'
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
