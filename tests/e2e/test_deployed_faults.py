"""What a server meets: strangers, revoked sites, poisoned configurations, a full disk, a second server."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from deployed import OPEN, PATIENCE, QFED, Deployment, until

from qfed.federation.coordinator import amend
from qfed.federation.runfolder import RunFolder
from qfed.secagg import Identity

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server with four agents; its last test revokes one. Its disk is a small one, where one may be mounted."""
    folder = tmp_path_factory.mktemp("faults")
    place, terms = small_disk(folder / "server"), "federation.weighting=uniform"
    with place, Deployment(folder, terms, sites=4, private=False) as lab:
        lab.start_server()
        lab.start_sites()
        yield lab


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own for a folder: 32 MB in memory. Without the right to mount, the folder stays as it is."""
    place.mkdir()
    mount = shutil.which("mount")
    made = mount is not None and not subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode  # fmt: skip
    try:
        yield
    finally:
        if made:
            subprocess.run(["umount", str(place)], check=True)


@contextmanager
def full_disk(lab: Deployment) -> Iterator[None]:
    """Not a byte can be written: the file system is full, or (none was mounted) files of the server may not grow."""
    if lab.data.is_mount():
        filler = lab.data / "filler"
        with filler.open("wb") as file, suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(1 << 16))
        with filler.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                os.write(file.fileno(), b"0")
        yield
        filler.unlink()
    else:
        process = lab.processes["server"].pid
        before = resource.prlimit(process, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        yield
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def request(lab: Deployment, head: str) -> bytes:
    """The first line that comes back from the public listener."""
    trusted = ssl.create_default_context(cafile=lab.data / "tls" / "ca.crt")
    plain = socket.create_connection(("127.0.0.1", lab.port), PATIENCE)
    with plain, trusted.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(f"{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(4096).split(b"\r\n")[0]


def test_the_public_door_passes_the_fleet_api_and_nothing_else(lab: Deployment) -> None:
    before = (lab.status() or {})["denied_requests"]
    for target in ("/", "/docs", "/openapi.json", "/qfed/runs", "/dashboard/", "/dashboard/metrics", "/v1/control/runs",
                   "/v1/runtime/acquire-task", "/v1/fleet/../control/list-runs"):  # fmt: skip
        assert b" 404 " in request(lab, f"GET {target}") + b" ", target
    assert b" 200 " in request(lab, "GET /health") + b" "
    assert (lab.status() or {})["denied_requests"] - before >= 8
    assert b" 413 " in request(lab, f"POST /v1/fleet/pull-messages HTTP/1.1\r\nContent-Length: {1 << 40}\r\nX: ") + b" "
    with socket.create_connection(("127.0.0.1", lab.port), PATIENCE) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 200"), "nothing is answered without TLS"


def test_only_the_owner_reaches_the_private_door(lab: Deployment) -> None:
    assert stat.S_IMODE((lab.data / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((lab.data / "superlink.db").stat().st_mode) == 0o600


def test_no_secret_in_the_command_line_or_the_log(lab: Deployment) -> None:
    process = lab.processes["server"].pid
    command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    assert [Path(os.fsdecode(part)).name for part in command if part][-3:] == ["server", "--data", "server"]
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    assert children.strip() == "", "the ServerApp is no process of its own, so no token is handed to one"
    secrets = [(lab.data / name).read_text().strip() for name in ("token", "metrics.token")]
    assert not any(secret in lab.log("server") for secret in secrets)
    assert "PRIVATE KEY" not in lab.log("server")


def test_a_poisoned_configuration_is_refused_before_anybody_is_asked(lab: Deployment) -> None:
    file = lab.folder / "poisoned.toml"
    before = sorted(path.name for path in (lab.data / "runs").iterdir())
    for text, told in (
        ('[secagg]\nmode = "off"\n[privacy]\nmode = "off"', "updates in clear"),
        ("[federation]\nsites = 3", "set it to 4"),
        ("[federation]\nsites = 4\n[secagg]\nupdate_clip = 1e6", "other terms"),
        ("[federation]\nsites = 4\n[simulation]\nfailures = [{site = 0, round = 1}]", "qfed simulate"),
        ("[training]\nrounds = -1", "training.rounds=-1"),
        ("surprise = 1", "surprise"),
    ):
        file.write_text(text)
        said = lab.qfed("submit", file, "--data", lab.data, status=2)
        assert told in said, said
        assert "Traceback" not in said
    # Past the command line's own check, straight at the socket.
    from qfed.errors import ConfigError
    from qfed_server.ask import ask

    for body in (b"\xff\xfe", b"[training]\nrounds = 'x'", b"#" * (1 << 21)):
        with pytest.raises(ConfigError):
            ask(lab.data / "control.sock", "POST", "/qfed/runs", body)
    assert sorted(path.name for path in (lab.data / "runs").iterdir()) == before, "nothing is left of them"
    assert lab.processes["server"].poll() is None


def test_a_second_server_and_a_taken_port_are_told(lab: Deployment, tmp_path: Path) -> None:
    assert "another server runs on" in lab.qfed("server", "--data", lab.data, status=2)
    other = shutil.copytree(lab.data, tmp_path / "other", ignore=shutil.ignore_patterns("control.sock", "superlink*"))
    assert f"port={lab.port} is taken" in lab.qfed("server", "--data", other, status=2)


def test_a_site_that_is_not_on_the_roster_is_let_in_nowhere(lab: Deployment) -> None:
    lab.names = (*lab.names, "stranger")
    try:
        lab.identities["stranger"] = Identity.generate("stranger", node=True)
        # Its folder claims to be site-0, with keys of its own: what a thief of the public files can make.
        place = Path(
            shutil.copytree(lab.site("site-0"), lab.site("stranger"), ignore=shutil.ignore_patterns("*.lock", "*.db*"))
        )
        (place / "identity.key").unlink()
        lab.identities["stranger"].save(place / "identity.key")
        lab.start_site("stranger").wait(PATIENCE)
        assert lab.kill("stranger") == 2
        assert "is not the key that the federation file has" in lab.log("stranger")
        # Nor does the server take it, whoever says so: it asks the fleet API with a key that nobody registered.
        from qfed._flower.fleet import Fleet
        from qfed.errors import NotAdmitted

        key = lab.identities["stranger"].node_key()
        fleet = Fleet(lab.address, (lab.data / "tls" / "ca.crt").read_bytes(), key, agent="qfed/0")
        with pytest.raises(NotAdmitted):
            fleet.activate()
        fleet.close()
        assert {site["name"] for site in (lab.status() or {})["sites"]} == {f"site-{i}" for i in range(4)}
    finally:
        lab.names = lab.names[:-1]


def test_stop_keeps_the_model_of_the_last_good_round(lab: Deployment, tmp_path: Path) -> None:
    run = lab.submit(*OPEN, "training.rounds=400")
    lab.wait_for(run, "round", 2)
    waiting = lab.submit(*OPEN)
    lab.qfed("stop", waiting, "--data", lab.data)
    assert lab.state(waiting)["status"] == "stopped", "one that waits is stopped at once"
    lab.qfed("stop", run[:6], "--data", lab.data, "--why", "enough")
    assert lab.wait(run) == "stopped"
    until("its result", (lab.run_folder(run) / "result.json").exists)
    lab.qfed("fetch", run, "--out", tmp_path / "out", "--data", lab.data)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "stopped"
    assert lab.events(run, "stopped")[0]["why"] == "enough"
    assert "over already" in lab.qfed("stop", run, "--data", lab.data, status=2)


def test_a_full_disk_corrupts_nothing_and_the_run_goes_on_when_there_is_room(lab: Deployment) -> None:
    run = lab.submit(*OPEN, "training.rounds=20")
    lab.wait_for(run, "round", 1)
    with full_disk(lab):
        until("it to be told", lambda: "make room" in lab.log("server"))
        done = RunFolder(lab.run_folder(run)).checkpoint().round
        assert lab.processes["server"].poll() is None, lab.log("server")[-3000:]
        assert lab.state(run)["status"] == "running"
        assert 1 <= done < 20, "the last checkpoint is whole"
    assert lab.wait(run) == "completed", lab.log("server")[-3000:]
    whole = lab.submit(*OPEN, "training.rounds=20")
    assert lab.wait(whole) == "completed"
    one, other = (RunFolder(lab.run_folder(name)).checkpoint() for name in (run, whole))
    assert np.array_equal(one.vector, other.vector)
    assert [record.status for record in one.rounds] == ["aggregated"] * 20


def test_a_revoked_site_is_out_while_the_server_runs(lab: Deployment) -> None:
    run = lab.submit(*OPEN, "training.rounds=400")
    lab.wait_for(run, "round", 1)
    newest = amend(lab.coordinator, revoke=["site-3"])
    for name in lab.names[:-1]:
        newest.save(lab.site(name) / "federation.next")
        (lab.site(name) / "federation.next").replace(lab.site(name) / "federation.json")
    lab.put_federation(newest)
    until("the new version", lambda: (lab.status() or {}).get("federation_version") == 2)
    assert {site["name"] for site in (lab.status() or {})["sites"]} == {"site-0", "site-1", "site-2"}
    until(
        "the agent to be refused",
        lambda: "does not know this site" in lab.log("site-3") or "not let" in lab.log("site-3"),
    )
    seen = len(lab.events(run, "round"))
    until("rounds without it", lambda: len(lab.events(run, "round")) >= seen + 3)
    last = lab.events(run, "round")[-1]
    assert (last["status"], last["survivors"]) == ("aggregated", 3), last
    lab.qfed("stop", run, "--data", lab.data)
    # An older file, or one of another coordinator, changes nothing.
    first = lab.federation
    lab.put_federation(first)
    until("it to be told", lambda: "refused, the one before stays" in lab.log("server"))
    assert (lab.status() or {})["federation_version"] == 2


def test_it_stops_cleanly(lab: Deployment) -> None:
    assert lab.kill("server", signal.SIGINT) == 0
    assert "Traceback" not in lab.log("server"), lab.log("server")[-3000:]
    done = subprocess.run(
        [str(QFED), "list", "--data", str(lab.data)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, "runs can be read without a server"
