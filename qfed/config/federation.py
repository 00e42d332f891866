"""Who takes part in a run, how answers are merged, and how they are hidden."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qfed.config.section import Count, Number, Positive, Section, Whole


class FederationConfig(Section):
    """Who takes part and how answers are merged."""

    sites: Annotated[Whole, Field(ge=3, le=4096)] = 10
    """Sites of the federation (a simulation makes this many); a sum of fewer than three hides nobody's part."""
    quorum: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """Share of the sites that must answer a round; below it the round fails and the model is kept."""
    deadline: Positive = 600.0
    """Seconds after which a site that has not answered a round counts as dropped out."""
    max_failed_rounds: Annotated[Whole, Field(ge=0)] = 3
    """Failed rounds in a row after which the run ends."""
    weighting: Literal["records", "uniform"] = "records"
    """Weight of a site in the mean: its number of records (hidden in the masked sum), or one each."""
    strategy: Literal["fedavg"] = "fedavg"
    """Server optimiser applied to the mean update."""
    server_learning_rate: Positive = 1.0
    """Step size of the server optimiser."""


class SecAggConfig(Section):
    """Secure aggregation: the aggregator decodes the cohort's sum and nothing else."""

    mode: Literal["on", "off"] = "on"
    """"off" sends updates in clear; simulation only, and every report says so."""
    update_clip: Positive = 4.0
    """Bound on the L2 norm of a site's update, so on each coordinate; a longer update is scaled down to it."""
    bits: Annotated[Whole, Field(ge=8, le=24)] | None = None
    """Quantisation: 2^(bits-1) steps between 0 and update_clip; leave out for the finest that fits the ring."""
    ring_bits: Literal[32] = 32
    """Width w of the ring that masks live in."""
    max_weight: Count = 1024
    """Largest record count that a site may weigh in with; larger sites count as this many."""
    committee_size: Annotated[Whole, Field(ge=2)] | None = None
    """Members that hold masks; all sites up to 32, beyond that leave out for the smallest safe committee."""
    recoverable_drops: Annotated[Whole, Field(ge=0)] | None = None
    """Committee members that may vanish between upload and unmask; leave out for about a fifth."""
    epoch_rounds: Annotated[Whole, Field(ge=1, le=1024)] = 32
    """Rounds after which keys are made anew."""
