"""A model's card for people: Markdown that follows from the card alone, so that anybody can make it again and compare.

Errors  none: a card is complete
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qfed.federation.card import Card
    from qfed.federation.result import PrivacyStatement, Score


def render(card: Card) -> str:
    """The text of MODEL_CARD.md."""
    return "\n".join([*_model(card), *_data(card.data_schema), *_measured(card), *_privacy(card), *_provenance(card)])


def _model(card: Card) -> list[str]:
    about, schema, model = card.provenance, card.data_schema, card.model
    name = about.federation or "a simulation"
    answers = f"one of {', '.join(schema['classes'])}" if schema["classes"] else f"a value of {schema['target']}"
    kind = "hybrid of a circuit and classical layers" if model["kind"] == "hybrid" else "classical twin"
    return [
        f"# Model of run {about.run} ({name})",
        "",
        *([] if card.status == "completed" else ["**The run was stopped before its end.**", ""]),
        *(["Trained in a simulation: one machine played all sites.", ""] if about.origin == "simulation" else []),
        f"Predicts `{schema['target']}` ({answers}). A {kind}: architecture `{model['architecture']}`, circuit "
        f"`{model['circuit']}`, {model['wires']} wires, {model['layers']} layers, {card.parameters} parameters.",
        "",
        "## Intended use",
        "",
        card.intended_use,
        "",
    ]


def _data(schema: Mapping[str, Any]) -> list[str]:
    lines = ["## Data", ""]
    if schema.get("made", "values") != "values":
        lines += [f"Features are a `{schema['made']}` of the columns below.", ""]
    lines += ["| column | kind | values |", "|---|---|---|"]
    for column in schema.get("columns", ()):
        if column.get("kind", "numeric") == "numeric":
            scale = ", logarithmic" if column.get("scale") == "log" else ""
            lines.append(f"| {_cell(column['name'])} | number{scale} | {column['low']:g} to {column['high']:g} |")
        else:
            lines.append(f"| {_cell(column['name'])} | category | {_cell(', '.join(column['categories']))} |")
    ends = schema.get("target_range")
    told = ", ".join(schema["classes"]) if schema["classes"] else f"{ends[0]:g} to {ends[1]:g}" if ends else "a number"
    lines += [f"| **{_cell(schema['target'])}** | answer | {_cell(told)} |", ""]
    lines += ["Ranges are public knowledge, not taken from records. Values outside are clipped to them.", ""]
    return lines


def _measured(card: Card) -> list[str]:
    metric = {"accuracy": "accuracy", "rmse": f"root mean square error of {card.data_schema['target']}"}[card.metric]
    lines = ["## Measured", "", f"On records that the sites held out, all sites together ({metric}):", ""]
    lines += ["| model | score | loss |", "|---|---|---|"]
    if card.initial is not None:
        lines.append(_score("before training", card.initial))
    lines += [_score(f"after {card.rounds} rounds", card.final), ""]
    return lines


def _score(name: str, score: Score) -> str:
    return f"| {name} | {score.score:.4g} | {score.loss:.4g} |"


def _privacy(card: Card) -> list[str]:
    told = card.privacy
    lines = ["## Privacy", "", _promise(told), ""]
    lines += [f"- What is protected: {told.unit} ({told.adjacency}).", f"- Trust: {told.trust}."]
    lines += [f"- Secure aggregation: {told.secure_aggregation}.", f"- Accountant: {told.accountant}."]
    lines += ["- Not covered:", *(f"  - {item}" for item in told.not_covered), ""]
    return lines


def _promise(told: PrivacyStatement) -> str:
    if told.epsilon is None or told.delta is None:
        return "**No differential privacy.** The model may reveal records that it was trained on."
    epsilon = math.ceil(told.epsilon * 100) / 100
    return f"**Differential privacy: epsilon = {epsilon:.2f} at delta = {told.delta:.2g}** (mode {told.mode})."


def _provenance(card: Card) -> list[str]:
    about = card.provenance
    rows = [("run", about.run), ("created", about.created), ("sites", str(about.sites))]
    if about.federation is not None:
        rows += [
            ("federation", f"{about.federation}, version {about.federation_version}"),
            ("federation digest", str(about.federation_digest)),
            ("coordinator", str(about.coordinator)),
        ]
    rows += [("configuration, SHA-256", about.config_digest)]
    rows += [(f"{name}, SHA-256", digest) for name, digest in card.files.items()]
    rows += [(name, version) for name, version in about.versions.items()]
    lines = ["## Provenance", "", "| what | value |", "|---|---|", *(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)]
    return [*lines, "", "Signatures are in `card.signatures.json`; check all of it with `qfed model verify`.", ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
