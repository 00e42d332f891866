"""Why a step of secure aggregation was refused: one code a cause, three errors by whose fault it is.

    SecAggRefused   the other side's message must not be accepted     (a RemoteProtocolError)
    SecAggMisuse    this side's own value or call may not be sent     (a LocalProtocolError)
    SecAggState     the durable store is missing, busy or rolled back (a StateError)

Code that reacts to a refusal compares `error.reason`, never the message; the values are part of the protocol's
golden vectors and so do not change.
"""

from __future__ import annotations

from enum import StrEnum

from qfed.errors import LocalProtocolError, RemoteProtocolError, StateError


class Reason(StrEnum):
    """The cause of a refusal."""

    # The bytes are not a message of this protocol.
    BAD_MAGIC = "bad-magic"
    BAD_VERSION = "bad-version"
    WRONG_KIND = "wrong-kind"
    TRUNCATED = "truncated"
    TRAILING = "trailing"
    FIELD_UNKNOWN = "field-unknown"
    FIELD_DUPLICATED = "field-duplicated"
    FIELD_MISSING = "field-missing"
    FIELD_MALFORMED = "field-malformed"
    # The message belongs elsewhere.
    WRONG_FEDERATION = "wrong-federation"
    WRONG_RUN = "wrong-run"
    WRONG_EPOCH = "wrong-epoch"
    WRONG_ROUND = "wrong-round"
    WRONG_SITE = "wrong-site"
    WRONG_VIEW = "wrong-view"
    # Who says so.
    SIGNATURE_STRIPPED = "signature-stripped"
    SIGNATURE_BAD = "signature-bad"
    BODY_TAMPERED = "body-tampered"
    FEDERATION_INVALID = "federation-invalid"
    FEDERATION_OUTDATED = "federation-outdated"
    COORDINATOR_UNKNOWN = "coordinator-unknown"
    POLICY_INVALID = "policy-invalid"
    NOT_IN_ROSTER = "not-in-roster"
    IDENTITY_INVALID = "identity-invalid"
    # Epoch setup.
    STALE_EPOCH = "stale-epoch"
    TOO_MANY_ATTEMPTS = "too-many-attempts"
    SYBIL = "sybil"
    DUPLICATE_SITE = "duplicate-site"
    KEM_KEY_SWAPPED = "kem-key-swapped"
    KEM_KEY_INVALID = "kem-key-invalid"
    SITES_TOO_FEW = "sites-too-few"
    SPLIT_TRANSCRIPT = "split-transcript"
    BAD_NONCE = "bad-nonce"
    NONCE_MISSING = "nonce-missing"
    BAD_TRANSCRIPT = "bad-transcript"
    NOT_ASKED = "not-asked"
    NOT_A_MEMBER = "not-a-member"
    COMMITTEE_TOO_SMALL = "committee-too-small"
    NOT_CONFIRMED = "not-confirmed"
    SPLIT_VIEW = "split-view"
    SEALED_KEY_FORGED = "sealed-key-forged"
    SEALED_KEY_UNREADABLE = "sealed-key-unreadable"
    DEPOSIT_FORGED = "deposit-forged"
    NOT_INSTALLED = "not-installed"
    # A round.
    LABEL_REPEATED = "label-repeated"
    LABEL_STALE = "label-stale"
    ROUND_BEYOND_EPOCH = "round-beyond-epoch"
    SIZE_MISMATCH = "size-mismatch"
    LATE_UPLOAD = "late-upload"
    SURVIVORS_TOO_FEW = "survivors-too-few"
    SURVIVOR_DUPLICATED = "survivor-duplicated"
    SURVIVOR_UNREGISTERED = "survivor-unregistered"
    SURVIVORS_SPLIT = "survivors-split"
    LOST_SELF = "lost-self"
    LOST_TOO_MANY = "lost-too-many"
    LOST_DUPLICATED = "lost-duplicated"
    LOST_UNREGISTERED = "lost-unregistered"
    SHARES_TOO_FEW = "shares-too-few"
    SHARE_CORRUPT = "share-corrupt"
    # The values.
    NOT_FINITE = "not-finite"
    OUT_OF_RANGE = "out-of-range"
    OVERWEIGHT = "overweight"
    RING_OVERFLOW = "ring-overflow"
    LAYOUT_MISMATCH = "layout-mismatch"
    AGGREGATE_OUT_OF_RANGE = "aggregate-out-of-range"
    OUT_OF_ORDER = "out-of-order"
    # Durable state.
    ROLLBACK = "rollback"
    STORE_BUSY = "store-busy"
    STORE_CORRUPT = "store-corrupt"


class SecAggRefused(RemoteProtocolError):
    """A message that must not be accepted; `reason` says which rule it breaks."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{message} [{reason.value}]")
        self.reason = reason


class SecAggMisuse(LocalProtocolError):
    """A value or a call of this side that the protocol does not allow; `reason` says which rule it breaks."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{message} [{reason.value}]")
        self.reason = reason


class SecAggState(StateError):
    """The durable store cannot be used as it is; `reason` says why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{message} [{reason.value}]")
        self.reason = reason
