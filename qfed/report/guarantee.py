"""What was promised and what was not, in words that a data-protection officer can read.

    P(M(D) in S) <= exp(epsilon) P(M(D') in S) + delta     for neighbouring data sets D, D' and every set S of outcomes

Source: Dwork and Roth, Foundations and Trends in Theoretical Computer Science 9(3-4), 2014, definition 2.4. So the odds
of any guess about one record grow at most exp(epsilon)-fold, but for an event of probability delta. The tiers of
epsilon (up to 1 strong, up to 10 reasonable, beyond weak) are those of Ponomareva et al., Journal of Artificial
Intelligence Research 77, 2023, section 5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from qfed.federation.result import PrivacyStatement, RunResult
from qfed.federation.synthesis_result import SynthesisResult
from qfed.report import units, words


@dataclass(frozen=True)
class Notice:
    """What a reader must know before believing the figures; an alarm is about protection, a caution about the run."""

    level: Literal["alarm", "caution"]
    title: str
    text: str


@dataclass(frozen=True)
class Fact:
    """One row of the privacy statement: the question, the answer, and what the answer means."""

    question: str
    answer: str
    meaning: str = ""


def notices(result: RunResult | SynthesisResult) -> tuple[Notice, ...]:
    """Alarms first, then cautions; empty for a run with nothing to warn of."""
    found = []
    if result.privacy.mode == "off":
        what = "The model may reveal the records it was trained on."
        if isinstance(result, SynthesisResult):
            what = "These are exact counts of real records, and what is made of them may reveal single ones."
        found.append(
            Notice(
                "alarm",
                "Differential privacy is OFF",
                f"{what} For comparison and debugging only: do not release it.",
            )
        )
    if result.config.secagg.mode == "off":
        found.append(
            Notice(
                "alarm",
                "Secure aggregation is OFF",
                "Every site sent its update in clear, and the aggregator could read each one. "
                "Allowed in a simulation only.",
            )
        )
    budget, spent = result.config.privacy.epsilon, _most_spent(result)
    if result.privacy.mode != "off" and spent > budget * (1 + 1e-9):
        found.append(
            Notice(
                "alarm",
                "More privacy was spent than budgeted",
                f"Epsilon {units.epsilon(spent)} was spent; the budget is {units.budget(budget)}.",
            )
        )
    records = sum(site.train_records or 0 for site in result.sites)
    if result.privacy.delta is not None and records and result.privacy.delta * records >= 1:
        found.append(
            Notice(
                "alarm",
                "Delta is too large for these data",
                f"delta = {units.delta(result.privacy.delta)} allows a mechanism that publishes one of the "
                f"{records:,} records outright; it should be well below 1 / {records:,}.",
            )
        )
    if result.privacy.provider is not None:
        found.append(
            Notice(
                "caution",
                "Encoded records went to a quantum provider",
                f"Circuits ran on the remote device {result.privacy.provider}: its provider got the records that were "
                "trained on, encoded in circuits. Differential privacy does not protect them from the provider.",
            )
        )
    device = result.device if isinstance(result, RunResult) else None
    if device is not None and device.capped:
        found.append(
            Notice(
                "caution",
                "Device use reached its cap",
                f"The next circuits on {device.device} would have passed the cap on shots or money, so they "
                "were not submitted. The model is that of the last good round.",
            )
        )
    elif isinstance(result, RunResult) and result.status == "stopped":
        found.append(
            Notice(
                "caution",
                "The run stopped early",
                f"Too many rounds failed: it ended after {len(result.rounds)} of "
                f"{units.count(result.config.training.rounds, 'round')}. "
                "The model is that of the last good round.",
            )
        )
    return tuple(found)


def strength(
    epsilon: float | None, delta: float | None, unit: Literal["record", "site"] = "record", seen: str = "the model"
) -> str:
    """What epsilon and delta bound, as a sentence or two."""
    if epsilon is None or delta is None:
        return f"Nothing bounds what {seen} gives away about a record."
    what = "one record was used" if unit == "record" else "one site's records were used"
    if not math.isfinite(epsilon) or epsilon > 20:
        return "Epsilon is so large that it bounds nothing of practical use."
    tier = "strong" if epsilon <= 1 else "reasonable" if epsilon <= 10 else "weak"
    return (
        f"Whatever somebody guesses about whether {what}, seeing {seen} makes the odds of that guess at "
        f"most {units.epsilon(math.exp(epsilon))} times as high; this may fail with probability "
        f"1 in {1 / delta:,.0f} at most. By common practice a {tier} guarantee "
        "(up to 1 strong, up to 10 reasonable, beyond weak)."
    )


def facts(result: RunResult | SynthesisResult) -> tuple[Fact, ...]:
    """The privacy statement as questions and answers."""
    statement, counts = result.privacy, isinstance(result, SynthesisResult)
    seen = "the counts, and anything that is made of them," if counts else "the model"
    sees = Fact("What can the aggregator see?", statement.secure_aggregation)
    trust = Fact("Whom must you trust?", statement.trust)
    if statement.mode == "off":
        nothing = strength(None, None, seen="the release" if counts else seen)
        return (Fact("What is protected?", "nothing: differential privacy was off", nothing), trust, sees)
    device = result.device if isinstance(result, RunResult) else None
    ran = () if device is None else (Fact("Where did the circuits run?", words.device_use(device)),)
    return (
        Fact("What is protected?", statement.unit),
        Fact(
            "Against which difference?",
            statement.adjacency,
            "Two data sets that differ by this are hard to tell apart.",
        ),
        Fact(
            "How strongly?",
            f"epsilon = {units.epsilon(statement.epsilon)}, delta = {units.delta(statement.delta)} for the whole run",
            strength(statement.epsilon, statement.delta, "site" if statement.mode == "site" else "record", seen),
        ),
        Fact("How was that counted?", statement.accountant, _release(statement) if counts else _mechanism(statement)),
        trust,
        sees,
        *ran,
    )


def _mechanism(statement: PrivacyStatement) -> str:
    if statement.noise_multiplier is None or statement.clip_norm is None:
        return ""
    noise = statement.noise_multiplier
    entry = (
        "every record enters every step"
        if statement.sampling_rate == 1
        else f"each record enters a step with probability {statement.sampling_rate:g}"
    )
    norm = f"{statement.clip_norm:g}"
    if statement.mode == "site":
        return (
            f"Noise of standard deviation {noise:.4g} x {norm} on the sum of the sites' updates, each clipped to norm "
            f"{norm}; {units.count(statement.steps, 'local step')} in all. {_parts(statement)}"
        )
    what = "gradients" if statement.directions is None else f"{statement.directions} loss differences a record and step"
    text = (
        f"Gaussian noise of standard deviation {noise:.4g} x {norm} on the sum of {what}"
        f"{' over all sites' if statement.mode == 'shared' else ''}, "
        f"each clipped to norm {norm}; {units.count(statement.steps, 'step')}, {entry}."
    )
    return f"{text} {_parts(statement)}" if statement.mode == "shared" else text


def _release(statement: PrivacyStatement) -> str:
    if statement.noise_multiplier is None or statement.clip_norm is None:
        return ""
    where = "the sum over all sites" if statement.mode == "shared" else "each site's sums"
    norm = f"{statement.clip_norm:.4g}"
    text = (
        f"One release: Gaussian noise of standard deviation {statement.noise_multiplier:.4g} x {norm} on {where}, "
        f"which any record moves by {norm}. What is fitted, sampled and published "
        "afterwards reads no record and costs nothing more."
    )
    return f"{text} {_parts(statement)}" if statement.mode == "shared" else text


def _parts(statement: PrivacyStatement) -> str:
    honest = statement.honest or 1
    return (
        f"Each site adds 1/\N{SQUARE ROOT}{honest} of that noise, in whole numbers; any {honest} sites make it full; "
        f"that sampling is not perfect adds less than {_power(statement.sampling_distance)} to delta, which is "
        "included."
    )


def _power(value: float | None) -> str:
    """The next power of ten above a tiny number."""
    return f"1e{math.floor(math.log10(value)) + 1}" if value else "0"


def _most_spent(result: RunResult | SynthesisResult) -> float:
    ledgers = [site.epsilon for site in result.sites if site.epsilon is not None]
    return max([*ledgers, result.privacy.epsilon or 0.0])
