"""Fixtures for all tests: Flower keeps quiet and phones nobody; hypothesis is bounded and reproducible."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

# Wall-clock limits make no sense on a busy machine; examples are derandomised so that CI fails for everybody or nobody.
settings.register_profile("qfed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qfed")
