"""What a result says, in sentences: what was run, and how it did against the runs beside it.

A verdict states the difference as it is, also when the hybrid model loses. It counts the difference in held-out
records where both scores stand on the same number of them, because "0.9 points" hides that this may be one record.
It tests nothing: one run with one seed cannot tell a small difference from chance, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qfed.federation.result import Comparison, RunResult, Score
from qfed.report import units
from qfed.report.units import NBSP

Outcome = Literal["better", "worse", "equal"]

CAVEAT = (
    "One run with one seed: a difference of a few held-out records can be chance. "
    "Run several seeds before drawing a conclusion."
)
NO_COMPARISONS = (
    "Nothing was run beside this model, so this report cannot say what the quantum circuit, privacy or federation "
    "gained or cost (simulation.compare names the runs that can)."
)


@dataclass(frozen=True)
class Verdict:
    """One comparison in words; `outcome` is the main run's."""

    outcome: Outcome
    headline: str
    text: str


def model_name(result: RunResult) -> str:
    """`hybrid model` or `classical model`."""
    return "hybrid model" if result.config.model.kind == "hybrid" else "classical model"


def sentence(result: RunResult) -> str:
    """What was run, in one sentence."""
    config = result.config
    model = config.model
    if model.kind == "hybrid":
        what = (
            f"a hybrid quantum-classical model ({units.count(model.wires, 'qubit')}, "
            f"{units.count(model.layers, 'layer')}, {units.count(result.parameters, 'parameter')})"
        )
    else:
        what = f"a classical model ({units.count(result.parameters, 'parameter')})"
    if result.privacy.mode == "off":
        privacy = "without differential privacy"
    else:
        privacy = (
            f"with {config.privacy.unit}-level differential privacy "
            f"(epsilon {units.epsilon(result.privacy.epsilon)}, delta {units.delta(result.privacy.delta)})"
        )
    both_off = result.privacy.mode == "off" and config.secagg.mode == "off"
    join = "and" if both_off or (result.privacy.mode != "off" and config.secagg.mode == "on") else "but"
    secagg = "with secure aggregation" if config.secagg.mode == "on" else "without secure aggregation"
    if privacy.startswith("with ") and secagg.startswith("with "):
        secagg = "secure aggregation"
    sites = units.count(len(result.sites), "site")
    rounds = units.count(len(result.rounds), "round")
    return f"{sites} trained {what} on {config.data.source} in {rounds}, {privacy} {join} {secagg}."


def outcome(result: RunResult, other: Score) -> Outcome:
    """How the main run did against another; equal means equal as shown."""
    if units.score(result.metric, result.final.score) == units.score(result.metric, other.score):
        return "equal"
    higher = result.final.score > other.score
    return "better" if higher == (result.metric == "accuracy") else "worse"


def difference(result: RunResult, other: Score) -> str:
    """The size of a difference: `0.9 points, 1 of 114 held-out records`, or `0.31 (4.2 %) of RMSE`."""
    gap = abs(result.final.score - other.score)
    if result.metric == "rmse":
        share = f", {100 * gap / other.score:.1f}{NBSP}%" if other.score > 0 else ""
        return f"{gap:.3g} of RMSE{share}"
    text = f"{100 * gap:.1f} points"
    if other.records == result.final.records:
        text += f", {round(gap * other.records):,} of {units.count(other.records, 'held-out record')}"
    return text


def verdicts(result: RunResult) -> tuple[Verdict, ...]:
    """One verdict a comparison, in their order."""
    return tuple(_VERDICTS[comparison.kind](result, comparison) for comparison in result.comparisons)


def _scores(result: RunResult, other: Score) -> str:
    name = units.METRIC_NAMES[result.metric]
    return f"{name} {units.score(result.metric, result.final.score)} against {units.score(result.metric, other.score)}"


def _twin(result: RunResult, comparison: Comparison) -> Verdict:
    end, mine = outcome(result, comparison.metrics), model_name(result)
    hybrid = result.config.model.kind == "hybrid"
    other = "its classical twin" if hybrid else "its hybrid twin"
    headline = {
        "better": f"The {mine} does better than {other}",
        "worse": f"The {mine} does worse than {other}",
        "equal": f"The {mine} and {other} score the same",
    }[end]
    lesson = {
        "better": "" if hybrid else "On these data the quantum circuit does not pay.",
        "worse": "On these data the quantum circuit does not pay." if hybrid else "",
        "equal": "On these data the quantum circuit makes no visible difference.",
    }[end]
    sizes = f"{result.parameters:,} against {units.count(comparison.parameters, 'trainable parameter')}"
    gap = "" if end == "equal" else f" ({difference(result, comparison.metrics)})"
    return Verdict(end, headline, f"{_scores(result, comparison.metrics)}{gap}, with {sizes}. {lesson}".rstrip())


def _non_private(result: RunResult, comparison: Comparison) -> Verdict:
    end = outcome(result, comparison.metrics)
    gap = difference(result, comparison.metrics)
    scores = _scores(result, comparison.metrics)
    if result.privacy.mode == "off":
        return Verdict(end, "Neither this run nor the one beside it is private", f"{scores}.")
    if end == "worse":
        headline = "Privacy has a price"
        return Verdict(end, headline, f"{scores} for the same run without privacy ({gap}).")
    if end == "equal":
        return Verdict(end, "Privacy has no price that these records can show", f"{scores} for the run without it.")
    return Verdict(
        end,
        "The private run did better than the one without privacy",
        f"{scores} ({gap}). Noise can act as a regulariser, or this is chance; it is no benefit to rely on.",
    )


def _no_federation(result: RunResult, comparison: Comparison) -> Verdict:
    end = outcome(result, comparison.metrics)
    headline = {
        "better": "Training together does better than each site alone",
        "worse": "Training together does worse than each site alone",
        "equal": "Training together and each site alone score the same",
    }[end]
    guarantee = "without privacy" if comparison.epsilon is None else f"at epsilon {units.epsilon(comparison.epsilon)}"
    gap = "" if end == "equal" else f" ({difference(result, comparison.metrics)})"
    text = f"{_scores(result, comparison.metrics)}, the mean of the sites' own models {guarantee}{gap}."
    return Verdict(end, headline, text)


_VERDICTS = {"twin": _twin, "non_private": _non_private, "no_federation": _no_federation}


def signed_difference(result: RunResult, other: Score) -> str:
    """The other run's score less this run's: `+0.9 points`, `-0.31`."""
    gap = other.score - result.final.score
    return f"{100 * gap:+.1f} points" if result.metric == "accuracy" else f"{gap:+.3g}"
