"""What a result says, in sentences: what was run, and how it did against the runs beside it.

A verdict states the difference as it is, also when the hybrid model loses. It counts the difference in held-out
records where both scores stand on the same number of them, because "0.9 points" hides that this may be one record.
It tests nothing: one run with one seed cannot tell a small difference from chance, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qfed.federation.result import Comparison, DeviceUse, RunResult, Score
from qfed.report import units
from qfed.report.units import MINUS, NBSP

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


def gap(result: RunResult, other: Score) -> str:
    """How far two scores are apart: `0.9 points`, or `0.446 of RMSE (3.7 %)` of the other's."""
    apart = abs(result.final.score - other.score)
    if result.metric == "accuracy":
        return f"{100 * apart:.1f}{NBSP}points"
    share = f" ({100 * apart / other.score:.1f}{NBSP}%)" if other.score > 0 else ""
    return f"{apart:.3g} of RMSE{share}"


def signed_gap(result: RunResult, other: Score) -> str:
    """The other run's score less this run's: `+0.9 points`, `\N{MINUS SIGN}0.31`."""
    apart = other.score - result.final.score
    text = f"{100 * apart:+.1f}{NBSP}points" if result.metric == "accuracy" else f"{apart:+.3g}"
    return text.replace("-", MINUS)


def device_use(use: DeviceUse) -> str:
    """`on default.mixed: 9,600 circuits, 192,000 shots, no price` in words."""
    shots = f", {use.shots:,} shots" if use.shots else ", exact expectations"
    if use.price is None:
        cost = "; the price table has no price for it"
    elif use.price > 0:
        cost = f"; {use.currency} {use.price:,.2f} by list prices as of {use.as_of} (the invoice is what counts)"
    else:
        cost = "; on this machine, at no price"
    return f"on {use.device}: {units.count(use.circuits, 'circuit')}{shots}{cost}"


def verdicts(result: RunResult) -> tuple[Verdict, ...]:
    """One verdict a comparison, in their order."""
    return tuple(_VERDICTS[comparison.kind](result, comparison) for comparison in result.comparisons)


def _scores(result: RunResult, other: Score, whose: str = "") -> str:
    """`Accuracy 94.7 % against 95.6 %: 1 of 114 held-out records apart.`"""
    name = units.METRIC_NAMES[result.metric]
    text = f"{name[0].upper()}{name[1:]} {units.score(result.metric, result.final.score)}"
    text += f" against {units.score(result.metric, other.score)}{whose}"
    if result.metric == "accuracy" and other.records == result.final.records:
        apart = round(abs(result.final.score - other.score) * other.records)
        if apart:
            text += f": {apart:,} of {units.count(other.records, 'held-out record')} apart"
    return text + "."


def _twin(result: RunResult, comparison: Comparison) -> Verdict:
    end, mine, apart = outcome(result, comparison.metrics), model_name(result), gap(result, comparison.metrics)
    hybrid = result.config.model.kind == "hybrid"
    other = "its classical twin" if hybrid else "its hybrid twin"
    headline = {
        "better": f"The {mine} beats {other} by {apart}",
        "worse": f"The {mine} loses to {other} by {apart}",
        "equal": f"The {mine} and {other} score the same",
    }[end]
    text = f"{_scores(result, comparison.metrics)} Trainable parameters: "
    text += f"{result.parameters:,} against {comparison.parameters:,}."
    if end == "equal" or (end == "worse") == hybrid:
        text += " This run shows no gain from the quantum circuit."
    return Verdict(end, headline, text)


def _non_private(result: RunResult, comparison: Comparison) -> Verdict:
    end, apart = outcome(result, comparison.metrics), gap(result, comparison.metrics)
    if result.privacy.mode == "off":
        headline = "Neither this run nor the one beside it is private"
        return Verdict(end, headline, _scores(result, comparison.metrics))
    scores = _scores(result, comparison.metrics, " for the same run without privacy")
    if end == "worse":
        return Verdict(end, f"Privacy costs {apart}", scores)
    if end == "equal":
        return Verdict(end, "Privacy costs nothing that these records can show", scores)
    return Verdict(
        end,
        f"The private run beats the one without privacy by {apart}",
        f"{scores} Noise can act as a regulariser, or this is chance; it is no benefit to rely on.",
    )


def _no_federation(result: RunResult, comparison: Comparison) -> Verdict:
    end, apart = outcome(result, comparison.metrics), gap(result, comparison.metrics)
    headline = {
        "better": f"Training together gains {apart} over each site alone",
        "worse": f"Training together loses {apart} against each site alone",
        "equal": "Training together and each site alone score the same",
    }[end]
    guarantee = "without privacy" if comparison.epsilon is None else f"at epsilon {units.epsilon(comparison.epsilon)}"
    whose = f", the mean of the sites' own models {guarantee}"
    return Verdict(end, headline, _scores(result, comparison.metrics, whose))


_VERDICTS = {"twin": _twin, "non_private": _non_private, "no_federation": _no_federation}
