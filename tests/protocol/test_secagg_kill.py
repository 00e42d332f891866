"""A site killed at every write point of its store masks no second vector under a label that it has used.

Real processes, killed by SIGKILL. The site's life (hello, reveal, setup, two uploads, unmask, recovery) is driven
by the test; when the process dies the test starts another on the same store, which trains another vector, and asks
again what was not answered. Every masked vector that ever came out is kept.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from secagg_lab import RUN, Lab, identity, make_federation, names

from qfed.secagg import ClientSession, ClientStore, Federation, SecAggRefused
from qfed.secagg.messages import RecoveryRequest, Reply, UnmaskRequest, UploadRequest

SITE = names(5)[0]
VICTIM = Path(__file__).with_name("secagg_victim.py")
pytestmark = pytest.mark.slow


class Process:
    """The victim's process; `ask` returns None when it died instead of answering."""

    def __init__(self, folder: Path, kill_at: int, seed: int) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(VICTIM), str(folder), str(kill_at), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def ask(self, request: bytes) -> bytes | None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        try:
            self.child.stdin.write(struct.pack(">I", len(request)) + request)
            self.child.stdin.flush()
        except BrokenPipeError:
            return None
        header = self.child.stdout.read(4)
        if len(header) < 4:
            return None
        return self.child.stdout.read(struct.unpack(">I", header)[0])

    def end(self) -> str:
        _, errors = self.child.communicate(timeout=30)
        return errors.decode()


class Life:
    """The victim over several processes, with a fresh lab of the other sites."""

    def __init__(self, folder: Path, kill_at: int, federation: Federation | None = None) -> None:
        self.folder = folder
        self.lab = Lab.build(5, federation or make_federation(5))
        folder.mkdir()
        self.lab.federation.save(folder / "federation.json")
        identity(SITE).save(folder / "identity.json")
        self.kill_at = kill_at
        self.lives = 0
        self.out: list[tuple[tuple[str, int, int], bytes]] = []
        self.points = 0
        self.process = self._start(kill_at)

    def _start(self, kill_at: int) -> Process:
        self.lives += 1
        return Process(self.folder, kill_at, seed=self.lives)

    def ask(self, request: bytes) -> bytes:
        for _ in range(3):
            reply = self.process.ask(request)
            if reply is not None:
                return reply
            errors = self.process.end()
            assert "Traceback" not in errors, errors
            self.process = self._start(0)
        raise AssertionError("the site does not come back")

    def upload(self, request: bytes) -> bytes:
        reply = self.ask(request)
        label = UploadRequest.decode(request)
        self.out.append(((label.run, label.epoch, label.round), bytes(Reply.decode(reply).body)))
        return reply


def live(life: Life) -> None:
    """The whole life; every step is asked twice, as a network may deliver it."""
    lab = life.lab

    def everyone(requests: Mapping[str, bytes]) -> dict[str, bytes]:
        replies = {site: lab.sites[site].handle(requests[site]) for site in requests if site != SITE}
        for _ in range(2 if SITE in requests else 0):
            replies[SITE] = life.ask(requests[SITE])
        return replies

    setup, server = lab.server.begin_epoch(1, lab.sites), lab.server
    replies = everyone(setup.reveal(everyone(setup.hello())))
    if lab.federation.policy.groups > 1:
        hellos = everyone(setup.draw(replies))
        setup = next(part for part in setup.group_setups() if SITE in part.sites)
        replies = everyone(setup.reveal({site: hellos[site] for site in setup.sites}))
    epoch = setup.finish(everyone(setup.setup(replies)))
    if lab.federation.policy.groups > 1:
        server = server.of_group(epoch.federation)
    vectors, others = lab.vectors(32), [site for site in epoch.names if site != SITE]
    for round_ in range(2):
        step = server.begin_round(epoch, round_, 32)
        requests = step.upload_requests()
        for site in others:
            step.add_upload(site, lab.sites[site].upload(requests[site], vectors[site]))
        step.add_upload(SITE, life.upload(requests[SITE]))
        life.upload(replace(UploadRequest.decode(requests[SITE]), install=b"", receipt=b"").encode())
        asked = dict(step.unmask_requests())
        away = others[round_]
        for member, reply in everyone({m: r for m, r in asked.items() if m != away}).items():
            step.add_unmask(member, reply)
        for member, reply in everyone(dict(step.recovery_requests())).items():
            step.add_recovery(member, reply)
        step.result()
    life.points = int(life.process.end().rpartition("points=")[2] or 0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_site_killed_at_every_write_point_never_masks_twice(tmp_path: Path, groups: int) -> None:
    """In a group, which has the same rounds and a longer setup, at every fourth point; all of them were tried."""
    federation = make_federation(5 * groups, groups=groups)
    whole = Life(tmp_path / "whole", 0, federation)
    live(whole)
    assert whole.lives == 1
    assert whole.points >= 20
    killed = double = 0
    points = range(1, whole.points + 1, 1 if groups == 1 else 4)
    for point in points:
        life = Life(tmp_path / f"killed-{point}", point, federation)
        live(life)
        killed += life.lives - 1
        masked: dict[tuple[str, int, int], set[bytes]] = {}
        for label, body in life.out:
            masked.setdefault(label, set()).add(body)
        assert len(masked) == 2
        double += sum(len(bodies) - 1 for bodies in masked.values())
    assert killed == len(points), "every point must have killed its process once"
    assert double == 0
    print(f"groups: {groups}, kill points: {whole.points}, killed: {killed}, double masks: {double}")


def test_a_second_answer_with_other_survivors_is_refused_after_a_crash(tmp_path: Path) -> None:
    """The answer is on disk before it leaves: killed right after the commit, the site holds to it."""
    folder = tmp_path / "site"
    life = Life(folder, 0)
    lab = life.lab
    setup = lab.server.begin_epoch(1, names(5))

    def everyone(requests: dict[str, bytes]) -> dict[str, bytes]:
        replies = {site: lab.sites[site].handle(requests[site]) for site in names(5)[1:]}
        return {**replies, SITE: life.ask(requests[SITE])}

    epoch = setup.finish(everyone(setup.setup(everyone(setup.reveal(everyone(setup.hello()))))))
    life.ask(lab.server.begin_round(epoch, 0, 8).upload_requests()[SITE])
    life.process.end()
    place = lab.federation.digest, RUN, 1, 0
    life.process = life._start(3)  # the session's start is "begun"; then "begun", "written": dies before the commit
    first = UnmaskRequest(*place, epoch.view, 8, (0, 1, 2, 3, 4), (), b"", b"").encode()
    assert life.process.ask(first) is None
    life.process.end()
    life.process = life._start(4)  # one further, "committed": the answer is on disk, but has not left
    assert life.process.ask(first) is None
    life.process.end()
    store = ClientStore(folder / "store.db")
    session = ClientSession(identity(SITE), lab.federation, store, RUN)
    with pytest.raises(SecAggRefused, match="survivors-split"):
        session.handle(RecoveryRequest(*place, epoch.view, (0, 1, 2, 3), (4,)).encode())
    store.close()
