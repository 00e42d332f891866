"""Threshold sharing of a 16-byte secret: any t of n shares open it, t - 1 say nothing about it.

    f(0) = secret, share_x = f(x), deg f = t - 1, over GF(2^128)

Source: Shamir, CACM 22 (1979); pycryptodome's `Shamir`, whose secrets have 16 bytes. They are keys of round secrets
only (AES-128 strength, category 1 of NIST; everything else here is category 3 or higher): two halves would double
what is already the greater part of a member's setup and of a recovery.

Cost    O(n t) field multiplications in Python: 4 ms for t=21, n=30; 11 ms for t=34, n=45
Errors  SecAggRefused(SHARES_TOO_FEW)
"""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from qfed.secagg.reasons import Reason, SecAggRefused

SECRET_SIZE = 16
SHARE_SIZE = 16


def split(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """Return `holders` shares of 16 bytes; holder k (from 0) has the point x = k + 1."""
    return [bytes(share) for _, share in Shamir.split(threshold, holders, secret, ssss=False)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret from shares by holder (from 0). Exactly `threshold` of them are used."""
    if len(shares) < threshold:
        raise SecAggRefused(
            Reason.SHARES_TOO_FEW, f"threshold={threshold} shares open a lost member's masks, got {len(shares)}"
        )
    chosen = sorted(shares.items())[:threshold]
    return bytes(Shamir.combine([(holder + 1, share) for holder, share in chosen], ssss=False))
