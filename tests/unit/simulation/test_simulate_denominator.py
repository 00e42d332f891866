"""The public denominator of the mean gradient: a value far from a site's records is told, a fitting one is not."""

from __future__ import annotations

import logging

import pytest

from qfed.simulation import _warn_of_denominator, load_config


@pytest.mark.parametrize(("batch_size", "told"), [(36, False), (100, False), (13, False), (4, True), (400, True)])
def test_a_denominator_far_from_the_records_is_told(
    caplog: pytest.LogCaptureFixture, batch_size: float, told: bool
) -> None:
    with caplog.at_level(logging.WARNING, "qfed.simulation"):
        _warn_of_denominator(load_config(None, [f"training.batch_size={batch_size}"]), [30, 36, 900])
    assert bool(caplog.records) == told
    if told:
        assert f"training.batch_size={batch_size}" in caplog.text
        assert "use about 36" in caplog.text
