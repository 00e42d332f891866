"""The terms of a federation, pinned for every site: nothing in it can be changed by the aggregator.

    n * max_weight * 2^(bits-1) < 2^(ring_bits-1)          the sum of n encoded updates never wraps
    c < L - 2d,  m - c >= 2                                 what keeps an update private (collusion.py)
    t = L - d                                               shares that open a lost member's masks

Errors  SecAggMisuse with POLICY_INVALID or RING_OVERFLOW, at construction and when the roster is known (`check`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

import numpy as np

from qfed import collusion
from qfed.errors import LocalProtocolError
from qfed.secagg.reasons import Reason, SecAggMisuse
from qfed.secagg.wire import check_name

LARGEST_ROSTER = 4096


@dataclass(frozen=True)
class Policy:
    """Terms of a federation.

    committee_size L     members (all sites when there are at most 32)
    recoverable_drops d  members that may be away, at the setup and in a round together
    min_survivors m      sites below which no sum is opened
    clip                 bound of one coordinate of an update
    bits                 quantisation: one coordinate is an integer of at most 2^(bits-1)
    ring_bits w          16 or 32: sums are taken mod 2^w
    max_weight           greatest weight (records) that a site may claim
    epoch_rounds E       rounds served by one setup
    privacy_unit         what differential privacy protects, "record" or "site"
    noise_floor          least noise multiplier with which a site of this federation trains (0: none demanded)
    groups               groups that are summed one by one (groups.py); more than 1: L is the smallest group's size,
                         all of a group are its committee, d and m count within a group
    """

    federation_id: str
    committee_size: int
    recoverable_drops: int
    min_survivors: int
    clip: float = 1.0
    bits: int = 16
    ring_bits: Literal[16, 32] = 32
    max_weight: int = 1
    epoch_rounds: int = 32
    privacy_unit: Literal["record", "site"] = "record"
    noise_floor: float = 0.0
    groups: int = 1

    def __post_init__(self) -> None:
        check_name(self.federation_id, "federation_id")
        for name, low, high in (
            ("committee_size", 2, LARGEST_ROSTER),
            ("recoverable_drops", 0, self.committee_size),
            ("min_survivors", 3, LARGEST_ROSTER),
            ("bits", 2, 30),
            ("max_weight", 1, 2**30),
            ("epoch_rounds", 1, 1024),
            ("groups", 1, 1024),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise _invalid(f"{name} is an integer from {low} to {high}, got {name}={value!r}")
        if self.ring_bits not in (16, 32):
            raise _invalid(f"ring_bits is 16 or 32, got ring_bits={self.ring_bits!r}")
        if self.privacy_unit not in ("record", "site"):
            raise _invalid(f"privacy_unit is 'record' or 'site', got privacy_unit={self.privacy_unit!r}")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise _invalid(f"clip is finite and > 0, got clip={self.clip!r}")
        if not (math.isfinite(self.noise_floor) and self.noise_floor >= 0):
            raise _invalid(f"noise_floor is finite and >= 0, got noise_floor={self.noise_floor!r}")
        if self.colluders < 1:
            raise _invalid(
                f"a policy withstands at least one colluder: L - 2d >= 2 and m >= 3, got "
                f"committee_size={self.committee_size}, recoverable_drops={self.recoverable_drops}, "
                f"min_survivors={self.min_survivors}; lower recoverable_drops or add sites"
            )

    @property
    def colluders(self) -> int:
        """The most colluding committee members under which every update stays private."""
        return collusion.colluders_tolerated(self.committee_size, self.recoverable_drops, self.min_survivors)

    def withstands(self, sites: int) -> int:
        """The most colluders wherever they are: of a drawn committee but for a chance below 2^-40 an epoch."""
        if self.groups > 1:
            return self.colluders
        return collusion.withstood(sites, self.committee_size, self.recoverable_drops, self.min_survivors)

    @property
    def threshold(self) -> int:
        """t = L - d: shares that open a lost member's masks of a round."""
        return self.committee_size - self.recoverable_drops

    @property
    def dtype(self) -> np.dtype[Any]:
        """The ring's unsigned integer, little-endian as it goes over the wire."""
        return np.dtype("<u4" if self.ring_bits == 32 else "<u2")

    @classmethod
    def recommended(cls, federation_id: str, sites: int, *, corrupt: int = 0, **terms: Any) -> Self:
        """Return a policy whose L, d and m suit `sites` (collusion.recommended_size); other terms by keyword.

        A drawn committee withstands a tenth of the sites, or `corrupt` if that is more. With `groups` they suit the
        smallest group.
        """
        try:
            size, drops, least = collusion.recommended_size(
                sites // max(1, terms.get("groups", 1)),
                terms.get("min_survivors"),
                corrupt,
                terms.get("committee_size"),
            )
        except LocalProtocolError as error:
            raise _invalid(str(error)) from None
        policy = cls(
            federation_id, **{"committee_size": size, "recoverable_drops": drops, "min_survivors": least} | terms
        )
        policy.check(sites)
        return policy

    def check(self, sites: int) -> None:
        """Raise SecAggMisuse unless these terms fit a roster of `sites`."""
        if sites > LARGEST_ROSTER:
            raise _invalid(f"a roster has at most {LARGEST_ROSTER} sites, got sites={sites}")
        if self.groups > 1:
            self._check_groups(sites)
        elif self.min_survivors > sites or self.committee_size > sites:
            raise _invalid(
                f"a roster holds the committee and the least survivors, got sites={sites}, "
                f"committee_size={self.committee_size}, min_survivors={self.min_survivors}"
            )
        elif sites <= collusion.ALL_SITES_UP_TO and self.committee_size != sites:
            raise _invalid(
                f"up to {collusion.ALL_SITES_UP_TO} sites all are on the committee, got sites={sites}, "
                f"committee_size={self.committee_size}; set committee_size={sites}"
            )
        check_ring(sites, self.max_weight * 2 ** (self.bits - 1), self.ring_bits, "an update")

    def _check_groups(self, sites: int) -> None:
        smallest, largest = sites // self.groups, -(-sites // self.groups)
        if self.committee_size != smallest:
            raise _invalid(
                f"sites={sites} in groups={self.groups} make groups of {smallest} or more, whose committee all are, "
                f"got committee_size={self.committee_size}; set committee_size={smallest}, or fewer groups"
            )
        if self.min_survivors > smallest:
            raise _invalid(
                f"least survivors count within a group, got min_survivors={self.min_survivors} for groups of {smallest}"
            )
        if largest > collusion.ALL_SITES_UP_TO:
            raise _invalid(
                f"a group has at most {collusion.ALL_SITES_UP_TO} sites, got sites={sites} in groups={self.groups}; "
                "use more groups"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Parse the JSON form; an unknown or missing term is refused."""
        names = {f.name for f in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise _invalid(f"a policy has exactly the terms {', '.join(sorted(names))}")
        return cls(**value)


def check_ring(sites: int, magnitude: int, ring_bits: int, what: str) -> None:
    """Raise SecAggMisuse(RING_OVERFLOW) unless the sum of `sites` integers up to `magnitude` fits the signed ring."""
    if sites * magnitude >= 2 ** (ring_bits - 1):
        raise SecAggMisuse(
            Reason.RING_OVERFLOW,
            f"sites * magnitude must stay below 2^(ring_bits - 1), but {what} of magnitude={magnitude} from "
            f"sites={sites} does not in ring_bits={ring_bits}; use fewer bits, a smaller max_weight or ring_bits=32",
        )


def _invalid(message: str) -> SecAggMisuse:
    return SecAggMisuse(Reason.POLICY_INVALID, message)
