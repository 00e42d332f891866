"""Runs of kind "synthesize" through the whole path: real masks, real ledgers, the noise of the sum, one charge."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from counting_runs import CountingLab, counting, kind_of
from scipy.stats import chi2
from small_runs import RUN, charges

from qfed._flower import Context, Message
from qfed.config import load_site, to_toml
from qfed.errors import ConfigError, PolicyRefused, QuorumLost, RemoteProtocolError
from qfed.federation import wire
from qfed.federation.counting import counter_for
from qfed.federation.engine import InProcessGrid
from qfed.federation.synthesis_result import published_schema
from qfed.generative.release import Release
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.shares import Shares
from qfed.report import read_result, read_synthesis
from qfed.simulation import simulate, synthesize
from qfed_server import synthesis
from qfed_server.synthesis import run_synthesis


def run_and_see(lab: CountingLab, monkeypatch: pytest.MonkeyPatch, grid: InProcessGrid | None = None) -> np.ndarray:
    """Run the federation; the decoded sum."""
    seen: list[np.ndarray] = []
    original = synthesis.release_of

    def watched(config: Any, coding: Any, total: np.ndarray, survivors: int, statement: Any) -> Release:
        seen.append(total.copy())
        return original(config, coding, total, survivors, statement)

    monkeypatch.setattr(synthesis, "release_of", watched)
    run_synthesis(grid or lab.grid(), lab.folder)
    assert len(seen) == 1
    return seen[0]


def accepts(noise: np.ndarray, stddev: float) -> bool:
    statistic = float(np.sum((noise / stddev) ** 2))
    return bool(chi2.ppf(1e-6, noise.size) < statistic < chi2.isf(1e-6, noise.size))


@pytest.mark.parametrize("mode", ["shared", "local"])
@pytest.mark.parametrize("absent", [0, 1])
def test_the_decoded_sum_is_the_records_and_the_noise_of_its_survivors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, absent: int
) -> None:
    lab = CountingLab(tmp_path, counting(f"privacy.mode={mode}"))
    plan = counter_for(lab.config).plan
    grid = lab.grid()
    grid._fails = lambda index, message: index >= 5 - absent and kind_of(message) == wire.TRAIN
    noise = lab.noise_in(run_and_see(lab, monkeypatch, grid), plan, range(5 - absent))
    assert plan.shares is not None
    one = plan.shares.stddev(plan.moments.size)
    assert plan.shares.honest == (3 if mode == "shared" else 1)
    assert accepts(noise, one * math.sqrt(5 - absent))
    assert not accepts(noise, one * math.sqrt(5 - absent) * 2 / 3)
    assert not accepts(noise, one * math.sqrt(5 - absent) * 3 / 2)
    # Whoever colludes knows its own noise; what is left is what was promised.
    assert one * math.sqrt(plan.shares.honest) >= plan.shares.noise_multiplier * 4096
    state = lab.folder.checkpoint()
    assert (state.status, state.rounds[0].survivors) == ("completed", 5 - absent)
    assert len(state.rounds[0].dropouts) == absent
    assert Release.load(lab.folder.path).privacy["mode"] == mode


@pytest.mark.parametrize("changes", [(), ("synth.classes=together",), ("coding.bits=2", "coding.numeric=gray")])
def test_without_noise_the_federation_counts_what_one_place_would(tmp_path: Path, changes: tuple[str, ...]) -> None:
    lab = CountingLab(tmp_path, counting("privacy.mode=off", *changes))
    run_synthesis(lab.grid(), lab.folder)
    found, exact = Release.load(lab.folder.path), lab.exact()
    assert (found.names, found.fixed) == (exact.names, exact.fixed)
    assert [part.records for part in found.parts] == [part.records for part in exact.parts]
    for mine, theirs in zip(found.parts, exact.parts, strict=True):
        np.testing.assert_array_equal(mine.pairs, theirs.pairs)
        assert mine.stddev == 0
    assert found.privacy["not_covered"][0] == "everything: the counts are exact and may reveal records"
    assert not charges(lab.site(0) / "ledger.db")


def test_ten_sites_release_what_one_place_would_but_for_the_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Federated against pooled, each with the law of its own noise, and their difference with that of both."""
    lab = CountingLab(tmp_path, counting("data.source=breast_cancer", "federation.sites=10", "coding.columns=[]"))
    plan = counter_for(lab.config).plan
    shares, size = plan.shares, plan.moments.size
    assert shares is not None
    federated = run_and_see(lab, monkeypatch)
    whole = np.rint(plan.moments.sums(lab.bits()) * (4096 / plan.moments.norm))
    pooled = Shares(shares.noise_multiplier, 1, 1, 32).hide(plan.moments.sums(lab.bits()), plan.moments.norm)
    of_ten, of_one = shares.stddev(size) * math.sqrt(10), Shares(shares.noise_multiplier, 1, 1, 32).stddev(size)
    assert of_ten == pytest.approx(of_one * math.sqrt(10 / shares.honest), rel=1e-6)
    assert accepts(federated - whole, of_ten)
    assert accepts(pooled - whole, of_one)
    assert accepts(federated - pooled, math.hypot(of_ten, of_one))
    assert not accepts(federated - pooled, math.hypot(of_ten, of_one) * 2 / 3)
    mean = np.abs(np.mean(federated - pooled)) / math.hypot(of_ten, of_one) * math.sqrt(size)
    assert mean < 5.5, "the sum of ten is not shifted against that of one"


class Twice(InProcessGrid):
    """Delivers every upload request a second time, and keeps both answers."""

    answers: list[tuple[Message, Message]]

    def _deliver(self, message: Message) -> Message:
        first = super()._deliver(message)
        if kind_of(message) == wire.TRAIN:
            self.answers.append((first, super()._deliver(message)))
        return first


def body(message: Message) -> bytes:
    return bytes(message.content["qfed"]["body"])  # type: ignore[index,arg-type]


@pytest.mark.parametrize("warm", [True, False])
def test_a_request_that_comes_again_gets_the_same_bytes_and_charges_nothing(tmp_path: Path, warm: bool) -> None:
    lab = CountingLab(tmp_path, counting())
    grid = lab.grid(Twice, warm=warm)
    assert isinstance(grid, Twice)
    grid.answers = []
    run_synthesis(grid, lab.folder)
    assert len(grid.answers) == 5
    for first, second in grid.answers:
        assert body(first) == body(second)
    for index in range(5):
        rows = charges(lab.site(index) / "ledger.db")
        assert [(row["kind"], row["round"], row["planned_rounds"]) for row in rows] == [("synthesize", 1, 1)]
    run_synthesis(grid, lab.folder)
    assert len(grid.answers) == 5, "a run that is over asks nobody"


def test_a_site_that_broke_after_its_charge_stays_charged_and_answers_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = CountingLab(tmp_path, counting())
    hide, broken = Shares.hide, []

    def breaks(self: Shares, values: np.ndarray, norm: float) -> np.ndarray:
        if not broken:
            broken.append(1)
            raise OSError("power cut")
        return hide(self, values, norm)

    monkeypatch.setattr(Shares, "hide", breaks)
    grid = lab.grid(Twice)
    assert isinstance(grid, Twice)
    grid.answers = []
    run_synthesis(grid, lab.folder)
    state = lab.folder.checkpoint()
    assert state.rounds[0].survivors == 4
    (lost,) = (pair for pair in grid.answers if pair[0].has_error())
    assert lost[0].error.reason == "OSError"
    assert lost[1].error.reason == "PolicyRefused", "the second request finds the charge, and reads nothing"
    (dropout,) = state.rounds[0].dropouts
    number = lab.keys.names.index(dropout.site)
    limits = Limits(3.0, 1e-5)
    book = Ledger(lab.site(number) / "ledger.db", limits)
    assert [row.what for row in book.rows()] == ["open", "reserve"]
    assert book.spent(dropout.site) == pytest.approx(3.0, rel=1e-3)
    book.close()


def test_a_site_that_refuses_is_left_out_with_its_reason(tmp_path: Path) -> None:
    lab = CountingLab(tmp_path, counting())
    settings = load_site(lab.site(2) / "site.toml")
    policy = settings.policy.model_copy(update={"kinds": ("train",)})
    (lab.site(2) / "site.toml").write_text(to_toml(settings.model_copy(update={"policy": policy})), encoding="utf-8")
    run_synthesis(lab.grid(), lab.folder)
    (record,) = lab.folder.checkpoint().rounds
    assert [(dropout.site, dropout.reason) for dropout in record.dropouts] == [(lab.keys.names[2], "KindRefused")]
    assert record.survivors == 4
    assert not charges(lab.site(2) / "ledger.db")


def test_a_member_that_vanishes_after_its_upload_is_recovered_from(tmp_path: Path) -> None:
    lab = CountingLab(tmp_path, counting("privacy.mode=off"))
    uploaded: set[int] = set()

    def fails(index: int, message: Message) -> bool:
        if kind_of(message) == wire.TRAIN:
            uploaded.add(index)
            return False
        return index == 1 and index in uploaded

    grid = lab.grid()
    grid._fails = fails
    run_synthesis(grid, lab.folder)
    assert lab.folder.checkpoint().rounds[0].survivors == 5
    assert [part.records for part in Release.load(lab.folder.path).parts] == [p.records for p in lab.exact().parts]


class Recording(InProcessGrid):
    """Keeps the bytes of every upload by site, in order."""

    uploads: dict[int, list[bytes]]

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        if kind_of(message) == wire.TRAIN and not reply.has_error():
            number = int(self._contexts[message.metadata.dst_node_id].node_config["partition-id"])
            self.uploads.setdefault(number, []).append(body(reply))
        return reply


def recording(lab: CountingLab, uploads: dict[int, list[bytes]]) -> Recording:
    grid = lab.grid(Recording)
    assert isinstance(grid, Recording)
    grid.uploads = uploads
    return grid


def charged(lab: CountingLab) -> list[int]:
    return [len(charges(lab.site(index) / "ledger.db")) for index in range(5)]


def test_a_release_that_too_few_answered_is_made_when_the_others_are_back(tmp_path: Path) -> None:
    lab, uploads = CountingLab(tmp_path, counting()), dict[int, list[bytes]]()
    grid = recording(lab, uploads)
    grid._fails = lambda index, message: index > 2 and kind_of(message) == wire.TRAIN
    with pytest.raises(QuorumLost, match="what it cost the sites that answered is spent, once"):
        run_synthesis(grid, lab.folder)
    assert not (lab.folder.path / "statistics.json").exists()
    state = lab.folder.checkpoint()
    assert (state.status, state.rounds[0].status) == ("stopped", "failed")
    assert charged(lab) == [1, 1, 1, 0, 0]
    assert len(uploads[0]) == 1 + lab.config.federation.max_failed_rounds, "it was tried as often as the run says"
    run_synthesis(recording(lab, uploads), lab.folder)
    assert lab.folder.checkpoint().rounds[0].survivors == 5
    assert charged(lab) == [1, 1, 1, 1, 1]
    assert all(len(set(sent)) == 1 for sent in uploads.values()), "every site sends the bytes that it sent first"


def test_a_release_whose_members_vanished_is_opened_over_the_same_survivors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, uploads = CountingLab(tmp_path, counting()), dict[int, list[bytes]]()
    grid, uploaded, away = recording(lab, uploads), set[int](), {0, 1}

    def fails(index: int, message: Message) -> bool:
        """Site 4 is not there; two members are gone when the masks are to be opened, one more than can be recovered."""
        if kind_of(message) == wire.TRAIN:
            uploaded.add(index)
            return index == 4
        return kind_of(message) == wire.SECAGG and index in away and len(uploaded) == 5

    grid._fails = fails
    with pytest.raises(QuorumLost, match="the one release failed"):
        run_synthesis(grid, lab.folder)
    # One of those who were fixed is away now: with the others alone nothing may be opened.
    grid = recording(lab, uploads)
    grid._fails = lambda index, message: index == 2 and kind_of(message) == wire.TRAIN
    with pytest.raises(QuorumLost, match="site-2 did not send again what it sent then; no sum over others"):
        run_synthesis(grid, lab.folder)
    assert not (lab.folder.path / "statistics.json").exists()
    # All are back, site 4 as well: it is not among the fixed, and is not asked.
    plan = counter_for(lab.config).plan
    noise = lab.noise_in(run_and_see(lab, monkeypatch, recording(lab, uploads)), plan, range(4))
    assert plan.shares is not None
    assert accepts(noise, plan.shares.stddev(plan.moments.size) * 2), "the noise of the four"
    assert lab.folder.checkpoint().rounds[0].survivors == 4
    assert charged(lab) == [1, 1, 1, 1, 0]
    assert all(len(set(sent)) == 1 for sent in uploads.values())


def test_a_release_whose_epoch_is_lost_is_not_made_under_other_masks(tmp_path: Path) -> None:
    lab, uploads = CountingLab(tmp_path, counting()), dict[int, list[bytes]]()
    grid = recording(lab, uploads)
    grid._fails = lambda index, message: index > 2 and kind_of(message) == wire.TRAIN
    with pytest.raises(QuorumLost):
        run_synthesis(grid, lab.folder)
    (lab.folder.path / "epoch.bin").unlink()
    with pytest.raises(QuorumLost, match=r"got 2 in epoch=2.*site-0: PolicyRefused"):
        run_synthesis(recording(lab, uploads), lab.folder)
    assert all(len(set(sent)) == 1 for sent in uploads.values())
    assert charged(lab) == [1, 1, 1, 1, 1], "nobody twice"


def test_the_budget_holds_for_one_release(tmp_path: Path) -> None:
    lab = CountingLab(tmp_path, counting())
    run_synthesis(lab.grid(), lab.folder)
    site = lab.open(0)
    try:
        with pytest.raises(PolicyRefused):
            counter_for(lab.config).contribute(
                lambda: pytest.fail("records were read"),  # type: ignore[arg-type,return-value]
                ledger=site._ledger, dataset=site.config.dataset, run="another", round=1,
            )  # fmt: skip
        with pytest.raises(RemoteProtocolError, match="there is no model to evaluate"):
            site._counts(lab.config, RUN, 2, train=False)
        assert site.spending(RUN) == counter_for(lab.config).spending()
    finally:
        site.close()


def test_what_the_run_costs_is_the_median_of_what_sites_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = CountingLab(tmp_path, counting())
    honest = counter_for(lab.config).spending()

    class Liars(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if kind_of(message) == wire.PLAN and self._number(self._contexts[message.metadata.dst_node_id]) < 2:
                tree = json.loads(str(reply.content["qfed"]["plan"]))  # type: ignore[index,arg-type]
                tree |= {"noise_multiplier": 1e6, "epsilon": 1e-6}
                reply.content["qfed"]["plan"] = json.dumps(tree)  # type: ignore[index,call-overload]
            return reply

        @staticmethod
        def _number(context: Context) -> int:
            return int(context.node_config["partition-id"])

    run_synthesis(lab.grid(Liars), lab.folder)
    told: Mapping[str, Any] = Release.load(lab.folder.path).privacy
    assert told["epsilon"] == honest.epsilon
    assert told["noise_multiplier"] == honest.noise_multiplier


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("counts") / "out"
    synthesize(counting("name=wine <counts>"), out=out)
    return out


def test_a_simulation_leaves_result_report_and_counts(done: Path) -> None:
    tree = json.loads((done / "result.json").read_text())
    jsonschema.validate(tree, published_schema(), cls=jsonschema.Draft202012Validator)
    result = read_synthesis(done)
    assert (result.kind, result.status, result.config.training.rounds) == ("synthesize", "completed", 1)
    assert 2.99 < (result.privacy.epsilon or 0) <= 3.0
    assert result.privacy.clip_norm == counter_for(result.config).plan.moments.norm
    assert result.sums == 3 * (1 + 13 + 78)
    release = Release.load(done)
    assert result.records == tuple(part.records for part in release.parts)
    assert release.parts[0].stddev > result.cell_stddev, "pairs' noise is what generators judge pairs by"
    held = sum(site.train_records or 0 for site in result.sites)
    assert abs(sum(result.records) - held) < 6 * result.records_stddev * math.sqrt(3)
    for site in result.sites:
        book = Ledger(done / "ledgers" / f"{site.name}.db", Limits(3.0, 1e-5))
        assert book.spent(site.name) == site.epsilon == pytest.approx(result.privacy.epsilon or 0, rel=1e-6)
        book.close()
    assert not (done / "INCOMPLETE").exists()
    assert not (done / "work").exists()


def test_the_report_says_what_is_promised(done: Path) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    assert "wine &lt;counts&gt;" in page
    for text in (
        "pair counts of 16 bits a record over 5 sites",
        "add or remove: one record more or less",
        "on the sum over all sites, which any record moves by",
        "Each site adds 1/\N{SQUARE ROOT}3 of that noise",
        "cultivar=class_0: yes",
    ):
        assert text in page.replace("\N{NO-BREAK SPACE}", " "), text
    for no in ("clipped", "held-out scores", "<script", "http:", "https:"):
        assert no not in page, no


def test_each_kind_of_run_has_its_own_way_in(done: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains no model; run it with qfed"):
        simulate(counting())
    with pytest.raises(ConfigError, match="takes kind=\"synthesize\", got kind='train'"):
        synthesize(counting("kind=train", "simulation.compare=[]"))
    with pytest.raises(ConfigError, match="it is that of a run in which counts were released"):
        read_result(done)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("training.rounds=40", r"training\.rounds does not apply, got training\.rounds=40"),
        ("quantum.device=default.qubit", r"quantum\.device does not apply"),
        ("privacy.mode=site", "protects records"),
        ("privacy.clip_norm=2.0", r"privacy\.clip_norm does not apply"),
        ("privacy.private_metrics=true", r"privacy\.private_metrics does not apply"),
        ("federation.strategy=fedavgm", r"federation\.strategy does not apply"),
        ('simulation.compare=["twin"]', r"simulation\.compare does not apply"),
    ],
)
def test_what_does_not_apply_is_refused(item: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        counting(item)
    assert counting("training.rounds=1", "simulation.compare=[]") == counting()
