"""Differential privacy of a run."""

from __future__ import annotations

from typing import Literal

from qfed.config.section import Fraction, Positive, Section


class PrivacyConfig(Section):
    """Differential privacy of the run."""

    mode: Literal["local", "off"] = "local"
    """"local": DP-SGD at every site, trusting nobody. "off": none (comparison and debugging only)."""
    unit: Literal["record"] = "record"
    """What is protected: one record."""
    epsilon: Positive = 3.0
    """Budget of the whole run (all rounds together) for each record; the noise is calibrated to it."""
    delta: Fraction = 1e-5
    """Failure probability of the guarantee; should be well below 1 / records."""
    clip_norm: Positive = 1.0
    """Bound C on the L2 norm of each record's gradient."""
    noise_multiplier: Positive | None = None
    """sigma; leave out to have it calibrated from epsilon. When given, the run must still fit epsilon."""
