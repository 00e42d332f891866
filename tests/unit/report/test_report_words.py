"""Verdicts tell the truth, also when it is unwelcome."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from qfed.federation.result import Comparison, RunResult, Score
from qfed.report import units, words

Make = Callable[..., RunResult]


def twin(score: float, records: int = 114) -> tuple[Comparison, ...]:
    metrics = Score(score=score, loss=0.2, records=records)
    return (Comparison(kind="twin", label="classical twin", parameters=148, metrics=metrics, epsilon=3.0),)


def text_of(verdict: words.Verdict) -> str:
    return f"{verdict.headline}. {verdict.text}".replace(units.NBSP, " ")


def test_the_hybrid_loses_and_the_report_says_so(make_result: Make) -> None:
    verdict = words.verdicts(make_result(final=108 / 114, comparisons=twin(109 / 114)))[0]
    assert verdict.outcome == "worse"
    assert text_of(verdict) == (
        "The hybrid model loses to its classical twin by 0.9 points. Accuracy 94.7 % against 95.6 %: 1 of 114 held-out "
        "records apart. Trainable parameters: 151 against 148. This run shows no gain from the quantum circuit."
    )


def test_the_hybrid_wins(make_result: Make) -> None:
    verdict = words.verdicts(make_result(final=110 / 114, comparisons=twin(100 / 114)))[0]
    assert verdict.outcome == "better"
    assert text_of(verdict).startswith("The hybrid model beats its classical twin by 8.8 points.")
    assert "no gain" not in verdict.text


def test_a_tie_is_no_gain(make_result: Make) -> None:
    verdict = words.verdicts(make_result(final=0.9, comparisons=twin(0.9)))[0]
    assert (verdict.outcome, verdict.headline) == ("equal", "The hybrid model and its classical twin score the same")
    assert "no gain from the quantum circuit" in verdict.text
    assert "apart" not in verdict.text


def test_records_are_counted_only_where_both_scores_stand_on_as_many(make_result: Make) -> None:
    verdict = words.verdicts(make_result(final=0.9, comparisons=twin(0.8, records=90)))[0]
    assert "records" not in verdict.text


def test_lower_rmse_is_better(make_result: Make) -> None:
    found = words.verdicts(make_result(task="regression", final=10.0))
    assert [verdict.outcome for verdict in found] == ["better", "worse", "better"]
    assert found[1].headline.replace(units.NBSP, " ") == "Privacy costs 0.2 of RMSE (2.0 %)"


def test_a_classical_main_run_beats_its_hybrid_twin_without_praise_for_the_circuit(make_result: Make) -> None:
    verdict = words.verdicts(make_result(kind="twin", final=0.99))[0]
    assert text_of(verdict).startswith("The classical model beats its hybrid twin by")
    assert "no gain from the quantum circuit" in verdict.text


def test_privacy_that_helps_is_no_benefit_to_rely_on(make_result: Make) -> None:
    verdict = words.verdicts(make_result(final=1.0))[1]
    assert verdict.outcome == "better"
    assert "no benefit to rely on" in verdict.text


def test_federation_may_lose(make_result: Make) -> None:
    verdict = words.verdicts(make_result(final=0.7))[2]
    assert verdict.outcome == "worse"
    assert text_of(verdict).startswith("Training together loses 12.5 points against each site alone.")
    assert "epsilon 3.00" in verdict.text


@given(mine=st.integers(0, 114), other=st.integers(0, 114))
def test_outcome_follows_the_scores(make_result: Make, mine: int, other: int) -> None:
    result = make_result(final=mine / 114, comparisons=twin(other / 114), rounds=2, failed=(), sites=3)
    expected = "equal" if mine == other else "better" if mine > other else "worse"
    verdict = words.verdicts(result)[0]
    assert verdict.outcome == expected
    if mine != other:
        assert f"{abs(mine - other)} of 114 held-out records apart" in text_of(verdict)


def test_the_sentence_says_what_was_off(make_result: Make) -> None:
    def said(**changes: bool) -> str:
        return words.sentence(make_result(**changes)).replace(units.NBSP, " ").split("rounds, ")[1]

    private = "with record-level differential privacy (epsilon 3.00, delta 1e−5)"  # noqa: RUF001
    assert said() == f"{private} and secure aggregation."
    assert said(secagg=False) == f"{private} but without secure aggregation."
    assert said(private=False) == "without differential privacy but with secure aggregation."
    assert said(private=False, secagg=False) == "without differential privacy and without secure aggregation."


def test_the_sentence_names_model_data_and_size(make_result: Make) -> None:
    text = words.sentence(make_result()).replace(units.NBSP, " ")
    start = "10 sites trained a hybrid quantum-classical model (4 qubits, 2 layers, 151 parameters) on breast_cancer"
    assert text.startswith(f"{start} in 15 rounds")
    assert "a classical model (151 parameters)" in words.sentence(make_result(kind="twin")).replace(units.NBSP, " ")
