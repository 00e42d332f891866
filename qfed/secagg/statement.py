"""Signed replies: who says what about which epoch and round, from which state of its store.

    reply = statement | Ed25519(statement) | ML-DSA-65(statement) | body
    statement.body = SHA-256(body), or for a vector (upload, unmask) BLAKE3-256(body)

A reply is accepted only when all that it says is what was asked; each difference has its own reason. The statement
without its body is a receipt: shown back to the site, it proves how far the site's store had come, so that a
restored backup is noticed even when nothing on the site's own disk tells (an honest aggregator shows it).

The digest of a vector is BLAKE3's, since SHA-256 (1.8 GB/s with its own instructions) would cost the aggregator
more than all else it does; what privacy rests on (bundles, nonces, sealed keys, headers) is bound by SHA-256. Either
way, whoever alters a body must find a second preimage or forge both signatures.

Cost    one pass over the body, one hybrid signature (0.7 ms) or verification (0.25 ms)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from qfed.secagg import primitives
from qfed.secagg.federation import Federation
from qfed.secagg.identity import Identity, PublicIdentity
from qfed.secagg.messages import Receipt, Reply, Statement, UnmaskRequest, UploadRequest
from qfed.secagg.reasons import Reason, SecAggRefused

NOTHING = bytes(32)
_VECTORS = (UploadRequest.KIND, UnmaskRequest.KIND)
_WORTH_A_THREAD = 1 << 20  # bytes that take longer to hash than a thread takes to be woken


@dataclass(frozen=True)
class Place:
    """Where a message belongs."""

    federation: bytes
    run: str
    epoch: int
    round: int = 0

    def check(self, federation: bytes, run: str, epoch: int, round_: int = 0) -> None:
        """Raise SecAggRefused unless the message's own place is this one."""
        for reason, name, want, got in (
            (Reason.WRONG_FEDERATION, "federation", self.federation.hex()[:16], federation.hex()[:16]),
            (Reason.WRONG_RUN, "run", self.run, run),
            (Reason.WRONG_EPOCH, "epoch", self.epoch, epoch),
            (Reason.WRONG_ROUND, "round", self.round, round_),
        ):
            if want != got:
                raise SecAggRefused(reason, f"this side works on {name}={want}, got {name}={got}")


@dataclass(frozen=True)
class StoreMark:
    """Which store a statement was made from, and how far it had come."""

    store: bytes
    counter: int


def sign_reply(
    identity: Identity,
    place: Place,
    subject: int,
    about: bytes,
    mark: StoreMark,
    body: bytes | memoryview,
    *,
    threads: int = 1,
) -> bytes:
    """Return an encoded Reply; a vector is hashed on up to `threads` cores."""
    statement = Statement(
        subject,
        place.federation,
        place.run,
        place.epoch,
        place.round,
        identity.name,
        about,
        mark.store,
        mark.counter,
        _bind(subject, body, threads),
    ).encode()
    return Reply(statement, identity.sign(_signed(statement)), body).encode()


def open_reply(
    federation: Federation,
    place: Place,
    subject: int,
    about: bytes | None,
    data: bytes | memoryview,
    site: str,
    *,
    pool: Executor | None = None,
    taken: Callable[[memoryview], Callable[[], object]] | None = None,
) -> tuple[memoryview, Receipt]:
    """Return body and receipt of a reply of `site`, else raise SecAggRefused with the first rule it breaks.

    `about` is None where the reply itself says what it is about (the caller then checks the statement). A long vector
    is hashed in `pool` while the signatures are verified, and then while `taken` makes use of it; what `taken`
    returns takes that back, if the vector turns out not to be the one that was signed.
    """
    reply = Reply.decode(data)
    statement = Statement.decode(reply.statement)
    place.check(statement.federation, statement.run, statement.epoch, statement.round)
    if statement.site != site:
        raise SecAggRefused(Reason.WRONG_SITE, f"expected a reply of site={site}, got one of site={statement.site}")
    if statement.subject != subject:
        raise SecAggRefused(
            Reason.WRONG_KIND, f"expected the answer to kind={subject}, got one to kind={statement.subject}"
        )
    if about is not None and statement.about != about:
        raise SecAggRefused(Reason.WRONG_VIEW, f"site={site} answers about something else than what was asked")
    body = memoryview(reply.body)
    beside = pool if pool is not None and len(body) >= _WORTH_A_THREAD else None
    hashed = None if beside is None else beside.submit(_bind, subject, body)
    federation.site(site).verify(reply.signature, _signed(bytes(reply.statement)))
    undo = taken(body) if taken is not None else None
    same = False
    try:
        same = (_bind(subject, body) if hashed is None else hashed.result()) == statement.body
    finally:
        if not same and undo is not None:
            undo()
    if not same:
        raise SecAggRefused(Reason.BODY_TAMPERED, f"the body of the reply of site={site} is not the one it signed")
    return body, Receipt(bytes(reply.statement), bytes(reply.signature))


def site_of(data: bytes | memoryview) -> str:
    """Return the site that a reply says it is of (unverified)."""
    return Statement.decode(Reply.decode(data).statement).site


def check_receipt(public: PublicIdentity, mark: StoreMark, data: bytes | memoryview) -> None:
    """Raise SecAggRefused(ROLLBACK) if this site has signed a statement that its store does not know of.

    A receipt from another store of this site (an earlier one, lost with its keys) says nothing about this one.
    """
    if len(data) == 0:
        return
    receipt = Receipt.decode(data)
    statement = Statement.decode(receipt.statement)
    if statement.store == mark.store and statement.counter > mark.counter:
        public.verify(receipt.signature, _signed(bytes(receipt.statement)))  # only one that says something is checked
        raise SecAggRefused(
            Reason.ROLLBACK,
            f"this site's store is at counter={mark.counter}, but the site has signed counter={statement.counter}: "
            "the store was restored from a backup; give the site a new store and join at the next epoch",
        )


def _bind(subject: int, body: bytes | memoryview, threads: int = 1) -> bytes:
    """Return the digest that binds a body to its statement."""
    return primitives.long_digest(body, threads) if subject in _VECTORS else primitives.digest("body", body)


def _signed(statement: bytes) -> bytes:
    return primitives.digest("statement", statement)
