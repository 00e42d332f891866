"""A site's own say: what it refuses before any record is read, what it answers twice, what it tells when it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from small_runs import RUN, Lab, charges, kind_of, small

from qfed._flower import Context, Message, RecordDict, assume_identity
from qfed.config import DataBinding, RunConfig, load_site, replace, to_toml
from qfed.data import embedded
from qfed.data.load import columns_of
from qfed.errors import (
    BudgetExhausted,
    ConfigError,
    DataError,
    LocalProtocolError,
    PolicyRefused,
    RemoteProtocolError,
    ResourcesRefused,
    ScheduleRefused,
)
from qfed.federation import wire
from qfed.federation.engine import InProcessGrid
from qfed.federation.local import Learner
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import plan_for
from qfed.quantum.spending import Meter
from qfed_client.app import SITE_FAILED, SITE_REFUSED, app, close_sites
from qfed_client.site import Site
from qfed_server.rounds import run_rounds

UPLOAD = {"body": bytes, "head": bytes, "spent": str}
"""Fields of an answer to train and evaluate."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, small())


@pytest.fixture
def site(lab: Lab) -> Iterator[Site]:
    """Site 0 without its records: whatever needs them fails with DataError."""
    (lab.site(0) / "records.npz").unlink()
    site = Site(lab.site(0))
    yield site
    site.close()


def charged(folder: Path) -> list[tuple[str, int]]:
    return [(row["run"], row["round"]) for row in charges(folder / "ledger.db")]


# -- agreeing to a run -----------------------------------------------------------------------------------------------


def test_a_site_agrees_to_the_run_it_was_set_up_for(lab: Lab, site: Site) -> None:
    assert site.join(RUN, to_toml(lab.config)) == "site-0"
    assert [path.name for path in (site.folder / "runs").iterdir()] == [f"{RUN}.toml"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"privacy.mode": "off"}, "without differential privacy"),
        ({"secagg.mode": "off"}, "in clear"),
        ({"privacy.epsilon": 3.5}, "budget is epsilon=3.0, the run asks for 3.5"),
        ({"privacy.delta": 1e-4}, "delta=1e-05, the run asks for 0.0001"),
        ({"secagg.update_clip": 2.0}, "differs from the policy"),
        ({"secagg.bits": 12}, "differs from the policy"),
        ({"federation.quorum": 0.6}, "differs from the policy"),
        ({"federation.sites": 6}, "differs from the policy"),
        ({"federation.weighting": "uniform"}, "differs from the policy"),
        (
            {"federation.sites": 9, "federation.groups": 3, "federation.strategy": "median"},
            "differs from the policy",
        ),
    ],
)
def test_a_run_that_protects_less_is_refused_before_any_record(
    lab: Lab, site: Site, change: dict[str, object], named: str
) -> None:
    with pytest.raises(PolicyRefused, match=named):
        site.join(RUN, to_toml(replace(lab.config, change)))
    with pytest.raises(LocalProtocolError, match="has not agreed"):
        site.contribute(RUN, 1, b"", b"", train=True)
    with pytest.raises(LocalProtocolError, match="has not agreed"):
        site.protocol(RUN, b"")
    assert charged(site.folder) == []


def own_circuit(config: RunConfig, file: Path) -> str:
    changed = {"model.kind": "hybrid", "model.circuit": f"{file}:circuit", "model.weight_shapes": {"weights": [2]}}
    return to_toml(replace(config, changed))


def test_code_is_refused_unless_the_site_allows_it(lab: Lab, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\ndef circuit(inputs, weights): ...\n")
    folder = lab.site(0)
    settings = load_site(folder / "site.toml")
    assert settings.policy.own_circuits, "a simulation runs the circuit of whoever started it"
    shut = settings.model_copy(update={"policy": settings.policy.model_copy(update={"own_circuits": False})})
    (folder / "site.toml").write_text(to_toml(shut))
    site = Site(folder)
    try:
        with pytest.raises(PolicyRefused, match="built-in circuits only"):
            site.join(RUN, own_circuit(lab.config, tmp_path / "own.py"))
    finally:
        site.close()
    assert not ran.exists()


def test_a_later_refusal_does_not_undo_an_agreement(lab: Lab, site: Site) -> None:
    site.join(RUN, to_toml(lab.config))
    with pytest.raises(PolicyRefused):
        site.join(RUN, to_toml(replace(lab.config, {"privacy.mode": "off"})))
    site.close()
    again = Site(site.folder)
    try:
        with pytest.raises(RemoteProtocolError):  # agreed, so it is the request that is wrong now
            again.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    finally:
        again.close()


def test_only_a_simulated_site_does_not_wait_for_the_disk(lab: Lab) -> None:
    """Which it is follows from the node's own configuration, not from anything that the aggregator sends."""
    folder = lab.site(0)
    assume_identity(1)
    message = Message(wire.pack({"run": RUN, "body": b""}), 1, wire.SECAGG)
    sites = {"qfed-sites": str(folder.parent)}
    here: dict[str, bool | float | int | str] = {"partition-id": int(folder.name), "num-partitions": 5}
    app(message, Context(1, 1, here, RecordDict(), dict(sites)))
    assert not (folder / "secagg.db.witness").exists()
    deployed = lab.site(1)
    app(message, Context(1, 1, here | {"qfed-site": str(deployed)}, RecordDict(), dict(sites)))
    assert (deployed / "secagg.db.witness").exists()


@pytest.mark.parametrize("run", ["../x", "../runs/small", "/x", "a/b", "", ".", "a.b", "a b", "a\0b", "a\nb"])
def test_a_run_is_no_path(lab: Lab, site: Site, run: str) -> None:
    site.join(RUN, to_toml(lab.config))
    before = sorted(site.folder.rglob("*"))
    with pytest.raises(RemoteProtocolError, match="letters and digits"):
        site.join(run, to_toml(lab.config))
    with pytest.raises(RemoteProtocolError, match="letters and digits"):
        site.protocol(run, b"")
    with pytest.raises(RemoteProtocolError, match="letters and digits"):
        site.contribute(run, 1, b"", b"", train=True)
    assert sorted(site.folder.rglob("*")) == before


def test_a_configuration_that_is_none_is_told(site: Site) -> None:
    with pytest.raises(ConfigError):
        site.join(RUN, "[privacy\n")
    with pytest.raises(ConfigError):
        site.join(RUN, "[privacy]\nmode = 'loud'\n")


def test_a_deployed_site_never_sends_in_clear_whatever_its_settings_say(tmp_path: Path) -> None:
    lab = clear_lab(tmp_path)
    assert not load_site(lab.site(0) / "site.toml").policy.require_secagg
    asked = wire.pack({"run": RUN, "config": to_toml(lab.config), "receipt": b""})
    for simulated in (True, False):
        grid = lab.grid()
        node = next(iter(grid.get_node_ids()))
        if not simulated:
            grid._contexts[node].node_config["qfed-site"] = str(lab.site(0))
        (reply,) = grid.send_and_receive([Message(asked, node, wire.JOIN)])
        close_sites()
        assert reply.has_error() is not simulated
    assert reply.error.reason == "ClearRefused"
    site = Site(lab.site(0))
    try:
        with pytest.raises(PolicyRefused, match="exists in simulations only"):
            site.join(RUN, to_toml(lab.config))
        # Not even one that it agreed to as a simulated site.
        assert (lab.site(0) / "runs" / f"{RUN}.toml").exists()
        with pytest.raises(PolicyRefused, match="exists in simulations only"):
            site.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    finally:
        site.close()
    assert charged(lab.site(0)) == []


# -- contributing ----------------------------------------------------------------------------------------------------


def clear_lab(path: Path, *changes: str) -> Lab:
    return Lab(path, small("secagg.mode=off", *changes))


def test_the_ledger_is_charged_before_the_records_are_opened(tmp_path: Path) -> None:
    lab = clear_lab(tmp_path)
    folder = lab.site(0)
    (folder / "records.npz").unlink()
    site = Site(folder, simulated=True)
    site.join(RUN, to_toml(lab.config))
    with pytest.raises(DataError):
        site.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    site.close()
    assert charged(folder) == [(RUN, 1)]


def test_an_exhausted_budget_is_refused_before_the_records_are_opened(tmp_path: Path) -> None:
    lab = clear_lab(tmp_path)
    folder, config = lab.site(0), lab.config
    ledger = Ledger(folder / "ledger.db", Limits(config.privacy.epsilon, config.privacy.delta))
    plan = plan_for(config)
    ledger.reserve("site-0", "earlier", 1, plan.per_round, planned_rounds=2, request=b"")  # type: ignore[attr-defined]
    ledger.close()
    (folder / "records.npz").unlink()
    site = Site(folder, simulated=True)
    site.join(RUN, to_toml(config))
    with pytest.raises(BudgetExhausted, match="Nothing was read"):
        site.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    site.close()
    assert charged(folder) == [("earlier", 1)]


@pytest.mark.parametrize("model", [b"", b"\0" * 7, np.full(30, np.nan, "<f4").tobytes()])
def test_a_model_that_is_none_costs_no_budget(tmp_path: Path, model: bytes) -> None:
    lab = clear_lab(tmp_path)
    if len(model) == 120:
        model = np.full(lab.learner.parameters, np.nan, "<f4").tobytes()
    site = Site(lab.site(0), simulated=True)
    site.join(RUN, to_toml(lab.config))
    with pytest.raises(RemoteProtocolError):
        site.contribute(RUN, 1, model, b"", train=True)
    site.close()
    assert charged(lab.site(0)) == []


class Twice(InProcessGrid):
    """Delivers every request for a contribution twice, as a network may, and keeps both answers."""

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        if message.metadata.message_type in (wire.TRAIN, wire.EVALUATE):
            ANSWERS.append((reply, super()._deliver(message)))
        return reply


ANSWERS: list[tuple[Message, Message]] = []


@pytest.mark.parametrize("warm", [True, False])
def test_a_request_that_comes_again_gets_the_same_bytes(
    tmp_path: Path, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked uploads; `warm=False` closes and opens the site between the two, as another process would."""
    lab, trained = Lab(tmp_path, small()), []
    original = Learner.train
    monkeypatch.setattr(Learner, "train", lambda *a, **k: (trained.append(k["dataset"]), original(*a, **k))[1])
    ANSWERS.clear()
    run_rounds(lab.grid(Twice, warm=warm), lab.folder)
    assert lab.folder.checkpoint().status == "completed"
    assert len(ANSWERS) == 5 * 3  # two rounds of training, one that only scores
    for first, second in ANSWERS:
        assert wire.unpack(first, **UPLOAD) == wire.unpack(second, **UPLOAD)
    assert sorted(trained) == sorted(2 * list(lab.keys.names))
    for index in range(5):
        assert charged(lab.site(index)) == [(RUN, 1), (RUN, 2)]


def test_in_clear_a_private_round_is_not_trained_again(tmp_path: Path) -> None:
    lab = clear_lab(tmp_path)
    ANSWERS.clear()
    run_rounds(lab.grid(Twice), lab.folder)
    pairs = [(first, second) for first, second in ANSWERS if kind_of(first)[0] == wire.TRAIN]
    assert len(pairs) == 10
    for first, second in pairs:  # without a cached upload: refused, or the same answer from the ledger
        assert second.has_error() or wire.unpack(first, **UPLOAD) == wire.unpack(second, **UPLOAD)
        assert not second.has_error() or second.error.reason == "PolicyRefused"
    assert charged(lab.site(0)) == [(RUN, 1), (RUN, 2)]


def test_closing_a_site_between_messages_changes_nothing(tmp_path: Path) -> None:
    states = []
    for warm in (True, False):
        lab = Lab(tmp_path / str(warm), small("privacy.mode=off"))
        run_rounds(lab.grid(warm=warm), lab.folder)
        states.append(lab.folder.checkpoint())
    assert states[0].status == states[1].status == "completed"
    assert np.array_equal(states[0].vector, states[1].vector)
    assert states[0].final == states[1].final
    assert states[0].traffic == states[1].traffic


# -- a deployed site's own terms -------------------------------------------------------------------------------------


def amend(folder: Path, **policy: object) -> None:
    settings = load_site(folder / "site.toml")
    changed = settings.model_copy(update={"policy": settings.policy.model_copy(update=policy)})
    (folder / "site.toml").write_text(to_toml(changed))


def test_outside_its_hours_a_site_joins_and_trains_nothing_but_answers_the_protocol(lab: Lab) -> None:
    folder, hour = lab.site(0), [12]
    amend(folder, hours="08:00-18:00")
    site = Site(folder, now=lambda: datetime(2026, 3, 2, hour[0]))
    site.join(RUN, to_toml(lab.config))
    hour[0] = 20
    with pytest.raises(ScheduleRefused, match="now it is mon 20:00"):
        site.join("later", to_toml(lab.config))
    with pytest.raises(RemoteProtocolError):  # heard, and found to be no message: the protocol has no hours
        site.protocol(RUN, b"")
    site.close()
    clear = clear_lab(lab.path / "clear")
    amend(clear.site(0), hours="08:00-18:00")
    site = Site(clear.site(0), simulated=True, now=lambda: datetime(2026, 3, 2, hour[0]))
    hour[0] = 12
    site.join(RUN, to_toml(clear.config))
    hour[0] = 20
    with pytest.raises(ScheduleRefused):
        site.contribute(RUN, 1, wire.vector_to_bytes(clear.learner.start), b"", train=True)
    assert charged(clear.site(0)) == []
    hour[0] = 9
    site.contribute(RUN, 1, wire.vector_to_bytes(clear.learner.start), b"", train=True)
    site.close()
    assert charged(clear.site(0)) == [(RUN, 1)]


class Ticks:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_round_that_would_be_too_slow_is_stopped_between_its_steps(tmp_path: Path) -> None:
    lab = clear_lab(tmp_path, "training.local_steps=50")
    amend(lab.site(0), most_seconds=20.0)
    clock = Ticks()
    site = Site(lab.site(0), simulated=True, clock=clock)
    site.join(RUN, to_toml(lab.config))
    model = wire.vector_to_bytes(lab.learner.start)
    with pytest.raises(
        ResourcesRefused, match=r"has taken .* the next 1 steps take about 1 s, past the 20 s .*most_sec"
    ):
        site.contribute(RUN, 1, model, b"", train=True)
    assert 10 < clock.now <= 22, "it stops before the step that would pass the limit, and not much earlier"
    with pytest.raises(ResourcesRefused, match=r"was stopped, and the policy allows 20 s \(most_seconds\)"):
        site.contribute(RUN, 2, model, b"", train=True)
    site.close()
    assert charged(lab.site(0)) == [(RUN, 1)], "its charge stays, and there is no other"


def test_a_run_that_was_too_slow_trains_no_further_round(tmp_path: Path) -> None:
    """One step, which nothing was known of before."""
    lab = clear_lab(tmp_path, "training.local_steps=1")
    amend(lab.site(0), most_seconds=2.0)
    site = Site(lab.site(0), simulated=True, clock=Ticks())
    site.join(RUN, to_toml(lab.config))
    model = wire.vector_to_bytes(lab.learner.start)
    site.contribute(RUN, 1, model, b"", train=True)
    with pytest.raises(ResourcesRefused, match=r"took this machine 3\.0 s, and the policy allows 2 s"):
        site.contribute(RUN, 2, model, b"", train=True)
    site.close()
    assert charged(lab.site(0)) == [(RUN, 1)]


def test_a_submission_that_would_take_too_long_is_not_made(tmp_path: Path) -> None:
    """On a device: nothing is submitted, counted or paid that is known to pass the limit."""
    device = ("model.kind=hybrid", "quantum.device=default.qubit", "quantum.shots=10", "training.method=dp_zo")
    lab = clear_lab(tmp_path, *device, "training.local_steps=4")
    amend(lab.site(0), most_seconds=4.5)
    site = Site(lab.site(0), simulated=True, clock=Ticks())
    site.join(RUN, to_toml(lab.config))
    with pytest.raises(ResourcesRefused, match=r"circuits take about .* they were not begun"):
        site.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    site.close()
    used = Meter("default.qubit", RUN, file=lab.site(0) / "spending.db").spent()
    whole = Site(lab.site(1), simulated=True)
    whole.join(RUN, to_toml(lab.config))
    whole.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    whole.close()
    assert 0 < used.shots < Meter("default.qubit", RUN, file=lab.site(1) / "spending.db").spent().shots


def test_a_policy_that_was_changed_holds_from_the_next_message_on(lab: Lab) -> None:
    """An agent keeps its site open between messages, but not its word."""
    grid = lab.grid()
    node = next(iter(grid.get_node_ids()))
    grid._contexts[node].node_config.update({"qfed-site": str(lab.site(0)), "qfed-warm": "yes"})
    asked = wire.pack({"run": RUN, "config": to_toml(lab.config), "receipt": b""})
    try:
        (reply,) = grid.send_and_receive([Message(asked, node, wire.JOIN)])
        assert not reply.has_error()
        amend(lab.site(0), most_rounds=1)
        (reply,) = grid.send_and_receive([Message(asked, node, wire.JOIN)])
        assert reply.error.reason == "RoundsRefused"
    finally:
        close_sites()


def test_a_deployed_site_trains_on_its_own_table(tmp_path: Path) -> None:
    """The wine table as a CSV: the same model as from the records, held out by hash."""
    lab = clear_lab(tmp_path)
    columns, target = columns_of(lab.config.data)
    x, y = embedded.raw("wine")
    lines = [",".join([*(column.name for column in columns), target.name])]
    lines += [",".join([*map(repr, map(float, row)), f"class_{k}"]) for row, k in zip(x, y, strict=True)]
    folder = lab.site(0)
    (folder / "wine.csv").write_text("\n".join(lines))
    (folder / "records.npz").unlink()
    settings = load_site(folder / "site.toml")
    bound = settings.model_copy(update={"data": DataBinding(source="wine.csv")})
    (folder / "site.toml").write_text(to_toml(bound))
    site = Site(folder, simulated=True)
    site.join(RUN, to_toml(lab.config))
    body = site.contribute(RUN, 1, wire.vector_to_bytes(lab.learner.start), b"", train=True)
    site.close()
    assert np.frombuffer(body, np.int64).any()
    assert charged(folder) == [(RUN, 1)]


# -- what the aggregator is told when something goes wrong -----------------------------------------------------------

PRIVATE = "patient 4711 has no value"


def replies_to_train(lab: Lab, run: str = RUN, model: bytes | None = None) -> list[Message]:
    grid = lab.grid()
    nodes = list(grid.get_node_ids())
    joins = [
        Message(wire.pack({"run": RUN, "config": to_toml(lab.config), "receipt": b""}), node, wire.JOIN)
        for node in nodes
    ]
    assert not any(reply.has_error() for reply in grid.send_and_receive(joins))
    model = wire.vector_to_bytes(lab.learner.start) if model is None else model
    asked = {"run": run, "round": 1, "model": model, "request": b"", "witness": b""}
    return list(grid.send_and_receive([Message(wire.pack(asked), node, wire.TRAIN) for node in nodes]))


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError(PRIVATE), SITE_REFUSED), (ValueError(PRIVATE), SITE_FAILED), (KeyError(PRIVATE), SITE_FAILED)],
)
def test_an_error_tells_its_type_and_not_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Learner, "train", fail)
    with caplog.at_level(logging.INFO, "qfed.site"):
        replies = replies_to_train(clear_lab(tmp_path))
    assert PRIVATE in caplog.text, "the site's own log says what happened"
    for reply in replies:
        assert reply.error.code == code
        assert reply.error.reason == type(error).__name__
        assert "patient" not in repr(reply)  # not the digits: identifiers are random


def test_refusals_are_told_by_type(tmp_path: Path) -> None:
    assert {reply.error.reason for reply in replies_to_train(clear_lab(tmp_path / "a"), run="other")} == {
        "LocalProtocolError"
    }
    assert {reply.error.reason for reply in replies_to_train(clear_lab(tmp_path / "b"), model=b"123")} == {
        "RemoteProtocolError"
    }


def test_a_message_with_other_fields_is_refused(lab: Lab) -> None:
    grid = lab.grid()
    node = next(iter(grid.get_node_ids()))
    for kind in (wire.JOIN, wire.SECAGG, wire.TRAIN, wire.EVALUATE):
        (reply,) = grid.send_and_receive([Message(wire.pack({"run": 5}), node, kind)])
        assert (reply.error.code, reply.error.reason) == (SITE_REFUSED, "RemoteProtocolError")


def test_what_is_spent_is_told_only_where_the_policy_says_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    settings = load_site(lab.site(1) / "site.toml")
    policy = settings.policy.model_copy(update={"tell_epsilon": True})
    (lab.site(1) / "site.toml").write_text(to_toml(settings.model_copy(update={"policy": policy})))
    run_rounds(lab.grid(warm=False), lab.folder)
    book = Ledger(lab.site(1) / "ledger.db", Limits(policy.epsilon, policy.delta))
    assert lab.folder.checkpoint().spent == {"site-1": (book.spent(settings.dataset), policy.epsilon)}
    assert book.spent(settings.dataset) > 0
    book.close()


@pytest.mark.parametrize("told", ["[1]", "[1, 0]", "[-1, 3]", "[NaN, 3]", "[1, Infinity]", "{", '["a", 3]', "null"])
def test_what_cannot_have_been_spent_is_not_believed(tmp_path: Path, told: str) -> None:
    lab = Lab(tmp_path, small("privacy.mode=off"))

    class Boasting(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type == wire.TRAIN and message.metadata.dst_node_id == self.get_node_ids()[0]:
                reply.content = wire.pack({**wire.unpack(reply, **UPLOAD), "spent": told})
            return reply

    run_rounds(lab.grid(Boasting), lab.folder)
    state = lab.folder.checkpoint()
    assert state.spent == {}
    assert [drop.site for drop in state.rounds[0].dropouts] == ["site-0"]
    assert "told as two figures" in state.rounds[0].dropouts[0].reason
