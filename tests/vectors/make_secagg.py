"""Writes secagg.json: golden vectors of secure aggregation, good and bad.

    python tests/vectors/make_secagg.py            rewrite the file beside this script

`messages` and `derived` are functions of constants, so a second run gives the same text; `signed` holds one signed
bundle of fixed keys, made anew by each run, since ML-DSA signatures are randomised. A bad vector names the parser,
the bytes and the reason for which they are refused. An independent implementation should agree with all of them.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from qfed.secagg import Block, Layout, Policy, encode, merkle, primitives, shamir
from qfed.secagg.answers import about_answer
from qfed.secagg.dealing import mask_key, share_digest, stream_key
from qfed.secagg.identity import Identity
from qfed.secagg.masking import add_streams
from qfed.secagg.messages import (
    Common,
    ConfirmRequest,
    EpochState,
    HelloBody,
    HelloRequest,
    Install,
    Receipt,
    RecoveryRequest,
    Reply,
    RevealBody,
    RevealRequest,
    SetupBody,
    SetupReply,
    SetupRequest,
    SiteEpoch,
    Statement,
    UnmaskBody,
    UnmaskRequest,
    UploadRequest,
)
from qfed.secagg.primitives import SigningKey
from qfed.secagg.statement import NOTHING, Place, StoreMark, sign_reply
from qfed.secagg.wire import Message

FILE = Path(__file__).with_name("secagg.json")
F, V, D = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
RUN = "golden-run"


def good_messages() -> list[Message]:
    """Return one message of each kind."""
    return [
        HelloRequest(F, RUN, 7, b""),
        RevealRequest(F, RUN, 7, (b"bundle-a", b"", b"bundle-c")),
        SetupRequest(F, RUN, 7, (b"bundle-a",), (D,)),
        UploadRequest(F, RUN, 7, 31, V, 1_000_000, b"install", b"receipt"),
        UnmaskRequest(F, RUN, 7, 31, V, 1_000_000, (0, 1, 65535), (2,), b"", b""),
        RecoveryRequest(F, RUN, 7, 31, V, (0, 1, 3), (2, 4)),
        Statement(4, F, RUN, 7, 31, "site-0001", V, D, 2**63, F),
        Receipt(b"statement", b"signature"),
        Reply(b"statement", b"signature", b"body"),
        HelloBody(b"kem", D),
        RevealBody(D),
        SetupBody(D, V),
        SetupReply(b"header", (b"sealed",), (b"", b"row"), ()),
        UnmaskBody(b"\x01\x02\x03\x04", (b"share",)),
        Common((0, 4), (D, V), (b"bundle",), (D,), (b"header",)),
        ConfirmRequest(F, RUN, 7, b"common"),
        Install(b"common", (b"sealed",), (b"path",), (b"row",), ()),
        SiteEpoch(V, D, (0, 1), (1,), b"keys", b"shares"),
        EpochState(F, RUN, 7, b"common", (b"setup",), (), (0,)),
    ]


def plain(value: Any) -> Any:
    """Return a field as JSON."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    return value


def bad_messages() -> list[dict[str, str]]:
    """Return bytes that differ from a message in one way each, with the reason for which they are refused."""
    hello = HelloRequest(F, RUN, 7, b"").encode()
    body = RevealBody(D).encode()
    unmask = RecoveryRequest(F, RUN, 7, 31, V, (0, 1), ()).encode()
    setup = SetupRequest(F, RUN, 7, (b"a",), (D,)).encode()
    name_at = 6 + 5 + 32 + 5
    cases = [
        ("empty", "HelloRequest", b"", "truncated"),
        ("magic", "HelloRequest", b"X" + hello[1:], "bad-magic"),
        ("version", "HelloRequest", hello[:4] + b"\x02" + hello[5:], "bad-version"),
        ("kind", "RevealRequest", hello, "wrong-kind"),
        ("cut in a payload", "HelloRequest", hello[:20], "truncated"),
        ("cut in a header", "HelloRequest", hello[:-3], "truncated"),
        ("cut between fields", "HelloRequest", hello[:-5], "field-missing"),
        ("a byte more", "HelloRequest", hello + b"\x00", "trailing"),
        ("a field more", "RevealBody", body + b"\x02\x00\x00\x00\x00", "trailing"),
        ("the last field again", "RevealBody", body + body[6:], "field-duplicated"),
        ("an unknown field first", "RevealBody", body[:6] + b"\x09" + body[7:], "field-unknown"),
        ("tag zero", "RevealBody", body[:6] + b"\x00" + body[7:], "field-unknown"),
        ("a field left out", "HelloRequest", hello[:6] + hello[6 + 37 :], "field-missing"),
        ("a field twice", "HelloRequest", hello[: 6 + 37] + hello[6:], "field-duplicated"),
        ("a digest of 31 bytes", "RevealBody", body[:10] + b"\x1f" + body[11:-1], "field-malformed"),
        ("a name with a slash", "HelloRequest", hello[:name_at] + b"/" + hello[name_at + 1 :], "field-malformed"),
        (
            "a name that is not ASCII",
            "HelloRequest",
            hello[:name_at] + b"\xff" + hello[name_at + 1 :],
            "field-malformed",
        ),
        (
            "an odd number of index bytes",
            "RecoveryRequest",
            unmask[:-10] + b"\x03" + unmask[-9:-6] + unmask[-5:],
            "field-malformed",
        ),
        (
            "a list that lies about its count",
            "SetupRequest",
            setup.replace(b"\x00\x00\x00\x01\x00\x00\x00\x01a", b"\x00\x00\x00\x02\x00\x00\x00\x01a"),
            "field-malformed",
        ),
        (
            "a list with a byte more",
            "SetupRequest",
            setup.replace(
                b"\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x01a",
                b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x01ab",
            ),
            "field-malformed",
        ),
    ]
    return [{"name": n, "parser": p, "bytes": b.hex(), "reason": r} for n, p, b, r in cases]


def derived() -> dict[str, Any]:
    """Return everything that is computed from keys, digests and values alone."""
    key, tr, view = F, V, D
    h = mask_key(key, tr, 5)
    stream = np.zeros(8, "<u4")
    add_streams(stream, [stream_key(h, view)])
    long = np.zeros(primitives.STRETCH // 4 + 8, "<u4")
    add_streams(long, [stream_key(h, view)])
    policy = Policy.recommended("golden", 5, max_weight=3)
    layout = Layout((Block("counts", 3, 100, 1.0), Block("halves", 2, 1.0, 32767.0), Block("weight", 1, 3, 1.0)))
    values = {"counts": np.array([0.0, -100, 42]), "halves": np.array([1.0, -1.0]), "weight": np.array([3.0])}
    leaves = [primitives.digest("leaf", bytes([i])) for i in range(5)]
    tree = merkle.levels(leaves)
    return {
        "digest": primitives.digest("domain", b"a", b"").hex(),
        "mask_key": h.hex(),
        "stream_key": stream_key(h, view).hex(),
        "stream_u32": [int(v) for v in stream],
        "stream_second_stretch_u32": [int(v) for v in long[-8:]],
        "long_digest": primitives.long_digest(bytes(range(256)) * 1024).hex(),
        "opened_secret": shamir.combine({0: F, 1: D, 4: V}, 3).hex(),
        "share_digest": share_digest(tr, 1, 2, 3, D).hex(),
        "about_answer": about_answer(view, (0, 2, 3), (1,), 10).hex(),
        "merkle_root": tree[-1][0].hex(),
        "merkle_path_of_4": merkle.prove(tree, 4).hex(),
        "merkle_path_of_2": merkle.prove(tree, 2).hex(),
        "encoded": [int(v) for v in encode(layout, values, np.random.default_rng(0), policy, 5)],
        "fingerprint": golden_identity().fingerprint(),
        "kem_public": primitives.digest("kem", primitives.KemKey(bytes(range(96))).public()).hex(),
    }


def golden_identity() -> Identity:
    """Return an identity of constant secrets."""
    return Identity("golden-site", SigningKey(F, V))


def signed() -> dict[str, Any]:
    """Return one signed bundle, and what is wrong with others made of it."""
    body = HelloBody(primitives.KemKey(bytes(range(96))).public(), D).encode()
    place = Place(F, RUN, 7)
    bundle = sign_reply(golden_identity(), place, HelloRequest.KIND, NOTHING, StoreMark(D, 1), body)
    reply = Reply.decode(bundle)
    s, g, b = bytes(reply.statement), bytes(reply.signature), bytes(reply.body)
    flipped = bytes([b[-1] ^ 1])
    bad = [
        ("ML-DSA-65 signature stripped", Reply(s, g[:64], b), "signature-stripped"),
        ("Ed25519 signature stripped", Reply(s, g[64:], b), "signature-stripped"),
        ("ML-DSA-65 signature zeroed", Reply(s, g[:64] + bytes(3309), b), "signature-bad"),
        ("Ed25519 signature zeroed", Reply(s, bytes(64) + g[64:], b), "signature-bad"),
        ("KEM key swapped", Reply(s, g, b[:-1] + flipped), "body-tampered"),
    ]
    return {
        "public": golden_identity().public.to_dict(),
        "good": bundle.hex(),
        "bad": [{"name": n, "bytes": m.encode().hex(), "reason": r} for n, m, r in bad],
    }


def constant() -> dict[str, Any]:
    """Return the sections that every run makes alike."""
    return {
        "messages": {
            "good": [
                {
                    "parser": type(m).__name__,
                    "kind": m.KIND,
                    "fields": {f.name: plain(getattr(m, f.name)) for f in fields(m)},  # type: ignore[arg-type]
                    "bytes": m.encode().hex(),
                }
                for m in good_messages()
            ],
            "bad": bad_messages(),
        },
        "derived": derived(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps({"version": 1, **constant(), "signed": signed()}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {FILE.name}")
