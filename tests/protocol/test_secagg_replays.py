"""Replies that were good once, shown again where they do not belong."""

from __future__ import annotations

import numpy as np
from secagg_lab import Lab, names, reason_of

from qfed.secagg import Reason
from qfed.secagg.messages import Reply, UnmaskBody


def test_replies_of_another_round_epoch_or_step_are_refused() -> None:
    lab = Lab.build(5)
    first, vectors, victim = lab.setup(1), lab.vectors(16), names(5)[0]
    step = lab.server.begin_round(first, 0, 16)
    uploads = {name: lab.sites[name].upload(request, vectors[name]) for name, request in step.upload_requests().items()}
    for name, reply in uploads.items():
        step.add_upload(name, reply)
    unmasks = lab.ask(step.unmask_requests())
    later = lab.server.begin_round(first, 1, 16)
    assert reason_of(lambda: later.add_upload(victim, uploads[victim])) is Reason.WRONG_ROUND
    assert reason_of(lambda: later.add_upload(victim, unmasks[victim])) is Reason.WRONG_ROUND
    assert reason_of(lambda: step.add_unmask(victim, uploads[victim])) is Reason.WRONG_KIND
    second = lab.server.begin_round(lab.setup(2), 0, 16)
    assert reason_of(lambda: second.add_upload(victim, uploads[victim])) is Reason.WRONG_EPOCH
    for name, request in later.upload_requests().items():
        later.add_upload(name, lab.sites[name].upload(request, vectors[name]))
    later.unmask_requests()
    assert reason_of(lambda: later.add_unmask(victim, unmasks[victim])) is Reason.WRONG_ROUND


def test_a_request_that_comes_again_tells_nothing_new() -> None:
    """Uploads come back byte for byte; an answered member gives the same sum, and no other survivors' one."""
    lab = Lab.build(5)
    epoch, vectors = lab.setup(), lab.vectors(16)
    step = lab.server.begin_round(epoch, 0, 16)
    requests = dict(step.upload_requests())
    for name, request in requests.items():
        reply = lab.sites[name].upload(request, vectors[name])
        assert lab.sites[name].upload(request, np.zeros(16, np.uint32)) == reply
        step.add_upload(name, reply)
    asked = dict(step.unmask_requests())
    answers = [{n: UnmaskBody.decode(Reply.decode(r).body).total for n, r in lab.ask(asked).items()} for _ in range(2)]
    assert {n: bytes(t) for n, t in answers[0].items()} == {n: bytes(t) for n, t in answers[1].items()}
