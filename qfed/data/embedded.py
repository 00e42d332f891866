"""The embedded data sets: where they come from, and the public ranges that scale them.

Ranges are constants of the published descriptions, not computed when a program runs:

- breast_cancer: Wisconsin Diagnostic Breast Cancer (W. N. Street, W. H. Wolberg, O. L. Mangasarian, 1993), the
  minimum and maximum of every feature in the "Summary Statistics" of scikit-learn's description of the set;
- digits: Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998), "integer pixels in the range
  0..16" of the same description;
- wine: UCI Wine (M. Forina et al.; S. Aeberhard, D. Coomans, O. de Vel, 1992), "Summary Statistics" again.

The tables are rounded, so a few records at the edge are clipped, as values of a site's own file would be.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qfed.config import NumericColumn, TargetColumn
from qfed.errors import MissingExtra

_BREAST_CANCER = (
    ("mean radius", 6.981, 28.11),
    ("mean texture", 9.71, 39.28),
    ("mean perimeter", 43.79, 188.5),
    ("mean area", 143.5, 2501.0),
    ("mean smoothness", 0.053, 0.163),
    ("mean compactness", 0.019, 0.345),
    ("mean concavity", 0.0, 0.427),
    ("mean concave points", 0.0, 0.201),
    ("mean symmetry", 0.106, 0.304),
    ("mean fractal dimension", 0.05, 0.097),
    ("radius error", 0.112, 2.873),
    ("texture error", 0.36, 4.885),
    ("perimeter error", 0.757, 21.98),
    ("area error", 6.802, 542.2),
    ("smoothness error", 0.002, 0.031),
    ("compactness error", 0.002, 0.135),
    ("concavity error", 0.0, 0.396),
    ("concave points error", 0.0, 0.053),
    ("symmetry error", 0.008, 0.079),
    ("fractal dimension error", 0.001, 0.03),
    ("worst radius", 7.93, 36.04),
    ("worst texture", 12.02, 49.54),
    ("worst perimeter", 50.41, 251.2),
    ("worst area", 185.2, 4254.0),
    ("worst smoothness", 0.071, 0.223),
    ("worst compactness", 0.027, 1.058),
    ("worst concavity", 0.0, 1.252),
    ("worst concave points", 0.0, 0.291),
    ("worst symmetry", 0.156, 0.664),
    ("worst fractal dimension", 0.055, 0.208),
)
_WINE = (
    ("alcohol", 11.0, 14.8),
    ("malic_acid", 0.74, 5.80),
    ("ash", 1.36, 3.23),
    ("alcalinity_of_ash", 10.6, 30.0),
    ("magnesium", 70.0, 162.0),
    ("total_phenols", 0.98, 3.88),
    ("flavanoids", 0.34, 5.08),
    ("nonflavanoid_phenols", 0.13, 0.66),
    ("proanthocyanins", 0.41, 3.58),
    ("color_intensity", 1.3, 13.0),
    ("hue", 0.48, 1.71),
    ("od280/od315_of_diluted_wines", 1.27, 4.00),
    ("proline", 278.0, 1680.0),
)
_DIGITS = tuple((f"pixel_{row}_{column}", 0.0, 16.0) for row in range(8) for column in range(8))


def _columns(
    table: tuple[tuple[str, float, float], ...], scale: Literal["linear", "log"] = "linear"
) -> tuple[NumericColumn, ...]:
    return tuple(NumericColumn(name=name, low=low, high=high, scale=scale) for name, low, high in table)


# The first set measures sizes, and how much they vary within one sample: orders of magnitude, never negative.
COLUMNS = MappingProxyType(
    {"breast_cancer": _columns(_BREAST_CANCER, "log"), "digits": _columns(_DIGITS), "wine": _columns(_WINE)}
)
TARGETS = MappingProxyType(
    {
        "breast_cancer": TargetColumn(name="diagnosis", classes=("malignant", "benign")),
        "digits": TargetColumn(name="digit", classes=tuple(str(digit) for digit in range(10))),
        "wine": TargetColumn(name="cultivar", classes=("class_0", "class_1", "class_2")),
    }
)


def raw(name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """x (N, F) in the units of the description, y (N,) class indices; raises MissingExtra without scikit-learn."""
    try:
        # By name, since scikit-learn is an extra and takes longer to import than all of qfed.
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError:
        raise MissingExtra("scikit-learn", "client") from None
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.int64)
