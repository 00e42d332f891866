"""The aggregator's countersignature of a site's ledger: a witness outside the site, so that an old copy is noticed.

    token_k   = HKDF(salt, "ledger token", chain_k)          of each row k of the ledger, chain_0 empty
    receipt   = (federation, site, sequence, token), signed by the aggregator with Ed25519 and ML-DSA-65

A site tells the token of its ledger's head; the aggregator keeps the last one and shows it with every request. A ledger
in which no row has that token is not the one that was charged: a backup was put back, and the site refuses. The salt is
the site's own secret, so nobody else can make a token, and a token tells nothing of what the ledger holds: only whether
something was charged since the token before. `sequence` is the aggregator's own count of heads that it saw.
Units  bytes      Errors  SecAggRefused for a receipt that is malformed or not the aggregator's
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Self

from qfed.secagg import primitives
from qfed.secagg.identity import Identity, PublicIdentity
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused


def ledger_token(salt: bytes, chain: bytes) -> bytes:
    """What stands for a ledger whose last chain value is `chain` (empty for no rows)."""
    return primitives.derive(salt, "ledger token", chain)


@dataclass(frozen=True)
class Receipt:
    """A countersigned ledger head."""

    federation_id: str
    site: str
    sequence: int
    token: bytes
    aggregator: PublicIdentity
    signature: bytes = field(repr=False)

    @classmethod
    def sign(cls, aggregator: Identity, federation_id: str, site: str, sequence: int, token: bytes) -> Self:
        """Countersign a head."""
        signed = aggregator.sign(_message(federation_id, site, sequence, token))
        return cls(federation_id, site, sequence, token, aggregator.public, signed)

    def verify(self) -> None:
        """SecAggRefused unless the aggregator named in it signed it."""
        self.aggregator.verify(self.signature, _message(self.federation_id, self.site, self.sequence, self.token))

    def to_bytes(self) -> bytes:
        """As it goes over the wire."""
        value = {
            "federation_id": self.federation_id,
            "site": self.site,
            "sequence": self.sequence,
            "token": self.token.hex(),
            "aggregator": self.aggregator.to_dict(),
            "signature": b64encode(self.signature).decode(),
        }
        return json.dumps(value, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """Parse and verify."""
        try:
            value = json.loads(body)
            receipt = cls(
                str(value["federation_id"]),
                str(value["site"]),
                int(value["sequence"]),
                bytes.fromhex(value["token"]),
                PublicIdentity.from_dict(value["aggregator"]),
                b64decode(value["signature"], validate=True),
            )
        except (ValueError, KeyError, TypeError, SecAggMisuse) as error:
            raise SecAggRefused(
                Reason.FIELD_MALFORMED, f"a receipt for a ledger's head cannot be read: {type(error).__name__}"
            ) from error
        receipt.verify()
        return receipt


def _message(federation_id: str, site: str, sequence: int, token: bytes) -> bytes:
    return primitives.digest(
        "ledger receipt", federation_id.encode(), site.encode(), sequence.to_bytes(8, "big"), token
    )
