"""The aggregator's side: it holds no secret, and what it learns is the sum over the survivors.

    session = ServerSession(federation, run)
    setup   = session.begin_epoch(epoch, sites)      hello -> reveal -> setup -> finish [-> confirm] (server_setup.py)
    round   = session.begin_round(epoch, r, size)    upload -> unmask [-> recovery] -> result

    sum_{i in U} enc(x_i) = sum y_i - sum_{u answered} M_u - sum_{v lost} sum_{i in U} PRG(h_iv,r)   mod 2^w

Uploads are added as they come: memory is one vector whatever the number of sites. On two cores a vector is hashed
while its signatures are verified and while it is added; one that is not what was signed is taken off again. Whatever
a site sends that must not be accepted raises SecAggRefused and leaves that site out of the step, not the others.

Cost    an upload: one hash, one verification, one addition; a lost member: |U| * size * w / 8 bytes of AES-CTR
Errors  SecAggRefused, SecAggMisuse(OUT_OF_ORDER, NOT_IN_ROSTER), QuorumLost
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.errors import QuorumLost
from qfed.secagg import dealing, shamir
from qfed.secagg.answers import about_answer
from qfed.secagg.federation import Federation
from qfed.secagg.masking import add_streams
from qfed.secagg.messages import Receipt, RecoveryRequest, UnmaskBody, UnmaskRequest, UploadRequest
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused
from qfed.secagg.server_epoch import ServerEpoch
from qfed.secagg.server_setup import EpochSetup
from qfed.secagg.statement import Place, open_reply


@dataclass(frozen=True)
class Aggregate:
    """The sum over the survivors mod 2^w, (size,) of the ring's unsigned integer: to be decoded by the layout."""

    total: NDArray[Any]
    survivors: tuple[str, ...]
    epoch: int
    round: int


class Requests(Mapping[str, bytes]):
    """Requests by site, each made when it is looked up: a thousand of them are never in memory together."""

    def __init__(self, sites: Iterable[str], make: Callable[[str], bytes]) -> None:
        self._sites = dict.fromkeys(sites)
        self._make = make

    def __getitem__(self, site: str) -> bytes:
        if site not in self._sites:
            raise KeyError(site)
        return self._make(site)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


class ServerSession:
    """One run of one federation, on the aggregator. `threads` is how many cores it may use."""

    def __init__(self, federation: Federation, run: str, *, threads: int = 1) -> None:
        self.federation = federation
        self.run = run
        self.threads = threads
        self.pool = ThreadPoolExecutor(1) if threads > 1 else None
        self._receipts: dict[str, Receipt] = {}

    def of_group(self, group: Federation) -> ServerSession:
        """Return the session of a group of this federation, which knows the same receipts of the sites."""
        session = ServerSession(group, self.run, threads=self.threads)
        session._receipts = self._receipts
        return session

    def begin_epoch(self, epoch: int, sites: Iterable[str]) -> EpochSetup:
        """Start the setup of an epoch among the sites that are there."""
        return EpochSetup(self.federation, self.run, epoch, sites, self._receipts, self.threads)

    def restore_epoch(self, data: bytes) -> ServerEpoch:
        """Return an epoch from `ServerEpoch.to_bytes` after a restart."""
        return ServerEpoch.from_bytes(self.federation, self.run, data)

    def begin_round(
        self, epoch: ServerEpoch, round_: int, size: int, cohort: Iterable[str] | None = None
    ) -> ServerRound:
        """Start round `round_` (0 to epoch_rounds - 1) of an epoch with the cohort (None: all its sites)."""
        return ServerRound(self, epoch, round_, size, cohort)

    def receipt(self, site: str) -> bytes:
        """Return the last receipt of a site, to be shown back to it, or nothing."""
        return self._receipts[site].encode() if site in self._receipts else b""

    def keep_receipt(self, site: str, receipt: Receipt) -> None:
        """Remember the last signed statement of a site."""
        self._receipts[site] = receipt


class ServerRound:
    """One round. Steps come in order: uploads, unmask requests, answers, (recovery requests, shares,) result."""

    def __init__(
        self, session: ServerSession, epoch: ServerEpoch, round_: int, size: int, cohort: Iterable[str] | None
    ) -> None:
        policy = session.federation.policy
        if not 0 <= round_ < policy.epoch_rounds:
            raise SecAggMisuse(
                Reason.ROUND_BEYOND_EPOCH,
                f"an epoch serves rounds 0 to {policy.epoch_rounds - 1}, got round={round_}; begin the next epoch",
            )
        chosen = epoch.names if cohort is None else tuple(sorted(set(cohort)))
        if not set(chosen) <= set(epoch.names):
            raise SecAggMisuse(
                Reason.NOT_IN_ROSTER,
                f"a cohort is chosen among the sites of the epoch, got {sorted(set(chosen) - set(epoch.names))}",
            )
        if len(chosen) < policy.min_survivors:
            raise QuorumLost(
                f"a round takes at least min_survivors={policy.min_survivors} sites, got cohort={len(chosen)}"
            )
        if not epoch.confirmed:
            raise QuorumLost(
                f"the committee of epoch={epoch.epoch} lacks a drawn member, so {policy.threshold} others must confirm "
                "it before a round (confirm_requests); begin the next epoch if they do not"
            )
        self.place = Place(session.federation.digest, session.run, epoch.place.epoch, round_)
        self.size = size
        self.cohort = chosen
        self.refused: dict[str, SecAggRefused] = {}
        self._session = session
        self._epoch = epoch
        self._policy = policy
        self._total = np.zeros(size, policy.dtype)
        self._survivors: set[str] = set()
        self._closed: tuple[int, ...] | None = None
        self._lost: tuple[int, ...] = ()
        self._first_lost: tuple[int, ...] = ()
        self._asked: tuple[str, ...] = ()
        self._answered: set[str] = set()
        self._shares: dict[int, dict[int, bytes]] = {}

    @property
    def survivors(self) -> tuple[str, ...]:
        """Sites whose upload is in the sum, in order of name."""
        return tuple(sorted(self._survivors))

    def upload_requests(self) -> Mapping[str, bytes]:
        """Return what to send to each site of the cohort; the first one of an epoch brings the site's sealed keys."""
        return Requests(self.cohort, self._upload_request)

    def add_upload(self, site: str, reply: bytes) -> None:
        """Verify a site's masked vector and add it to the sum."""
        if self._closed is not None:
            raise SecAggRefused(Reason.LATE_UPLOAD, f"the survivors are fixed, and site={site} is not among them")
        if site not in self.cohort:
            raise SecAggRefused(Reason.NOT_ASKED, f"site={site} was not asked in this round")
        if site in self._survivors:
            raise SecAggRefused(Reason.LABEL_REPEATED, f"site={site} has uploaded under this label already")
        with self._record(site):
            self._vector(self._open(UploadRequest.KIND, self._epoch.view, reply, site, self._add), site)
        self._survivors.add(site)
        self._epoch.installed.add(site)

    def unmask_requests(self) -> Mapping[str, bytes]:
        """Fix the survivors and return what to send to the members that are there.

        Members of the cohort that did not upload are taken for lost at once, as far as the policy lets them be
        recovered, and the others are asked for their shares with the same message: two round trips in all.
        """
        if self._closed is None:
            if len(self._survivors) < self._policy.min_survivors:
                raise QuorumLost(
                    f"a sum is opened over at least min_survivors={self._policy.min_survivors} sites, got "
                    f"{len(self._survivors)} in epoch={self.place.epoch}, round={self.place.round}"
                )
            index = self._session.federation.index
            self._closed = tuple(sorted(index[name] for name in self._survivors))
            members = self._epoch.member_names
            silent = [name for name in members if name in self.cohort and name not in self._survivors]
            if len(silent) > self._epoch.recoverable:
                silent = []
            self._first_lost = self._lost = tuple(index[name] for name in silent)
            self._asked = tuple(name for name in members if name not in silent)
        return Requests(self._asked, self._unmask_request)

    def add_unmask(self, member: str, reply: bytes) -> None:
        """Verify a member's sum of masks and take it off the sum."""
        survivors = self._fixed()
        if member not in self._asked:
            raise SecAggRefused(Reason.NOT_ASKED, f"member={member} was not asked in this round")
        if self._lost != self._first_lost or member in self._answered:
            raise SecAggRefused(Reason.LABEL_REPEATED, f"member={member} has answered, or was given up, in this round")
        with self._record(member):
            about = about_answer(self._epoch.view, survivors, self._lost, self.size)
            body = UnmaskBody.decode(self._open(UnmaskRequest.KIND, about, reply, member))
            vector = self._vector(memoryview(body.total), member)
            self._take_shares(member, self._lost, body.shares)
            np.subtract(self._total, vector, out=self._total)
        self._answered.add(member)
        self._epoch.installed.add(member)

    def recovery_requests(self) -> Mapping[str, bytes]:
        """Fix the lost members and return what to send to the others; empty when nobody else vanished."""
        self._fixed()
        index = self._session.federation.index
        self._lost = tuple(index[name] for name in self._epoch.member_names if name not in self._answered)
        if len(self._lost) > self._epoch.recoverable:
            raise QuorumLost(
                f"at most {self._epoch.recoverable} more members of this epoch's committee can be recovered in a "
                f"round, but {len(self._lost)} are lost; begin the next epoch with the sites that are there"
            )
        wanted = self._lost != self._first_lost
        return Requests(sorted(self._answered) if wanted else (), lambda _: self._recovery_request())

    def add_recovery(self, member: str, reply: bytes) -> None:
        """Verify a member's shares of the lost members' round secrets."""
        survivors = self._fixed()
        if member not in self._answered:
            raise SecAggRefused(Reason.NOT_ASKED, f"member={member} was not asked for shares in this round")
        with self._record(member):
            about = about_answer(self._epoch.view, survivors, self._lost, 0)
            body = UnmaskBody.decode(self._open(RecoveryRequest.KIND, about, reply, member))
            self._take_shares(member, self._lost, body.shares)

    def result(self) -> Aggregate:
        """Return the sum over the survivors, opening the lost members' masks with their shares."""
        survivors = self._fixed()
        epoch, index = self._epoch, self._session.federation.index
        if {index[name] for name in self._answered} | set(self._lost) != set(epoch.members):
            raise SecAggMisuse(
                Reason.OUT_OF_ORDER, "every member has answered or is lost before there is a result; ask for recovery"
            )
        position = {site: at for at, site in enumerate(epoch.transcript.sites)}
        keys: list[bytes] = []
        for lost in self._lost:
            rho = shamir.combine(self._shares.get(lost, {}), self._policy.threshold)
            deposit = epoch.deposit(lost, self.place.round)
            masks = dealing.open_deposit(rho, epoch.transcript.digest, lost, self.place.round, deposit)
            keys += [dealing.stream_key(masks[position[i]], epoch.view) for i in survivors]
        total = self._total.copy()
        add_streams(total, keys, negative=True, threads=self._session.threads)
        return Aggregate(total, self.survivors, self.place.epoch, self.place.round)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _upload_request(self, site: str) -> bytes:
        install = b"" if site in self._epoch.installed else self._epoch.install(site)
        receipt = self._session.receipt(site)
        return UploadRequest(*self._label(), self._epoch.view, self.size, install, receipt).encode()

    def _unmask_request(self, member: str) -> bytes:
        install = b"" if member in self._epoch.installed else self._epoch.install(member)
        return UnmaskRequest(
            *self._label(),
            self._epoch.view,
            self.size,
            self._fixed(),
            self._first_lost,
            install,
            self._session.receipt(member),
        ).encode()

    def _recovery_request(self) -> bytes:
        return RecoveryRequest(*self._label(), self._epoch.view, self._fixed(), self._lost).encode()

    def _label(self) -> tuple[bytes, str, int, int]:
        return self.place.federation, self.place.run, self.place.epoch, self.place.round

    def _fixed(self) -> tuple[int, ...]:
        if self._closed is None:
            raise SecAggMisuse(Reason.OUT_OF_ORDER, "the survivors are fixed by unmask_requests, which comes first")
        return self._closed

    def _open(
        self,
        subject: int,
        about: bytes,
        reply: bytes,
        site: str,
        taken: Callable[[memoryview], Callable[[], object]] | None = None,
    ) -> memoryview:
        session = self._session
        body, receipt = open_reply(
            session.federation, self.place, subject, about, reply, site, pool=session.pool, taken=taken
        )
        session.keep_receipt(site, receipt)
        return body

    def _add(self, body: memoryview) -> Callable[[], object]:
        """Add a vector (of the size that is due) while it is still being hashed; return what takes it off again."""
        if len(body) != self._total.nbytes:
            return lambda: None
        vector = np.frombuffer(body, self._policy.dtype)
        np.add(self._total, vector, out=self._total)
        return lambda: np.subtract(self._total, vector, out=self._total)

    def _vector(self, body: memoryview, site: str) -> NDArray[Any]:
        if len(body) != self._total.nbytes:
            raise SecAggRefused(
                Reason.SIZE_MISMATCH, f"site={site} is due {self._total.nbytes} bytes, sent {len(body)}"
            )
        return np.frombuffer(body, self._policy.dtype)

    def _take_shares(self, member: str, lost: tuple[int, ...], shares: tuple[bytes, ...]) -> None:
        """Keep a member's shares if each is the one that the lost member committed to."""
        if len(shares) != len(lost):
            raise SecAggRefused(
                Reason.SHARE_CORRUPT, f"member={member} is due a share for each of {len(lost)} lost members"
            )
        holder = self._session.federation.index[member]
        tr, round_ = self._epoch.transcript, self.place.round
        for dealer, share in zip(lost, shares, strict=True):
            want = self._epoch.share_digest(dealer, holder, round_)
            if dealing.share_digest(tr.digest, dealer, holder, round_, share) != want:
                raise SecAggRefused(
                    Reason.SHARE_CORRUPT,
                    f"member={member} sent a share that the lost "
                    f"member={self._session.federation.roster[dealer].name} did not give it",
                )
        for dealer, share in zip(lost, shares, strict=True):
            self._shares.setdefault(dealer, {})[tr.drawn.index(holder)] = share

    def _record(self, site: str) -> _Recorder:
        return _Recorder(self.refused, site)


class _Recorder:
    """Notes a refusal by site on its way to the caller."""

    def __init__(self, refused: dict[str, SecAggRefused], site: str) -> None:
        self._refused = refused
        self._site = site

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SecAggRefused):
            self._refused[self._site] = error
