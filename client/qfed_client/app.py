"""A site as a Flower ClientApp: the same object for the in-process engine, Ray and SuperNode.

Whatever goes wrong at a site stays there: the aggregator is told the type of the error, the site's log gets its text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from qfed._flower import ClientApp, Context, Error, Message
from qfed.errors import ConfigError, QfedError, StateError
from qfed.federation import wire
from qfed.federation.local import Job, Learner
from qfed.federation.wire import SITE_FAILED, SITE_REFUSED
from qfed_client.diary import Diary
from qfed_client.site import Site

log = logging.getLogger("qfed.site")
app = ClientApp()

_open: dict[Path, Site] = {}


def site_folder(context: Context) -> Path:
    """The folder of the site that a node stands for: `qfed-site`, or by partition below `qfed-sites` (simulation)."""
    if isinstance(folder := context.node_config.get("qfed-site"), str):
        return Path(folder)
    sites, partition = context.run_config.get("qfed-sites"), context.node_config.get("partition-id")
    if not isinstance(sites, str) or not isinstance(partition, int):
        raise ConfigError("a node needs qfed-site in its node configuration, or (in a simulation) qfed-sites")
    return Path(sites) / f"{partition:04d}"


def _site(context: Context) -> Site:
    """The node's site, opened; kept open ("qfed-warm") by an agent, and in a simulation in this process."""
    folder = site_folder(context)
    if folder in _open:
        if "qfed-site" not in context.node_config or not _open[folder].outdated:
            return _open[folder]
        log.info("%s was changed: its policy is read anew", folder / "site.toml")
        close_site(folder)
    spending = context.run_config.get("qfed-spending")
    site = Site(
        folder,
        simulated="qfed-site" not in context.node_config,
        spending=Path(spending) if isinstance(spending, str) else None,
    )
    if "yes" in (context.node_config.get("qfed-warm"), context.run_config.get("qfed-warm")):
        _open[folder] = site
    return site


def close_site(folder: Path) -> None:
    """Close the site of this folder, if this process keeps it open."""
    if (site := _open.pop(folder, None)) is not None:
        site.close()


def close_sites() -> None:
    """Close every site that this process kept open."""
    while _open:
        _open.popitem()[1].close()


def prepare_round(deliveries: Sequence[tuple[Message, Context]]) -> None:
    """Train the sites of a simulation's round in one call, before each answers its own message.

    Every site makes its own checks and charges its own ledger first; one that refuses or fails is left out here and
    says so when its message comes. Only for sites that this process keeps open ("qfed-warm").
    """
    jobs: list[tuple[Learner, Job]] = []
    for message, context in deliveries:
        if context.run_config.get("qfed-warm") != "yes":
            continue
        try:
            site = _site(context)
            fields = wire.unpack(message, run=str, round=int, model=bytes, request=bytes, witness=bytes)
            site.witness.check(bytes(fields["witness"]))  # type: ignore[arg-type]
            model, request = bytes(fields["model"]), bytes(fields["request"])  # type: ignore[arg-type]
            found = site.prepare(str(fields["run"]), int(fields["round"]), model, request)
        except Exception as error:  # noqa: BLE001  the site meets it again, and answers with it
            log.debug("a site is not trained ahead: %s: %s", type(error).__name__, error)
        else:
            if found is not None:
                jobs.append(found)
    for learner in {id(learner): learner for learner, _ in jobs}.values():
        learner.train_ahead([job for mine, job in jobs if mine is learner])


def _answer(message: Message, context: Context, work: Callable[[Site], wire.Fields]) -> Message:
    diary = Diary(message, site_folder(context) if "qfed-site" in context.node_config else None)
    try:
        diary.received()
        site = _site(context)
        try:
            diary.begin(site)
            try:
                fields = work(site)
            finally:
                diary.end(site)
        finally:
            if site.folder not in _open:
                site.close()
        diary.accepted(fields)
        return Message(wire.pack(fields), reply_to=message)
    except QfedError as error:
        log.warning("%s refused: %s: %s", message.metadata.message_type, type(error).__name__, error)
        return _no(message, diary, error, SITE_REFUSED)
    except Exception as error:
        log.exception("%s failed", message.metadata.message_type)
        return _no(message, diary, error, SITE_FAILED)


def _no(message: Message, diary: Diary, error: Exception, code: int) -> Message:
    """The aggregator is told the type of the error, the audit log its text."""
    try:
        diary.refused(error, "refused" if code == SITE_REFUSED else "failed")
    except StateError as unwritten:
        log.error("%s", unwritten)
    return Message(Error(code, type(error).__name__), reply_to=message)


@app.query("hello")  # type: ignore[untyped-decorator,unused-ignore]
def hello(message: Message, context: Context) -> Message:
    """Say who this is."""

    def work(site: Site) -> wire.Fields:
        wire.unpack(message, run=str)
        return {"site": site.config.name}

    return _answer(message, context, work)


@app.query("receipt")  # type: ignore[untyped-decorator,unused-ignore]
def receipt(message: Message, context: Context) -> Message:
    """Keep the aggregator's countersignature of the ledger's head."""

    def work(site: Site) -> wire.Fields:
        site.witness.accept(bytes(wire.unpack(message, receipt=bytes)["receipt"]))  # type: ignore[arg-type]
        return {"head": site.witness.head()}

    return _answer(message, context, work)


@app.query("join")  # type: ignore[untyped-decorator,unused-ignore]
def join(message: Message, context: Context) -> Message:
    """Agree to a run, or refuse it; first of all when the ledger is older than what the aggregator saw."""

    def work(site: Site) -> wire.Fields:
        fields = wire.unpack(message, run=str, config=str, receipt=bytes)
        site.witness.accept(bytes(fields["receipt"]))  # type: ignore[arg-type]
        site.join(str(fields["run"]), str(fields["config"]))
        return {"head": site.witness.head()}

    return _answer(message, context, work)


@app.query("plan")  # type: ignore[untyped-decorator,unused-ignore]
def plan(message: Message, context: Context) -> Message:
    """Say what the run costs by its plan: figures of its configuration, not of any record."""

    def work(site: Site) -> wire.Fields:
        spending = site.spending(str(wire.unpack(message, run=str)["run"]))
        return {"plan": json.dumps(asdict(spending))}

    return _answer(message, context, work)


@app.query("initial")  # type: ignore[untyped-decorator,unused-ignore]
def initial(message: Message, context: Context) -> Message:
    """Tell what the aggregator cannot compute: the run's facts and its initial model."""

    def work(site: Site) -> wire.Fields:
        fields = wire.unpack(message, run=str, rounds=int, every=int)
        facts, model = site.initial(str(fields["run"]), int(fields["rounds"]), int(fields["every"]))
        return {"facts": facts, "model": model}

    return _answer(message, context, work)


@app.query("model")  # type: ignore[untyped-decorator,unused-ignore]
def model(message: Message, context: Context) -> Message:
    """Pack a model into the two files that `qfed.load_model` reads."""

    def work(site: Site) -> wire.Fields:
        fields = wire.unpack(message, run=str, model=bytes)
        about, archive = site.packed(str(fields["run"]), bytes(fields["model"]))  # type: ignore[arg-type]
        return {"about": about, "archive": archive}

    return _answer(message, context, work)


@app.query("secagg")  # type: ignore[untyped-decorator,unused-ignore]
def secagg(message: Message, context: Context) -> Message:
    """Answer a message of secure aggregation."""

    def work(site: Site) -> wire.Fields:
        fields = wire.unpack(message, run=str, body=bytes)
        return {"body": site.protocol(str(fields["run"]), bytes(fields["body"]))}  # type: ignore[arg-type]

    return _answer(message, context, work)


@app.train()  # type: ignore[untyped-decorator,unused-ignore]
def train(message: Message, context: Context) -> Message:
    """Train from the global model and upload the masked contribution."""
    return _contribute(message, context, train=True)


@app.evaluate()  # type: ignore[untyped-decorator,unused-ignore]
def evaluate(message: Message, context: Context) -> Message:
    """Score the global model on held-out records and upload the masked sums."""
    return _contribute(message, context, train=False)


def _contribute(message: Message, context: Context, *, train: bool) -> Message:
    def work(site: Site) -> wire.Fields:
        fields = wire.unpack(message, run=str, round=int, model=bytes, request=bytes, witness=bytes)
        site.witness.check(bytes(fields["witness"]))  # type: ignore[arg-type]
        model, request = bytes(fields["model"]), bytes(fields["request"])  # type: ignore[arg-type]
        body = site.contribute(str(fields["run"]), int(fields["round"]), model, request, train=train)
        return {"body": body, "head": site.witness.head(), "spent": site.told()}

    return _answer(message, context, work)
