"""Differential privacy of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qfed.config.section import Flag, Fraction, Positive, Section, Whole


class PrivacyConfig(Section):
    """Differential privacy of the run."""

    mode: Literal["shared", "local", "site", "off"] = "shared"
    """"shared": every site adds a share of the noise under secure aggregation, so that the sum has it once; trusts the
    aggregation and the sites that do not collude. "local": every site adds all of it, trusting nobody. "site": as
    shared, and protects all of a site together, not only each record. "off": none (comparison and debugging only)."""
    epsilon: Positive = 3.0
    """Budget of the whole run (all rounds together) for each protected unit; the noise is calibrated to it."""
    delta: Fraction = 1e-5
    """Failure probability of the guarantee; should be well below 1 / records."""
    clip_norm: Positive = 1.0
    """Bound C on the L2 norm of each record's gradient; mode site: of each site's update."""
    noise_multiplier: Positive | None = None
    """sigma; leave out to have it calibrated from epsilon. When given, the run must still fit epsilon."""
    colluders: Annotated[Whole, Field(ge=0)] | None = None
    """Sites that may collude with the aggregator and whose share of the noise does not count (modes shared and site);
    leave out for a fifth of the sites, or for as many as the committee withstands if those are fewer (beyond 32 sites
    about a tenth). A larger number takes a larger committee, which more work at each site goes into."""
    private_metrics: Flag = False
    """Add noise to evaluation results too, and charge it; scores are then made once, for the final model. Without it
    they leave a site only masked, and the aggregator sees their exact totals over the cohort."""
    few_sites: Flag = False
    """Allow mode site with fewer than 10 sites, where the noise is far larger than what is learned."""

    @property
    def unit(self) -> Literal["record", "site"]:
        """What is protected."""
        return "site" if self.mode == "site" else "record"

    @property
    def shares_noise(self) -> bool:
        """Whether the guarantee rests on the sum over the sites."""
        return self.mode in ("shared", "site")
