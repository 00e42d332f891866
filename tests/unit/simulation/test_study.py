"""The study of data efficiency: one budget for both uses of the records, and a verdict that the figures give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from qfed.federation.efficiency import Band, Budget, Curve, DataSet, Point, StudyResult, interval
from qfed.privacy.accounting import Releases, epsilon_of
from qfed.report.efficiency import budget_sentence, caveat, verdicts, write_study
from qfed.simulation.efficiency import Study, grid, noises, study

BUDGET = Budget(epsilon=3.0, delta=1e-5, release=2.0, training=2.0, share=0.5, most_spent=2.9)


def made(**scores: tuple[tuple[float, ...], ...]) -> StudyResult:
    """A study of one data set; an arm by name, its scores by number of records."""
    curves = tuple(
        Curve(
            model="hybrid" if arm.startswith("hybrid") else "twin",
            generator="pairwise" if arm.endswith("more") else None,
            points=tuple(Point(records=10 ** (k + 1), scores=s) for k, s in enumerate(rows)),
        )
        for arm, rows in scores.items()
    )
    data = DataSet(source="wine", bits=3, features=2, curves=curves)
    return StudyResult(seeds=(1, 2, 3, 4, 5), simulated=9, steps=4, budget=BUDGET, sets=(data,))


LOW, MIDDLE, HIGH = (0.50, 0.51, 0.52, 0.49, 0.50), (0.80, 0.81, 0.79, 0.80, 0.82), (0.90, 0.91, 0.90, 0.89, 0.90)
EITHER = (0.82, 0.79, 0.80, 0.81, 0.80)


def test_the_verdict_says_where_simulated_records_help_hurt_and_change_nothing() -> None:
    result = made(
        hybrid=(LOW, MIDDLE, HIGH),
        hybrid_more=(MIDDLE, EITHER, MIDDLE),
        twin=(LOW, HIGH, HIGH),
        twin_more=(LOW, HIGH, HIGH),
    )
    found = verdicts(result)
    assert "hybrid: records simulated by pairwise help at N = 10 (+30.0 points at 10" in found[0]
    assert "hurt at N = 1,000 (-9.6 points at 1,000" in found[0]
    assert "no difference beyond noise at N = 100" in found[0]
    assert found[1] == (
        "wine, twin: records simulated by pairwise make no difference beyond noise at any number of real records."
    )
    assert found[2] == "wine: on real records alone, the hybrid is behind its twin at N = 100."


def test_intervals_are_student_ts() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    found = interval(values, 0.95)
    half = 3.182446 * np.std(values, ddof=1) / 2  # the 97.5 % point of t with 3 degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), abs=1e-5)
    assert interval([0.7], 0.95) == Band(mean=0.7, low=0.7, high=0.7)


def test_one_seed_concludes_nothing() -> None:
    one = made(hybrid=((0.1,),), hybrid_more=((0.9,),), twin=((0.1,),), twin_more=((0.1,),))
    assert "no difference beyond noise" in verdicts(one)[0]


def test_differences_are_corrected_for_the_number_of_comparisons() -> None:
    gains = (0.021, 0.001, 0.030, 0.012, 0.015)
    rows = tuple(0.5 + g for g in gains)
    one = made(hybrid=((0.5,) * 5,), hybrid_more=(rows,), twin=(LOW,), twin_more=(LOW,))
    many = made(hybrid=((0.5,) * 5,) * 6, hybrid_more=(rows,) * 6, twin=(LOW,) * 6, twin_more=(LOW,) * 6)
    assert one.sets[0].gains("hybrid", "pairwise")[0].finding == "helps"
    assert many.sets[0].gains("hybrid", "pairwise")[0].finding == "no difference"


def test_release_and_training_share_one_budget() -> None:
    settings = Study()
    alone, release, beside = noises(settings)
    both = [Releases(1.0, release, 1), Releases(1.0, beside, settings.steps)]
    assert epsilon_of(both, settings.delta) == pytest.approx(3.0, rel=1e-4)
    assert epsilon_of(both, settings.delta) <= 3.0
    assert epsilon_of([Releases(1.0, alone, settings.steps)], settings.delta) == pytest.approx(3.0, rel=1e-4)


def test_the_grid_is_logarithmic_and_ends_with_all_records() -> None:
    assert grid(380, 20, 5) == (20, 42, 87, 182, 380)
    assert grid(10, 20, 3) == (10,)


@pytest.mark.slow
def test_a_small_study_runs_spends_no_more_than_its_budget_and_is_written(tmp_path: Path) -> None:
    result = study(Study(sources=("wine",), generators=("independent",), seeds=(1, 2), points=2, simulated=50, steps=6))
    assert 2.99 < result.budget.most_spent <= 3.0
    data = result.sets[0]
    assert [c.label for c in data.curves] == ["hybrid", "hybrid + independent", "twin", "twin + independent"]
    assert all(len(point.scores) == 2 and min(point.scores) >= 0 for c in data.curves for point in c.points)
    paths = write_study(result, tmp_path)
    assert [path.name for path in paths] == ["study.json", "study.png", "study.html"]
    tree = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert StudyResult.model_validate(tree) == result
    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    for line in (*verdicts(result), budget_sentence(result), caveat(result)):
        assert str(escape(line)) in page
    assert "Too few seeds" in page
    assert "http" not in page.split("</style>")[1].replace("http-equiv", "")
