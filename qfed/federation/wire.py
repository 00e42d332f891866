"""What crosses between ServerApp and ClientApp: one Flower record of plain fields, arrays packed into one bytes field.

Flower splits tensors into chunks and objects, which costs the aggregator seven times the CPU of one bytes field.

    message            fields to the site                        fields back
    query.hello        run                                       site
    query.join         config (TOML), run, receipt               head (token of its ledger's head)
    query.plan         run                                       plan (what the run costs here by plan, as JSON)
    query.secagg       run, body (protocol message)              body
    train, evaluate    run, round, model (float32, LE), request, body (masked vector, protocol message), head,
                       witness (the last head that was seen)     spent ("", or [epsilon, budget] of its records as JSON)
    query.receipt      receipt (countersigned head)              head
    query.initial      run, rounds, every                        facts (JSON, see qfed.federation.facts), model
    query.model        run, model                                about (JSON), archive (NPZ): model.json and model.npz
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qfed._flower import ConfigRecord, Message, RecordDict
from qfed.errors import RemoteProtocolError

HELLO = "query.hello"
JOIN = "query.join"
PLAN = "query.plan"
RECEIPT = "query.receipt"
INITIAL = "query.initial"
MODEL = "query.model"
SECAGG = "query.secagg"
TRAIN = "train"
EVALUATE = "evaluate"
HEAD_SIZE = 32
SITE_REFUSED, SITE_FAILED = 100, 101
"""Codes of a site's error replies: it refused on purpose, or something broke there; the reason is a type's name."""

Field = str | int | bytes
Fields = Mapping[str, Field]

_RECORD = "qfed"


def pack(fields: Fields) -> RecordDict:
    """Fields as the content of a Flower message."""
    return RecordDict({_RECORD: ConfigRecord(dict(fields))})


def unpack(message: Message, **expected: type) -> dict[str, Field]:
    """The fields of a message; RemoteProtocolError unless they are exactly the expected ones, of their types."""
    record = message.content.get(_RECORD)
    if not isinstance(record, ConfigRecord) or {key: type(value) for key, value in record.items()} != expected:
        raise RemoteProtocolError(f"a {message.metadata.message_type} message must carry exactly {sorted(expected)}")
    return dict(record)  # type: ignore[arg-type]


def fields_of(message: Message) -> dict[str, Field]:
    """The fields of a message as they came, unchecked; empty when it carries none."""
    record = message.content.get(_RECORD) if message.has_content() else None
    return dict(record) if isinstance(record, ConfigRecord) else {}  # type: ignore[arg-type]


def size(fields: Fields) -> int:
    """Bytes of the fields' payload."""
    return sum(len(value) for value in fields.values() if isinstance(value, (bytes, str)))


def vector_to_bytes(vector: np.ndarray) -> bytes:
    """(P,) parameters as little-endian float32."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def vector_from_bytes(body: bytes, parameters: int) -> np.ndarray:
    """The inverse of `vector_to_bytes`; RemoteProtocolError for another length or a value that is not finite."""
    if len(body) != 4 * parameters:
        raise RemoteProtocolError(f"the model has parameters={parameters}, so 4 bytes each, got {len(body)} bytes")
    vector = np.frombuffer(body, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise RemoteProtocolError("the model sent by the aggregator holds values that are not finite")
    return vector
