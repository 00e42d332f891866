"""A site's side of the countersignature: is this ledger the one that the aggregator saw last?

    ledger-witness.json    salt (secret; without it tokens cannot be told), the last receipt with the aggregator's key

The aggregator's key is pinned when its first receipt comes. A lost or restored file makes the ledger unknown to
what the aggregator shows, so it fails on the safe side: the site refuses until a person has looked.
Errors  RolledBack before anything is charged or read
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from qfed.errors import PolicyRefused, RemoteProtocolError, RolledBack, StateError
from qfed.federation.files import write_atomically
from qfed.privacy.ledger import Ledger
from qfed.secagg import Receipt, ledger_token

_SALT = 32


class LedgerWitness:
    """Compares the ledger of one site with what others saw of it."""

    def __init__(self, path: Path, ledger: Ledger, federation_id: str, site: str, *, durable: bool = True) -> None:
        self._path, self._ledger, self._durable = path, ledger, durable
        self._federation, self._site = federation_id, site
        self._receipt: Receipt | None = None
        if path.exists():
            self._load()
        else:
            self._salt = os.urandom(_SALT)
            self._save()

    def head(self) -> bytes:
        """Token of the ledger's head, for the aggregator."""
        return ledger_token(self._salt, next(self._ledger.heads()))

    def check(self, token: bytes) -> None:
        """RolledBack unless the ledger has had this head; an empty token says that none was seen."""
        if token and not any(ledger_token(self._salt, chain) == token for chain in self._ledger.heads()):
            raise RolledBack(
                f"{self._ledger.path} is older than the ledger that the aggregator saw last: a backup was put back, a "
                f"copy of this folder took part from another place, or {self._path.name} is not the one that belongs "
                "to it; nothing was read. Go on with the folder that took part last, or bring back the newest copy of "
                "both files, or retire the data set under this name: its budget counts as spent"
            )

    def accept(self, body: bytes) -> None:
        """Check what the aggregator shows against the ledger, and keep it; empty when it has seen none."""
        if self._receipt is not None:
            self.check(self._receipt.token)
        if not body:
            return
        receipt = Receipt.from_bytes(body)
        if (receipt.federation_id, receipt.site) != (self._federation, self._site):
            raise RemoteProtocolError(
                f"the aggregator showed a receipt of site={receipt.site!r}, federation={receipt.federation_id!r}"
            )
        pinned = self._receipt
        if pinned is not None and pinned.aggregator != receipt.aggregator:
            raise PolicyRefused(
                "the aggregator countersigns with another key than before; if it was set up anew, compare "
                f"{receipt.aggregator.fingerprint()} with its operator and remove the receipt from {self._path}"
            )
        self.check(receipt.token)
        if pinned is None or receipt.sequence > pinned.sequence:
            self._receipt = receipt
            self._save()

    def _load(self) -> None:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            self._salt = bytes.fromhex(value["salt"])
            if len(self._salt) != _SALT:
                raise ValueError("its salt is too short")
            self._receipt = None if value["receipt"] is None else Receipt.from_bytes(value["receipt"].encode())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RemoteProtocolError) as error:
            raise StateError(
                f"{self._path} is not this site's witness file ({type(error).__name__}); restore it: without it a "
                "ledger that was put back cannot be told from the newest one"
            ) from None

    def _save(self) -> None:
        receipt = None if self._receipt is None else self._receipt.to_bytes().decode()
        content = json.dumps({"salt": self._salt.hex(), "receipt": receipt}).encode()
        if self._durable:
            write_atomically(self._path, content, secret=True)
        else:
            self._path.touch(0o600)
            self._path.write_bytes(content)
