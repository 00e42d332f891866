"""A site that was dealt with honestly so far is shown another epoch at the last step: it refuses."""

from __future__ import annotations

from secagg_lab import RUN, Lab, identity, names, reason_of

from qfed.secagg import Reason, ServerEpoch
from qfed.secagg.messages import HelloBody, HelloRequest, RevealBody, RevealRequest, UploadRequest
from qfed.secagg.primitives import KemKey, digest
from qfed.secagg.statement import NOTHING, Place, StoreMark, sign_reply

VICTIM = names(10)[0]
MARK = StoreMark(bytes(32), 1)


def show(lab: Lab, epoch: ServerEpoch, install_of: str) -> Reason | None:
    install = epoch.install(install_of)
    request = UploadRequest(lab.federation.digest, RUN, 1, 0, epoch.view, 4, install, b"").encode()
    return reason_of(lambda: lab.sites[VICTIM].round_of(request))


def confirm(lab: Lab, epoch: ServerEpoch) -> None:
    for member, reply in lab.ask(epoch.confirm_requests(), [VICTIM]).items():
        epoch.add_confirmation(member, reply)


def test_a_transcript_without_the_site_is_refused() -> None:
    lab = Lab.build(10)
    lab.sites[VICTIM].handle(HelloRequest(lab.federation.digest, RUN, 1, b"").encode())
    epoch = lab.setup(no_hello=[VICTIM])
    assert show(lab, epoch, names(10)[1]) is Reason.BAD_TRANSCRIPT


def test_a_transcript_with_another_key_in_the_sites_name_is_refused() -> None:
    """Someone who stole the victim's signing key takes part in its place; the victim sees it and stays out."""
    lab = Lab.build(10)
    place = Place(lab.federation.digest, RUN, 1)
    setup = lab.server.begin_epoch(1, names(10))
    hellos = lab.ask(setup.hello())
    body = HelloBody(KemKey.generate().public(), digest("nonce", bytes(32))).encode()
    hellos[VICTIM] = sign_reply(identity(VICTIM), place, HelloRequest.KIND, NOTHING, MARK, body)
    asked = setup.reveal(hellos)
    assert reason_of(lambda: lab.sites[VICTIM].handle(asked[VICTIM])) is Reason.KEM_KEY_SWAPPED
    reveals = lab.ask(asked, [VICTIM])
    from qfed.secagg.messages import Reply, Statement

    about = Statement.decode(Reply.decode(reveals[names(10)[1]]).statement).about
    reveals[VICTIM] = sign_reply(
        identity(VICTIM), place, RevealRequest.KIND, about, MARK, RevealBody(bytes(32)).encode()
    )
    epoch = setup.finish(lab.ask(setup.setup(reveals), [VICTIM]))
    confirm(lab, epoch)
    assert show(lab, epoch, VICTIM) is Reason.KEM_KEY_SWAPPED


def test_a_transcript_other_than_the_one_it_dealt_for_is_refused() -> None:
    """The victim deals for all ten; the others are told that one site opened no nonce, and deal for nine."""
    lab = Lab.build(10)
    hellos: dict[str, bytes] = {}
    worlds = []
    for left_out in ((), (names(10)[9],)):
        setup = lab.server.begin_epoch(1, names(10))
        requests = setup.hello()
        hellos = hellos or lab.ask(requests)
        worlds.append((setup, setup.setup(lab.ask(setup.reveal(hellos), left_out))))
    assert reason_of(lambda: lab.sites[VICTIM].handle(worlds[0][1][VICTIM])) is None
    assert reason_of(lambda: lab.sites[VICTIM].handle(worlds[1][1][VICTIM])) is Reason.SPLIT_TRANSCRIPT
    epoch = worlds[1][0].finish(lab.ask(worlds[1][1], [VICTIM]))
    confirm(lab, epoch)
    assert show(lab, epoch, VICTIM) is Reason.SPLIT_TRANSCRIPT
