"""A committee member's setup: a key for every site, sealed; round secrets, shared; every round's masks, deposited.

    K_iu   <- 32 random bytes for site i                           sealed to i with info = (tr, u, i)
    h_iu,r = bytes 32 (r mod 8) to 32 (r mod 8) + 31 of HKDF-Expand(K_iu, "mask" | tr | floor(r / 8)), 256 long
    rho_r  <- 32 random bytes for round r                          (L - d)-of-L shares in the members' sealed keys
    deposit_r = AEAD_{HKDF(rho_r)}(h_iu,r for all i)                   kept by the aggregator
    leaf_i = H(u, i, sealed_i, row_i),  row_i = H(share_i,r) for all r (members)

HPKE does not authenticate its sender, so the root over all leaves is signed (SetupBody): the aggregator cannot seal
a key of its own. Shares are uniform below a 256-bit prime, so their digests hide them, and tell bad from good.

Cost    n HPKE seals (0.1 ms), E * n / 8 derivations (4 us), E splits (0.1 ms for 15 of 19), one signature
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qfed.secagg import merkle, primitives, shamir
from qfed.secagg.federation import Federation
from qfed.secagg.messages import SetupBody, SetupReply
from qfed.secagg.primitives import KEY_SIZE, KemKey
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.transcript import Bundle, Transcript

_SHARE = shamir.SHARE_SIZE
_ROUNDS_A_CALL = 8


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def mask_key(key: bytes, transcript: bytes, round_: int) -> bytes:
    """Return h_iu,r from K_iu."""
    at = KEY_SIZE * (round_ % _ROUNDS_A_CALL)
    return _mask_keys(key, transcript, round_ // _ROUNDS_A_CALL)[at : at + KEY_SIZE]


def _mask_keys(key: bytes, transcript: bytes, octave: int) -> bytes:
    """Return h_iu,r of eight rounds: a member derives all rounds of all sites, and a call costs as much as six keys."""
    return primitives.derive(key, "mask", transcript, _u64(octave), size=KEY_SIZE * _ROUNDS_A_CALL)


def stream_key(h: bytes, view: bytes) -> bytes:
    """Return the key of the stream: sites that were shown different committees share none."""
    return primitives.derive(h, "stream", view)


def _deposit_key(rho: bytes) -> bytes:
    return primitives.derive(rho, "deposit")


def _deposit_context(transcript: bytes, member: int, round_: int) -> bytes:
    return transcript + _u16(member) + _u64(round_)


def share_digest(transcript: bytes, member: int, holder: int, round_: int, share: bytes) -> bytes:
    """Return what `member` commits to for the share it gives to `holder`."""
    return primitives.digest("share", transcript, _u16(member), _u16(holder), _u64(round_), share)


def _leaf(member: int, site: int, sealed: bytes, row: bytes) -> bytes:
    return primitives.digest("leaf", _u16(member), _u16(site), sealed, row)


def _info(transcript: bytes, member: int, site: int) -> bytes:
    return primitives.digest("seal", transcript, _u16(member), _u16(site))


@dataclass(frozen=True)
class Deal:
    """What a member has made: its keys by site (its own secret) and the message without its signature."""

    keys: bytes = field(repr=False)
    body: SetupBody
    sealed: tuple[bytes, ...] = field(repr=False)
    rows: tuple[bytes, ...] = field(repr=False)
    deposits: tuple[bytes, ...] = field(repr=False)


def deal(federation: Federation, transcript: Transcript, bundles: Sequence[Bundle], member: int) -> Deal:
    """Draw, share, seal and deposit all keys of one member for one epoch."""
    policy, tr, drawn = federation.policy, transcript.digest, transcript.drawn
    keys = [primitives.random_key() for _ in transcript.sites]
    octaves = range(-(-policy.epoch_rounds // _ROUNDS_A_CALL))
    masks = np.frombuffer(b"".join(_mask_keys(key, tr, octave) for key in keys for octave in octaves), np.uint8)
    by_site = masks.reshape(len(keys), -1, KEY_SIZE)  # (sites, rounds, 32)
    shares: list[list[bytes]] = []
    deposits = []
    for round_ in range(policy.epoch_rounds):
        rho = shamir.draw_secret()
        shares.append(shamir.split(rho, policy.threshold, len(drawn)))
        plain = by_site[:, round_].tobytes()
        deposits.append(primitives.lock(_deposit_key(rho), plain, _deposit_context(tr, member, round_)))
    sealed, rows, leaves = [], [], []
    holder_of = {site: holder for holder, site in enumerate(drawn)}
    for bundle, key in zip(bundles, keys, strict=True):
        site, plain, row = bundle.site, key, b""
        if site in holder_of:
            mine = [given[holder_of[site]] for given in shares]
            plain += b"".join(mine)
            row = b"".join(share_digest(tr, member, site, r, share) for r, share in enumerate(mine))
        sealed.append(primitives.seal(bundle.public, _info(tr, member, site), plain))
        rows.append(row)
        leaves.append(_leaf(member, site, sealed[-1], row))
    body = SetupBody(merkle.levels(leaves)[-1][0], primitives.digest("deposits", *deposits))
    return Deal(b"".join(keys), body, tuple(sealed), tuple(rows), tuple(deposits))


def check_deal(
    federation: Federation, transcript: Transcript, member: int, body: SetupBody, reply: SetupReply
) -> list[list[bytes]]:
    """Check a member's setup as the aggregator can (all but what is sealed); return its hash tree."""
    epoch_rounds = federation.policy.epoch_rounds
    members = set(transcript.drawn)
    rows = [32 * epoch_rounds if site in members else 0 for site in transcript.sites]
    if len(reply.sealed) != len(rows) or [len(row) for row in reply.rows] != rows:
        raise SecAggRefused(
            Reason.SEALED_KEY_FORGED, f"a setup seals one key to each of {len(rows)} sites, with each share's digest"
        )
    tree = merkle.levels(
        [
            _leaf(member, site, sealed, row)
            for site, sealed, row in zip(transcript.sites, reply.sealed, reply.rows, strict=True)
        ]
    )
    if tree[-1][0] != body.root:
        raise SecAggRefused(Reason.SEALED_KEY_FORGED, "the sealed keys of a setup are not those that were signed")
    deposit_size = KEY_SIZE * len(rows) + 16
    if len(reply.deposits) != epoch_rounds or any(len(d) != deposit_size for d in reply.deposits):
        raise SecAggRefused(Reason.DEPOSIT_FORGED, f"a setup deposits {epoch_rounds} rounds of {deposit_size} bytes")
    if primitives.digest("deposits", *reply.deposits) != body.deposits:
        raise SecAggRefused(Reason.DEPOSIT_FORGED, "the deposits of a setup are not those that were signed")
    return tree


def open_sealed(
    federation: Federation,
    transcript: Transcript,
    member: int,
    site: int,
    body: SetupBody,
    kem: KemKey,
    parts: tuple[bytes, bytes, bytes],
) -> tuple[bytes, bytes]:
    """Return (K_iu, shares of all rounds or nothing) from (sealed, path, row), checked against the signed root."""
    sealed, path, row = parts
    tr, count = transcript.digest, len(transcript.sites)
    leaf = _leaf(member, site, sealed, row)
    if not merkle.verify(body.root, leaf, transcript.sites.index(site), count, path):
        raise SecAggRefused(
            Reason.SEALED_KEY_FORGED,
            f"the key that member={federation.roster[member].name} is said to have sealed is not one it signed",
        )
    plain = kem.open(sealed, _info(tr, member, site))
    rounds = federation.policy.epoch_rounds if site in transcript.drawn else 0
    if len(plain) != KEY_SIZE + _SHARE * rounds or len(row) != 32 * rounds:
        raise SecAggRefused(
            Reason.SEALED_KEY_UNREADABLE, f"member={federation.roster[member].name} sealed a wrong number of bytes"
        )
    shares = plain[KEY_SIZE:]
    given = b"".join(share_digest(tr, member, site, r, shares[_SHARE * r : _SHARE * (r + 1)]) for r in range(rounds))
    if given != row:
        raise SecAggRefused(
            Reason.SHARE_CORRUPT, f"member={federation.roster[member].name} gave shares that it did not commit to"
        )
    return plain[:KEY_SIZE], shares


def open_deposit(rho: bytes, transcript: bytes, member: int, round_: int, deposit: bytes) -> list[bytes]:
    """Return h_iu,r of all sites in roster order from a lost member's deposit."""
    plain = primitives.unlock(_deposit_key(rho), deposit, _deposit_context(transcript, member, round_))
    return [plain[at : at + KEY_SIZE] for at in range(0, len(plain), KEY_SIZE)]
