"""The store: what is committed is there, what was restored is noticed, and one process uses it at a time."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from secagg_lab import RUN, Lab, identity, make_federation, names

from qfed.secagg import ClientSession, ClientStore, Reason, SecAggMisuse, SecAggRefused, SecAggState
from qfed.secagg.messages import UploadRequest
from qfed.secagg.statement import Place
from qfed.secagg.transaction import EpochRecord
from qfed.secagg.witness import is_copy

PLACE = Place(bytes(32), RUN, 1)


def write(store: ClientStore, times: int = 1) -> None:
    for _ in range(times):
        with store.transaction() as step:
            step.put_epoch(PLACE, EpochRecord(kem=b"k", bundle=b"b"))


def reopen(path: Path) -> Reason | None:
    try:
        ClientStore(path).close()
    except SecAggState as error:
        return error.reason
    return None


def copy(path: Path, to: Path) -> None:
    to.mkdir(exist_ok=True)
    for file in path.parent.glob(path.name + "*"):
        if file.is_file():
            shutil.copy(file, to / file.name)


def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    store = ClientStore(tmp_path / "s.db")
    write(store, 3)
    mark = store.mark
    store.close()
    again = ClientStore(tmp_path / "s.db")
    assert again.mark == mark
    assert mark.counter == 3
    with again.transaction() as step:
        assert step.epoch(PLACE) == EpochRecord(kem=b"k", bundle=b"b")
    assert again.mark == mark  # reading is no write
    again.close()
    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600


def test_an_error_inside_a_step_leaves_nothing(tmp_path: Path) -> None:
    store = ClientStore(tmp_path / "s.db")

    def fails() -> None:
        with store.transaction() as step:
            step.put_epoch(PLACE, EpochRecord(kem=b"k"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with store.transaction() as step:
        assert step.epoch(PLACE) is None
    assert store.mark.counter == 0
    store.close()


def test_no_secret_in_a_repr() -> None:
    assert "secret" not in repr(EpochRecord(kem=b"secret", nonce=b"secret", dealt=b"secret", installed=b"secret"))


def test_a_restored_backup_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = ClientStore(path)
    write(store)
    store.close()
    copy(path, tmp_path / "backup")
    store = ClientStore(path)
    write(store)
    store.close()
    shutil.copy(tmp_path / "backup" / "s.db", path)  # in place: same inode, older content, newer witness
    assert reopen(path) is Reason.ROLLBACK


def test_a_backup_restored_with_its_witness_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = ClientStore(path)
    write(store)
    store.close()
    copy(path, tmp_path / "backup")
    assert (is_copy(path), is_copy(tmp_path / "backup" / "s.db"), is_copy(tmp_path / "none.db")) == (False, True, False)
    for name in ("s.db", "s.db.witness"):
        fresh = tmp_path / f"fresh-{name}"
        shutil.copy(tmp_path / "backup" / name, fresh)
        os.replace(fresh, tmp_path / name)
    assert reopen(path) is Reason.ROLLBACK


def test_a_missing_or_foreign_witness_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = ClientStore(path)
    write(store)
    store.close()
    witness = tmp_path / "s.db.witness"
    text = witness.read_text()
    witness.unlink()
    assert reopen(path) is Reason.ROLLBACK
    witness.write_text("00" * 32 + " 1 5\n")
    assert reopen(path) is Reason.ROLLBACK
    witness.write_text("rubbish")
    assert reopen(path) is Reason.STORE_CORRUPT
    witness.write_text(text)
    assert reopen(path) is None


def test_the_witness_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    store = ClientStore(tmp_path / "s.db", witness=tmp_path / "outside" / "w")
    write(store)
    store.close()
    assert (tmp_path / "outside" / "w").exists()
    assert not (tmp_path / "s.db.witness").exists()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert reopen(path) is Reason.STORE_CORRUPT
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE meta (x)")
    database.close()
    assert reopen(other) in (Reason.STORE_CORRUPT, Reason.STORE_BUSY)


def test_a_second_process_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    ready = "from qfed.secagg import ClientStore; import sys; s = ClientStore(sys.argv[1]); print(); sys.stdin.read()"
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", ready, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        monkeypatch.setattr("qfed.secagg.store._WAIT", 0.1)
        assert reopen(path) is Reason.STORE_BUSY
    assert reopen(path) is None


def test_an_error_of_the_disk_is_the_stores_own(tmp_path: Path) -> None:
    store = ClientStore(tmp_path / "s.db")
    store.close()
    with pytest.raises(SecAggState) as error, store.transaction():
        pass
    assert error.value.reason is Reason.STORE_CORRUPT


def test_only_the_last_uploads_are_kept_but_every_label() -> None:
    store = ClientStore(":memory:")
    with store.transaction() as step:
        for round_ in range(4):
            step.burn_label(Place(bytes(32), RUN, 1, round_), 8, b"bytes")
        known = [step.label(Place(bytes(32), RUN, 1, round_)) for round_ in range(5)]
    assert known == [(8, None), (8, None), (8, b"bytes"), (8, b"bytes"), None]


def test_an_upload_overwrites_one_that_is_no_longer_kept(tmp_path: Path) -> None:
    """Two uploads' room, whatever the number of rounds and their sizes; of those no longer kept nothing is left."""
    path = tmp_path / "s.db"
    store = ClientStore(path)
    sizes = (50_000, 50_000, 50_000, 50_000, 60_000, 50_000, 60_000)
    uploads = [bytes([round_ + 1]) * size for round_, size in enumerate(sizes)]
    for round_, upload in enumerate(uploads):
        place = Place(bytes(32), RUN, 1, round_)
        with store.transaction() as step:
            step.burn_label(place, len(upload), upload)
            assert step.label(place) == (len(upload), upload)
            assert step.label_size(place) == len(upload)
            assert step.label_size(Place(bytes(32), RUN, 1, round_ + 1)) is None
            if round_:
                assert step.label(Place(bytes(32), RUN, 1, round_ - 1)) == (
                    len(uploads[-1 + round_]),
                    uploads[-1 + round_],
                )
    store.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT COUNT(*) FROM slots").fetchone() == (2,)
    content = path.read_bytes()
    assert [upload[:1000] in content for upload in uploads] == [False] * 5 + [True] * 2
    store = ClientStore(path)
    with store.transaction() as step:
        step.forget_before(Place(bytes(32), RUN, 2))
    store.close()
    assert not any(upload[:1000] in path.read_bytes() for upload in uploads)


def test_runs_that_share_a_store_keep_their_own_uploads() -> None:
    store = ClientStore(":memory:")
    with store.transaction() as step:
        for round_ in range(3):
            for run in ("a", "b"):
                step.burn_label(Place(bytes(32), run, 1, round_), 1, f"{run}{round_}".encode())
        kept = [step.label(Place(bytes(32), run, 1, round_)) for run in ("a", "b") for round_ in range(3)]
    assert kept == [(1, None), (1, b"a1"), (1, b"a2"), (1, None), (1, b"b1"), (1, b"b2")]


def test_a_simulated_sites_store_survives_its_process_without_a_witness(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = ClientStore(path, durable=False)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (0,)
    write(store, 2)
    store.close()
    assert not path.with_name("s.db.witness").exists()
    again = ClientStore(path, durable=False)
    assert again.mark.counter == 2
    again.close()
    assert reopen(path) is Reason.ROLLBACK  # a deployed site does not take it over
    usual = ClientStore(tmp_path / "t.db")
    assert usual._database.execute("PRAGMA synchronous").fetchone() == (2,)
    usual.close()
    assert (tmp_path / "t.db.witness").exists()


def test_a_snapshot_of_the_whole_machine_is_noticed_by_the_receipt(tmp_path: Path) -> None:
    """Both files restored in place: only what the site has signed before can tell."""
    federation = make_federation(5)
    lab = Lab.build(5, federation)
    site = names(5)[0]
    path = tmp_path / "s.db"

    def session() -> tuple[ClientSession, ClientStore]:
        store = ClientStore(path)
        return ClientSession(identity(site), federation, store, RUN), store

    lab.sites[site], store = session()
    epoch = lab.setup()
    lab.round(epoch, 0, lab.vectors(8))
    store.close()
    copy(path, tmp_path / "backup")
    lab.sites[site], store = session()
    lab.round(epoch, 1, lab.vectors(8))
    store.close()
    for name in ("s.db", "s.db.witness"):
        shutil.copy(tmp_path / "backup" / name, tmp_path / name)
    restored, store = session()
    request = lab.server.begin_round(epoch, 2, 8).upload_requests()[site]
    with pytest.raises(SecAggRefused) as refusal:
        restored.upload(request, np.zeros(8, np.uint32))
    assert refusal.value.reason is Reason.ROLLBACK
    # A server that hides the receipt gets an upload: SECURITY.md says so.
    hidden = UploadRequest(
        *[
            getattr(UploadRequest.decode(request), f)
            for f in ("federation", "run", "epoch", "round", "view", "size", "install")
        ],
        b"",
    ).encode()
    assert restored.upload(hidden, np.zeros(8, np.uint32))
    store.close()


def test_a_site_with_a_new_store_joins_at_the_next_epoch() -> None:
    lab = Lab.build(5)
    site = names(5)[0]
    epoch = lab.setup()
    lab.round(epoch, 0, lab.vectors(8))
    lab.sites[site] = ClientSession(identity(site), lab.federation, ClientStore(":memory:"), RUN)
    request = lab.server.begin_round(epoch, 1, 8).upload_requests()[site]
    with pytest.raises(SecAggRefused) as refusal:
        lab.sites[site].upload(request, np.zeros(8, np.uint32))
    assert refusal.value.reason is Reason.NOT_INSTALLED
    assert site in lab.round(lab.setup(2), 0, lab.vectors(8)).survivors


def test_an_older_federation_file_is_refused() -> None:
    store = ClientStore(":memory:")
    site = identity(names(5)[0])
    ClientSession(site, make_federation(5, version=2), store, RUN)
    with pytest.raises(SecAggMisuse) as misuse:
        ClientSession(site, make_federation(5, version=1), store, RUN)
    assert misuse.value.reason is Reason.FEDERATION_OUTDATED


def test_a_site_outside_the_roster_cannot_start() -> None:
    with pytest.raises(SecAggMisuse) as misuse:
        ClientSession(identity("stranger"), make_federation(5), ClientStore(":memory:"), RUN)
    assert misuse.value.reason is Reason.NOT_IN_ROSTER
