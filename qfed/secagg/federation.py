"""The federation file: who belongs, under which terms, signed by a coordinator and handed out of band.

    digest = SHA-256(canonical JSON of {format, version, policy, roster, coordinator})

The digest is in every transcript, so two sites with different files share no key. The aggregator holds a copy but
cannot change it: it has no coordinator key. A site pins the coordinator's fingerprint when it first loads the
file, and its store refuses a version older than one it has used.

Roster order is by name; a site's index in it is how messages name the site.
Errors  SecAggMisuse: FEDERATION_INVALID, COORDINATOR_UNKNOWN, POLICY_INVALID; SecAggRefused for a bad signature.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from qfed.secagg import primitives
from qfed.secagg.identity import Identity, PublicIdentity
from qfed.secagg.policy import Policy
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused

_FORMAT = "qfed-federation-1"


def _invalid(message: str) -> SecAggMisuse:
    return SecAggMisuse(Reason.FEDERATION_INVALID, message)


@dataclass(frozen=True)
class Federation:
    """A verified federation file. Build one with `create`, `amended`, `load` or `from_text`."""

    policy: Policy
    roster: tuple[PublicIdentity, ...]
    version: int
    coordinator: PublicIdentity
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        names = [site.name for site in self.roster]
        if names != sorted(set(names)):
            raise _invalid("a roster names each site once, in order of name; create the file again")
        keys = [key for site in self.roster for key in site.keys]
        if len(keys) != len(set(keys)):
            raise _invalid("two sites of the roster share a key; each site generates its own identity")
        if not isinstance(self.version, int) or isinstance(self.version, bool) or self.version < 1:
            raise _invalid(f"version counts from 1, got version={self.version!r}")
        self.policy.check(len(self.roster))
        self.coordinator.verify(self.signature, _signed(self.digest))

    @classmethod
    def create(cls, policy: Policy, roster: Iterable[PublicIdentity], coordinator: Identity, version: int = 1) -> Self:
        """Sign a federation of these sites under these terms."""
        ordered = tuple(sorted(roster, key=lambda site: site.name))
        digest = primitives.digest("federation", _canonical(policy, ordered, version, coordinator.public))
        return cls(policy, ordered, version, coordinator.public, coordinator.sign(_signed(digest)))

    def amended(
        self,
        coordinator: Identity,
        *,
        add: Iterable[PublicIdentity] = (),
        revoke: Iterable[str] = (),
        policy: Policy | None = None,
    ) -> Self:
        """Return the next version, with sites added and revoked. Only the same coordinator may sign it."""
        if coordinator.public != self.coordinator:
            raise SecAggMisuse(
                Reason.COORDINATOR_UNKNOWN,
                f"version {self.version} was signed by {self.coordinator.name}, got coordinator={coordinator.name}; "
                "a new coordinator means a new federation file that every site pins anew",
            )
        gone = set(revoke)
        if unknown := gone - set(self.index):
            raise _invalid(f"only sites of the roster can be revoked, got {', '.join(sorted(unknown))}")
        roster = [site for site in self.roster if site.name not in gone]
        return type(self).create(policy or self.policy, [*roster, *add], coordinator, self.version + 1)

    @cached_property
    def digest(self) -> bytes:
        """What identifies this file: 32 bytes, in every transcript and label."""
        return primitives.digest("federation", _canonical(self.policy, self.roster, self.version, self.coordinator))

    @cached_property
    def index(self) -> dict[str, int]:
        """Index in the roster by name."""
        return {site.name: i for i, site in enumerate(self.roster)}

    def site(self, name: str) -> PublicIdentity:
        """Return a site's public identity, else raise SecAggRefused(SYBIL)."""
        if name not in self.index:
            raise SecAggRefused(
                Reason.SYBIL, f"site={name} is not in the roster of {self.policy.federation_id}; do not talk to it"
            )
        return self.roster[self.index[name]]

    def to_text(self) -> str:
        """Return the file's text: readable JSON with the signature."""
        value = _content(self.policy, self.roster, self.version, self.coordinator)
        return json.dumps(value | {"signature": b64encode(self.signature).decode()}, indent=1) + "\n"

    def save(self, path: Path | str) -> None:
        """Write the file."""
        Path(path).write_text(self.to_text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str, coordinator: str | None = None) -> Federation:
        """Read and verify the file; `coordinator` is the pinned fingerprint (None: trust the file's on first use)."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _invalid(
                f"no federation file can be read from path={path}: {type(error).__name__}; ask the coordinator for it"
            ) from error
        return _verified(text, coordinator)

    @classmethod
    def from_text(cls, text: str, coordinator: str | None = None) -> Self:
        """Parse and verify the file's text; an unknown or missing field is refused."""
        try:
            value = json.loads(text, object_pairs_hook=_no_duplicates)
        except ValueError as error:
            raise _invalid(f"a federation file is JSON, got {error}") from error
        names = {"format", "version", "policy", "roster", "coordinator", "signature"}
        if not isinstance(value, dict) or set(value) != names or value["format"] != _FORMAT:
            raise _invalid(f"a federation file of format={_FORMAT} has exactly the fields {', '.join(sorted(names))}")
        if not isinstance(value["roster"], list):
            raise _invalid("the roster of a federation file is a list")
        try:
            signature = b64decode(value["signature"], validate=True)
        except (TypeError, ValueError) as error:
            raise _invalid("the signature of a federation file is base64") from error
        federation = cls(
            Policy.from_dict(value["policy"]),
            tuple(PublicIdentity.from_dict(site) for site in value["roster"]),
            value["version"],
            PublicIdentity.from_dict(value["coordinator"]),
            signature,
        )
        if coordinator is not None and federation.coordinator.fingerprint() != coordinator:
            raise SecAggMisuse(
                Reason.COORDINATOR_UNKNOWN,
                f"this site trusts the coordinator {coordinator}, got {federation.coordinator.fingerprint()}; ask "
                "the coordinator over another channel before you change the pin",
            )
        return federation


@lru_cache(maxsize=2)
def _verified(text: str, coordinator: str | None) -> Federation:
    """Parse and verify a text once: a process that simulates a thousand sites reads the same file for each."""
    return Federation.from_text(text, coordinator)


def _signed(digest: bytes) -> bytes:
    return primitives.digest("federation signature", digest)


def _content(
    policy: Policy, roster: tuple[PublicIdentity, ...], version: int, coordinator: PublicIdentity
) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": version,
        "policy": policy.to_dict(),
        "roster": [site.to_dict() for site in roster],
        "coordinator": coordinator.to_dict(),
    }


def _canonical(policy: Policy, roster: tuple[PublicIdentity, ...], version: int, coordinator: PublicIdentity) -> bytes:
    content = _content(policy, roster, version, coordinator)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field twice")
    return value
