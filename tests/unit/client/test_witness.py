"""A ledger that was put back from a backup is noticed, whoever put it back, and nothing is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import Lab, charges, small

from qfed._flower import Message
from qfed.config import to_toml
from qfed.errors import PolicyRefused, QuorumLost, RemoteProtocolError, RolledBack, StateError
from qfed.federation import wire
from qfed.federation.engine import InProcessGrid
from qfed.federation.runfolder import RunFolder
from qfed.privacy.accounting import Releases
from qfed.privacy.ledger import Ledger, Limits
from qfed.secagg import Identity, Receipt, ledger_token
from qfed.simulation.arms import CLIENT_APP, PREPARE_ROUND, component
from qfed_client.witness import LedgerWitness
from qfed_server.rounds import run_rounds
from qfed_server.witness import Witness

AGGREGATOR = Identity.generate("aggregator")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path / "ledger.db", Limits(3.0, 1e-5))
    yield book
    book.close()


def charge(book: Ledger, run: str) -> None:
    book.settle(book.reserve("d", run, 1, Releases(1.0, 40.0, 1), planned_rounds=1, request=b""))


def site(tmp_path: Path, book: Ledger) -> LedgerWitness:
    return LedgerWitness(tmp_path / "witness.json", book, "lab", "site-0")


def receipt(token: bytes, sequence: int = 1, name: str = "site-0", by: Identity = AGGREGATOR) -> bytes:
    return Receipt.sign(by, "lab", name, sequence, token).to_bytes()


def test_heads_that_the_ledger_had_are_known_and_others_are_not(tmp_path: Path, ledger: Ledger) -> None:
    mine = site(tmp_path, ledger)
    tokens = [mine.head()]
    for run in "abc":
        charge(ledger, run)
        tokens.append(mine.head())
    assert len(set(tokens)) == 4
    for token in [*tokens, b""]:
        mine.check(token)
    for other in (b"\0" * 32, tokens[0][:-1]):
        with pytest.raises(RolledBack, match="older than the ledger that the aggregator saw last"):
            mine.check(other)


def test_a_token_tells_nothing_without_the_salt(tmp_path: Path, ledger: Ledger) -> None:
    first, second = site(tmp_path, ledger).head(), LedgerWitness(tmp_path / "other", ledger, "lab", "site-0").head()
    assert first != second, "the same ledger, another salt"
    assert (tmp_path / "witness.json").stat().st_mode & 0o077 == 0


def test_an_older_copy_does_not_know_the_newest_head(tmp_path: Path, ledger: Ledger) -> None:
    charge(ledger, "a")
    ledger.close()
    backup = tmp_path / "backup.db"
    shutil.copyfile(ledger.path, backup)
    book = Ledger(ledger.path, Limits(3.0, 1e-5))
    charge(book, "b")
    shown = receipt(site(tmp_path, book).head())
    site(tmp_path, book).accept(shown)
    book.close()
    restored = Ledger(backup, Limits(3.0, 1e-5))
    with pytest.raises(RolledBack):  # its own receipt says so
        site(tmp_path, restored).accept(b"")
    (tmp_path / "witness.json").write_text(
        json.dumps(json.loads((tmp_path / "witness.json").read_text()) | {"receipt": None})
    )
    with pytest.raises(RolledBack):  # and if that was put back as well, the aggregator does
        site(tmp_path, restored).accept(shown)
    charge(restored, "c")
    with pytest.raises(RolledBack):  # going on from there does not help
        site(tmp_path, restored).accept(shown)
    restored.close()


def test_receipts_that_must_not_be_believed(tmp_path: Path, ledger: Ledger) -> None:
    mine = site(tmp_path, ledger)
    token = mine.head()
    good = receipt(token)
    forged = json.loads(good) | {"sequence": 7}
    for body in (b"nonsense", b"[]", b"{}", json.dumps(forged).encode(), receipt(token, name="site-1")):
        with pytest.raises(RemoteProtocolError):
            mine.accept(body)
    mine.accept(good)
    with pytest.raises(PolicyRefused, match="another key than before"):
        mine.accept(receipt(token, 2, by=Identity.generate("aggregator")))
    site(tmp_path, ledger).accept(receipt(token, 2))


@pytest.mark.parametrize("content", ["", "{}", '{"salt": "00", "receipt": null}', "[1]"])
def test_a_witness_file_that_is_none_stops_the_site(tmp_path: Path, ledger: Ledger, content: str) -> None:
    (tmp_path / "witness.json").write_text(content)
    with pytest.raises(StateError, match="not this site's witness file"):
        site(tmp_path, ledger)


def test_the_aggregator_remembers_over_runs_and_counts_new_heads(tmp_path: Path) -> None:
    first = Witness(tmp_path, "lab")
    assert first.receipt("a") == first.token("a") == b""
    first.note({"a": b"1" * 32, "b": b"2" * 32})
    first.note({"a": b"1" * 32})
    first.note({"a": b"3" * 32})
    again = Witness(tmp_path, "lab")
    shown = Receipt.from_bytes(again.receipt("a"))
    assert (shown.sequence, shown.token, again.token("b")) == (2, b"3" * 32, b"2" * 32)
    assert Witness(tmp_path, "another").token("a") == b""
    (tmp_path / "witness.json").write_text("{")
    with pytest.raises(StateError, match="restore it"):
        Witness(tmp_path, "lab")


def run_again(lab: Lab, name: str) -> RunFolder:
    """A later run of the same federation, at the same aggregator."""
    place = RunFolder.create(lab.path / name, name, lab.config, lab.learner.start, *lab.folder.metric)
    lab.keys.federation.save(place.federation_file)
    run_rounds(lab.grid(warm=False), place)
    return place


def test_a_restored_backup_is_refused_in_the_next_run_and_in_the_middle_of_one(tmp_path: Path) -> None:
    """The whole path, five sites: one puts an old copy back between two runs, and nothing of it is charged or read."""
    lab = Lab(tmp_path, small("privacy.noise_multiplier=100"))
    ledger = lab.site(2) / "ledger.db"
    Ledger(ledger, Limits(3.0, 1e-5)).close()
    shutil.copyfile(ledger, tmp_path / "backup.db")
    run_rounds(lab.grid(warm=False), lab.folder)
    assert len(charges(ledger)) == 2
    sites = {name: RunFolder(lab.folder.path).checkpoint().taken_part.get(name) for name in lab.keys.names}
    assert set(sites.values()) == {2}
    shutil.copyfile(tmp_path / "backup.db", ledger)
    for left in (lab.site(2) / "ledger.db-wal", lab.site(2) / "ledger.db-shm"):
        left.unlink(missing_ok=True)
    state = run_again(lab, "second").checkpoint()
    assert {drop.site: drop.reason for record in state.rounds for drop in record.dropouts} == {"site-2": "RolledBack"}
    assert charges(ledger) == []
    assert state.taken_part == dict.fromkeys(["site-0", "site-1", "site-3", "site-4"], 2)


def test_all_sites_rolled_back_is_no_run(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small("privacy.noise_multiplier=100"))
    run_rounds(lab.grid(warm=False), lab.folder)
    for index in range(5):
        for file in lab.site(index).glob("ledger.db*"):
            file.unlink()
    with pytest.raises(QuorumLost, match="RolledBack"):
        run_again(lab, "second")


def test_a_site_that_is_rolled_back_between_rounds_drops_out(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small("privacy.noise_multiplier=100", "training.rounds=3"))
    ledger, seen = lab.site(1) / "ledger.db", []
    original = lab.folder.save

    class Meddled(RunFolder):
        def save(self, state: object) -> None:
            original(state)  # type: ignore[arg-type]
            seen.append(state)
            if len(seen) == 1:  # after the first round
                for file in lab.site(1).glob("ledger.db*"):
                    file.unlink()

    run_rounds(lab.grid(warm=False), Meddled(lab.folder.path))
    state = lab.folder.checkpoint()
    assert [[drop.reason for drop in record.dropouts] for record in state.rounds] == [
        [],
        ["RolledBack"],
        ["RolledBack"],
    ]
    assert charges(ledger) == []
    assert state.taken_part["site-1"] == 1


def test_the_token_is_a_function_of_salt_and_chain() -> None:
    assert ledger_token(b"s" * 32, b"") == ledger_token(b"s" * 32, b"")
    assert len({ledger_token(b"s" * 32, b""), ledger_token(b"t" * 32, b""), ledger_token(b"s" * 32, b"x")}) == 3


def test_a_ledger_that_is_rolled_back_is_not_trained_ahead(tmp_path: Path) -> None:
    """In a simulation whose sites are trained in one call the check comes before the charge too."""
    lab = Lab(tmp_path, small("privacy.noise_multiplier=100"))
    grid = InProcessGrid(
        component(CLIENT_APP), 5, {"qfed-sites": str(lab.sites), "qfed-warm": "yes"}, None, component(PREPARE_ROUND)
    )
    nodes = list(grid.get_node_ids())
    hello = {"run": "r", "config": to_toml(lab.config), "receipt": b""}
    joined = list(grid.send_and_receive([Message(wire.pack(hello), node, wire.JOIN) for node in nodes]))
    heads = [bytes(wire.unpack(reply, head=bytes)["head"]) for reply in joined]  # type: ignore[arg-type]
    asked = {"run": "r", "round": 1, "model": wire.vector_to_bytes(lab.learner.start), "request": b""}
    shown = [b"\x01" * 32, *heads[1:]]
    messages = [
        Message(wire.pack(asked | {"witness": token}), node, wire.TRAIN)
        for node, token in zip(nodes, shown, strict=True)
    ]
    replies = list(grid.send_and_receive(messages))
    assert replies[0].error.reason == "RolledBack"
    assert charges(lab.site(0) / "ledger.db") == []


def test_a_head_that_is_none_is_not_kept(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small("privacy.mode=off"))

    class Chatty(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type != wire.TRAIN or reply.has_error():
                return reply
            if message.metadata.dst_node_id != next(iter(self.get_node_ids())):
                return reply
            fields = wire.unpack(reply, body=bytes, head=bytes, spent=str)
            longer = Message(wire.pack({**fields, "head": bytes(10**6)}), reply_to=message)
            longer.metadata.__dict__.update(reply.metadata.__dict__)
            return longer

    run_rounds(lab.grid(Chatty), lab.folder)
    state = lab.folder.checkpoint()
    assert [[drop.site for drop in record.dropouts] for record in state.rounds] == [["site-0"], ["site-0"]]
    assert "ledger head of 1000000 bytes" in state.rounds[0].dropouts[0].reason
