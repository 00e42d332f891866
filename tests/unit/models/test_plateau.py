"""A configured circuit without gradients is told before it is trained."""

from __future__ import annotations

import logging

import pytest

from qfed.config import ModelConfig
from qfed.models import build, warn_of_plateau


def warned(caplog: pytest.LogCaptureFixture, **changes: object) -> str:
    config = ModelConfig.model_validate(changes)
    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        warn_of_plateau(build(config, 16, 2, seed=1), config)
    return caplog.text


def test_a_wide_and_deep_circuit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert "barren plateau" in warned(caplog, architecture="variational", wires=11, layers=14)


@pytest.mark.parametrize("name", ["reuploading", "scaled_reuploading", "variational", "qcnn", "kernel", "quanvolution"])
def test_models_of_the_library_are_not(caplog: pytest.LogCaptureFixture, name: str) -> None:
    assert warned(caplog, architecture=name) == ""


def test_a_twin_has_no_circuit_to_judge(caplog: pytest.LogCaptureFixture) -> None:
    assert warned(caplog, architecture="variational", wires=11, layers=14, kind="twin") == ""
