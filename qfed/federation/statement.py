"""The privacy statement of a run: what is promised to whoever stands behind a record, by whom, and what is not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qfed.collusion import TARGET
from qfed.config import RunConfig
from qfed.federation.contribution import policy_of
from qfed.federation.result import PrivacyStatement
from qfed.federation.synthesis import coding_of, moments_of

_UNITS = {
    "shared": "one record of one site",
    "local": "one record of one site",
    "site": "everything that one site contributes: all its records, and how many they are",
    "off": "nothing",
}
_RECORD_ADJACENCY = (
    "zero-out: one record's contribution to every gradient is replaced by zero; record counts are not protected"
)
_ADJACENCY = {
    "shared": _RECORD_ADJACENCY,
    "local": _RECORD_ADJACENCY,
    "site": "zero-out: one site's update is replaced by zero in every round; that it takes part is not protected",
    "off": "none",
}
_COUNTS_ADJACENCY = "add or remove: one record more or less; the number of records is protected too"
_INTEGERS = ", for integer noise (sums of discrete Gaussians; what integers add is below 1e-12)"
_NO_PRIVACY = "everything: the model and its updates may reveal records"
_EXACT_SCORES = "held-out scores and losses: the aggregator sees their exact totals over the cohort, without noise"
_PERSON = "a person with several records, at one site or at several: the guarantee is for one record"
_SEVERAL_SITES = "a person with records at several sites: the guarantee is for one site"
_HIGHER_ORDERS = (
    "that simulated records are like real ones in more than their pairs; this is about their use, not about privacy"
)
_OTHER_RUNS = "choices made by looking at results of other runs on the same records: each run spends its own budget"
_OTHER_UNIT = "runs that protect single records on the same data: they are counted in a budget of their own"


@dataclass(frozen=True)
class Spending:
    """What the figures of a run come to (see PrivacyStatement for each)."""

    noise_multiplier: float | None = None
    epsilon: float | None = None
    epsilon_alone: float | None = None
    sampling_distance: float | None = None
    metrics_epsilon: float | None = None


def privacy_statement(config: RunConfig, rounds: int, spent: Spending) -> PrivacyStatement:
    """The statement of `rounds` rounds of a run."""
    privacy, training = config.privacy, config.training
    private = privacy.mode != "off"
    groups = config.federation.groups
    counts = config.kind == "synthesize"
    part = "counts" if counts else "update"
    over = f"each of {groups} groups of sites, drawn at random," if groups else "the cohort"
    hidden = f"masked with a committee's keys: the aggregator decodes the sum over {over} and no site's own {part}"
    clear = f"off: the aggregator sees every site's own {part}"
    return PrivacyStatement(
        mode=privacy.mode,
        unit=_UNITS[privacy.mode],
        adjacency=_COUNTS_ADJACENCY if counts and private else _ADJACENCY[privacy.mode],
        epsilon=spent.epsilon,
        delta=privacy.delta if private else None,
        noise_multiplier=spent.noise_multiplier,
        clip_norm=_norm(config) if private else None,
        sampling_rate=training.sampling_rate,
        steps=rounds * training.local_steps,
        accountant=_accountant(config),
        trust=_trust(config, spent),
        secure_aggregation=hidden if config.secagg.mode == "on" else clear,
        not_covered=_not_covered(config, spent),
        honest=config.honest if privacy.shares_noise else None,
        epsilon_alone=spent.epsilon_alone if privacy.shares_noise else None,
        sampling_distance=spent.sampling_distance if privacy.shares_noise else None,
        directions=training.directions if training.method == "dp_zo" and config.kind == "train" else None,
        provider=_provider(config),
        metrics_epsilon=spent.metrics_epsilon,
    )


def _norm(config: RunConfig) -> float:
    """What one protected unit can change: in training by clipping, in counts by what a record is."""
    return config.privacy.clip_norm if config.kind == "train" else moments_of(config, coding_of(config)).norm


def _provider(config: RunConfig) -> str | None:
    """The remote device that sees encoded records, if there is one."""
    return (
        config.quantum.device
        if config.kind == "train" and config.model.kind == "hybrid" and config.quantum.is_remote
        else None
    )


def _accountant(config: RunConfig) -> str:
    if config.privacy.mode == "off":
        return "none"
    if config.training.sampling_rate == 1.0 or config.privacy.mode == "site":
        name = "dp-accounting, Gaussian composition in closed form"
    else:
        name = "dp-accounting, PLD of the Poisson-subsampled Gaussian"
    return name + (_INTEGERS if config.privacy.shares_noise else "")


def _trust(config: RunConfig, spent: Spending) -> str:
    provider = _provider(config)
    seen = f"; and the provider of the quantum device {provider}, who gets encoded records" if provider else ""
    return _trust_in_sites(config, spent) + seen


def _trust_in_sites(config: RunConfig, spent: Spending) -> str:
    if config.privacy.mode == "off":
        return f"the aggregator and everybody who gets the {'counts' if config.kind == 'synthesize' else 'model'}"
    if config.privacy.mode == "local":
        return "nobody but the site itself: its noise is added before anything leaves it"
    text = (
        f"secure aggregation, and the sites as a group: every sum that is opened has at least "
        f"{config.federation.least_survivors} sites, of which at most {config.colluders} may work with the aggregator "
        f"or with each other; the noise of the other {config.honest} is what protects. No single site and not the "
        f"aggregator has to be trusted{_drawn(config)}"
    )
    if spent.epsilon_alone is None:
        return text
    alone = math.ceil(spent.epsilon_alone * 100) / 100
    return f"{text}. If secure aggregation failed altogether, a site's own noise would still give epsilon {alone:.2f}"


def _drawn(config: RunConfig) -> str:
    """What is left to chance where the committee is drawn and so many could fill too much of it."""
    policy = policy_of(config, "statement")
    if config.colluders <= policy.colluders:
        return ""
    return (
        f". Masks are held by a committee of {policy.committee_size} sites, drawn anew for every epoch of "
        f"{policy.epoch_rounds} rounds; that it holds too many of those {config.colluders} has a chance below "
        f"2^-{TARGET} an epoch, which delta leaves out"
    )


def _not_covered(config: RunConfig, spent: Spending) -> tuple[str, ...]:
    privacy = config.privacy
    if config.kind == "synthesize":
        if privacy.mode == "off":
            return ("everything: the counts are exact and may reveal records", _HIGHER_ORDERS)
        return (_PERSON, _OTHER_RUNS, _HIGHER_ORDERS)
    if spent.metrics_epsilon is not None:
        alone = "" if privacy.mode == "site" else ", which are other records than those trained on"
        told = math.ceil(spent.metrics_epsilon * 100) / 100
        scores: tuple[str, ...] = (
            f"more than one evaluation: the final model's score has noise of its own, epsilon {told:.2f} for the "
            f"held-out records{alone}",
        )
    else:
        counted = "held-out records" if privacy.shares_noise else "records"
        scores = (_EXACT_SCORES, f"record counts: the aggregator sees the total of {counted} over the cohort")
    if privacy.mode == "off":
        found: tuple[str, ...] = (_NO_PRIVACY, *scores)
    elif privacy.mode == "site":
        found = (*scores, _SEVERAL_SITES, _OTHER_RUNS, _OTHER_UNIT)
    else:
        found = (*scores, _PERSON, _OTHER_RUNS)
    if groups := config.federation.groups:
        found += (
            f"sums over single groups of about {config.federation.sites // groups} sites: the aggregator sees them",
        )
    if (provider := _provider(config)) is not None:
        found = (
            f"records towards the provider of the quantum device: {provider} gets every record that enters a step, "
            "encoded in the angles of circuits from which it can be reckoned back; differential privacy protects "
            "against whoever sees the model, not against the provider",
            *found,
        )
    if config.simulation.compare:
        found += ("the comparison runs of this simulation: each is a world of its own with its own budget",)
    return found
