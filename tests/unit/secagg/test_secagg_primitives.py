"""The primitives as we call them, against independent vectors (NIST, RFC, IETF drafts) of cryptography_vectors."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import cryptography_vectors
import lagrange
import numpy as np
import pytest
from Crypto.Util.number import isPrime
from cryptography.hazmat.bindings._rust import openssl as rust_openssl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from qfed.secagg import Reason, SecAggRefused, merkle, primitives, shamir
from qfed.secagg.masking import add_streams
from qfed.secagg.primitives import KemKey, SigningKey, VerifyKey

ROOT = Path(cryptography_vectors.__file__).parent


def blocks(path: str) -> list[dict[str, str]]:
    """Parse the "key = value" lines of a response file, one dictionary a "count"."""
    found: list[dict[str, str]] = []
    for line in (ROOT / path).read_text().splitlines():
        key, separator, value = (part.strip() for part in line.partition("="))
        if not separator or line.startswith(("#", "[")):
            continue
        if key.lower() == "count":
            found.append({})
        if found:
            found[-1][key] = value
    assert len(found) > 1
    return found


def refused(call: object) -> Reason:
    with pytest.raises(SecAggRefused) as refusal:
        call()  # type: ignore[operator]
    return refusal.value.reason


def stream(key: bytes, size: int, stretch: int = 0) -> bytes:
    buffer = bytearray(size + primitives.TAG)
    primitives.Stream(key).write(stretch, buffer)
    return bytes(buffer[:size])


def counter_mode(key: bytes, size: int, dtype: str = "u1") -> np.ndarray:
    """The whole stream as SP 800-38A has it, each stretch from the counter block 2^32 s + 2."""
    parts = []
    for begin in range(0, size, primitives.STRETCH):
        block = (begin // primitives.STRETCH << 32) + 2
        cipher = Cipher(algorithms.AES(key), modes.CTR(block.to_bytes(16, "big"))).encryptor()
        parts.append(cipher.update(bytes(min(primitives.STRETCH, size - begin))))
    return np.frombuffer(b"".join(parts), dtype)


def test_aes_256_ctr_is_that_of_rfc_3686() -> None:
    """What the stream is held against below is counter mode as others have it."""
    for block in blocks("ciphers/AES/CTR/aes-256-ctr.txt"):
        cipher = Cipher(algorithms.AES(bytes.fromhex(block["KEY"])), modes.CTR(bytes.fromhex(block["IV"])))
        assert cipher.encryptor().update(bytes.fromhex(block["PLAINTEXT"])) == bytes.fromhex(block["CIPHERTEXT"])


@pytest.mark.parametrize("size", [1, 16, 100, primitives.STRETCH - 1, primitives.STRETCH])
@pytest.mark.parametrize("stretch", [0, 1, 2047])
def test_the_stream_is_aes_256_in_counter_mode(size: int, stretch: int) -> None:
    key = bytes(range(32))
    first = (stretch << 32) + 2
    assert stream(key, size, stretch) == Cipher(
        algorithms.AES(key), modes.CTR(first.to_bytes(16, "big"))
    ).encryptor().update(bytes(size))
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    assert (
        stream(key, min(size, 64), stretch)
        == b"".join(block.update((first + i).to_bytes(16, "big")) for i in range(4))[: min(size, 64)]
    )


def test_no_counter_block_of_a_stream_comes_twice() -> None:
    assert primitives.STRETCH // 16 + 2 < 2**32
    halves = [stream(bytes(32), 1 << 12, stretch) for stretch in range(4)]
    blocks_made = {half[at : at + 16] for half in halves for at in range(0, 1 << 12, 16)}
    assert len(blocks_made) == 4 << 8


def test_the_digest_of_a_vector_is_blake3s() -> None:
    """The vectors of the BLAKE3 authors: bytes 0, 1, ..., 250, 0, ... of these lengths."""
    pattern = bytes(i % 251 for i in range(102_400))
    for size, want in (
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ):
        assert primitives.long_digest(pattern[:size]).hex() == want
        assert primitives.long_digest(memoryview(pattern)[:size], threads=2).hex() == want


def test_hkdf_expand_is_rfc_5869s() -> None:
    for block in blocks("KDF/rfc-5869-HKDF-SHA256.txt"):
        prk, info = bytes.fromhex(block["PRK"]), bytes.fromhex(block["info"])
        okm = HKDFExpand(hashes.SHA256(), int(block["L"]), info).derive(prk)
        assert okm == bytes.fromhex(block["OKM"])
    ours = HKDFExpand(hashes.SHA256(), 32, b"qfed-secagg-1 mask\0ab").derive(prk)
    assert primitives.derive(prk, "mask", b"a", b"b") == ours


def test_the_hybrid_kem_is_x_wing_of_the_drafts_vectors() -> None:
    """Our key pair from the draft's seed has the draft's public key and opens the draft's ciphertexts.

    The vectors pair X-Wing with ChaCha20-Poly1305, so the AEAD alone is not ours here; AES-GCM is checked below.
    """
    vectors = json.loads((ROOT / "HPKE" / "hpke-pq-test-vectors.json").read_text())
    ours = [v for v in vectors if (v["mode"], v["kem_id"], v["kdf_id"]) == (0, 0x647A, 1)]
    assert ours
    for vector in ours:
        # X-Wing keeps one seed; SHAKE-256 makes of it the seeds of both key pairs.
        key = KemKey(hashlib.shake_256(bytes.fromhex(vector["skRm"])).digest(96))
        assert key.public() == bytes.fromhex(vector["pkRm"])
        suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
        private = MLKEM768X25519PrivateKey(*key._keys)
        first = vector["encryptions"][0]
        sealed = bytes.fromhex(vector["enc"]) + bytes.fromhex(first["ct"])
        plain = rust_openssl.hpke._decrypt_with_aad(
            suite, sealed, private, info=bytes.fromhex(vector["info"]), aad=bytes.fromhex(first["aad"])
        )
        assert plain == bytes.fromhex(first["pt"])


def test_aes_256_gcm_is_nists() -> None:
    checked = 0
    for path in sorted((ROOT / "ciphers" / "AES" / "GCM").glob("gcmEncryptExtIV256.rsp")):
        for block in blocks(str(path)):
            if len(block["IV"]) == 24 and len(block["Tag"]) == 32 and block["PT"]:
                got = AESGCM(bytes.fromhex(block["Key"])).encrypt(
                    bytes.fromhex(block["IV"]), bytes.fromhex(block["PT"]), bytes.fromhex(block["AAD"])
                )
                assert got == bytes.fromhex(block["CT"]) + bytes.fromhex(block["Tag"])
                checked += 1
    assert checked > 10
    key = bytes(range(32))
    assert primitives.lock(key, b"m", b"c") == AESGCM(key).encrypt(bytes(12), b"m", b"c")


def test_ml_kem_768_and_x25519_are_those_of_the_vectors() -> None:
    for block in blocks("asymmetric/MLKEM/kat_MLKEM_768.rsp"):
        seed = bytes.fromhex(block["d"] + block["z"])
        assert KemKey(seed + bytes(32)).public()[:1184] == bytes.fromhex(block["pk"])
        key = MLKEM768PrivateKey.from_seed_bytes(seed)
        assert key.decapsulate(bytes.fromhex(block["ct"])) == bytes.fromhex(block["ss"])
    for block in blocks("asymmetric/X25519/rfc7748.txt"):
        if "INPUT_SCALAR" in block and "OUTPUT_U" in block:
            _, x25519 = KemKey(bytes(64) + bytes.fromhex(block["INPUT_SCALAR"]))._keys
            peer = X25519PublicKey.from_public_bytes(bytes.fromhex(block["INPUT_U"]))
            assert x25519.exchange(peer) == bytes.fromhex(block["OUTPUT_U"])


def test_ml_dsa_65_is_nists_and_both_signatures_are_needed() -> None:
    for block in blocks("asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp")[:20]:
        key = SigningKey(bytes(32), bytes.fromhex(block["xi"]))
        assert key.public().mldsa65 == bytes.fromhex(block["pk"])
        message = bytes.fromhex(block["msg"])
        signature = bytes.fromhex(block["sm"])[:3309]
        MLDSA65PublicKey.from_public_bytes(key.public().mldsa65).verify(signature, message, bytes.fromhex(block["ctx"]))
    public = key.public()
    both = key.sign(b"message")
    public.verify(both, b"message", "a")
    for message, signature, reason in (
        (b"other", both, Reason.SIGNATURE_BAD),
        (b"message", both[:64], Reason.SIGNATURE_STRIPPED),
        (b"message", both[:64] + bytes(3309), Reason.SIGNATURE_BAD),
        (b"message", bytes(64) + both[64:], Reason.SIGNATURE_BAD),
    ):
        assert refused(lambda m=message, s=signature: public.verify(s, m, "a")) is reason
    assert refused(lambda: VerifyKey(public.ed25519, bytes(3)).verify(both, b"message", "a")) is Reason.SIGNATURE_BAD


def test_what_is_sealed_opens_under_its_key_and_info_only() -> None:
    key, other = KemKey.generate(), KemKey.generate()
    sealed = primitives.seal(primitives.kem_public(key.public()), b"info", b"secret")
    assert len(sealed) == 1136 + 6
    assert key.open(sealed, b"info") == b"secret"
    for attempt in (
        lambda: key.open(sealed, b"other"),
        lambda: other.open(sealed, b"info"),
        lambda: key.open(b"", b""),
    ):
        assert refused(attempt) is Reason.SEALED_KEY_UNREADABLE
    assert refused(lambda: primitives.kem_public(b"short")) is Reason.KEM_KEY_INVALID
    assert "secret" not in repr(key)


def test_a_deposit_opens_under_its_key_and_context_only() -> None:
    key = os.urandom(32)
    locked = primitives.lock(key, b"masks", b"context")
    assert primitives.unlock(key, locked, b"context") == b"masks"
    for attempt in (
        lambda: primitives.unlock(bytes(32), locked, b"context"),
        lambda: primitives.unlock(key, locked, b"other"),
        lambda: primitives.unlock(key, locked[:-1], b"context"),
    ):
        assert refused(attempt) is Reason.DEPOSIT_FORGED


def test_digests_of_different_parts_differ() -> None:
    seen = {
        primitives.digest(d, *p) for d in ("a", "ab") for p in ((b"b", b"c"), (b"bc",), (b"", b"bc"), (b"b", b"c", b""))
    }
    assert len(seen) == 8


@settings(max_examples=30, deadline=None)
@given(secret=st.integers(0, shamir.PRIME - 1), shape=st.sampled_from([(2, 3), (4, 5), (3, 3)]), seed=st.randoms())
def test_any_threshold_of_shares_opens_the_secret(secret: int, shape: tuple[int, int], seed: object) -> None:
    threshold, holders = shape
    hidden = secret.to_bytes(32, "big")
    shares = shamir.split(hidden, threshold, holders)
    assert {len(share) for share in shares} == {shamir.SHARE_SIZE}
    chosen = seed.sample(range(holders), threshold)  # type: ignore[attr-defined]
    assert shamir.combine({h: shares[h] for h in chosen}, threshold) == hidden
    points = {h + 1: int.from_bytes(shares[h], "big") for h in chosen}
    assert lagrange.interpolate(points, shamir.PRIME) == secret  # the library's own
    assert refused(lambda: shamir.combine({0: shares[0]}, threshold)) is Reason.SHARES_TOO_FEW
    wrong = {h: shares[h] for h in chosen} | {chosen[0]: bytes(31) + b"\x01"}
    assert shares[chosen[0]] == wrong[chosen[0]] or shamir.combine(wrong, threshold) != hidden


def test_the_field_of_shares_is_that_of_the_greatest_prime_of_256_bits() -> None:
    assert isPrime(shamir.PRIME)
    assert not any(isPrime(candidate) for candidate in range(shamir.PRIME + 2, 2**256, 2))
    secrets = {shamir.draw_secret() for _ in range(64)}
    assert len(secrets) == 64
    assert {len(secret) for secret in secrets} == {32}
    assert max(int.from_bytes(secret, "big") for secret in secrets) > 2**250


@given(count=st.integers(1, 40), data=st.data())
def test_a_path_proves_its_leaf_and_no_other(count: int, data: st.DataObject) -> None:
    leaves = [primitives.digest("leaf", bytes([i])) for i in range(count)]
    tree = merkle.levels(leaves)
    root = tree[-1][0]
    at = data.draw(st.integers(0, count - 1))
    path = merkle.prove(tree, at)
    assert merkle.verify(root, leaves[at], at, count, path)
    assert not merkle.verify(root, bytes(32), at, count, path)
    assert not merkle.verify(root, leaves[at], at, count, path + bytes(32))
    assert not merkle.verify(root, leaves[at], count, count, path)
    other = data.draw(st.integers(0, count - 1))
    if other != at:
        assert not merkle.verify(root, leaves[other], at, count, path)
        assert not merkle.verify(root, leaves[at], other, count, path)


@pytest.mark.parametrize("dtype", ["<u4", "<u2"])
@pytest.mark.parametrize("size", [0, 1, 7, 32_768, 32_769, 100_003])
def test_streams_are_added_and_taken_off_exactly(dtype: str, size: int) -> None:
    keys = [bytes([k]) * 32 for k in range(3)]
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2**16, size).astype(dtype)
    vector = start.copy()
    add_streams(vector, keys)
    want = start.copy()
    for key in keys:
        want += counter_mode(key, want.nbytes, dtype)
    assert np.array_equal(vector, want)
    add_streams(vector, keys, negative=True)
    assert np.array_equal(vector, start)


@pytest.mark.parametrize("threads", [2, 3])
def test_two_threads_make_the_same_streams(threads: int) -> None:
    keys = [bytes([k]) * 32 for k in range(5)]
    one, more = np.zeros(1_000_001, np.uint32), np.zeros(1_000_001, np.uint32)
    add_streams(one, keys)
    add_streams(more, keys, threads=threads)
    assert np.array_equal(one, more)
    other = np.empty_like(one)
    add_streams(other, keys, start=one, negative=True, threads=threads)
    assert not other.any()
    assert np.array_equal(one, more)
