"""What one message did at a site, as entries of its audit log: received, charged, decided.

Nothing is worked on before its receipt is on the disk, and no answer leaves before its decision is. A simulated site
keeps no log.    Errors  StateError when the log cannot be written: the message is refused then
"""

from __future__ import annotations

from pathlib import Path

from qfed._flower import Message
from qfed.federation import wire
from qfed_client.auditlog import AuditLog, Record, Value
from qfed_client.site import Site

_LONGEST = 500


class Diary:
    """The entries of one message; `folder` is None for a simulated site."""

    def __init__(self, message: Message, folder: Path | None) -> None:
        self._audit = None if folder is None else AuditLog(folder)
        self._about: dict[str, Value] = {
            "type": message.metadata.message_type,
            "round": message.metadata.group_id,
            "message": message.metadata.message_id[:16],
        }
        self._message = message
        self._charges: list[Record] = []
        self._before = ""

    def received(self) -> None:
        """The message came."""
        if self._audit is not None:
            fields = wire.fields_of(self._message)
            run = fields.get("run", "")
            named = {"run": run[:64]} if isinstance(run, str) else {}
            self._audit.append({"what": "received", **self._about, **named, "bytes": wire.size(fields)})

    def begin(self, site: Site) -> None:
        """Work on it begins."""
        if self._audit is not None:
            self._before = site.ledger_head()

    def end(self, site: Site) -> None:
        """Work on it ended, well or not: note what the ledger was charged with."""
        if self._audit is not None and (head := site.ledger_head()) != self._before:
            epsilon = round(site.spent(), 6)
            self._charges.append(
                {"what": "charge", "dataset": site.config.dataset, "epsilon_spent": epsilon, "ledger": head}
            )

    def accepted(self, answer: wire.Fields) -> None:
        """It is answered."""
        self._decided({"answer": "accepted", "bytes": wire.size(answer)})

    def refused(self, error: Exception, answer: str) -> None:
        """It is refused ("refused") or something broke ("failed"); the text stays here."""
        self._decided({"answer": answer, "error": type(error).__name__, "why": str(error)[:_LONGEST]})

    def _decided(self, outcome: Record) -> None:
        if self._audit is not None:
            self._audit.append(*self._charges, {"what": "decided", **self._about, **outcome}, anchor=True)
            self._charges.clear()
