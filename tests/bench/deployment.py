"""The deployed system on loopback: beside stock Flower, its size at rest, and a hundred sites.

    python tests/bench/deployment.py [--json FILE] [--quick]

no-op phase   Two sites answer 4 kB to 4 kB, over TLS with node authentication: stock SuperLink with two SuperNodes
              (state in memory, its own ServerApp process and send_and_receive), then qfed's SuperLink (SQLite) with two
              agents of a process each. Medians over the phases of one run; both on this machine, one after the other.
memory        Resident MB of `qfed server` and `qfed client`, connected and idle. Before torch: with `preload = false`,
              which keeps an agent so until its first message. Loaded: by default, once it says that it is ready.
hundred       A hundred agents as threads of one process and a real `qfed server`: one secure round of about 1e4
              parameters. CPU seconds a message are those of the whole process, training included at the sites.
loopback      From the start of `qfed server` to the end of a private run of three agents, no pause in it: all processes
              started, torch imported by each agent. Beside it the CPU seconds of all these processes, over the cores:
              what no order of the work could be faster than, on this machine.

Hundred and loopback twice: as it comes, and with `connections = "memory"` in server.toml.

Bytecode of qfed is written first, as an installation has it.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import importlib
import json
import logging
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e")]  # deployed.py
BIN = Path(sys.executable).parent
BODY, SITES = 4096, 2
PATIENCE = 180.0
LARGE = (
    "data.source=digits", "model.kind=twin", "model.wires=20", "model.layers=106", "training.rounds=1",
    "training.local_steps=1", "training.averaging=0", "training.batch_size=14", "federation.strategy=fedavg",
    "federation.deadline=600",
)  # fmt: skip

APP = f"""
import json, os, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()

def content():
    return RecordDict({{"q": ConfigRecord({{"body": os.urandom({BODY})}})}})

@client.query("noop")
def noop(message, context):
    return Message(content(), reply_to=message)

@server.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {SITES}:
        time.sleep(0.1)
    times = []
    for number in range(int(context.run_config["phases"]) + 1):
        start = time.monotonic()
        messages = [Message(content(), node, "query.noop", group_id=str(number)) for node in nodes]
        replies = list(grid.send_and_receive(messages, timeout=120))
        assert len(replies) == {SITES} and not any(reply.has_error() for reply in replies)
        times.append(time.monotonic() - start)
    with open(context.run_config["result"], "w") as file:
        json.dump(times[1:], file)
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the block."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        yield running
    finally:
        for process in running[::-1]:
            process.send_signal(signal.SIGTERM)
        for process in running[::-1]:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(path: Path) -> Any:
    """The JSON that a process writes when it is done."""
    end = time.monotonic() + PATIENCE
    while not path.exists() or not path.read_text():
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE:g} s in vain for {path.name}; see the logs in {path.parent}")
        time.sleep(0.05)
    time.sleep(0.1)
    return json.loads(path.read_text())


def provide(folder: Path) -> None:
    """Certificate of localhost and a node key a site, in Flower's forms."""
    from cryptography.hazmat.primitives import serialization as s

    from qfed.federation.authority import Authority
    from qfed.secagg import Identity

    now = datetime.now(UTC)
    Authority.create(folder / "ca", "bench", now).certify(folder / "tls", ["localhost", "127.0.0.1"], now)
    for index in range(SITES):
        key = Identity.generate(f"site-{index}", node=True).node_key()
        body = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption())
        (folder / f"node{index}").write_bytes(body)


def public_keys(folder: Path) -> list[Any]:
    """The public halves of the sites' keys."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    return [load_ssh_private_key((folder / f"node{index}").read_bytes(), None).public_key() for index in range(SITES)]


def stock(folder: Path, phases: int) -> list[float]:
    """Seconds of each no-op phase with Flower as it comes."""
    from flwr.cli.build import build_fab_from_files
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.fab import Fab
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    port, tls, result = free_port(), folder / "tls", folder / "stock.json"
    ca = tls / "ca.crt"
    environment = {
        **os.environ, "FLWR_HOME": str(folder / "flwr"), "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    with processes() as running, (folder / "stock.log").open("wb") as log:

        def start(*command: object) -> None:
            words = [str(word) for word in command]
            running.append(subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT))

        start(
            BIN / "flower-superlink", "--host", "127.0.0.1", "--port", port, "--ssl-certfile", tls / "server.crt",
            "--ssl-keyfile", tls / "server.key", "--ssl-ca-certfile", ca, "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.1)
        control = ControlHttpClient.from_server_address(
            f"localhost:{port}", False, ca.read_bytes(), interceptors=[RuntimeVersionHttpInterceptor("flwr CLI")]
        )
        for key in public_keys(folder):
            control.RegisterNode(RegisterNodeRequest(public_key=public_key_to_bytes(key)))
        for index in range(SITES):
            start(
                BIN / "flower-supernode", "--root-certificates", ca, "--superlink", f"localhost:{port}",
                "--auth-supernode-private-key", folder / f"node{index}", "--port", free_port(),
            )  # fmt: skip
        pyproject = (
            '[project]\nname = "bench"\nversion = "1.0.0"\nlicense = "Apache-2.0"\ndependencies = []\n'
            '[tool.flwr.app]\npublisher = "qfed"\n[tool.flwr.app.components]\nserverapp = "bench_app:server"\n'
            f'clientapp = "bench_app:client"\n[tool.flwr.app.config]\nphases = {phases}\nresult = "{result}"\n'
        )
        bundle, _ = build_fab_from_files({"pyproject.toml": pyproject.encode(), "bench_app.py": APP.encode()})
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        control.StartRun(
            StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto({}), federation="")
        )
        return list(wait_for(result))


def ours(folder: Path, phases: int) -> list[float]:
    """Seconds of each no-op phase with qfed's SuperLink, exchange and agents."""
    port, result = free_port(), folder / "ours.json"
    with processes() as running, (folder / "ours.log").open("wb") as log:
        for part in ("server", *(f"agent{index}" for index in range(SITES))):
            command = [sys.executable, __file__, "--child", part, str(folder), str(port), str(phases)]
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        return list(wait_for(result))


def child_server(folder: Path, port: int, phases: int) -> None:
    """A SuperLink behind TLS, and phases of qfed's own exchange over it."""
    from qfed._flower.superlink import SuperLink
    from qfed.federation import wire
    from qfed_server.exchange import Exchange
    from qfed_server.listeners import FleetOnly, Listeners, bind_public

    link, listeners = SuperLink(folder / "superlink.db"), Listeners()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    nodes = {f"site-{index}": link.register(key) for index, key in enumerate(public_keys(folder))}
    bound, tls = bind_public("127.0.0.1", port), folder / "tls"
    listeners.add(FleetOnly(link.fleet, 1 << 26), bound, certificate=tls / "server.crt", key=tls / "server.key")
    listeners.start()
    grid = link.begin("bench", stop=threading.Event(), patience=PATIENCE)
    while len(list(grid.get_node_ids())) < SITES:
        time.sleep(0.05)
    exchange, times = Exchange(grid, nodes, PATIENCE), []
    for number in range(phases + 1):
        start = time.monotonic()
        requests: dict[str, wire.Fields] = {site: {"body": os.urandom(BODY)} for site in nodes}
        answers = exchange.ask("noop", "query.noop", requests, round=number, body=bytes)
        if answers.missing:
            raise SystemExit(f"no answer: {dict(answers.missing)}")
        times.append(time.monotonic() - start)
    (folder / "ours.json").write_text(json.dumps(times[1:]))
    threading.Event().wait()


def child_agent(folder: Path, port: int, index: int) -> None:
    """An agent that answers 4 kB."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    from qfed._flower import Context, Message
    from qfed._flower.fleet import Fleet
    from qfed.federation import wire
    from qfed_client.agent import Agent

    class Noop:
        def __call__(self, message: Message, context: Context) -> Message:
            return Message(wire.pack({"body": os.urandom(BODY)}), reply_to=message)

        def load(self) -> None:
            pass

        def close(self, folder: Path) -> None:
            pass

    key: Any = load_ssh_private_key((folder / f"node{index}").read_bytes(), None)
    place = folder / f"site-{index}"
    place.mkdir()
    fleet = Fleet(f"localhost:{port}", (folder / "tls" / "ca.crt").read_bytes(), key, agent="qfed/bench")
    agent = Agent(place, fleet, app=Noop())
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    agent.serve()


def child_hundred(folder: Path) -> None:
    """Every site below a folder as a thread of this process."""
    from qfed_client.connect import agent_for

    turn = threading.Lock()
    agents = [agent_for(site.parent, turn=turn) for site in sorted(folder.glob("site-*/site.toml"))]
    threads = [threading.Thread(target=agent.serve) for agent in agents]
    signal.signal(signal.SIGTERM, lambda *_: [agent.stop() for agent in agents])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def resident(pid: int) -> float:
    """Resident MB of a process."""
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at_rest(folder: Path) -> dict[str, float]:
    """Resident MB of a server with its agents connected, before any of them loads torch, and of one that has."""
    from deployed import Deployment, until

    with Deployment(folder / "waiting", preload=False) as lab:
        server = lab.start_server()
        lab.start_sites()
        time.sleep(3)
        figures = {
            "agent": max(resident(lab.processes[name].pid) for name in lab.names),
            "server": resident(server.pid),
        }
    with Deployment(folder / "ready") as lab:
        lab.start_server()
        agent = lab.start_site("site-0")
        until("the agent to be ready", lambda: "ready for messages" in lab.log("site-0"))
        return figures | {"loaded": resident(agent.pid)}


def loopback(folder: Path, connections: str) -> dict[str, float]:
    """Seconds of a whole run of three agents, and the CPU seconds in it."""
    from deployed import Deployment

    with Deployment(folder, "federation.deadline=300", settings={"connections": connections}) as lab:
        start, asked = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        lab.start_server()
        lab.start_sites()
        run = lab.submit()
        if lab.wait(run, PATIENCE) != "completed":
            raise SystemExit(lab.log("server"))
        seconds, told = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = sum(cpu(process.pid) for process in lab.processes.values())
        used += told.ru_utime + told.ru_stime - asked.ru_utime - asked.ru_stime  # qfed submit
        return {"seconds": seconds, "cpu": used, "limit": used / (os.cpu_count() or 1)}


def hundred(folder: Path, sites: int, connections: str) -> dict[str, float]:
    """One secure round of many agents."""
    from deployed import Deployment

    from qfed.federation.runfolder import RunFolder
    from qfed_client.auditlog import lines

    settings = {"patience": PATIENCE, "connections": connections}
    with Deployment(folder, *LARGE, sites=sites, settings=settings) as lab:
        server = lab.start_server()
        agents = lab.start("agents", [sys.executable, __file__, "--child", "hundred", folder])
        while len(lab.online()) < sites:
            time.sleep(0.5)
        before, idle = (cpu(server.pid), cpu(agents.pid)), resident(server.pid)
        start, run = time.monotonic(), lab.submit()
        if lab.wait(run, 3 * PATIENCE) != "completed":
            raise SystemExit(f"{lab.events(run)}\n{lab.log('server')[-3000:]}\n{lab.log('agents')[-3000:]}")
        seconds = time.monotonic() - start
        used = cpu(server.pid) - before[0], cpu(agents.pid) - before[1]
        state = RunFolder(lab.run_folder(run)).checkpoint()
        messages = sum(
            value is not None and value["what"] == "received"
            for name in lab.names
            for _, value in lines(lab.site(name))
        )
        return {
            "seconds": seconds,
            "round": sum(state.rounds[0].seconds.values()),
            "parameters": len(state.vector),
            "survivors": state.rounds[0].survivors,
            "server": used[0] / messages,
            "site": used[1] / messages,
            "idle": idle,
            "memory": resident(server.pid),
            "messages": messages / sites,
        }


def main() -> None:
    """Measure, print the table, write the JSON."""
    from report import finish  # tests/bench/report.py

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer phases, twenty agents instead of a hundred")
    parser.add_argument("--child", nargs="+")
    arguments = parser.parse_args()
    if arguments.child:
        part, folder, *rest = arguments.child
        if part == "hundred":
            child_hundred(Path(folder))
        elif part == "server":
            child_server(Path(folder), int(rest[0]), int(rest[1]))
        else:
            child_agent(Path(folder), int(rest[0]), int(part.removeprefix("agent")))
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in ("qfed", "qfed_server", "qfed_client"):
        compileall.compile_dir(str(importlib.import_module(package).__path__[0]), quiet=2)
    phases, sites = (4, 20) if arguments.quick else (10, 100)
    with tempfile.TemporaryDirectory(prefix="qfed-bench-") as place:
        folder = Path(place)
        provide(folder)
        flower, qfed = statistics.median(stock(folder, phases)), statistics.median(ours(folder, phases))
        rest = at_rest(folder)
        whole, light = (loopback(folder / f"loopback-{where}", where) for where in ("disk", "memory"))
        many, quick = (hundred(folder / f"hundred-{where}", sites, where) for where in ("disk", "memory"))
    figures: list[dict[str, Any]] = [
        {"name": "no-op phase, 2 sites: qfed", "value": qfed, "unit": "s", "better": "lower"},
        {"name": "no-op phase, 2 sites: stock Flower", "value": flower, "unit": "s", "better": "lower"},
        {"name": "no-op phase: qfed / stock", "value": qfed / flower, "unit": "x", "goal": 0.25, "better": "lower"},
        {"name": "agent before torch", "value": rest["agent"], "unit": "MB", "goal": 150, "better": "lower"},
        {"name": "server, idle", "value": rest["server"], "unit": "MB", "goal": 200, "better": "lower"},
        {"name": "agent, loaded and idle", "value": rest["loaded"], "unit": "MB", "better": "lower"},
        {"name": "full loopback run, 3 agents", "value": whole["seconds"], "unit": "s", "goal": 20, "better": "lower"},
        {"name": "the same, connections in memory", "value": light["seconds"], "unit": "s", "better": "lower"},
        {"name": "full loopback run: CPU of all processes", "value": whole["cpu"], "unit": "CPU s", "better": "lower"},
        {"name": "full loopback run: that over the cores", "value": whole["limit"], "unit": "s", "better": "lower"},
        {"name": "the same, connections in memory: CPU", "value": light["cpu"], "unit": "CPU s", "better": "lower"},
    ]
    for key, unit, name in (
        ("survivors", "sites", "in the secure sum"),
        ("parameters", "", "parameters"),
        ("round", "s", "secure round"),
        ("seconds", "s", "whole run, with joining and evaluation"),
        ("messages", "", "messages a site"),
        ("server", "CPU s", "a message at the server"),
        ("site", "CPU s", "a message at the sites' process"),
        ("idle", "MB", "server's memory before it, all connected"),
        ("memory", "MB", "server's memory after it"),
    ):
        goal = {"goal": sites, "better": "higher"} if key == "survivors" else {"better": "lower"}
        figures.append({"name": f"{sites} agents: {name}", "value": many[key], "unit": unit, **goal})
        if key in ("round", "server", "memory"):
            name = f"{sites} agents, connections in memory: {name}"
            figures.append({"name": name, "value": quick[key], "unit": unit, "better": "lower"})
    finish("Deployed on loopback, TLS and node authentication", figures, ("flwr", "uvicorn"), arguments.json)


if __name__ == "__main__":
    main()
