"""Who a site is: a name, two signing keys (Ed25519 and ML-DSA-65), and where it is deployed a node key (P-384).

An identity lives as one JSON file that only its owner may read (mode 0600). What others need is its `public`
half: a file of its own that goes to the coordinator, and from there into the federation file. People compare its
fingerprint over another channel; it also stands in the public file, so that a mangled copy is noticed.

    fingerprint = first 20 bytes of SHA-256(name, Ed25519 key, ML-DSA-65 key[, node key]), in groups of four hex digits

The node key is what Flower's fleet API lets a site's connection in with. It signs no message of the protocol; it is in
the fingerprint and in the roster's digest all the same, so that nobody swaps it. A simulation has no connections and
leaves it out.
Cost    two or three key generations, about 0.5 ms   Errors  SecAggMisuse(IDENTITY_INVALID) with the way out
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from qfed.secagg import primitives
from qfed.secagg.primitives import NodeKey, SigningKey, VerifyKey
from qfed.secagg.reasons import Reason, SecAggMisuse
from qfed.secagg.wire import check_name

_FORMAT = "qfed-identity-1"
_PUBLIC_FORMAT = "qfed-public-identity-1"


def _invalid(message: str) -> SecAggMisuse:
    return SecAggMisuse(Reason.IDENTITY_INVALID, message)


@dataclass(frozen=True)
class PublicIdentity:
    """A site's name and public keys: what the roster of a federation holds. `node` is a compressed point of P-384."""

    name: str
    ed25519: bytes = field(repr=False)
    mldsa65: bytes = field(repr=False)
    node: bytes | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if len(self.ed25519) != 32 or len(self.mldsa65) != 1952:
            raise _invalid(
                f"an identity has an Ed25519 key of 32 bytes and an ML-DSA-65 key of 1952, got "
                f"{len(self.ed25519)} and {len(self.mldsa65)} for name={self.name}; copy the public file again"
            )
        if self.node is not None:
            try:
                primitives.node_public(self.node)
            except ValueError as error:
                where = f"the node key of name={self.name}"
                raise _invalid(f"{where} is no point of P-384; copy the public file again") from error

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The public keys that are there."""
        return (self.ed25519, self.mldsa65) if self.node is None else (self.ed25519, self.mldsa65, self.node)

    def fingerprint(self) -> str:
        """Return what two people compare over the telephone."""
        mark = primitives.digest("fingerprint", self.name.encode(), *self.keys)[:20].hex()
        return " ".join(mark[i : i + 4] for i in range(0, 40, 4))

    def node_key(self) -> EllipticCurvePublicKey:
        """Return what the site's connection is authenticated with, else raise SecAggMisuse(IDENTITY_INVALID)."""
        return primitives.node_public(_deployed(self.name, self.node))

    def verify(self, signature: bytes | memoryview, message: bytes) -> None:
        """Raise SecAggRefused unless both signatures of `message` are this identity's."""
        VerifyKey(self.ed25519, self.mldsa65).verify(signature, message, self.name)

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        value = {
            "name": self.name,
            "ed25519": b64encode(self.ed25519).decode(),
            "mldsa65": b64encode(self.mldsa65).decode(),
        }
        return value if self.node is None else value | {"node": b64encode(self.node).decode()}

    def save(self, path: Path | str) -> None:
        """Write the public file, readable by everybody; never overwrite one."""
        value = {"format": _PUBLIC_FORMAT, "fingerprint": self.fingerprint()} | self.to_dict()
        _create(path, json.dumps(value, indent=1) + "\n", 0o644)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a public file; refuse one that is none, or whose keys are not those of its fingerprint."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not JSON"
            hint = "name a site's public file, NAME.public.json, which qfed site keygen wrote beside its key"
            raise _invalid(f"no public identity can be read from path={path}: {why}; {hint}") from error
        if isinstance(value, dict) and value.get("format") == _FORMAT:
            raise _invalid(f"path={path} holds PRIVATE keys, which never leave their site; give the public file")
        if not isinstance(value, dict) or value.pop("format", None) != _PUBLIC_FORMAT:
            raise _invalid(f"path={path} is not a public identity of format={_PUBLIC_FORMAT}; export it again")
        mark = value.pop("fingerprint", None)
        public = cls.from_dict(value)
        if public.fingerprint() != mark:
            raise _invalid(
                f"the keys in path={path} have the fingerprint {public.fingerprint()}, the file says {mark}; it was "
                "changed on its way, ask the site for its public file again"
            )
        return public

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Parse the JSON form; an unknown or missing field is refused."""
        if not isinstance(value, dict) or set(value) - {"node"} != {"name", "ed25519", "mldsa65"}:
            raise _invalid("a public identity has the fields name, ed25519, mldsa65 and maybe node; export it again")
        node = _decode(value["node"]) if "node" in value else None
        return cls(str(value["name"]), _decode(value["ed25519"]), _decode(value["mldsa65"]), node)


@dataclass(frozen=True)
class Identity:
    """A site's name and secret keys. The secrets are in no repr and in no error."""

    name: str
    key: SigningKey = field(repr=False)
    node: NodeKey | None = field(repr=False, default=None)
    public: PublicIdentity = field(init=False)

    def __post_init__(self) -> None:
        public, node = self.key.public(), None if self.node is None else self.node.public()
        object.__setattr__(self, "public", PublicIdentity(self.name, public.ed25519, public.mldsa65, node))

    @classmethod
    def generate(cls, name: str, *, node: bool = False) -> Self:
        """Draw a new identity from the operating system's entropy; with `node` one that can connect to a server."""
        return cls(check_name(name, "name"), SigningKey.generate(), NodeKey.generate() if node else None)

    def node_key(self) -> EllipticCurvePrivateKey:
        """Return what the site's connection is authenticated with, else raise SecAggMisuse(IDENTITY_INVALID)."""
        return NodeKey(_deployed(self.name, None if self.node is None else self.node.secret)).private()

    def fingerprint(self) -> str:
        """Return the fingerprint of the public half."""
        return self.public.fingerprint()

    def sign(self, message: bytes) -> bytes:
        """Return both signatures of `message`."""
        return self.key.sign(message)

    def save(self, path: Path | str, *, durable: bool = True) -> None:
        """Write the identity to a new file that only its owner may read; never overwrite one.

        With `durable` it is on the disk when this returns.
        """
        value = {
            "format": _FORMAT,
            "name": self.name,
            "ed25519_secret": b64encode(self.key.ed25519).decode(),
            "mldsa65_secret": b64encode(self.key.mldsa65).decode(),
        }
        if self.node is not None:
            value["node_secret"] = b64encode(self.node.secret).decode()
        _create(path, json.dumps(value, indent=1) + "\n", 0o600, durable=durable)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read an identity; refuse a file that others may read, or that is not an identity."""
        path = Path(path)
        try:
            mode = path.stat().st_mode & 0o777
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _invalid(f"no identity can be read from path={path}: {type(error).__name__}") from error
        if os.name == "posix" and mode & 0o077:
            raise _invalid(f"an identity is readable by its owner only, got mode={mode:o}; chmod 600 {path}")
        names = {"format", "name", "ed25519_secret", "mldsa65_secret"}
        if not isinstance(value, dict) or set(value) - {"node_secret"} != names or value["format"] != _FORMAT:
            raise _invalid(f"path={path} is not an identity of format={_FORMAT}; restore it or generate a new one")
        ed25519, mldsa65 = _decode(value["ed25519_secret"]), _decode(value["mldsa65_secret"])
        if len(ed25519) != 32 or len(mldsa65) != 32:
            raise _invalid(f"path={path} holds secrets of a wrong length; restore it or generate a new identity")
        node = NodeKey(_decode(value["node_secret"])) if "node_secret" in value else None
        try:
            return cls(check_name(str(value["name"]), "name"), SigningKey(ed25519, mldsa65), node)
        except ValueError:  # its text may quote the secret
            raise _invalid(f"the node_secret in path={path} is no key of P-384; restore the file") from None


def _deployed(name: str, node: bytes | None) -> bytes:
    if node is None:
        raise _invalid(
            f"name={name} has no node key, which a connection to a server needs: its keys were made for simulation or "
            "by an older qfed; make new ones with qfed site keygen in another folder, and let the coordinator put "
            f"them in their place: qfed federation add FOLDER {name}.public.json --revoke {name}"
        )
    return node


def _decode(text: Any) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise _invalid("a key of an identity is not base64; export it again") from error


def _create(path: Path | str, text: str, mode: int, *, durable: bool = True) -> None:
    """Write a new file, synced to disk if `durable`; one that exists is never overwritten."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise _invalid(f"an identity is never overwritten, but path={path} exists; choose another") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
