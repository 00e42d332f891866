"""What goes over the wire, in order of a federation's life.

    epoch   HelloRequest   -> Reply(HelloBody)          the site's KEM key and H(nonce): its bundle
            RevealRequest  -> Reply(RevealBody)         all bundles out, the nonce back
            SetupRequest   -> SetupReply                transcript out; signed header and sealed keys back (members)
            ConfirmRequest -> Reply(nothing)            only when a drawn member failed the setup: members sign the view
    round   UploadRequest  -> Reply(masked vector)      carries the site's sealed keys (Install) until it has them
            UnmaskRequest  -> Reply(UnmaskBody)         survivors out; the member's sum of masks back
            RecoveryRequest-> Reply(UnmaskBody)         lost members out; shares of their round secrets back

Requests are not signed: the aggregator holds no secret, and whatever it says is checked against the federation
file and the signed statements. Every reply is a signed Statement plus a body that the statement's digest fixes.
Indices count the roster (sites) throughout. Encoding: wire.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qfed.secagg.wire import Digest, Indices, Message, Name, Number, OctetList, Octets


@dataclass(frozen=True)
class HelloRequest(Message):
    KIND: ClassVar[int] = 1
    federation: Digest
    run: Name
    epoch: Number
    receipt: Octets


@dataclass(frozen=True)
class RevealRequest(Message):
    KIND: ClassVar[int] = 2
    federation: Digest
    run: Name
    epoch: Number
    bundles: OctetList


@dataclass(frozen=True)
class SetupRequest(Message):
    KIND: ClassVar[int] = 3
    federation: Digest
    run: Name
    epoch: Number
    bundles: OctetList
    nonces: OctetList


@dataclass(frozen=True)
class UploadRequest(Message):
    KIND: ClassVar[int] = 4
    federation: Digest
    run: Name
    epoch: Number
    round: Number
    view: Digest
    size: Number
    install: Octets
    receipt: Octets


@dataclass(frozen=True)
class UnmaskRequest(Message):
    KIND: ClassVar[int] = 5
    federation: Digest
    run: Name
    epoch: Number
    round: Number
    view: Digest
    size: Number
    survivors: Indices
    lost: Indices
    install: Octets
    receipt: Octets


@dataclass(frozen=True)
class RecoveryRequest(Message):
    KIND: ClassVar[int] = 6
    federation: Digest
    run: Name
    epoch: Number
    round: Number
    view: Digest
    survivors: Indices
    lost: Indices


@dataclass(frozen=True)
class ConfirmRequest(Message):
    KIND: ClassVar[int] = 7
    federation: Digest
    run: Name
    epoch: Number
    common: Octets


@dataclass(frozen=True)
class Statement(Message):
    """What a site signs: `subject` is the kind of request answered, `about` what the answer refers to,
    `store` and `counter` the state of its durable store, `body` the digest of the reply's body."""

    KIND: ClassVar[int] = 16
    subject: Number
    federation: Digest
    run: Name
    epoch: Number
    round: Number
    site: Name
    about: Digest
    store: Digest
    counter: Number
    body: Digest


@dataclass(frozen=True)
class Receipt(Message):
    """A signed statement without its body: what the aggregator shows a site of the site's own past."""

    KIND: ClassVar[int] = 17
    statement: Octets
    signature: Octets


@dataclass(frozen=True)
class Reply(Message):
    KIND: ClassVar[int] = 18
    statement: Octets
    signature: Octets
    body: Octets


@dataclass(frozen=True)
class HelloBody(Message):
    KIND: ClassVar[int] = 32
    kem: Octets
    commitment: Digest


@dataclass(frozen=True)
class RevealBody(Message):
    KIND: ClassVar[int] = 33
    nonce: Digest


@dataclass(frozen=True)
class SetupBody(Message):
    """A member's signed header: the root over all sealed keys and the digest of its deposits."""

    KIND: ClassVar[int] = 34
    root: Digest
    deposits: Digest


@dataclass(frozen=True)
class SetupReply(Message):
    """`header` is Reply(SetupBody); `sealed` and `rows` are by site, `deposits` by round."""

    KIND: ClassVar[int] = 35
    header: Octets
    sealed: OctetList
    rows: OctetList
    deposits: OctetList


@dataclass(frozen=True)
class UnmaskBody(Message):
    """`total` is the sum of the member's masks over the survivors (empty in a recovery), `shares` by lost member."""

    KIND: ClassVar[int] = 36
    total: Octets
    shares: OctetList


@dataclass(frozen=True)
class Common(Message):
    """The part of an epoch that is the same for every site.

    `sites` and `digests` name each site's bundle; `bundles` are the openers' in full; `nonces` are the openers';
    `headers` are the Reply(SetupBody) of the members who finished the setup.
    """

    KIND: ClassVar[int] = 48
    sites: Indices
    digests: OctetList
    bundles: OctetList
    nonces: OctetList
    headers: OctetList


@dataclass(frozen=True)
class Install(Message):
    """A site's part of an epoch: what each member sealed to it, the path to the signed root, its share digests,
    and, if a drawn member is missing, the signatures of the others under this view."""

    KIND: ClassVar[int] = 49
    common: Octets
    sealed: OctetList
    paths: OctetList
    rows: OctetList
    confirmations: OctetList


@dataclass(frozen=True)
class SiteEpoch(Message):
    """What a site keeps of an installed epoch: keys by member; a member also shares by member and round."""

    KIND: ClassVar[int] = 64
    view: Digest
    transcript: Digest
    sites: Indices
    members: Indices
    keys: Octets
    shares: Octets


@dataclass(frozen=True)
class EpochState(Message):
    """What the aggregator keeps of an epoch across a restart: nothing in it is secret from it."""

    KIND: ClassVar[int] = 65
    federation: Digest
    run: Name
    epoch: Number
    common: Octets
    setups: OctetList
    confirmations: OctetList
    installed: Indices
