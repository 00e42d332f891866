"""A federation of real processes on loopback: coordinator's files, a server, agents; every process ends with the test.

with Deployment(folder, sites=3) as lab:
    lab.start_server(); lab.start_sites()
    run = lab.submit("training.rounds=2")
    assert lab.wait(run) == "completed"
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any, Self

from qfed.config import RunConfig, ServerConfig, SiteConfig, SitePolicy, load_config, load_site, to_toml
from qfed.config.site import ServerAddress
from qfed.data import SiteData, load, partition
from qfed.federation import enrolment
from qfed.federation.authority import Authority
from qfed.federation.coordinator import found
from qfed.secagg import Federation, Identity
from qfed_server.ask import NoServer, ask

QFED = Path(sys.executable).parent / "qfed"
PATIENCE = 240.0
"""Seconds after which anything that was waited for is given up."""

SMALL = (
    "data.source=wine",
    "model.kind=twin",
    "model.wires=2",
    "model.layers=1",
    "training.rounds=2",
    "training.local_steps=1",
    "training.averaging=0",
    "training.batch_size=30",
    "federation.strategy=fedavg",
    "federation.deadline=300",
    "simulation.compare=[]",
)
"""A model of 19 parameters: everything but learning happens as in a large run."""
OPEN = ("privacy.mode=off", "training.learning_rate=0.2")
"""Without privacy, so that a run can be compared with another number by number."""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, true: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait for `true()` to be so; fails with `what` when it does not come."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {patience:g} s in vain for: {what}")


class Deployment:
    """Files and processes of one federation below `folder`."""

    def __init__(
        self,
        folder: Path,
        *changes: str,
        sites: int = 3,
        private: bool = True,
        settings: dict[str, Any] | None = None,
        preload: bool = True,
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.config: RunConfig = load_config(None, [*SMALL, f"federation.sites={sites}", *changes])
        self.private, self.preload = private, preload
        self.names = tuple(f"site-{index}" for index in range(sites))
        self.coordinator, self.data = folder / "coordinator", folder / "server"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: dict[str, Thread] = {}
        self.records: list[SiteData] = partition(load(self.config.data), self.config.data, sites, self.config.seed)
        self.identities = {name: Identity.generate(name, node=True) for name in self.names}
        self._found()
        self._settings = {"listen": "127.0.0.1", "poll": 0.2, "patience": 5.0, **(settings or {})}
        self._provide_server()
        for name, records in zip(self.names, self.records, strict=True):
            self.provide_site(name, records)

    # -- files ---------------------------------------------------------------------------------------------------

    def _found(self) -> None:
        publics = [identity.public for identity in self.identities.values()]
        self.federation = found(self.coordinator, "ward", publics, self._terms, "coordinator")
        authority = Authority.create(self.coordinator, "ward", datetime.now(UTC))
        authority.certify(self.data / "tls", ["localhost", "127.0.0.1"], datetime.now(UTC))
        self.invitation = enrolment.invite(self.coordinator, self.address)

    def _terms(self, sites: int) -> RunConfig:
        from qfed.config import replace

        return replace(self.config, {"federation.sites": sites})

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"localhost:{self.port}"

    def _provide_server(self) -> None:
        settings = ServerConfig(address=self.address, port=self.port, **self._settings)
        (self.data / "server.toml").write_text(to_toml(settings))
        self.federation.save(self.data / "federation.json")

    def site(self, name: str) -> Path:
        """The folder of a site."""
        return self.folder / name

    def provide_site(self, name: str, records: SiteData, **policy: Any) -> None:
        """Make a site's folder: keys, records, invitation, policy."""
        place = self.site(name)
        place.mkdir()
        self.identities[name].save(place / "identity.key")
        records.save(place / "records.npz")
        terms = {"epsilon": 10.0, "delta": 1e-5, "require_privacy": self.private, **policy}
        settings = SiteConfig(
            name=name,
            dataset=name,
            rounding_seed=self.config.seed,
            server=ServerAddress(address=self.address),
            preload=self.preload,
            policy=SitePolicy(**terms),
        )
        (place / "site.toml").write_text(to_toml(settings))
        enrolment.join(place, self.invitation)

    def put_federation(self, federation: Federation) -> None:
        """Give the server the next version of the federation file, as an operator does."""
        draft = self.data / "federation.next"
        federation.save(draft)
        draft.replace(self.data / "federation.json")

    # -- processes -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.kill(name)

    def start(self, name: str, command: Sequence[str | Path], **environment: str) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to NAME.log, by way of this process: its own disk may be full."""
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        reader = Thread(target=self._copy, args=(process, name), daemon=True)
        reader.start()
        self.processes[name], self._readers[name] = process, reader
        return process

    def _copy(self, process: subprocess.Popen[bytes], name: str) -> None:
        assert process.stdout is not None
        with process.stdout as said, (self.folder / f"{name}.log").open("ab", buffering=0) as log:
            for line in said:
                log.write(line)

    def log(self, name: str) -> str:
        """What a process has said so far."""
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start_server(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers."""
        process = self.start("server", [QFED, "server", "--data", self.data])
        if wait:
            until("the server to answer", lambda: process.poll() is not None or self.status() is not None)
            assert process.poll() is None, self.log("server")
        return process

    def start_site(self, name: str) -> subprocess.Popen[bytes]:
        """Start a site's agent."""
        return self.start(name, [QFED, "client", "--site", self.site(name)])

    def start_sites(self, *names: str) -> None:
        """Start the agents of all sites (or these) and wait until the server sees them."""
        wanted = set(names or self.names)
        agents = {name: self.start_site(name) for name in sorted(wanted)}

        def there() -> bool:
            for name, agent in agents.items():
                assert agent.poll() is None, f"{name} has ended:\n{self.log(name)}"
            return wanted <= self.online()

        until(f"{sorted(wanted)} to be online", there)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process, wait for its end; its exit status."""
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(number)
        status = process.wait(PATIENCE)
        self._readers.pop(name).join(PATIENCE)
        return status

    # -- the operator --------------------------------------------------------------------------------------------

    def qfed(self, *arguments: str | Path, status: int = 0) -> str:
        """Run a command at the server's machine; its output."""
        done = subprocess.run(
            [str(QFED), *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}\n{self.log('server')}"
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any] | None:
        """What the server says of itself and its sites; None while it does not answer."""
        try:
            sites = ask(self.data / "control.sock", "GET", "/qfed/sites")
            return {**ask(self.data / "control.sock", "GET", "/qfed/server"), **sites}
        except NoServer:
            return None

    def online(self) -> set[str]:
        """Names of the sites that are online."""
        return {site["name"] for site in (self.status() or {"sites": []})["sites"] if site["status"] == "online"}

    def submit(self, *changes: str, config: RunConfig | None = None) -> str:
        """Submit the configuration, or another (with changes); the run."""
        file = self.folder / "run.toml"
        file.write_text(to_toml(config or self.config))
        sets = [part for change in changes for part in ("--set", change)]
        return str(json.loads(self.qfed("submit", file, *sets, "--data", self.data, "--json"))["run"])

    def run_folder(self, run: str) -> Path:
        """Where the server keeps a run."""
        return self.data / "runs" / run

    def events(self, run: str, event: str | None = None) -> list[dict[str, Any]]:
        """What happened in a run so far."""
        file = self.run_folder(run) / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [json.loads(line) for line in lines]
        return [item for item in found if event in (None, item["event"])]

    def state(self, run: str) -> dict[str, Any]:
        """A run's state."""
        return dict(json.loads((self.run_folder(run) / "state.json").read_text()))

    def memory(self, run: str) -> dict[str, Any]:
        """What the server would go on with: see qfed_server.memory."""
        file = self.run_folder(run) / "epoch.json"
        return dict(json.loads(file.read_text())) if file.exists() else {"last": 0, "first_round": None, "fixed": None}

    def kill_server_when(self, what: str, true: Callable[[], Any]) -> None:
        """SIGKILL the server the moment that something on its disk is so, and start it again."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.log('server')[-3000:]}"
            time.sleep(0.001)
        self.kill("server")
        self.start_server()

    def amend(self, name: str, **changes: Any) -> None:
        """Change sections of a site's site.toml, as its operator does."""
        file = self.site(name) / "site.toml"
        settings = load_site(file)
        parts = {section: getattr(settings, section).model_copy(update=fields) for section, fields in changes.items()}
        draft = file.with_suffix(".draft")
        draft.write_text(to_toml(settings.model_copy(update=parts)))
        draft.replace(file)

    def wait(self, run: str, patience: float = PATIENCE) -> str:
        """Wait for the end of a run; how it ended."""
        try:
            until(f"run {run} to end", lambda: self.state(run)["finished"], patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.events(run)}\n{self.log('server')[-5000:]}") from None
        return str(self.state(run)["status"])

    def wait_for(self, run: str, event: str, count: int = 1) -> None:
        """Wait until an event has happened so often."""
        until(f"{count} x {event} in run {run}", lambda: len(self.events(run, event)) >= count)
