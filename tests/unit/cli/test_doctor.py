"""qfed doctor: every check, good and bad, on real folders and a real TLS server in a thread."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.doctor import machine, network
from qfed.doctor.check import Check, attempt, healthy
from qfed.federation.authority import Authority
from qfed.secagg import Federation, Identity
from qfed_client.auditlog import AuditLog
from qfed_client.doctor import examine_site
from qfed_server.doctor import examine_server

NOW = datetime.now(UTC)


def now() -> datetime:
    return datetime.now(UTC)


def qfed(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def named(found: Sequence[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Health(BaseHTTPRequestHandler):
    status, ahead = 200, timedelta()

    def do_GET(self) -> None:
        self.send_response_only(self.status)
        self.send_header("Date", format_datetime(datetime.now(UTC) + self.ahead, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    place, port = tmp_path_factory.mktemp("doctor"), free_port()
    for name in "abc":
        qfed("site", "keygen", name, "--out", place / name)
    publics = [place / n / f"{n}.public.json" for n in "abc"]
    qfed("federation", "init", "study", *publics, "--server", f"localhost:{port}", "--out", place / "study")
    pin = Federation.load(place / "study" / "federation.json").coordinator.fingerprint()
    (place / "a" / "table.csv").write_text("x,y\n1,2\n")
    qfed("site", "init", place / "a", "--data", place / "a" / "table.csv")
    qfed("site", "join", place / "study" / "invitation.json", "--site", place / "a", "--coordinator", pin)
    return place, port


@pytest.fixture
def place(made: tuple[Path, int], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "place"))


@pytest.fixture
def served(made: tuple[Path, int]) -> Iterator[Callable[..., None]]:
    """Start the TLS server of the federation with a status and a clock."""
    servers: list[tuple[HTTPServer, threading.Thread]] = []

    def start(tls: Path | None = None, status: int = 200, ahead: timedelta = timedelta()) -> None:
        tls = tls or made[0] / "study" / "aggregator" / "tls"
        handler = type("Handler", (_Health,), {"status": status, "ahead": ahead})
        server = HTTPServer(("127.0.0.1", made[1]), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.crt", tls / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  a refused handshake is what is tested
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        servers.append((server, thread))

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_site_that_is_alright(place: Path, served: Callable[..., None]) -> None:
    served()
    found = examine_site(place / "a", now)
    assert [check for check in found if check.status != "ok"] == []
    assert {check.name for check in found} >= {
        *(
            "Python",
            "flwr",
            "torch",
            "disk space",
            "file system",
            "secret identity.key",
            "coordinator",
            "keys",
            "table",
        ),
        *("table", "ledger", "audit log", "authority", "TCP", "TLS", "server's certificate", "health", "clock"),
    }
    secrets = [v for k, v in json.loads((place / "a" / "identity.key").read_text()).items() if k.endswith("_secret")]
    assert len(secrets) == 3
    told = json.dumps([(check.told, check.todo) for check in found])
    assert not any(secret in told for secret in secrets)


def broken(place: Path, name: str) -> Check:
    found = examine_site(place / "a", now)
    assert not healthy(found) or named(found, name).status == "warning"
    check = named(found, name)
    assert check.todo
    return check


def test_keys_open_to_others_missing_or_not_in_the_roster(place: Path) -> None:
    key = place / "a" / "identity.key"
    os.chmod(key, 0o644)
    assert "chmod 600" in broken(place, "secret identity.key").todo
    key.unlink()
    assert "missing" in broken(place, "secret identity.key").told
    Identity.generate("a", node=True).save(key)
    assert "other keys" in broken(place, "keys").told


def test_a_site_toml_without_pin_table_or_server(place: Path) -> None:
    file = place / "a" / "site.toml"
    file.write_text('name = "a"\ndataset = "a"\n[policy]\nepsilon = 1.0\ndelta = 1e-5\n')
    assert broken(place, "coordinator").status == "warning"
    assert broken(place, "table").status == "warning"
    assert "qfed site join" in broken(place, "server").todo
    file.write_text("name = 3")
    assert broken(place, "site.toml").status == "failed"
    file.unlink()
    assert broken(place, "site.toml").status == "failed"


def test_a_table_ledger_or_log_that_was_changed(place: Path) -> None:
    file = place / "a" / "site.toml"
    file.write_text(file.read_text().replace("table.csv", "gone.csv"))
    assert "no file" in broken(place, "table").told
    (place / "a" / "ledger.db").write_bytes(b"rubbish" * 100)
    assert broken(place, "ledger").status == "failed"
    (place / "a" / "ledger.db").unlink()
    log = AuditLog(place / "a")
    log.append({"what": "received", "bytes": 1}, {"what": "received", "bytes": 2}, anchor=True)
    file = place / "a" / "audit.jsonl"
    file.write_text(file.read_text().replace('"bytes": 1', '"bytes": 7').replace('"bytes":1', '"bytes":7'))
    assert broken(place, "audit log").status == "failed"


def test_no_server_another_authority_a_sick_one_and_a_name_that_is_unknown(
    place: Path, served: Callable[..., None], made: tuple[Path, int]
) -> None:
    assert "does not answer" in broken(place, "TCP").told
    Authority.create(place / "evil", "evil", NOW).certify(place / "evil" / "tls", ["localhost"], NOW)
    ca = place / "a" / "ca.crt"
    served(status=503)
    assert "status 503" in broken(place, "health").told
    good = ca.read_bytes()
    shutil.copy(place / "evil" / "ca.crt", ca)
    assert "is refused" in broken(place, "TLS").told
    ca.write_text("rubbish")
    assert broken(place, "server").status == "failed"
    ca.write_bytes(good)
    unknown = network.reach("nowhere.invalid:9443", ca, now)
    assert (unknown[-1].name, unknown[-1].status) == ("TCP", "failed")
    assert network.reach("nonsense", ca, now)[-1].status == "failed"


def test_something_else_on_the_port(place: Path, made: tuple[Path, int]) -> None:
    with socket.create_server(("127.0.0.1", made[1])) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found = network.reach(f"127.0.0.1:{made[1]}", place / "a" / "ca.crt", now)
        thread.join(10)
    assert (found[-1].name, found[-1].status) == ("TLS", "failed")


def test_a_servers_certificate_that_ends_soon_is_told_at_the_site(place: Path, served: Callable[..., None]) -> None:
    tls = place / "study" / "aggregator" / "tls"
    Authority.open(place / "study").certify(tls, [], NOW, days=10)
    served(tls)
    found = examine_site(place / "a", now)
    assert healthy(found)
    assert named(found, "server's certificate").status == "warning"


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0, "ok"), (2, "ok"), (-2, "ok"), (4, "warning"), (-60, "warning"), (7, "failed"), (-301, "failed")],
)
def test_clocks(seconds: int, status: str) -> None:
    here = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    header = format_datetime(here - timedelta(seconds=seconds), usegmt=True)
    found = network.clock(header, here)
    assert found.status == status
    assert "tolerated: 5 s ahead, 300 s behind" in found.told
    assert network.clock(None, here).status == "warning"
    assert network.clock("yesterday", here).status == "warning"


def test_versions_outside_their_ranges_and_missing_packages() -> None:
    found = machine.versions({"flwr": ("1.0", "99"), "rich": ("900", "901"), "not-a-package": ("1", "2")})
    status = {check.name: check.status for check in found}
    assert status == {"Python": "ok", "qfed": "ok", "flwr": "ok", "rich": "failed", "not-a-package": "failed"}
    assert "rich>=900,<901" in named(found, "rich").todo


@pytest.mark.parametrize(("free", "status"), [(1 << 40, "ok"), (1 << 29, "warning"), (1 << 20, "failed")])
def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, free))  # type: ignore[attr-defined]
    assert machine.disk(tmp_path).status == status


def test_a_file_system_that_does_not_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.file_system(tmp_path).status == "ok"
    assert list(tmp_path.iterdir()) == []
    assert machine.file_system(tmp_path / "none").status == "failed"

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert "No locks available" in machine.file_system(tmp_path).told


def test_errors_of_the_system_are_findings() -> None:
    def look() -> Check:
        raise PermissionError(13, "Permission denied", "x.db")

    assert attempt("ledger", look, "do")[0] == Check("ledger", "failed", "x.db: Permission denied", "do")


def test_a_server_that_is_alright_but_not_started(place: Path) -> None:
    found = examine_server(place / "study" / "aggregator", now)
    assert [check.name for check in found if check.status != "ok"] == ["server"]
    assert named(found, "server").status == "warning"
    assert healthy(found)


def test_a_server_with_an_open_key_an_expired_certificate_or_a_changed_roster(place: Path) -> None:
    folder = place / "study" / "aggregator"
    assert named(examine_server(folder, lambda: NOW + timedelta(days=380)), "certificate").status == "warning"
    late = examine_server(folder, lambda: NOW + timedelta(days=400))
    assert "expired" in named(late, "certificate").told
    os.chmod(folder / "tls" / "server.key", 0o644)
    assert named(examine_server(folder, now), "secret server.key").status == "failed"
    roster = folder / "federation.json"
    roster.write_text(roster.read_text().replace('"version": 1', '"version": 2'))
    assert named(examine_server(folder, now), "roster").status == "failed"
    (folder / "server.toml").unlink()
    found = examine_server(folder, now)
    assert (found[-1].name, found[-1].status) == ("server.toml", "failed")


def test_sites_without_node_keys_are_named_at_the_server(place: Path) -> None:
    from qfed.config import load_config
    from qfed.federation.contribution import policy_of

    sites = [Identity.generate(name).public for name in "abc"]
    policy = policy_of(load_config(None, ["federation.sites=3"]), "study")
    folder = place / "study" / "aggregator"
    Federation.create(policy, sites, Identity.generate("c")).save(folder / "federation.json")
    assert "none of a, b, c" in named(examine_server(folder, now), "node keys").told


def test_the_command_finds_its_side_and_tells_by_its_exit_status(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    monkeypatch.chdir(place / "study" / "aggregator")
    assert "0 failed" in qfed("doctor")
    found = json.loads(qfed("doctor", "--json"))
    assert found["healthy"] is True
    assert set(found["checks"][0]) == {"name", "status", "told", "todo"}
    monkeypatch.chdir(place / "a")
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "does not answer" in " ".join(done.output.split())
    monkeypatch.chdir(place)
    assert "neither a site's nor a server's" in str(runner.invoke(app, ["doctor"]).exception)
    both = runner.invoke(app, ["doctor", "--site", "a", "--server", "study"])
    assert "one folder at a time" in str(both.exception)
