"""The site's floor: what it refuses whatever the aggregator asks, before any record is read; an error type a reason.

    KindRefused     the run trains or synthesizes, and policy.kinds does not say so
    ModeRefused     privacy.mode is off, or not among policy.modes
    UnitRefused     what the run protects is not among policy.units
    EpsilonRefused  the run's epsilon above the site's budget, or what is left of it without secure aggregation above
                    policy.epsilon_alone
    DeltaRefused    the run's delta above the site's
    NoiseRefused    the noise multiplier below policy.least_noise, or below that of the federation file
    RoundsRefused   more rounds than policy.most_rounds
    CohortRefused   fewer sites than policy.least_sites, or sums that may be opened over fewer than
                    policy.least_survivors
    ClearRefused    updates would travel in clear
    TermsRefused    secure aggregation under other terms than the federation file's
    CodeRefused     a circuit that is code on this site's disk
    ModelRefused    a model that is not among policy.models, or has more than policy.most_parameters
    ResourcesRefused   more wires than policy.most_wires
    ProviderRefused   circuits with this site's encoded records would go to a quantum provider

Figures are those of the plan that would train, not the configuration's word for them. What is left of a data set's
budget is the ledger's business: it refuses with BudgetExhausted when a round is charged, before it is read.
Cost  one calibration of the noise where the policy has a limit on it
"""

from __future__ import annotations

from dataclasses import fields

from qfed.config import RunConfig, SitePolicy
from qfed.errors import (
    ClearRefused,
    CodeRefused,
    CohortRefused,
    DeltaRefused,
    EpsilonRefused,
    KindRefused,
    ModelRefused,
    ModeRefused,
    NoiseRefused,
    ProviderRefused,
    ResourcesRefused,
    RoundsRefused,
    TermsRefused,
    UnitRefused,
)
from qfed.federation.contribution import policy_of
from qfed.federation.counting import counter_for
from qfed.federation.local import learner_for
from qfed.privacy.plan import plan_for
from qfed.secagg import Policy


def refuse_below(policy: SitePolicy, config: RunConfig, pinned: Policy, *, simulated: bool = False) -> None:
    """Raise the PolicyRefused that fits unless `config` meets `policy` and the federation's `pinned` terms.

    Only a `simulated` site may send in clear, and only if its policy says so.
    """
    if config.kind not in policy.kinds:
        raise KindRefused(f"this site takes part in runs of kind {', '.join(policy.kinds)}, got kind={config.kind!r}")
    _refuse_code(policy, config)
    if config.kind == "train":
        _refuse_provider(policy, config)
        _refuse_model(policy, config)
    _refuse_transport(policy, config, pinned, simulated)
    _refuse_privacy(policy, config, pinned)


def _refuse_code(policy: SitePolicy, config: RunConfig) -> None:
    if ":" in config.model.circuit and not policy.own_circuits:
        raise CodeRefused(f"this site runs built-in circuits only, the run asks for code in {config.model.circuit!r}")


def _refuse_model(policy: SitePolicy, config: RunConfig) -> None:
    model = config.model
    names = {model.name, f"{model.architecture}/{model.circuit}"}
    if policy.models is not None and ":" not in model.circuit and not names & set(policy.models):
        raise ModelRefused(f"this site trains the models {', '.join(policy.models)}, the run asks for {model.name!r}")
    if policy.most_wires is not None and model.wires > policy.most_wires:
        raise ResourcesRefused(
            f"this site simulates at most {policy.most_wires} wires, got model.wires={model.wires}; ask for fewer"
        )
    if policy.most_parameters is not None and (count := learner_for(config).parameters) > policy.most_parameters:
        raise ModelRefused(
            f"this site trains models of at most {policy.most_parameters} parameters, the run's has {count}; ask for a "
            "smaller one"
        )


def _refuse_provider(policy: SitePolicy, config: RunConfig) -> None:
    """What is local is this site's to say, not the run's."""
    quantum = config.quantum
    near = quantum.is_local or quantum.device in policy.local_devices
    if config.model.kind == "twin" or (near and not quantum.remote):
        return
    if not (policy.trust_provider and quantum.trust_provider):
        raise ProviderRefused(
            f"quantum.device={quantum.device!r} would get this site's records, encoded in circuits, and the site's "
            "policy does not trust its provider; policy.trust_provider = true in site.toml allows it (or, for a plugin "
            "that simulates on this machine, policy.local_devices)"
        )


def _refuse_transport(policy: SitePolicy, config: RunConfig, pinned: Policy, simulated: bool) -> None:
    if config.training.rounds > (policy.most_rounds or config.training.rounds):
        raise RoundsRefused(
            f"this site takes part in at most {policy.most_rounds} rounds of a run, got training.rounds="
            f"{config.training.rounds}; ask for fewer"
        )
    if config.federation.sites < (policy.least_sites or 0):
        raise CohortRefused(
            f"this site takes part in runs of at least {policy.least_sites} sites, got federation.sites="
            f"{config.federation.sites}"
        )
    if config.secagg.mode == "off":
        if policy.require_secagg or not simulated:
            raise ClearRefused(
                'this site refuses to send updates in clear, got secagg.mode="off", which exists in simulations only'
            )
        return
    terms = policy_of(config, pinned.federation_id)
    if terms != pinned:
        differs = ", ".join(
            f"{field.name}={getattr(terms, field.name)} for {getattr(pinned, field.name)}"
            for field in fields(terms)
            if getattr(terms, field.name) != getattr(pinned, field.name)
        )
        raise TermsRefused(
            f"the run's secure aggregation differs from the policy pinned in this site's federation file: {differs} "
            f"(federation.sites={config.federation.sites}); make federation.sites the roster's number or leave it out, "
            "and the rest what the federation was made with (terms.toml at its coordinator)"
        )
    if terms.min_survivors < policy.least_survivors:
        raise CohortRefused(
            f"this site is in sums over at least {policy.least_survivors} sites only, the run opens them over "
            f"{terms.min_survivors}; ask for more sites or a larger federation.quorum"
        )


def _refuse_privacy(policy: SitePolicy, config: RunConfig, pinned: Policy) -> None:
    privacy = config.privacy
    if privacy.mode == "off":
        if policy.require_privacy:
            raise ModeRefused('this site refuses runs without differential privacy, got privacy.mode="off"')
        return
    if privacy.mode not in policy.modes:
        raise ModeRefused(
            f"this site takes part in the privacy modes {', '.join(policy.modes)}, got privacy.mode={privacy.mode!r}"
        )
    if privacy.unit not in policy.units:
        raise UnitRefused(f"this site asks for protection of each {' or '.join(policy.units)}, got {privacy.unit!r}")
    if privacy.epsilon > policy.epsilon:
        raise EpsilonRefused(f"this site's budget is epsilon={policy.epsilon}, the run asks for {privacy.epsilon}")
    if privacy.delta > policy.delta:
        raise DeltaRefused(f"this site's policy is delta={policy.delta}, the run asks for {privacy.delta}")
    least = max(policy.least_noise, pinned.noise_floor)
    if not least and policy.epsilon_alone is None:
        return
    plan = counter_for(config).plan if config.kind == "synthesize" else plan_for(config)
    noise = plan.noise_multiplier or 0.0
    if noise < least:
        raise NoiseRefused(
            f"this site asks for a noise multiplier of at least {least:g}, the run's plan has {noise:.4g}; ask for a "
            "smaller epsilon or more rounds"
        )
    alone = plan.describe().get("epsilon_alone")
    if policy.epsilon_alone is not None and isinstance(alone, float) and alone > policy.epsilon_alone:
        raise EpsilonRefused(
            f"without secure aggregation the run would leave this site epsilon={alone:.3f}, above its policy's "
            f"epsilon_alone={policy.epsilon_alone:g}; ask for a smaller epsilon or more honest sites"
        )
