"""What a run leaves behind, as typed, versioned data (`result.json`).

Times stand in fields named `seconds` and nowhere else, so two results can be compared without them.
Scores are the cohort's: sums over the sites' held-out records that reached the aggregator masked.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from qfed.config import RunConfig

FORMAT: Literal["qfed.result/1"] = "qfed.result/1"


class Record(BaseModel):
    """A frozen part of a result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Score(Record):
    """How a global model does on the records that the sites hold out."""

    score: float
    """Accuracy (share of right answers, higher is better) or root mean square error in the target's unit."""
    loss: float
    """Mean loss a record: cross entropy in nats, or squared error of the scaled target."""
    records: int
    """Held-out records that the two figures are means over."""


class Dropout(Record):
    """A site that did not finish a round."""

    site: str
    """Its name."""
    reason: str
    """What the aggregator was told or saw."""


class GroupRecord(Record):
    """A group of sites in a round: what was opened was its sum."""

    sites: tuple[str, ...]
    """Names of the sites drawn into it."""
    survivors: int
    """Sites in its sum; 0 when it failed."""
    failure: str | None = None
    """Why it failed; None when it did not."""


class RoundRecord(Record):
    """One round, as the aggregator saw it."""

    round: int
    """From 1; round 0 is the initial model."""
    status: Literal["aggregated", "failed"]
    """A failed round keeps the model of the round before; its privacy cost is spent all the same."""
    metrics: Score | None = None
    """Of the model after this round; None when no aggregate told it."""
    epsilon: float | None = None
    """Spent by every site that took part in all rounds so far; None without privacy."""
    survivors: int = 0
    """Sites in the aggregate."""
    failure: str | None = None
    """Why the round failed as a whole; None when it did not."""
    groups: tuple[GroupRecord, ...] = ()
    """Groups whose sums were opened one by one; empty when one sum over all sites was."""
    dropouts: tuple[Dropout, ...] = ()
    """Sites that were asked and are not in the aggregate."""
    bytes_up: int = 0
    """Bytes from all sites to the aggregator, key set-up included."""
    bytes_down: int = 0
    """Bytes from the aggregator to all sites."""
    bytes: dict[str, int] = {}
    """Bytes of each phase, both ways: key set-up, train, unmask, recovery."""
    seconds: dict[str, float] = {}
    """Wall time of each phase."""


class PrivacyStatement(Record):
    """What is promised to whoever stands behind a record, and what is not."""

    mode: Literal["shared", "local", "site", "off"]
    """Mode of the run's configuration."""
    unit: str
    """What is protected."""
    adjacency: str
    """Which two data sets count as neighbours."""
    epsilon: float | None
    """Of the whole run; None without privacy."""
    delta: float | None
    """Failure probability of the guarantee, the statistical distance of sampled noise included."""
    noise_multiplier: float | None
    """sigma: standard deviation of the noise over the clip norm (shared noise: over the sum's sensitivity)."""
    clip_norm: float | None
    """Bound on each record's gradient, or (mode site) on each site's update; for counts, what each record weighs."""
    sampling_rate: float
    """Probability with which a record enters a step."""
    steps: int
    """Optimiser steps of the whole run at each site."""
    accountant: str
    """What computed epsilon."""
    trust: str
    """Whom the guarantee needs to be honest."""
    secure_aggregation: str
    """What the aggregator can see."""
    not_covered: tuple[str, ...]
    """What the guarantee does not promise."""
    honest: int | None = None
    """Shared noise: sites in every sum whose share of the noise must stay unknown to others; None in other modes."""
    epsilon_alone: float | None = None
    """Shared noise: epsilon of the whole run against who sees one site's own shares, secure aggregation broken."""
    sampling_distance: float | None = None
    """Shared noise: statistical distance of all sampled integers from the distribution that is accounted."""
    directions: int | None = None
    """Zeroth-order steps: numbers that a record contributes to a step, in place of its gradient; None for gradients."""
    provider: str | None = None
    """Remote quantum device whose provider got encoded records; None when no circuit left the sites."""
    metrics_epsilon: float | None = None
    """Epsilon of the evaluation for each held-out record (or site); None when scores are only masked."""


class SiteRecord(Record):
    """One site over the whole run."""

    name: str
    """Its name."""
    train_records: int | None = None
    """Records it trains on; known in a simulation only."""
    test_records: int | None = None
    """Records it holds out; known in a simulation only."""
    rounds: int
    """Rounds it is in the aggregate of."""
    epsilon: float | None = None
    """Spent according to its own ledger; None without privacy or where the ledger is not at hand."""
    bytes_up: int
    """Bytes it sent."""
    bytes_down: int
    """Bytes it received."""


class DeviceUse(Record):
    """What ran on a quantum device (or its simulator) in the main run, all sites together."""

    device: str
    """Its name in PennyLane."""
    circuits: int
    """Circuits submitted."""
    shots: int
    """Repetitions of all of them together; 0 where expectations are exact."""
    price: float | None
    """By the price table; None when the table has no price for the device, 0 on this machine."""
    currency: str = ""
    """Of the price."""
    as_of: str = ""
    """When that price was listed."""
    capped: bool = False
    """Whether a cap on shots or money stopped it."""


class Comparison(Record):
    """A run beside the main one: same data, same seed, one thing changed."""

    kind: Literal["twin", "non_private", "no_federation"]
    """Which."""
    label: str
    """For people."""
    parameters: int
    """Trainable parameters of its model."""
    metrics: Score
    """Of its final model; for "no_federation" the mean over the sites' own models."""
    epsilon: float | None
    """Of the whole run; None without privacy."""
    rounds: tuple[float, ...] = ()
    """Score after each round."""


class RunResult(Record):
    """Everything about one run, ready for `result.json`."""

    format: Literal["qfed.result/1"] = FORMAT
    """Version of this schema."""
    status: Literal["completed", "stopped"]
    """"stopped": too many rounds failed in a row; the model is that of the last good round."""
    run: str
    """Identifier of the run, part of every label of the protocol."""
    config: RunConfig
    """The resolved configuration."""
    versions: dict[str, str]
    """Python's and the packages' versions."""
    task: Literal["classification", "regression"]
    """What is learned."""
    metric: Literal["accuracy", "rmse"]
    """What `score` means."""
    parameters: int
    """Trainable parameters of the model."""
    initial: Score | None
    """Of the model before training."""
    rounds: tuple[RoundRecord, ...]
    """One entry a round, failed ones included."""
    final: Score
    """Of the final model."""
    privacy: PrivacyStatement
    """The guarantee, in words and figures."""
    sites: tuple[SiteRecord, ...]
    """One entry a site."""
    device: DeviceUse | None = None
    """What ran on a quantum device; None where the kernel ran everything or the sites keep that to themselves."""
    comparisons: tuple[Comparison, ...] = ()
    """Runs beside this one."""
    seconds: dict[str, float] = {}
    """Wall time of each part of the whole run; "total" is all of it."""

    @property
    def bytes_per_site(self) -> float:
        """Mean bytes that a site sent and received over the whole run."""
        return sum(site.bytes_up + site.bytes_down for site in self.sites) / len(self.sites)


def result_schema() -> dict[str, Any]:
    """The published JSON schema of `result.json`."""
    return RunResult.model_json_schema()
