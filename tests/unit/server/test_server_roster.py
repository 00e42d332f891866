"""Federation files of the command line in real runs: taken up, pinned, and renewed while a run is under way."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from small_runs import RUN, Lab, federated_average, kind_of, small
from typer.testing import CliRunner

from qfed._flower import Message
from qfed.cli.app import app
from qfed.config import load_site, to_toml
from qfed.errors import ConfigError, PolicyRefused, QuorumLost
from qfed.federation import wire
from qfed.federation.runfolder import Checkpoint
from qfed.secagg import Federation, SecAggMisuse, SecAggRefused
from qfed_client.app import close_sites
from qfed_client.site import Site
from qfed_server.rounds import run_rounds

OFF = ("privacy.mode=off", "training.rounds=3")
GRID_STEP = 4.0 / 2**18


def qfed(*arguments: str | Path) -> None:
    assert CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False).exit_code == 0


class Deployed(Lab):
    """A lab whose keys and federation file were all made by the command line, from `sites` of its five sites."""

    def __init__(self, path: Path, sites: list[int], *changes: str) -> None:
        super().__init__(path, small(*OFF, *changes))
        self.study = path / "study"
        for index in range(5):
            (self.site(index) / "identity.key").unlink()
            qfed("site", "keygen", f"site-{index}", "--out", self.site(index))
        changes_ = [part for change in (*OFF, *changes) for part in ("--set", change)]
        qfed("federation", "init", "study", *map(self.public, sites), "--out", self.study, *changes_)
        for index in range(5):
            settings = load_site(self.site(index) / "site.toml")
            pin = self.federation.coordinator.fingerprint()
            (self.site(index) / "site.toml").write_text(to_toml(settings.model_copy(update={"coordinator": pin})))
        self.hand_out(range(5))

    def public(self, index: int) -> Path:
        return self.site(index) / f"site-{index}.public.json"

    @property
    def federation(self) -> Federation:
        return Federation.load(self.study / "federation.json")

    def hand_out(self, sites: object) -> None:
        for place in [self.folder.path, *(self.site(index) for index in sites)]:  # type: ignore[attr-defined]
            (place / "federation.json").unlink()  # a simulation's sites may share one file
            shutil.copy(self.study / "federation.json", place)


def labels(folder: Path) -> set[bytes]:
    with closing(sqlite3.connect(folder / "secagg.db")) as database:
        return {row[0] for row in database.execute("SELECT DISTINCT federation FROM labels")}


def test_a_run_goes_on_while_sites_are_added_and_revoked(tmp_path: Path) -> None:
    """Four sites, then a fifth, then the first is revoked: each version has its own digest, epoch and keys."""
    lab = Deployed(tmp_path, [0, 1, 2, 3])
    digests, changed = [lab.federation.digest], set()

    def change(index: int, message: Message) -> bool:
        kind, round = kind_of(message)
        if kind == wire.TRAIN and round not in changed:
            changed.add(round)
            if round == "1":
                qfed("federation", "add", lab.study, lab.public(4))
            if round == "2":
                qfed("federation", "revoke", lab.study, "site-0")
            lab.hand_out(range(5))
            digests.append(lab.federation.digest)
        return False

    grid = lab.grid()
    grid._fails = change
    run_rounds(grid, lab.folder)
    state = lab.folder.checkpoint()
    assert [record.survivors for record in state.rounds] == [4, 5, 4]
    reasons = [{dropout.reason for dropout in record.dropouts} for record in state.rounds]
    assert reasons == [{"is not in the federation's roster, site='site-4'"}, set(), reasons[2]]
    assert reasons[2] == {"is not in the federation's roster, site='site-0'"}
    assert ["setup" in record.bytes for record in state.rounds] == [True] * 3, "a new epoch each time"
    assert len(set(digests)) >= 3
    close_sites()
    assert labels(lab.site(1)) == set(digests[:3])
    assert labels(lab.site(0)) == set(digests[:2])
    assert labels(lab.site(4)) == set(digests[1:3])
    with closing(sqlite3.connect(lab.site(1) / "secagg.db")) as database:
        kept = {row[0] for row in database.execute("SELECT federation FROM epochs WHERE installed != x''")}
    assert kept == {digests[2]}, "keys of earlier versions are gone"
    vector = lab.learner.start
    for round, sites in enumerate(([0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4]), 1):
        vector = federated_average(lab, vector, round, sites)
    np.testing.assert_allclose(state.vector, vector, atol=4 * GRID_STEP)
    assert lab.folder.config.federation.sites == 5


def test_sites_that_lack_the_new_file_cost_a_round_and_not_the_run(tmp_path: Path) -> None:
    lab, changed = Deployed(tmp_path, [0, 1, 2, 3, 4], "federation.max_failed_rounds=1"), set()

    def change(index: int, message: Message) -> bool:
        kind, round = kind_of(message)
        if kind in (wire.TRAIN, wire.JOIN) and (kind, round) not in changed:
            changed.add((kind, round))
            if (kind, round) == (wire.TRAIN, "1"):
                qfed("federation", "revoke", lab.study, "site-4")
                lab.hand_out([])  # the aggregator has it first
        return False

    grid = lab.grid()
    grid._fails = change
    with pytest.raises(QuorumLost, match="0 of 4 sites joined"):
        run_rounds(grid, lab.folder)
    assert [record.status for record in lab.folder.checkpoint().rounds] == ["aggregated", "failed", "failed"]


def test_what_the_aggregator_puts_in_place_of_the_file_is_refused_by_the_sites(tmp_path: Path) -> None:
    lab = Deployed(tmp_path, [0, 1, 2, 3, 4])
    signed = lab.site(0) / "federation.json"
    tampered = signed.read_text().replace('"min_survivors": 4', '"min_survivors": 3')
    assert tampered != signed.read_text()
    signed.write_text(tampered)
    with pytest.raises(SecAggRefused, match="signature-bad"):
        Site(lab.site(0))
    qfed("federation", "init", "study", *map(lab.public, range(5)), "--out", tmp_path / "mallory")
    shutil.copy(tmp_path / "mallory" / "federation.json", lab.site(0))
    with pytest.raises(SecAggMisuse, match="coordinator-unknown"):
        Site(lab.site(0))
    # Its own copy changes nothing at the sites: they refuse the run that would fit it.
    shutil.copy(lab.study / "federation.json", lab.site(0))
    site = Site(lab.site(0))
    try:
        with pytest.raises(PolicyRefused, match="differs from the policy"):
            site.join(RUN, to_toml(small(*OFF, "federation.quorum=0.6")))
        assert site.join(RUN, to_toml(lab.config)) == "site-0"
    finally:
        site.close()


def test_an_older_file_is_refused_once_a_newer_one_was_used(tmp_path: Path) -> None:
    lab = Deployed(tmp_path, [0, 1, 2, 3, 4])
    old = (lab.study / "federation.json").read_bytes()
    qfed("federation", "revoke", lab.study, "site-4")
    lab.hand_out(range(5))
    state = run(lab)
    assert [record.survivors for record in state.rounds] == [4, 4, 4]
    close_sites()
    (lab.site(0) / "federation.json").write_bytes(old)
    site = Site(lab.site(0), simulated=True)
    try:
        site.join("other", to_toml(lab.config))
        with pytest.raises(SecAggMisuse, match="federation-outdated"):
            site.protocol("other", b"")
    finally:
        site.close()


def run(lab: Lab) -> Checkpoint:
    run_rounds(lab.grid(), lab.folder)
    return lab.folder.checkpoint()


def test_a_site_that_is_missing_its_file_says_how_to_get_it(tmp_path: Path) -> None:
    lab = Deployed(tmp_path, [0, 1, 2, 3, 4])
    (lab.site(0) / "federation.json").unlink()
    with pytest.raises((ConfigError, SecAggMisuse), match="ask the coordinator for it"):
        Site(lab.site(0))


def test_a_site_whose_policy_has_no_groups_refuses_a_run_with_them(tmp_path: Path) -> None:
    lab = Deployed(tmp_path, [0, 1, 2, 3, 4])
    site = Site(lab.site(0))
    grouped = small(*OFF, "federation.sites=6", "federation.groups=2", "federation.strategy=median",
                    "federation.byzantine=0")  # fmt: skip
    try:
        with pytest.raises(PolicyRefused, match="differs from the policy"):
            site.join(RUN, to_toml(grouped))
    finally:
        site.close()
