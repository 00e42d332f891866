"""What the aggregator remembers of each site's privacy ledger, over all runs: the last head, and a count, to sign.

    FOLDER/aggregator.key    the key that countersigns (0600), made on first use
    FOLDER/witness.json      federation -> site -> [sequence, token], replaced whole, synced, after each round

An aggregator that loses the folder notices no rolled-back ledger until it has seen each site's head again; keep it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qfed.errors import StateError
from qfed.federation.files import write_atomically
from qfed.secagg import Identity, Receipt


def aggregator_identity(folder: Path) -> Identity:
    """The aggregator's own keys, made on first use: it signs receipts and the cards of models with them."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "aggregator.key"
    if not key.exists():
        Identity.generate("aggregator").save(key)
    return Identity.load(key)


class Witness:
    """The heads of one federation's sites."""

    def __init__(self, folder: Path, federation_id: str) -> None:
        self._identity = aggregator_identity(folder)
        self._file, self._federation = folder / "witness.json", federation_id
        self._all: dict[str, dict[str, tuple[int, str]]] = {}
        if self._file.exists():
            try:
                self._all = json.loads(self._file.read_text(encoding="utf-8"))
                self._seen = {site: (int(n), bytes.fromhex(token)) for site, (n, token) in self._mine().items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise StateError(
                    f"{self._file} is not the witness of this aggregator ({type(error).__name__}); restore it, or move "
                    "it away and accept that a ledger rolled back before now goes unnoticed"
                ) from None
        else:
            self._seen = {}

    def _mine(self) -> dict[str, tuple[int, str]]:
        return self._all.setdefault(self._federation, {})

    def token(self, site: str) -> bytes:
        """The last head that was seen of a site; empty when none was."""
        return self._seen.get(site, (0, b""))[1]

    def receipt(self, site: str) -> bytes:
        """The last head, countersigned; empty when none was seen."""
        if site not in self._seen:
            return b""
        sequence, token = self._seen[site]
        return Receipt.sign(self._identity, self._federation, site, sequence, token).to_bytes()

    def note(self, heads: Mapping[str, bytes]) -> None:
        """Remember heads, durably."""
        new = {site: token for site, token in heads.items() if token != self.token(site)}
        if not new:
            return
        for site, token in new.items():
            self._seen[site] = (self._seen.get(site, (0, b""))[0] + 1, token)
            self._mine()[site] = (self._seen[site][0], token.hex())
        write_atomically(self._file, json.dumps(self._all).encode())
