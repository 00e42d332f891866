"""Every primitive: what is used of `cryptography` (and of `blake3`), with which parameters, and nothing else.

    digest      SHA-256(len(domain) | domain | parts, each with its length)
    signature   Ed25519 (64 bytes) | ML-DSA-65 (3309 bytes) over the same message; both must verify
    seal        HPKE base mode, KEM.MLKEM768_X25519 (X-Wing), HKDF-SHA-256, AES-256-GCM
    derive      HKDF-Expand, SHA-256
    lock        AES-256-GCM with the zero nonce under a key that encrypts once
    node key    ECDSA on P-384, what Flower's fleet API authenticates a site's connection with; nothing else rests on it
    long digest BLAKE3-256 of a vector of megabytes: collision resistant as SHA-256, three times as fast
    stream      AES-256-CTR of zeros under a key that makes one stream, in stretches of 128 KiB; stretch s begins at
                the counter block 2^32 s + 2

Sources: RFC 9180 and draft-ietf-hpke-pq (HPKE), FIPS 203 (ML-KEM), FIPS 204 (ML-DSA), RFC 8032, RFC 5869,
SP 800-38A/D, BLAKE3 (O'Connor et al. 2020). Units: bytes throughout.
Errors: SecAggRefused with the reason that the caller names.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, field
from functools import cache, cached_property

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qfed.secagg.reasons import Reason, SecAggRefused

KEY_SIZE = 32
STRETCH = 1 << 17
TAG = 16
ED25519_SIGNATURE = 64
MLDSA65_SIGNATURE = 3309
SIGNATURE_SIZE = ED25519_SIGNATURE + MLDSA65_SIGNATURE
MLKEM768_KEY = 1184
KEM_KEY_SIZE = MLKEM768_KEY + 32
KEM_SECRET_SIZE = 64 + 32
NODE_KEY_SIZE = 1 + 48
NODE_SECRET_SIZE = 48
KemPublic = MLKEM768X25519PublicKey
_PROTOCOL = b"qfed-secagg-1 "
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_SHA256 = hashes.SHA256()
_length = struct.Struct(">Q").pack
_SMALL = 1 << 16  # bytes up to which parts are joined before they are hashed
_ZERO_NONCE = bytes(12)
_ZEROS = memoryview(bytes(STRETCH))


def random_key() -> bytes:
    """Return 32 bytes of the operating system's entropy."""
    return os.urandom(KEY_SIZE)


def digest(domain: str, *parts: bytes | memoryview) -> bytes:
    """Return SHA-256 over the domain and the parts, each preceded by its length, so that no two inputs collide."""
    pieces, total = [_tag(domain)], 0
    for part in parts:
        total += len(part)
        pieces += (_length(len(part)), part)
    if total <= _SMALL:
        return hashlib.sha256(b"".join(pieces)).digest()
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece)
    return state.digest()


@cache
def _tag(domain: str) -> bytes | memoryview:
    """Return how a digest begins; domains are few and fixed."""
    tag = _PROTOCOL + domain.encode()
    return _length(len(tag)) + tag


def derive(key: bytes, domain: str, *parts: bytes, size: int = KEY_SIZE) -> bytes:
    """Return `size` bytes of HKDF-Expand(key, domain | parts); every part has a fixed length or is the last."""
    return HKDFExpand(_SHA256, size, _PROTOCOL + domain.encode() + b"\0" + b"".join(parts)).derive(key)


@dataclass(frozen=True)
class SigningKey:
    """Ed25519 and ML-DSA-65 secret seeds (32 bytes each)."""

    ed25519: bytes = field(repr=False)
    mldsa65: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        """Draw both seeds from the operating system's entropy."""
        return cls(os.urandom(32), os.urandom(32))

    def sign(self, message: bytes) -> bytes:
        """Return both signatures of `message`, 3373 bytes."""
        ed25519, mldsa65 = self._keys
        return ed25519.sign(message) + mldsa65.sign(message)

    def public(self) -> VerifyKey:
        """Return the public half."""
        ed25519, mldsa65 = self._keys
        return VerifyKey(ed25519.public_key().public_bytes_raw(), mldsa65.public_key().public_bytes_raw())

    @cached_property
    def _keys(self) -> tuple[Ed25519PrivateKey, MLDSA65PrivateKey]:
        """Both keys, expanded once: a site signs every reply."""
        return (
            Ed25519PrivateKey.from_private_bytes(self.ed25519),
            MLDSA65PrivateKey.from_seed_bytes(self.mldsa65),
        )


@dataclass(frozen=True)
class VerifyKey:
    """Ed25519 (32 bytes) and ML-DSA-65 (1952 bytes) public keys."""

    ed25519: bytes
    mldsa65: bytes

    def verify(self, signature: bytes | memoryview, message: bytes, who: str) -> None:
        """Raise SecAggRefused unless both signatures of `message` verify.

        SIGNATURE_STRIPPED when one of the two is not there, SIGNATURE_BAD when one does not verify.
        """
        signature = bytes(signature)
        if len(signature) != SIGNATURE_SIZE:
            raise SecAggRefused(
                Reason.SIGNATURE_STRIPPED,
                f"a signature of {who} holds Ed25519 and ML-DSA-65 ({SIGNATURE_SIZE} bytes), got {len(signature)}",
            )
        try:
            Ed25519PublicKey.from_public_bytes(self.ed25519).verify(signature[:ED25519_SIGNATURE], message)
            MLDSA65PublicKey.from_public_bytes(self.mldsa65).verify(signature[ED25519_SIGNATURE:], message)
        except (InvalidSignature, ValueError) as error:
            raise SecAggRefused(
                Reason.SIGNATURE_BAD, f"Ed25519 and ML-DSA-65 of {who} must both verify; do not trust this message"
            ) from error


@dataclass(frozen=True)
class KemKey:
    """A hybrid KEM key pair, kept as its seeds (ML-KEM-768 64 bytes, X25519 32 bytes)."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> KemKey:
        """Draw both seeds from the operating system's entropy."""
        return cls(os.urandom(KEM_SECRET_SIZE))

    def public(self) -> bytes:
        """Return ML-KEM-768 | X25519 public keys, 1216 bytes."""
        mlkem, x25519 = self._keys
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to this key under `info`, else raise SecAggRefused(SEALED_KEY_UNREADABLE)."""
        try:
            return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(*self._keys), info=info)
        except (InvalidTag, ValueError) as error:
            raise SecAggRefused(
                Reason.SEALED_KEY_UNREADABLE, "a sealed key does not open under its transcript, sender and receiver"
            ) from error

    @cached_property
    def _keys(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        """Both keys, expanded once: a site opens a sealed key of every member."""
        return (
            MLKEM768PrivateKey.from_seed_bytes(self.secret[:64]),
            X25519PrivateKey.from_private_bytes(self.secret[64:]),
        )


@dataclass(frozen=True)
class NodeKey:
    """The key a site's connection is authenticated with: an ECDSA key on P-384, kept as its scalar (48 bytes)."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> NodeKey:
        """Draw a key from the operating system's entropy, 0.2 ms."""
        scalar = ec.generate_private_key(ec.SECP384R1()).private_numbers().private_value
        return cls(scalar.to_bytes(NODE_SECRET_SIZE, "big"))

    def private(self) -> ec.EllipticCurvePrivateKey:
        """Return the key object; ValueError unless the secret is a scalar of P-384."""
        return ec.derive_private_key(int.from_bytes(self.secret, "big"), ec.SECP384R1())

    def public(self) -> bytes:
        """Return the public point, compressed: 49 bytes."""
        return self.private().public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def node_public(point: bytes) -> ec.EllipticCurvePublicKey:
    """Parse a node key's compressed point; ValueError unless it is one of P-384."""
    if len(point) != NODE_KEY_SIZE:
        raise ValueError(f"a node key has {NODE_KEY_SIZE} bytes, got {len(point)}")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)


def kem_public(public: bytes) -> KemPublic:
    """Parse a hybrid public key, else raise SecAggRefused(KEM_KEY_INVALID)."""
    try:
        if len(public) != KEM_KEY_SIZE:
            raise ValueError(f"a KEM key has {KEM_KEY_SIZE} bytes, got {len(public)}")
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:MLKEM768_KEY]),
            X25519PublicKey.from_public_bytes(public[MLKEM768_KEY:]),
        )
    except ValueError as error:
        raise SecAggRefused(Reason.KEM_KEY_INVALID, f"a hybrid KEM key cannot be used: {error}") from error


def seal(public: KemPublic, info: bytes, plaintext: bytes) -> bytes:
    """Return `plaintext` sealed to `public` under `info`: 1136 bytes more than it."""
    return _SUITE.encrypt(plaintext, public, info=info)


def lock(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Encrypt once under a key that encrypts nothing else (so the nonce may be zero); 16 bytes more."""
    return AESGCM(key).encrypt(_ZERO_NONCE, plaintext, context)


def unlock(key: bytes, ciphertext: bytes, context: bytes) -> bytes:
    """Invert `lock`, else raise SecAggRefused(DEPOSIT_FORGED)."""
    try:
        return AESGCM(key).decrypt(_ZERO_NONCE, ciphertext, context)
    except InvalidTag as error:
        raise SecAggRefused(
            Reason.DEPOSIT_FORGED, "a deposit does not open with its recovered key; its member is at fault"
        ) from error


def long_digest(body: bytes | memoryview, threads: int = 1) -> bytes:
    """Return BLAKE3-256 of `body` on up to `threads` cores: what binds a vector to its signed statement."""
    return blake3(body, max_threads=threads).digest()


class Stream:
    """The key stream of a key that makes no other: stretch s is AES-256-CTR of zeros from counter block 2^32 s + 2.

    These are the ciphertext bytes of AES-256-GCM for 128 KiB of zeros under the nonce s, and so they are made:
    OpenSSL runs CTR on wide vectors (VAES) inside GCM, but not by itself. The tag that follows them says nothing new
    (it is a function of the stream) and is overwritten or dropped. At most 2^32 - 2 blocks fit between two nonces.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def write(self, stretch: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` but for its last 16 bytes with the stretch's first bytes. Other threads run meanwhile."""
        self._cipher.encrypt_into(stretch.to_bytes(12, "big"), _ZEROS[: len(buffer) - TAG], None, buffer)
