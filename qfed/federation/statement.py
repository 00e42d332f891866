"""The privacy statement of a run: what is promised to whoever stands behind a record, by whom, and what is not."""

from __future__ import annotations

from qfed.config import RunConfig
from qfed.federation.result import PrivacyStatement

_ADJACENCY = (
    "zero-out: one record's contribution to every gradient is replaced by zero; record counts are not protected"
)
_LOCAL_TRUST = "nobody but the site itself: its noise is added before anything leaves it"

_NOT_COVERED = (
    "held-out scores and losses: the aggregator sees their exact totals over the cohort, without noise",
    "record counts: the aggregator sees their total over the cohort",
    "a person with several records, at one site or at several: the guarantee is for one record",
    "choices made by looking at results of other runs on the same records: each run spends its own budget",
)
_NO_PRIVACY = "everything: the model and its updates may reveal records"


def privacy_statement(
    config: RunConfig, rounds: int, noise_multiplier: float | None, epsilon: float | None
) -> PrivacyStatement:
    """The statement of `rounds` rounds that spent `epsilon`, with `noise_multiplier` sigma (None: no privacy)."""
    private = config.privacy.mode != "off"
    training, full_batch = config.training, config.training.sampling_rate == 1.0
    accountant = (
        "dp-accounting, Gaussian composition in closed form"
        if full_batch
        else "dp-accounting, PLD of the Poisson-subsampled Gaussian"
    )
    groups = config.federation.groups
    over = f"each of {groups} groups of sites, drawn at random," if groups else "the cohort"
    hidden = f"masked with a committee's keys: the aggregator decodes the sum over {over} and no site's own update"
    not_covered: tuple[str, ...] = _NOT_COVERED if private else (_NO_PRIVACY, *_NOT_COVERED[:2])
    if groups:
        not_covered += (
            f"sums over single groups of about {config.federation.sites // groups} sites: the aggregator sees them",
        )
    if config.simulation.compare:
        not_covered += ("the comparison runs of this simulation: each is a world of its own with its own budget",)
    return PrivacyStatement(
        mode=config.privacy.mode,
        unit="one record of one site" if private else "nothing",
        adjacency=_ADJACENCY if private else "none",
        epsilon=epsilon,
        delta=config.privacy.delta if private else None,
        noise_multiplier=noise_multiplier,
        clip_norm=config.privacy.clip_norm if private else None,
        sampling_rate=training.sampling_rate,
        steps=rounds * training.local_steps,
        accountant=accountant if private else "none",
        trust=_LOCAL_TRUST if private else "the aggregator and everybody who gets the model",
        secure_aggregation=hidden if config.secagg.mode == "on" else "off: the aggregator sees every site's own update",
        not_covered=not_covered,
    )
