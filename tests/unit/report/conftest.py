"""Sample results for the tests of qfed.report."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from qfed.federation.result import RunResult


@pytest.fixture(scope="session")
def make_result() -> Callable[..., RunResult]:
    """`make_result` of report_samples.py."""
    spec = importlib.util.spec_from_file_location("report_samples", Path(__file__).with_name("report_samples.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., RunResult] = module.make_result
    return made
