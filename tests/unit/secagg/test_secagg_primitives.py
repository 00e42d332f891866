"""The primitives as we call them, against independent vectors (NIST, RFC, IETF drafts) of cryptography_vectors."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import cryptography_vectors
import numpy as np
import pytest
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


def test_aes_256_ctr_is_that_of_rfc_3686() -> None:
    for block in blocks("ciphers/AES/CTR/aes-256-ctr.txt"):
        stream = primitives.stream(bytes.fromhex(block["KEY"]), int(block["IV"], 16))
        assert stream.update(bytes.fromhex(block["PLAINTEXT"])) == bytes.fromhex(block["CIPHERTEXT"])


def test_the_stream_is_the_block_cipher_in_counter_mode_from_zero() -> None:
    """Independent of the CTR implementation: AES-ECB of the counter, FIPS 197."""
    key = bytes(range(32))
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    want = b"".join(block.update(i.to_bytes(16, "big")) for i in range(4))
    assert primitives.stream(key).update(bytes(64)) == want
    assert primitives.stream(key, 2).update(bytes(32)) == want[32:]


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
@given(secret=st.binary(min_size=16, max_size=16), shape=st.sampled_from([(2, 3), (4, 5), (3, 3)]), seed=st.randoms())
def test_any_threshold_of_shares_opens_the_secret(secret: bytes, shape: tuple[int, int], seed: object) -> None:
    threshold, holders = shape
    shares = shamir.split(secret, threshold, holders)
    chosen = seed.sample(range(holders), threshold)  # type: ignore[attr-defined]
    assert shamir.combine({h: shares[h] for h in chosen}, threshold) == secret
    assert refused(lambda: shamir.combine({0: shares[0]}, threshold)) is Reason.SHARES_TOO_FEW
    wrong = {h: shares[h] for h in chosen} | {chosen[0]: bytes(16)}
    assert shamir.combine(wrong, threshold) != secret


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
@pytest.mark.parametrize("size", [0, 1, 7, 16_384, 16_385, 100_003])
def test_streams_are_added_and_taken_off_exactly(dtype: str, size: int) -> None:
    keys = [bytes([k]) * 32 for k in range(3)]
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2**16, size).astype(dtype)
    vector = start.copy()
    add_streams(vector, keys)
    want = start.copy()
    for key in keys:
        want += np.frombuffer(primitives.stream(key).update(bytes(want.nbytes)), dtype)
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
