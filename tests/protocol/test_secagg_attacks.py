"""The attacker's server: each attack is played against real sites, and each is refused for its own reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from secagg_lab import RUN, Lab, Vector, identity, make_federation, names, reason_of

from qfed.errors import QuorumLost
from qfed.secagg import ClientSession, Reason, SecAggMisuse, ServerEpoch, dealing, primitives, shamir
from qfed.secagg.dealing import mask_key, stream_key
from qfed.secagg.masking import add_streams
from qfed.secagg.messages import (
    Common,
    ConfirmRequest,
    HelloBody,
    HelloRequest,
    Install,
    RecoveryRequest,
    Reply,
    RevealRequest,
    SetupBody,
    SetupReply,
    SetupRequest,
    Statement,
    UnmaskBody,
    UnmaskRequest,
    UploadRequest,
)
from qfed.secagg.primitives import KemKey, digest
from qfed.secagg.statement import NOTHING, Place, StoreMark, sign_reply

MARK = StoreMark(bytes(32), 1)


class AttackersServer:
    """A server that knows the protocol and sends whatever it likes; it may own some sites' signing keys."""

    def __init__(self, count: int = 5, **terms: int) -> None:
        self.lab = Lab.build(count, **terms)
        self.names = names(count)
        self.place = Place(self.lab.federation.digest, RUN, 1)
        self.size = 64

    @property
    def victim(self) -> ClientSession:
        return self.lab.sites[self.names[0]]

    def hello(self, epoch: int = 1) -> HelloRequest:
        return HelloRequest(self.place.federation, RUN, epoch, b"")

    def bundles(self, epoch: int = 1) -> tuple[bytes, ...]:
        return tuple(self.lab.sites[name].handle(self.hello(epoch).encode()) for name in self.names)

    def reveal(self, bundles: tuple[bytes, ...]) -> RevealRequest:
        return RevealRequest(self.place.federation, RUN, 1, bundles)

    def nonces(self, bundles: tuple[bytes, ...]) -> tuple[bytes, ...]:
        request = self.reveal(bundles).encode()
        replies = [self.lab.sites[name].handle(request) for name in self.names]
        return tuple(bytes(Reply.decode(reply).body[-32:]) for reply in replies)

    def transcript(self) -> SetupRequest:
        bundles = self.bundles()
        return SetupRequest(self.place.federation, RUN, 1, bundles, self.nonces(bundles))

    def forged_bundle(self, name: str, place: Place | None = None) -> bytes:
        """A bundle that a corrupt site signs itself."""
        body = HelloBody(KemKey.generate().public(), digest("nonce", bytes(32))).encode()
        return sign_reply(identity(name), place or self.place, HelloRequest.KIND, NOTHING, MARK, body)

    def epoch(self) -> ServerEpoch:
        return self.lab.setup()

    def upload_request(self, epoch: ServerEpoch, round_: int = 0, site: str | None = None) -> UploadRequest:
        step = self.lab.server.begin_round(epoch, round_, self.size)
        return UploadRequest.decode(step.upload_requests()[site or self.names[0]])

    def collect_uploads(self, epoch: ServerEpoch, round_: int = 0) -> dict[str, Vector]:
        vectors = self.lab.vectors(self.size)
        uploads = {}
        for name in self.names:
            request = self.upload_request(epoch, round_, name)
            reply = self.lab.sites[name].upload(request.encode(), vectors[name])
            uploads[name] = np.frombuffer(Reply.decode(reply).body, self.lab.federation.policy.dtype)
        return uploads

    def unmask(self, epoch: ServerEpoch, survivors: list[int], lost: tuple[int, ...] = ()) -> UnmaskRequest:
        return UnmaskRequest(self.place.federation, RUN, 1, 0, epoch.view, self.size, tuple(survivors), lost, b"", b"")

    def recovery(self, epoch: ServerEpoch, survivors: list[int], lost: tuple[int, ...]) -> RecoveryRequest:
        return RecoveryRequest(self.place.federation, RUN, 1, 0, epoch.view, tuple(survivors), lost)

    def refusal(self, request: object, site: str | None = None) -> Reason | None:
        return reason_of(lambda: self.lab.sites[site or self.names[0]].handle(request.encode()))  # type: ignore[attr-defined]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def with_statement(bundle: bytes, **changes: object) -> bytes:
    reply = Reply.decode(bundle)
    return replace(reply, statement=replace(Statement.decode(reply.statement), **changes).encode()).encode()


# -- setup -----------------------------------------------------------------------------------------------------------


def test_a_request_of_another_federation_run_or_policy_is_refused() -> None:
    server = AttackersServer()
    assert server.refusal(replace(server.hello(), federation=bytes(32))) is Reason.WRONG_FEDERATION
    assert server.refusal(replace(server.hello(), run="other")) is Reason.WRONG_RUN
    # A policy that the aggregator would like better makes another federation digest.
    lax = make_federation(5, min_survivors=3)
    assert lax.digest != server.lab.federation.digest
    assert server.refusal(replace(server.hello(), federation=lax.digest)) is Reason.WRONG_FEDERATION


def test_an_old_epoch_is_refused() -> None:
    server = AttackersServer()
    server.bundles(epoch=4)
    assert server.refusal(server.hello(3)) is Reason.STALE_EPOCH
    bundles = list(server.bundles(epoch=5))
    bundles[1] = server.forged_bundle(server.names[1], replace(server.place, epoch=4))
    request = RevealRequest(server.place.federation, RUN, 5, tuple(bundles))
    assert server.refusal(request) is Reason.WRONG_EPOCH
    assert server.refusal(RevealRequest(server.place.federation, RUN, 6, tuple(bundles))) is Reason.NOT_ASKED


def test_a_hello_of_a_finished_epoch_does_not_start_it_again() -> None:
    server = AttackersServer()
    server.collect_uploads(server.epoch())
    assert server.refusal(server.hello(1)) is Reason.STALE_EPOCH


def test_a_sybil_is_refused() -> None:
    server = AttackersServer()
    bundles = [*server.bundles()[:-1], server.forged_bundle("site-9999")]
    assert server.refusal(server.reveal(tuple(bundles))) is Reason.SYBIL


def test_a_site_twice_is_refused() -> None:
    server = AttackersServer()
    bundles = server.bundles()
    assert server.refusal(server.reveal((*bundles[:2], bundles[1], *bundles[3:]))) is Reason.DUPLICATE_SITE
    assert server.refusal(server.reveal(bundles[::-1])) is Reason.BAD_TRANSCRIPT


def test_too_few_sites_are_refused() -> None:
    server = AttackersServer()
    assert server.refusal(server.reveal(server.bundles()[:3])) is Reason.SITES_TOO_FEW


def test_a_transcript_without_the_site_asked_is_refused() -> None:
    server = AttackersServer()
    assert server.refusal(server.reveal(server.bundles()[1:])) is Reason.BAD_TRANSCRIPT


def test_a_swapped_kem_key_is_refused() -> None:
    server = AttackersServer()
    bundles = list(server.bundles())
    reply = Reply.decode(bundles[2])
    body = replace(HelloBody.decode(reply.body), kem=KemKey.generate().public()).encode()
    bundles[2] = replace(reply, body=body).encode()
    assert server.refusal(server.reveal(tuple(bundles))) is Reason.KEM_KEY_SWAPPED


def test_the_sites_own_key_swapped_by_one_who_owns_its_signing_key_is_refused() -> None:
    server = AttackersServer()
    bundles = (server.forged_bundle(server.names[0]), *server.bundles()[1:])
    assert server.refusal(server.reveal(bundles)) is Reason.KEM_KEY_SWAPPED


def test_a_kem_key_that_is_none_is_refused() -> None:
    server = AttackersServer()
    body = HelloBody(b"\xff" * 1216, bytes(32)).encode()
    bad = sign_reply(identity(server.names[1]), server.place, HelloRequest.KIND, NOTHING, MARK, body)
    bundles = server.bundles()
    assert server.refusal(server.reveal((bundles[0], bad, *bundles[2:]))) is Reason.KEM_KEY_INVALID


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s[:64], Reason.SIGNATURE_STRIPPED),
        (lambda s: s[64:], Reason.SIGNATURE_STRIPPED),
        (lambda s: s[:64] + bytes(3309), Reason.SIGNATURE_BAD),
        (lambda s: bytes(64) + s[64:], Reason.SIGNATURE_BAD),
        (lambda s: flip(s, 70), Reason.SIGNATURE_BAD),
        (lambda s: flip(s, 3), Reason.SIGNATURE_BAD),
    ],
)
def test_both_signatures_must_be_there_and_verify(change: Callable[[bytes], bytes], reason: Reason) -> None:
    server = AttackersServer()
    bundles = list(server.bundles())
    reply = Reply.decode(bundles[3])
    bundles[3] = replace(reply, signature=change(bytes(reply.signature))).encode()
    assert server.refusal(server.reveal(tuple(bundles))) is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation": bytes(32)}, Reason.WRONG_FEDERATION),
        ({"run": "other"}, Reason.WRONG_RUN),
        ({"epoch": 2}, Reason.WRONG_EPOCH),
        ({"round": 1}, Reason.WRONG_ROUND),
        ({"subject": SetupRequest.KIND}, Reason.WRONG_KIND),
        ({"about": b"a" * 32}, Reason.WRONG_VIEW),
        ({"counter": 77}, Reason.SIGNATURE_BAD),
        ({"site": "site-0002"}, Reason.SIGNATURE_BAD),
    ],
)
def test_a_bundle_that_says_something_else_is_refused(changes: dict[str, object], reason: Reason) -> None:
    server = AttackersServer()
    bundles = list(server.bundles())
    bundles[1] = with_statement(bundles[1], **changes)
    assert server.refusal(server.reveal(tuple(bundles))) is reason


def test_two_worlds_one_site_cannot_be_in_both() -> None:
    server = AttackersServer(10)
    bundles = server.bundles()
    assert server.refusal(server.reveal(bundles)) is None
    assert server.refusal(server.reveal(bundles[:-1])) is Reason.SPLIT_TRANSCRIPT
    # A corrupt site's second hello makes another set of the same size.
    other = (*bundles[:-1], server.forged_bundle(server.names[-1]))
    assert server.refusal(server.reveal(other)) is Reason.SPLIT_TRANSCRIPT
    nonces = server.nonces(bundles)
    corrupt = SetupRequest(server.place.federation, RUN, 1, other, (*nonces[:-1], bytes(32)))
    assert server.refusal(corrupt) is Reason.SPLIT_TRANSCRIPT


def test_two_worlds_a_member_deals_for_one_transcript_only() -> None:
    server = AttackersServer(10)
    request = server.transcript()
    assert server.refusal(request) is None
    fewer = replace(request, bundles=request.bundles[:-1], nonces=request.nonces[:-1])
    assert server.refusal(fewer) is Reason.SPLIT_TRANSCRIPT


def two_worlds(server: AttackersServer) -> list[ServerEpoch]:
    """The same transcript with the whole committee and without its last member."""
    lab, request = server.lab, server.transcript()
    setups = {name: lab.sites[name].handle(request.encode()) for name in server.names}
    worlds = []
    for left_out in (set(), {server.names[-1]}):
        setup = lab.server.begin_epoch(1, server.names)
        setup.hello()
        setup.reveal(dict(zip(server.names, request.bundles, strict=True)))
        replies = {name: lab.sites[name].handle(server.reveal(request.bundles).encode()) for name in server.names}
        setup.setup(replies)
        worlds.append(setup.finish({n: s for n, s in setups.items() if n not in left_out}))
    assert worlds[0].view != worlds[1].view
    return worlds


def test_two_worlds_an_incomplete_committee_takes_the_signatures_of_l_minus_d_members() -> None:
    """Else members of the complete one, who may recover more, could open all honest members of the other."""
    server = AttackersServer(10)
    whole, part = two_worlds(server)
    asked = part.confirm_requests()
    assert set(asked) == set(server.names[:-1])
    assert whole.confirm_requests() == {}
    replies = {name: server.lab.sites[name].handle(asked[name]) for name in server.names[:7]}
    for name, reply in replies.items():
        part.add_confirmation(name, reply)
    request = UploadRequest(part.place.federation, RUN, 1, 0, part.view, 4, part.install(server.names[8]), b"").encode()
    assert reason_of(lambda: server.lab.sites[server.names[8]].round_of(request)) is Reason.NOT_CONFIRMED
    with pytest.raises(QuorumLost, match="must confirm"):
        server.lab.server.begin_round(part, 0, 4)
    # One signature counted twice is one; another view's is none; a stranger's is refused.
    again = replace(Install.decode(part.install(server.names[8])), confirmations=(replies[server.names[0]],) * 8)
    changed = replace(UploadRequest.decode(request), install=again.encode()).encode()
    assert reason_of(lambda: server.lab.sites[server.names[8]].round_of(changed)) is Reason.NOT_CONFIRMED
    assert reason_of(lambda: part.add_confirmation(server.names[8], replies[server.names[0]])) is Reason.WRONG_SITE
    assert reason_of(lambda: whole.add_confirmation(server.names[0], replies[server.names[0]])) is Reason.WRONG_VIEW
    stranger = sign_reply(identity(server.names[-1]), part.place, ConfirmRequest.KIND, part.view, MARK, b"")
    assert reason_of(lambda: part.add_confirmation(server.names[-1], stranger)) is Reason.NOT_A_MEMBER
    part.add_confirmation(server.names[7], server.lab.sites[server.names[7]].handle(asked[server.names[7]]))
    complete = replace(UploadRequest.decode(request), install=part.install(server.names[8])).encode()
    assert server.lab.sites[server.names[8]].round_of(complete) == (1, 0)


def test_two_worlds_a_member_confirms_and_installs_one_committee_only() -> None:
    server = AttackersServer(10)
    whole, part = two_worlds(server)
    assert reason_of(lambda: server.victim.handle(part.confirm_requests()[server.names[0]])) is None
    other = ConfirmRequest(whole.place.federation, RUN, 1, Install.decode(whole.install(server.names[0])).common)
    assert server.refusal(other) is Reason.SPLIT_VIEW
    request = server.upload_request(whole).encode()
    assert reason_of(lambda: server.victim.round_of(request)) is Reason.SPLIT_VIEW
    left_out = server.lab.sites[server.names[-1]]
    asked = part.confirm_requests()[server.names[0]]
    assert reason_of(lambda: left_out.handle(asked)) is Reason.NOT_A_MEMBER


def test_two_worlds_with_different_committees_share_no_masks() -> None:
    """Eight sites are shown a committee without the last member, two the whole one: nothing cancels."""
    server = AttackersServer(10)
    lab = server.lab
    whole, part = two_worlds(server)
    for name in server.names[:8]:
        part.add_confirmation(name, lab.sites[name].handle(part.confirm_requests()[name]))
    worlds = [part] * 8 + [whole] * 2
    vectors = lab.vectors(4096)
    total = np.zeros(4096, np.uint32)
    server.size = 4096
    for world, name in zip(worlds, server.names, strict=True):
        request = server.upload_request(world, site=name)
        reply = lab.sites[name].upload(request.encode(), vectors[name])
        total += np.frombuffer(Reply.decode(reply).body, np.uint32)
    everyone = list(range(10))
    for world, name in zip(worlds, server.names, strict=True):
        wrong = server.unmask(whole if world is part else part, everyone)
        assert server.refusal(wrong, name) is Reason.WRONG_VIEW
        body = Reply.decode(lab.sites[name].handle(server.unmask(world, everyone).encode())).body
        total -= np.frombuffer(UnmaskBody.decode(body).total, np.uint32)
    assert stats.chisquare(np.bincount(total.view(np.uint8), minlength=256)).pvalue > 1e-7


def test_a_bad_or_missing_nonce_is_refused() -> None:
    server = AttackersServer()
    request = server.transcript()
    assert server.refusal(replace(request, nonces=(*request.nonces[:-1], bytes(32)))) is Reason.BAD_NONCE
    assert server.refusal(replace(request, nonces=request.nonces[:-1])) is Reason.NONCE_MISSING


def test_drawing_committees_until_one_suits_is_refused() -> None:
    server = AttackersServer()
    for epoch in range(1, 65):
        assert server.refusal(server.hello(epoch)) is None
    assert server.refusal(server.hello(65)) is Reason.TOO_MANY_ATTEMPTS


# -- sealed keys -----------------------------------------------------------------------------------------------------


def install_refusal(server: AttackersServer, epoch: ServerEpoch, **changes: object) -> Reason | None:
    request = server.upload_request(epoch)
    install = replace(Install.decode(request.install), **changes)
    changed = replace(request, install=install.encode())
    return reason_of(lambda: server.victim.round_of(changed.encode()))


def test_forged_tampered_and_redirected_sealed_keys_are_refused() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    mine = Install.decode(server.upload_request(epoch).install)
    other = Install.decode(server.upload_request(epoch, site=server.names[1]).install)
    tampered = (flip(mine.sealed[0], 500), *mine.sealed[1:])
    redirected = (other.sealed[0], *mine.sealed[1:])
    assert install_refusal(server, epoch, sealed=tampered) is Reason.SEALED_KEY_FORGED
    assert install_refusal(server, epoch, sealed=redirected) is Reason.SEALED_KEY_FORGED
    assert (
        install_refusal(server, epoch, sealed=redirected, paths=other.paths, rows=other.rows)
        is Reason.SEALED_KEY_FORGED
    )
    assert install_refusal(server, epoch, sealed=mine.sealed[1:]) is Reason.SEALED_KEY_FORGED
    assert install_refusal(server, epoch, paths=(b"", *mine.paths[1:])) is Reason.SEALED_KEY_FORGED
    assert install_refusal(server, epoch) is None


def test_a_header_that_the_server_signs_for_a_member_is_refused() -> None:
    """HPKE does not say who sealed: without the member's signature the server could seal a key of its own."""
    server = AttackersServer()
    epoch = server.epoch()
    common = Common.decode(Install.decode(server.upload_request(epoch).install).common)
    body = SetupBody(bytes(32), bytes(32)).encode()
    place, tr = epoch.place, epoch.transcript.digest
    forged = sign_reply(identity("mallory"), place, SetupRequest.KIND, tr, MARK, body)
    as_member = with_statement(forged, site=server.names[2])
    for header, reason in ((forged, Reason.SYBIL), (as_member, Reason.SIGNATURE_BAD)):
        changed = replace(common, headers=(*common.headers[:2], header, *common.headers[3:]))
        assert install_refusal(server, epoch, common=changed.encode()) is reason


def test_a_member_that_signed_nothing_of_the_kind_is_noticed_by_itself() -> None:
    """Someone who stole the victim's signing key deals in its name; the victim refuses to take part."""
    server = AttackersServer()
    epoch = server.epoch()
    common = Common.decode(Install.decode(server.upload_request(epoch).install).common)
    body = SetupBody(bytes(32), bytes(32)).encode()
    stolen = sign_reply(identity(server.names[0]), epoch.place, SetupRequest.KIND, epoch.transcript.digest, MARK, body)
    changed = replace(common, headers=(stolen, *common.headers[1:]))
    assert install_refusal(server, epoch, common=changed.encode()) is Reason.SEALED_KEY_FORGED


def test_a_committee_that_is_too_small_is_refused() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    common = Common.decode(Install.decode(server.upload_request(epoch).install).common)
    changed = replace(common, headers=common.headers[:3])
    assert install_refusal(server, epoch, common=changed.encode()) is Reason.COMMITTEE_TOO_SMALL


def test_a_common_part_that_does_not_hold_together_is_refused() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    common = Common.decode(Install.decode(server.upload_request(epoch).install).common)

    def refusal(**changes: object) -> Reason | None:
        return install_refusal(server, epoch, common=replace(common, **changes).encode())

    assert refusal(digests=common.digests[:-1]) is Reason.SYBIL
    assert refusal(sites=(*common.sites[:-1], 7)) is Reason.SYBIL
    assert refusal(digests=(bytes(32), *common.digests[1:])) is Reason.BAD_TRANSCRIPT
    assert refusal(bundles=common.bundles[:-1]) is Reason.BAD_TRANSCRIPT
    assert refusal(nonces=common.nonces[:-1]) is Reason.NONCE_MISSING
    assert refusal(headers=(common.headers[0], *common.headers)) is Reason.DUPLICATE_SITE


def test_a_corrupt_member_that_seals_rubbish_or_wrong_shares_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = dealing.primitives.seal
    for spoil, reason in (
        (lambda plain: plain[:-1], Reason.SEALED_KEY_UNREADABLE),
        (lambda plain: flip(plain, 40), Reason.SHARE_CORRUPT),
        (None, Reason.SEALED_KEY_UNREADABLE),
    ):
        server = AttackersServer()
        with monkeypatch.context() as patch:
            if spoil is None:
                patch.setattr(dealing.primitives, "seal", lambda public, info, plain: bytes(1136 + len(plain)))
            else:
                patch.setattr(
                    dealing.primitives, "seal", lambda public, info, plain, s=spoil: honest(public, info, s(plain))
                )
            epoch = server.epoch()
        assert install_refusal(server, epoch) is reason


def test_forged_setups_are_refused_by_the_aggregator() -> None:
    server = AttackersServer()
    lab, request = server.lab, server.transcript()
    setups = {name: lab.sites[name].handle(request.encode()) for name in server.names}

    def finish(change: Callable[[SetupReply], SetupReply]) -> Reason:
        setup = lab.server.begin_epoch(1, server.names)
        setup.hello()
        setup.reveal(dict(zip(server.names, request.bundles, strict=True)))
        replies = {name: lab.sites[name].handle(server.reveal(request.bundles).encode()) for name in server.names}
        setup.setup(replies)
        bad = change(SetupReply.decode(setups[server.names[4]])).encode()
        epoch = setup.finish({**setups, server.names[4]: bad})
        assert epoch.member_names == tuple(server.names[:4])
        return setup.refused[server.names[4]].reason

    assert finish(lambda s: replace(s, deposits=(flip(s.deposits[0], 9), *s.deposits[1:]))) is Reason.DEPOSIT_FORGED
    assert finish(lambda s: replace(s, deposits=s.deposits[1:])) is Reason.DEPOSIT_FORGED
    assert finish(lambda s: replace(s, sealed=(flip(s.sealed[0], 9), *s.sealed[1:]))) is Reason.SEALED_KEY_FORGED
    assert finish(lambda s: replace(s, rows=s.rows[1:])) is Reason.SEALED_KEY_FORGED
    other = SetupReply.decode(setups[server.names[3]])
    assert finish(lambda s: replace(s, header=other.header)) is Reason.WRONG_SITE


def test_a_corrupt_members_deposit_that_does_not_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server = AttackersServer()
    with monkeypatch.context() as patch:
        patch.setattr(dealing.primitives, "lock", lambda key, plain, context: bytes(len(plain) + 16))
        epoch = server.epoch()
    vectors = server.lab.vectors(8)
    assert reason_of(lambda: server.lab.round(epoch, 0, vectors, no_unmask=server.names[:1])) is Reason.DEPOSIT_FORGED


# -- labels ----------------------------------------------------------------------------------------------------------


def test_a_label_never_masks_two_vectors() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    request = server.upload_request(epoch).encode()
    first = server.victim.upload(request, server.lab.vectors(64, seed=1)[server.names[0]])
    again = server.victim.upload(request, server.lab.vectors(64, seed=2)[server.names[0]])
    larger = replace(server.upload_request(epoch), size=65).encode()
    assert again == first == server.victim.upload(larger, np.zeros(65, np.uint32))


def test_a_repeated_and_a_stale_label_are_refused() -> None:
    server = AttackersServer(3, epoch_rounds=8)
    epoch = server.epoch()
    vector = server.lab.vectors(64)[server.names[0]]
    for round_ in (0, 2, 3, 4):
        server.victim.upload(server.upload_request(epoch, round_).encode(), vector)
    burnt = server.upload_request(epoch, 0).encode()
    assert reason_of(lambda: server.victim.upload(burnt, vector)) is Reason.LABEL_REPEATED
    assert reason_of(lambda: server.victim.round_of(burnt)) is Reason.LABEL_REPEATED
    assert server.victim.cached_upload(burnt) is None
    skipped = server.upload_request(epoch, 1).encode()
    assert reason_of(lambda: server.victim.upload(skipped, vector)) is Reason.LABEL_STALE
    with pytest.raises(SecAggMisuse) as misuse:
        server.upload_request(epoch, 8)
    assert misuse.value.reason is Reason.ROUND_BEYOND_EPOCH
    beyond = replace(server.upload_request(epoch, 5), round=8).encode()
    assert reason_of(lambda: server.victim.upload(beyond, vector)) is Reason.ROUND_BEYOND_EPOCH


def test_a_request_for_another_committee_or_none_is_refused() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    request = server.upload_request(epoch)
    assert reason_of(lambda: server.victim.round_of(replace(request, install=b"").encode())) is Reason.NOT_INSTALLED
    assert reason_of(lambda: server.victim.round_of(replace(request, view=bytes(32)).encode())) is Reason.WRONG_VIEW
    assert server.victim.round_of(request.encode()) == (1, 0)
    huge = replace(request, size=1 << 40).encode()
    assert reason_of(lambda: server.victim.round_of(huge)) is Reason.SIZE_MISMATCH


def test_a_vector_that_does_not_fit_the_round_is_the_sites_own_mistake() -> None:
    server = AttackersServer()
    request = server.upload_request(server.epoch()).encode()
    for vector in (np.zeros(63, np.uint32), np.zeros(64, np.int64)):
        with pytest.raises(SecAggMisuse) as misuse:
            server.victim.upload(request, vector)
        assert misuse.value.reason is Reason.SIZE_MISMATCH


def test_the_keys_of_a_past_epoch_are_gone() -> None:
    server = AttackersServer()
    old = server.epoch()
    server.collect_uploads(old)
    server.lab.setup(2)
    new = server.lab.setup(3)
    step = server.lab.server.begin_round(new, 0, 64)
    server.victim.round_of(step.upload_requests()[server.names[0]])
    request = server.upload_request(old, 1)
    bare = replace(request, install=b"").encode()
    assert reason_of(lambda: server.victim.round_of(bare)) is Reason.NOT_INSTALLED
    assert reason_of(lambda: server.victim.round_of(request.encode())) is Reason.NOT_ASKED


# -- unmask and recovery ---------------------------------------------------------------------------------------------


def test_bad_sets_of_survivors_are_refused() -> None:
    server = AttackersServer()
    epoch = server.lab.setup(no_hello=server.names[4:])
    server.names = server.names[:4]
    server.collect_uploads(epoch)
    assert server.refusal(server.unmask(epoch, [0, 1, 2])) is Reason.SURVIVORS_TOO_FEW
    assert server.refusal(server.unmask(epoch, [])) is Reason.SURVIVORS_TOO_FEW
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 2])) is Reason.SURVIVOR_DUPLICATED
    assert server.refusal(server.unmask(epoch, [3, 2, 1, 0])) is Reason.SURVIVOR_DUPLICATED
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 4])) is Reason.SURVIVOR_UNREGISTERED
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 400])) is Reason.SURVIVOR_UNREGISTERED
    assert server.refusal(replace(server.unmask(epoch, [0, 1, 2, 3]), size=65)) is Reason.SIZE_MISMATCH
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 3])) is None
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 3])) is None


def test_a_second_set_of_survivors_is_refused() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    server.collect_uploads(epoch)
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 3, 4])) is None
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 3])) is Reason.SURVIVORS_SPLIT
    assert server.refusal(server.recovery(epoch, [0, 1, 2, 3], (4,))) is Reason.SURVIVORS_SPLIT


def test_members_asked_with_different_survivors_give_sums_that_do_not_combine() -> None:
    """Half the members are told that site 0 is out: the difference of worlds must not be its update."""
    server = AttackersServer(10)
    server.size = 4096
    epoch = server.epoch()
    uploads = server.collect_uploads(epoch)
    all_in, without = list(range(10)), list(range(1, 10))
    total = np.sum(list(uploads.values()), axis=0, dtype=np.uint32)
    partial = total - uploads[server.names[0]]
    for at, name in enumerate(server.names):
        request = server.unmask(epoch, all_in if at % 2 else without)
        body = Reply.decode(server.lab.sites[name].handle(request.encode())).body
        mask = np.frombuffer(UnmaskBody.decode(body).total, np.uint32)
        total, partial = total - mask, partial - mask
    for mix in (total, partial, total - partial):
        assert stats.chisquare(np.bincount(mix.view(np.uint8), minlength=256)).pvalue > 1e-7


def test_lies_about_drops_are_refused() -> None:
    server = AttackersServer(10)
    epoch = server.epoch()
    server.collect_uploads(epoch)
    everyone = list(range(10))
    assert server.refusal(server.unmask(epoch, everyone, (0,))) is Reason.LOST_SELF
    assert server.refusal(server.unmask(epoch, everyone, (1, 2, 3))) is Reason.LOST_TOO_MANY
    assert server.refusal(server.unmask(epoch, everyone, (1, 1))) is Reason.LOST_DUPLICATED
    assert server.refusal(server.unmask(epoch, everyone, (2, 1))) is Reason.LOST_DUPLICATED
    assert server.refusal(server.unmask(epoch, everyone, (1, 77))) is Reason.LOST_UNREGISTERED
    assert server.refusal(server.unmask(epoch, everyone)) is None
    # Counted over all requests of the round: one after the other does not help.
    assert server.refusal(server.recovery(epoch, everyone, (1,))) is None
    assert server.refusal(server.recovery(epoch, everyone, (2,))) is None
    assert server.refusal(server.recovery(epoch, everyone, (3,))) is Reason.LOST_TOO_MANY
    assert server.refusal(server.recovery(epoch, everyone, (0,))) is Reason.LOST_SELF
    assert server.refusal(server.recovery(epoch, everyone, (1, 2))) is None


def test_members_that_were_away_at_the_setup_count_against_d() -> None:
    server = AttackersServer(10)
    epoch = server.lab.setup(no_setup=server.names[9:])
    server.collect_uploads(epoch)
    everyone = list(range(10))
    assert server.refusal(server.unmask(epoch, everyone, (9,))) is Reason.LOST_UNREGISTERED
    assert server.refusal(server.unmask(epoch, everyone, (7, 8))) is Reason.LOST_TOO_MANY
    assert server.refusal(server.unmask(epoch, everyone), server.names[9]) is Reason.NOT_A_MEMBER


def test_with_d_members_opened_by_lies_one_update_is_still_masked() -> None:
    """The server claims d=2 live members lost and opens them; what is left of an upload is uniform."""
    server = AttackersServer(10)
    server.size = 4096
    epoch = server.epoch()
    uploads = server.collect_uploads(epoch)
    lost = (1, 2)
    step = server.lab.server.begin_round(epoch, 0, server.size)
    for name in server.names:
        step.add_upload(name, _upload_bytes(server, epoch, name))
    step.unmask_requests()
    shares: dict[int, dict[int, bytes]] = {v: {} for v in lost}
    for holder, name in enumerate(server.names):
        if holder not in lost:
            reply = server.lab.sites[name].handle(server.recovery(epoch, list(range(10)), lost).encode())
            for v, share in zip(lost, UnmaskBody.decode(Reply.decode(reply).body).shares, strict=True):
                shares[v][holder] = share
    rest = uploads[server.names[0]].copy()
    for v in lost:
        rho = shamir.combine(shares[v], server.lab.federation.policy.threshold)
        masks = dealing.open_deposit(rho, epoch.transcript.digest, v, 0, epoch.deposit(v, 0))
        add_streams(rest, [stream_key(masks[0], epoch.view)], negative=True)
    assert stats.chisquare(np.bincount(rest.view(np.uint8), minlength=256)).pvalue > 1e-7


def _upload_bytes(server: AttackersServer, epoch: ServerEpoch, name: str) -> bytes:
    reply = server.lab.sites[name].cached_upload(server.upload_request(epoch, site=name).encode())
    assert reply is not None
    return reply


def test_a_member_that_has_not_uploaded_opens_nothing_without_keys() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    assert server.refusal(server.unmask(epoch, [0, 1, 2, 3])) is Reason.NOT_INSTALLED
    assert server.refusal(server.recovery(epoch, [0, 1, 2, 3], (1,))) is Reason.NOT_INSTALLED


def test_kinds_that_no_site_answers_are_refused() -> None:
    server = AttackersServer()
    upload = server.upload_request(server.epoch())
    assert server.refusal(upload) is Reason.WRONG_KIND
    assert server.refusal(SetupBody(bytes(32), bytes(32))) is Reason.WRONG_KIND


def test_the_size_of_a_members_sum_is_fixed_with_its_survivors() -> None:
    server = AttackersServer()
    epoch = server.epoch()
    request = server.upload_request(epoch)
    server.victim.round_of(request.encode())  # has keys, uploads nothing
    everyone = [0, 1, 2, 3]
    assert server.refusal(server.unmask(epoch, everyone)) is None
    assert server.refusal(replace(server.unmask(epoch, everyone), size=65)) is Reason.SIZE_MISMATCH


# -- what the aggregator refuses -------------------------------------------------------------------------------------


def test_the_aggregator_refuses_replies_that_are_not_what_it_asked() -> None:
    server = AttackersServer()
    lab, epoch = server.lab, server.epoch()
    vectors = lab.vectors(16)
    step = lab.server.begin_round(epoch, 0, 16)
    requests = step.upload_requests()
    replies = {name: lab.sites[name].upload(requests[name], vectors[name]) for name in server.names}
    first, second = server.names[:2]
    assert reason_of(lambda: step.add_upload("site-9999", replies[first])) is Reason.NOT_ASKED
    assert reason_of(lambda: step.add_upload(first, replies[second])) is Reason.WRONG_SITE
    assert reason_of(lambda: step.add_upload(first, flip(replies[first], len(replies[first]) - 1))) is (
        Reason.BODY_TAMPERED
    )
    assert step.refused[first].reason is Reason.BODY_TAMPERED
    short = sign_reply(identity(first), step.place, UploadRequest.KIND, epoch.view, MARK, bytes(60))
    assert reason_of(lambda: step.add_upload(first, short)) is Reason.SIZE_MISMATCH
    for name in server.names:
        step.add_upload(name, replies[name])
    assert reason_of(lambda: step.add_upload(first, replies[first])) is Reason.LABEL_REPEATED
    with pytest.raises(SecAggMisuse) as misuse:
        step.result()
    assert misuse.value.reason is Reason.OUT_OF_ORDER
    asked = step.unmask_requests()
    answers = {name: lab.sites[name].handle(asked[name]) for name in asked}
    assert reason_of(lambda: step.add_unmask("site-9999", answers[first])) is Reason.NOT_ASKED
    step.add_unmask(first, answers[first])
    assert reason_of(lambda: step.add_unmask(first, answers[first])) is Reason.LABEL_REPEATED
    with pytest.raises(SecAggMisuse) as misuse:
        step.result()
    assert misuse.value.reason is Reason.OUT_OF_ORDER
    for name in server.names[1:4]:
        step.add_unmask(name, answers[name])
    wanted = step.recovery_requests()
    shares = {name: lab.sites[name].handle(wanted[name]) for name in wanted}
    assert reason_of(lambda: step.add_unmask(server.names[4], answers[server.names[4]])) is Reason.LABEL_REPEATED
    assert reason_of(lambda: step.add_recovery(server.names[4], shares[first])) is Reason.NOT_ASKED
    with pytest.raises(KeyError):
        wanted[server.names[4]]
    # Corrupted shares are told from good ones, and too few are too few.
    good = UnmaskBody.decode(Reply.decode(shares[first]).body).shares
    about = Statement.decode(Reply.decode(shares[first]).statement).about
    for bad in ((flip(good[0], 0),), ()):
        body = UnmaskBody(b"", bad).encode()
        corrupt = sign_reply(identity(first), step.place, RecoveryRequest.KIND, about, MARK, body)
        assert reason_of(lambda c=corrupt: step.add_recovery(first, c)) is Reason.SHARE_CORRUPT
    for name in server.names[1:4]:
        step.add_recovery(name, shares[name])
    assert reason_of(step.result) is Reason.SHARES_TOO_FEW
    step.add_recovery(first, shares[first])
    assert np.array_equal(step.result().total, np.sum(list(vectors.values()), axis=0, dtype=np.uint32))


def altered(reply: bytes, statement: bool) -> Iterator[bytes]:
    """The reply with a body of the attacker's; `statement` recomputes the digest in it too, which nobody has signed."""
    parts = Reply.decode(reply)
    body = bytes(parts.body)
    for other in (flip(body, 0), flip(body, len(body) // 2), flip(body, len(body) - 1), bytes(len(body)), body[:-4]):
        said = Statement.decode(parts.statement)
        if statement:
            said = replace(said, body=primitives.long_digest(other))
        yield Reply(said.encode(), bytes(parts.signature), other).encode()


def test_a_vector_altered_on_the_way_is_refused_whatever_is_recomputed() -> None:
    """Uploads and sums of masks are bound by a digest under both signatures, not by a checksum that anyone can make."""
    server = AttackersServer()
    lab, epoch = server.lab, server.epoch()
    vectors = lab.vectors(16)
    step = lab.server.begin_round(epoch, 0, 16)
    for name, request in step.upload_requests().items():
        reply = lab.sites[name].upload(request, vectors[name])
        for forged in altered(reply, statement=False):
            assert reason_of(lambda n=name, f=forged: step.add_upload(n, f)) is Reason.BODY_TAMPERED
        for forged in altered(reply, statement=True):
            assert reason_of(lambda n=name, f=forged: step.add_upload(n, f)) is Reason.SIGNATURE_BAD
        step.add_upload(name, reply)
    for name, request in step.unmask_requests().items():
        reply = lab.sites[name].handle(request)
        for forged in altered(reply, statement=False):
            assert reason_of(lambda n=name, f=forged: step.add_unmask(n, f)) is Reason.BODY_TAMPERED
        for forged in altered(reply, statement=True):
            assert reason_of(lambda n=name, f=forged: step.add_unmask(n, f)) is Reason.SIGNATURE_BAD
        step.add_unmask(name, reply)
    step.recovery_requests()
    assert np.array_equal(step.result().total, np.sum(list(vectors.values()), axis=0, dtype=np.uint32))


def test_an_unmask_answer_about_other_survivors_is_refused() -> None:
    server = AttackersServer()
    lab, epoch = server.lab, server.epoch()
    vectors = lab.vectors(16)
    step = lab.server.begin_round(epoch, 0, 16)
    for name, request in step.upload_requests().items():
        step.add_upload(name, lab.sites[name].upload(request, vectors[name]))
    server.size = 16
    other = lab.sites[server.names[0]].handle(server.unmask(epoch, [0, 1, 2, 3]).encode())
    step.unmask_requests()
    assert reason_of(lambda: step.add_unmask(server.names[0], other)) is Reason.WRONG_VIEW


def test_the_stream_key_is_the_one_of_the_specification() -> None:
    """h = HKDF-Expand(K, "mask" | tr | r); another round, transcript or view gives another stream."""
    key, tr, view = bytes(range(32)), b"t" * 32, b"v" * 32
    streams = {
        stream_key(mask_key(k, t, r), v) for k in (key, tr) for t in (tr, view) for r in (0, 1) for v in (tr, view)
    }
    assert len(streams) == 16
