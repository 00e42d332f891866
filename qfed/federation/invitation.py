"""What a coordinator gives every site: one signed file with all that a site needs to find and trust its aggregator.

    invitation.json   {"format", "server": "host:port", "coordinator": fingerprint, "ca": [lines of PEM],
                       "federation": {...}, "signature"}
    signature         the coordinator's, over SHA-256(federation digest, server, PEM of the authority)

It is the same for every site and holds no secret. A site that has compared one fingerprint, the coordinator's, over the
telephone knows all of it to be the coordinator's: roster and policy, address, authority. An operator with a certificate
of another authority puts that one's root there, so that sites trust it for this server and none of the many others.
Errors  ConfigError, in one line with the way out
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path

from qfed.errors import ConfigError, ProtocolError
from qfed.federation.files import write_atomically
from qfed.secagg import Federation, Identity, primitives

INVITATION = "invitation.json"
_FORMAT = "qfed-invitation-1"
_FIELDS = {"format", "server", "coordinator", "ca", "federation", "signature"}
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Invitation:
    """A verified invitation. Build one with `create` or `load`."""

    federation: Federation
    server: str
    ca: str
    signature: bytes = field(repr=False)

    @classmethod
    def create(cls, federation: Federation, server: str, ca: str, coordinator: Identity) -> Invitation:
        """Sign one; `ca` is the PEM of the authority."""
        host_and_port(server)
        return cls(federation, server, ca, coordinator.sign(_signed(federation, server, ca)))

    def to_text(self) -> str:
        """The file's text: readable JSON."""
        value = {
            "format": _FORMAT,
            "server": self.server,
            "coordinator": self.federation.coordinator.fingerprint(),
            "ca": self.ca.splitlines(),
            "federation": json.loads(self.federation.to_text()),
            "signature": b64encode(self.signature).decode(),
        }
        return json.dumps(value, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Replace the file."""
        write_atomically(path, self.to_text().encode())

    @classmethod
    def load(cls, path: Path, coordinator: str | None = None) -> Invitation:
        """Read and verify one; `coordinator` is the fingerprint that its signer must have (None: whoever it names)."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the invitation {path}: {error.strerror}; the coordinator has it") from None
        except ValueError as error:
            raise ConfigError(f"{path} is no invitation ({error}); ask the coordinator to send it again") from None
        if not isinstance(value, dict) or set(value) != _FIELDS or value["format"] != _FORMAT:
            raise ConfigError(
                f"{path} is no invitation of format={_FORMAT}; it is made by qfed federation init --server or qfed "
                f"federation invite, and is called {INVITATION}"
            )
        try:
            ca = "".join(f"{line}\n" for line in value["ca"])
            federation = Federation.from_text(json.dumps(value["federation"]), coordinator)
            signature = b64decode(value["signature"], validate=True)
            federation.coordinator.verify(signature, _signed(federation, str(value["server"]), ca))
        except (ProtocolError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} must not be used: {error}") from None
        host_and_port(value["server"])
        return cls(federation, value["server"], ca, signature)


def host_and_port(server: str) -> tuple[str, int]:
    """The two parts of host:port (an IPv6 address in brackets, which the host comes without)."""
    match = _ADDRESS.fullmatch(server)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(f"server={server!r} must be host:port, e.g. fed.hospital.example:9443")
    return match["host"].strip("[]"), int(match["port"])


def fingerprint_of(text: str) -> str:
    """A fingerprint as people type it, with or without blanks, in its one form: ten groups of four."""
    digits = re.sub(r"[\s:.-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{40}", digits):
        raise ConfigError(
            f"a fingerprint has ten groups of four digits 0-9 a-f, got {text!r}; let the coordinator read it out again "
            "(qfed federation show)"
        )
    return " ".join(digits[at : at + 4] for at in range(0, 40, 4))


def _signed(federation: Federation, server: str, ca: str) -> bytes:
    return primitives.digest("invitation", federation.digest, server.encode(), ca.encode())
