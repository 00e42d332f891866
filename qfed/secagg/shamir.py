"""Threshold sharing of a 32-byte secret: any t of n shares open it, t - 1 say nothing about it.

    f(0) = secret, share_x = f(x), deg f = t - 1, over GF(2^128), for each half of the secret

Source: Shamir, CACM 22 (1979); pycryptodome's `Shamir`, which takes 16 bytes, so twice.
Cost    O(n t) field multiplications in Python: 9 ms for t=21, n=30; 25 ms for t=34, n=45
Errors  SecAggRefused(SHARES_TOO_FEW)
"""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from qfed.secagg.reasons import Reason, SecAggRefused

SHARE_SIZE = 32


def split(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """Return `holders` shares of 32 bytes; holder k (from 0) has the point x = k + 1."""
    first = Shamir.split(threshold, holders, secret[:16], ssss=False)
    second = Shamir.split(threshold, holders, secret[16:], ssss=False)
    return [a + b for (_, a), (_, b) in zip(first, second, strict=True)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret from shares by holder (from 0). Exactly `threshold` of them are used."""
    if len(shares) < threshold:
        raise SecAggRefused(
            Reason.SHARES_TOO_FEW, f"threshold={threshold} shares open a lost member's masks, got {len(shares)}"
        )
    chosen = sorted(shares.items())[:threshold]
    return b"".join(
        bytes(Shamir.combine([(holder + 1, share[half : half + 16]) for holder, share in chosen], ssss=False))
        for half in (0, 16)
    )
