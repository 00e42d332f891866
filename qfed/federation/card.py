"""A model's card: what it is, what went in, what is promised, what it was measured to do, and who stands behind it.

    card.json             all of it, with the SHA-256 of the files that make the model
    MODEL_CARD.md         the same for people; follows from card.json, so it cannot say something else
    card.signatures.json  [{"signer": public identity, "signature"}, ...] over card.json: the aggregator's, written with
                          a deployed run, and whoever else vouches for it (a coordinator: qfed model sign)

A signature covers card.json, card.json the model: whoever trusts a signer's fingerprint knows that nothing was changed.
The form is that of Mitchell et al., "Model cards for model reporting", FAT* 2019, as far as a federation can fill
it in: what sites know of their records stays there.     Errors  ConfigError in one line
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from qfed.errors import ConfigError, ProtocolError
from qfed.federation.cardtext import render
from qfed.federation.files import write_atomically
from qfed.federation.result import PrivacyStatement, Record, RunResult, Score
from qfed.secagg import Federation, Identity, PublicIdentity, primitives

CARD, TEXT, SIGNATURES = "card.json", "MODEL_CARD.md", "card.signatures.json"
COVERED = ("model.npz", "model.json", "config.toml")
INTENDED = (
    "Answers for records that this schema describes, from populations like those of the sites that took part. It is a "
    "result of research: not validated for any other use, not a medical device, and no ground for a decision about a "
    "person without validation on the population in question."
)


class Provenance(Record):
    """Where a model comes from."""

    run: str
    """Identifier of the run."""
    origin: Literal["deployed", "simulation"]
    """A federation of sites, or one machine that played all of them."""
    created: str
    """When the card was written, UTC."""
    config_digest: str
    """SHA-256 of the run's resolved configuration as JSON."""
    federation: str | None
    """Identifier of the federation; None in a simulation."""
    federation_version: int | None
    """Version of its roster."""
    federation_digest: str | None
    """Digest of its signed file."""
    coordinator: str | None
    """Fingerprint of who signed it."""
    sites: int
    """Sites of the run."""
    versions: dict[str, str]
    """Python's and the packages' versions."""


class Card(Record):
    """Everything that card.json says."""

    format: Literal["qfed.card/1"] = "qfed.card/1"
    """Version of this schema."""
    status: Literal["completed", "stopped"]
    """How the run ended."""
    intended_use: str
    """What the model is for, and what it is not for."""
    model: dict[str, Any]
    """The model's configuration."""
    parameters: int
    """Trained parameters."""
    data_schema: dict[str, Any]
    """What goes in and what comes out, public ranges included."""
    metric: Literal["accuracy", "rmse"]
    """What scores mean."""
    initial: Score | None
    """Of the model before training, on all sites' held-out records."""
    final: Score
    """Of the model."""
    rounds: int
    """Rounds that were aggregated."""
    privacy: PrivacyStatement
    """What is promised to those whose records were used, and what is not."""
    provenance: Provenance
    """Where it comes from."""
    files: dict[str, str]
    """SHA-256 of the files beside the card that make the model."""


@dataclass(frozen=True)
class Verified:
    """What was found to hold."""

    card: Card
    signers: tuple[PublicIdentity, ...]


def write_card(
    folder: Path,
    result: RunResult,
    created: datetime,
    *,
    federation: Federation | None = None,
    signer: Identity | None = None,
    intended_use: str = INTENDED,
) -> Card:
    """Write the card of the model in `folder` (model.npz, model.json, config.toml); `signer` signs it.

    Without a `federation` the run was a simulation.
    """
    about = _json(folder / "model.json")
    card = Card(
        status=result.status,
        intended_use=intended_use,
        model=about["model"],
        parameters=result.parameters,
        data_schema=about["schema"],
        metric=result.metric,
        initial=result.initial,
        final=result.final,
        rounds=sum(record.status == "aggregated" for record in result.rounds),
        privacy=result.privacy,
        provenance=Provenance(
            run=result.run,
            origin="simulation" if federation is None else "deployed",
            created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            config_digest=hashlib.sha256(result.config.model_dump_json().encode()).hexdigest(),
            federation=None if federation is None else federation.policy.federation_id,
            federation_version=None if federation is None else federation.version,
            federation_digest=None if federation is None else federation.digest.hex(),
            coordinator=None if federation is None else federation.coordinator.fingerprint(),
            sites=result.config.federation.sites,
            versions=result.versions,
        ),
        files={name: _digest(folder / name) for name in COVERED if (folder / name).exists()},
    )
    write_atomically(folder / CARD, (card.model_dump_json(indent=1) + "\n").encode())
    write_atomically(folder / TEXT, render(card).encode())
    (folder / SIGNATURES).unlink(missing_ok=True)
    if signer is not None:
        sign(folder, signer)
    return card


def sign(folder: Path, signer: Identity) -> None:
    """Add a signature to the card of `folder`; one of the same signer is replaced."""
    body = _bytes(folder / CARD)
    kept = [(public, s) for public, s in _signatures(folder) if public != signer.public]
    both = [*kept, (signer.public, signer.sign(_signed(body)))]
    text = json.dumps([{"signer": p.to_dict(), "signature": b64encode(s).decode()} for p, s in both], indent=1)
    write_atomically(folder / SIGNATURES, (text + "\n").encode())


def read_card(folder: Path) -> Card:
    """The card of a model's folder, not verified."""
    try:
        return Card.model_validate_json(_bytes(folder / CARD))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in found["loc"])
        raise ConfigError(f"{folder / CARD} is no card of this qfed ({where}: {found['msg']})") from None


def verify(folder: Path) -> Verified:
    """Check files, text and every signature of a card; ConfigError names the first that does not hold."""
    card = read_card(folder)
    for name, digest in card.files.items():
        if _digest(folder / name) != digest:
            raise ConfigError(f"{folder / name} is not the file that the card was written for; it was changed since")
    if not set(card.files) >= {"model.npz", "model.json"}:
        raise ConfigError(f"{folder / CARD} does not cover the model's files; it is no card of this model")
    if _json(folder / "model.json")["schema"] != card.data_schema:
        raise ConfigError(f"{folder / CARD} tells another schema than model.json; it is no card of this model")
    if _bytes(folder / TEXT) != render(card).encode():
        raise ConfigError(f"{folder / TEXT} does not say what {CARD} says; it was changed since, trust {CARD}")
    signatures = _signatures(folder)
    for public, signature in signatures:
        try:
            public.verify(signature, _signed(_bytes(folder / CARD)))
        except ProtocolError as error:
            told = f"the signature of {public.name} in {folder / SIGNATURES} is not of this card: {error}"
            raise ConfigError(told) from None
    return Verified(card, tuple(public for public, _ in signatures))


def _signatures(folder: Path) -> list[tuple[PublicIdentity, bytes]]:
    file = folder / SIGNATURES
    if not file.exists():
        return []
    try:
        entries: list[dict[str, Any]] = [*json.loads(file.read_text(encoding="utf-8"))]
        return [
            (PublicIdentity.from_dict(entry["signer"]), b64decode(entry["signature"], validate=True))
            for entry in entries
        ]
    except (ValueError, TypeError, KeyError, ProtocolError) as error:
        raise ConfigError(f"{file} holds no signatures ({type(error).__name__}); restore it") from None


def _signed(body: bytes) -> bytes:
    return primitives.digest("model card", body)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; a model's folder has it beside model.json") from None


def _digest(path: Path) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()


def _json(path: Path) -> Mapping[str, Any]:
    try:
        tree: Mapping[str, Any] = json.loads(_bytes(path))
        if not isinstance(tree["schema"], dict) or not isinstance(tree["model"], dict):
            raise KeyError("schema")
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is not a model's model.json; the file is damaged") from None
    return tree
