"""The gradient histogram: fixed, bounded, blind to brightness, and better under privacy than pixels."""

from __future__ import annotations

import numpy as np
import pytest

from qfed.config import DataConfig
from qfed.data import load, schema_of
from qfed.data.gradients import DIRECTIONS, gradient_histogram, names
from qfed.errors import ConfigError


def images(count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, side * side)).astype(np.float32)


@pytest.mark.parametrize(("side", "features"), [(8, 72), (9, 72), (16, 392), (28, 512)])
def test_shape_range_and_names(side: int, features: int) -> None:
    found = gradient_histogram(images(3, side))
    assert found.shape == (3, features)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1
    assert len(names(side * side)) == len(set(names(side * side))) == features


def test_each_record_has_its_own_features_alone() -> None:
    x = images(5)
    np.testing.assert_array_equal(gradient_histogram(x)[2:3], gradient_histogram(x[2:3]))
    assert gradient_histogram(x[:0]).shape == (0, 72)


@pytest.mark.parametrize("turns", range(8))
def test_a_ramp_votes_for_its_own_direction(turns: int) -> None:
    """A plane that rises in one of the eight directions: all votes of a cell are in one place."""
    angle = 2 * np.pi * turns / DIRECTIONS
    rows, columns = np.indices((8, 8))
    plane = (np.cos(angle) * columns + np.sin(angle) * rows) * 0.05
    found = gradient_histogram(plane.reshape(1, 64).astype(np.float32)).reshape(9, DIRECTIONS)
    centre = found[4]  # no pixel of this cell is at the edge
    assert centre.argmax() == turns
    assert np.all(np.delete(centre, turns) < -0.9)


def test_a_direction_between_two_is_shared() -> None:
    angle = 2 * np.pi * 0.5 / DIRECTIONS
    rows, columns = np.indices((8, 8))
    plane = ((np.cos(angle) * columns + np.sin(angle) * rows) * 0.05).reshape(1, 64).astype(np.float32)
    centre = gradient_histogram(plane).reshape(9, DIRECTIONS)[4]
    assert centre[0] == pytest.approx(centre[1], abs=1e-5)
    assert centre[0] > 0 > centre[2]


def test_brightness_and_contrast_do_not_matter_and_a_blank_image_is_no_division_by_zero() -> None:
    x = images(3) * np.float32(0.4)
    np.testing.assert_allclose(gradient_histogram(0.5 * x + 0.3), gradient_histogram(x), atol=1e-4)
    np.testing.assert_array_equal(gradient_histogram(np.zeros((1, 64), np.float32)), -np.ones((1, 72)))


def test_it_is_a_setting_of_the_data() -> None:
    config = DataConfig(source="digits", features="gradient_histogram")
    dataset = load(config)
    assert dataset.schema == schema_of(config)
    assert dataset.schema.features[:2] == ("gradient_0_0_0", "gradient_0_0_1")
    np.testing.assert_array_equal(dataset.records.x, gradient_histogram(load(DataConfig(source="digits")).records.x))


@pytest.mark.parametrize("source", ["breast_cancer", "wine"])
def test_other_records_than_images_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match=r"gradient_histogram.*got (30|13) columns"):
        schema_of(DataConfig(source=source, features="gradient_histogram"))  # type: ignore[arg-type]
