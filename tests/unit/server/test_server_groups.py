"""Groups summed one by one: what is opened, what withstands a poisoned site, what fails alone; robust runs in clear."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import RUN, Lab, kind_of, small

from qfed._flower import Message
from qfed.errors import QuorumLost
from qfed.federation import wire
from qfed.federation.result import RoundRecord
from qfed.federation.runfolder import Checkpoint
from qfed.secagg import ServerRound
from qfed_client.app import close_sites
from qfed_client.site import Site
from qfed_server.rounds import run_rounds

OFF = ("privacy.mode=off", "federation.sites=12", "training.batch_size=12")
MEDIAN = (*OFF, "federation.groups=4", "federation.strategy=median")
LONGER = ("training.rounds=3", "training.local_steps=6", "training.learning_rate=0.5")
GRID_STEP = 4.0 / 2**17


def run(lab: Lab, fails: Callable[[int, Message], bool] | None = None) -> Checkpoint:
    grid = lab.grid()
    grid._fails = fails
    run_rounds(grid, lab.folder)
    return lab.folder.checkpoint()


def mean_of(lab: Lab, vector: np.ndarray, round: int, sites: tuple[str, ...]) -> np.ndarray:
    total, weight = np.zeros(len(vector)), 0
    for index, name in enumerate(lab.keys.names):
        if name in sites:
            train = lab.data[index].train
            update = lab.learner.train(vector, lambda t=train: t, ledger=None, dataset=name, run=RUN, round=round)
            total, weight = total + len(train) * update, weight + len(train)
    return total / weight


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Checkpoint, list[ServerRound]]:
    """A run of median over four groups, and every round object that opened a sum."""
    opened: list[ServerRound] = []
    original = ServerRound.result
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerRound, "result", lambda self: (opened.append(self), original(self))[1])
        lab = Lab(tmp_path_factory.mktemp("groups"), small(*MEDIAN))
        return lab, run(lab), opened


def test_the_model_moves_by_the_median_of_the_groups_means(whole: tuple[Lab, Checkpoint, list[ServerRound]]) -> None:
    lab, state, _ = whole
    vector = lab.learner.start
    for record in state.rounds:
        means = [mean_of(lab, vector, record.round, group.sites) for group in record.groups]
        vector = (vector + np.median(means, axis=0)).astype(np.float32)
    np.testing.assert_allclose(state.vector, vector, atol=2 * GRID_STEP)
    assert np.abs(state.vector - lab.learner.start).max() > 100 * GRID_STEP
    assert np.abs(np.mean(means, axis=0) - np.median(means, axis=0)).max() > 10 * GRID_STEP


def test_every_site_is_in_one_group_and_no_sum_below_m_is_opened(
    whole: tuple[Lab, Checkpoint, list[ServerRound]],
) -> None:
    lab, state, opened = whole
    for record in state.rounds:
        assert sorted(site for group in record.groups for site in group.sites) == sorted(lab.keys.names)
        assert [group.survivors for group in record.groups] == [3] * 4
        assert record.survivors == 12
    assert state.rounds[0].groups == state.rounds[1].groups, "one epoch, one draw"
    assert len(opened) == 4 * 3
    assert {len(step.survivors) for step in opened} == {3}
    whole_digest, groups = lab.keys.federation.digest, {step.place.federation for step in opened}
    assert len(groups) == 4
    close_sites()
    for index in range(12):
        with closing(sqlite3.connect(lab.site(index) / "secagg.db")) as database:
            labels = {row[0] for row in database.execute("SELECT DISTINCT federation FROM labels")}
        assert len(labels) == 1
        assert labels < groups
        assert whole_digest not in labels


def poison(patch: pytest.MonkeyPatch, site: str) -> None:
    """One site claims the greatest weight and sends the greatest update that passes, in the wrong direction."""
    original = Site._values

    def values(self: Site, learner: Any, *args: Any, **terms: Any) -> dict[str, np.ndarray]:
        blocks = dict(original(self, learner, *args, **terms))
        if self.config.name == site and terms["train"]:
            weight, clip = learner.config.secagg.max_weight, learner.config.secagg.update_clip
            update = blocks["update"]
            blocks["update"] = -update / np.linalg.norm(update) * weight * clip
            blocks["weight"] = np.array([float(weight)])
        return blocks

    patch.setattr(Site, "_values", values)


def accuracy(state: Checkpoint) -> float:
    assert state.final is not None
    return state.final.score


def test_one_poisoned_site_ruins_the_mean_and_not_the_median_of_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, "site-7")
    mean = accuracy(run(Lab(tmp_path / "mean", small(*OFF, *LONGER, "secagg.mode=off"))))
    median = accuracy(run(Lab(tmp_path / "median", small(*MEDIAN, *LONGER))))
    assert mean < 0.5
    assert median > 0.75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "sites", "groups"), [("trimmed_mean", 12, 4), ("krum", 15, 5), ("multikrum", 15, 5)]
)
def test_other_strategies_withstand_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, sites: int, groups: int
) -> None:
    poison(monkeypatch, "site-7")
    terms = (f"federation.strategy={strategy}", f"federation.groups={groups}", f"federation.sites={sites}")
    assert accuracy(run(Lab(tmp_path, small(*OFF, *LONGER, *terms)))) > 0.7


@pytest.mark.parametrize(
    "strategy", ["krum", *(pytest.param(name, marks=pytest.mark.slow) for name in ("multikrum", "median", "bulyan"))]
)
def test_in_clear_the_strategies_compare_the_sites_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    poison(monkeypatch, "site-7")
    lab = Lab(tmp_path, small(*OFF, *LONGER, "secagg.mode=off", f"federation.strategy={strategy}"))
    state = run(lab)
    assert accuracy(state) > 0.7
    assert all(record.groups == () for record in state.rounds)


def lost(record: RoundRecord) -> dict[str, str]:
    return {dropout.site: dropout.reason for dropout in record.dropouts}


def test_a_group_that_loses_a_member_fails_alone_and_the_next_round_draws_anew(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small(*MEDIAN, "training.rounds=3"))
    state = run(lab, lambda index, message: index == 5 and kind_of(message) == (wire.TRAIN, "2"))
    first, second, third = state.rounds
    assert (first.status, first.survivors) == ("aggregated", 12)
    assert (second.status, second.survivors, second.failure) == ("aggregated", 9, None)
    (failed,) = [group for group in second.groups if group.failure]
    assert "site-5" in failed.sites
    assert failed.survivors == 0
    reasons = lost(second)
    assert set(reasons) == set(failed.sites)
    assert reasons.pop("site-5") == "site unreachable"
    assert all("its group of 3 sites failed" in why and "at least min_survivors=3" in why for why in reasons.values())
    assert (third.status, third.survivors) == ("aggregated", 12)
    assert third.groups != second.groups
    means = [mean_of(lab, _after(lab, state, 1), 2, group.sites) for group in second.groups if not group.failure]
    expected = _after(lab, state, 1) + np.median(means, axis=0)
    np.testing.assert_allclose(_after(lab, state, 2), expected, atol=2 * GRID_STEP)


def _after(lab: Lab, state: Checkpoint, rounds: int) -> np.ndarray:
    """The model after some rounds, as the aggregator should have made it."""
    vector = lab.learner.start
    for record in state.rounds[:rounds]:
        means = [mean_of(lab, vector, record.round, g.sites) for g in record.groups if g.failure is None]
        vector = (vector + np.median(means, axis=0)).astype(np.float32)
    return vector


def test_too_few_groups_for_the_strategy_fail_the_round(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small(*MEDIAN, "federation.groups=3", "federation.sites=9"))
    state = run(lab, lambda index, message: index == 0 and kind_of(message) == (wire.TRAIN, "1"))
    first, second = state.rounds
    assert first.status == "failed"
    assert "'median' compares at least 3 updates to withstand 1 poisoned, got 2" in str(first.failure)
    assert first.survivors == 0
    assert second.status == "aggregated"


def test_a_site_that_is_away_at_the_setup_leaves_the_others_in_fewer_groups(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small(*MEDIAN))
    state = run(lab, lambda index, message: index == 0)
    assert [sorted(len(group.sites) for group in record.groups) for record in state.rounds] == [[3, 4, 4]] * 2
    assert list(lost(state.rounds[0]).values()) == ["site unreachable"]
    assert state.status == "completed"


def test_a_site_that_withholds_its_nonce_is_left_out_of_the_next_setup(tmp_path: Path) -> None:
    """Site 0 answers the first hello, and not what comes second; the round after goes on without it."""
    lab, seen = Lab(tmp_path, small(*MEDIAN, "training.rounds=3")), []

    def fails(index: int, message: Message) -> bool:
        if index == 0 and kind_of(message) == (wire.SECAGG, "1"):
            seen.append(message)
            return len(seen) == 2
        return False

    first, second, third = run(lab, fails).rounds
    assert first.status == "failed"
    assert "must open their nonces, but site-0 did not" in str(first.failure)
    assert (second.status, second.survivors) == ("aggregated", 11)
    assert third.status == "aggregated"


def test_sites_that_are_opened_anew_for_each_message_know_their_group(tmp_path: Path) -> None:
    """As under Flower's Ray runtime and stock SuperNodes: nothing but the folder is kept between messages."""
    six = ("federation.sites=6", "federation.groups=2", "federation.byzantine=0", "training.batch_size=24")
    lab = Lab(tmp_path, small(*MEDIAN, *six))
    run_rounds(lab.grid(warm=False), lab.folder)
    state = lab.folder.checkpoint()
    assert [record.survivors for record in state.rounds] == [6, 6]
    np.testing.assert_allclose(state.vector, _after(lab, state, 2), atol=2 * GRID_STEP)


def test_a_run_with_too_few_sites_for_its_groups_ends(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small(*MEDIAN, "federation.max_failed_rounds=0"))
    with pytest.raises(QuorumLost, match="2 of 12 sites joined"):
        run(lab, lambda index, message: index > 1)


def test_clear_updates_are_loud_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "qfed.server"):
        run(Lab(tmp_path / "on", small("privacy.mode=off", "training.rounds=1")))
        assert "SECURE AGGREGATION IS OFF" not in caplog.text
        run(Lab(tmp_path / "off", small("privacy.mode=off", "training.rounds=1", "secagg.mode=off")))
    assert "SECURE AGGREGATION IS OFF: every site's update reaches the aggregator in clear" in caplog.text
