"""The containers' health check against real sockets: well, away, and a certificate of somebody else."""

from __future__ import annotations

import importlib.util
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

FILE = Path(__file__).parents[3] / "deployments" / "containers" / "health.py"


@pytest.fixture(scope="module")
def health() -> Any:
    spec = importlib.util.spec_from_file_location("container_health", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def address_string(self) -> str:
        return "here"


class Unwell(Answer):
    status = 503


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "aggregator")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    public, private = folder / "ca.crt", folder / "server.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(*form))
    return public, private


@pytest.mark.parametrize(("handler", "status"), [(Answer, 0), (Unwell, 1)], ids=["well", "unwell"])
def test_a_server_is_asked_on_its_private_socket(health: Any, tmp_path: Path, handler: Any, status: int) -> None:
    with serving(UnixStreamServer(str(tmp_path / "control.sock"), handler)):
        assert health.main("server", str(tmp_path)) == status


def test_a_server_that_is_away_is_not_well(health: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main("server", str(tmp_path)) == 1
    assert "not well: FileNotFoundError" in capsys.readouterr().out


def test_a_site_is_well_when_it_reaches_the_aggregator_that_it_trusts(health: Any, tmp_path: Path) -> None:
    public, private = certificate(tmp_path / "aggregator")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    server = HTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for name, authority in (("mine", public), ("others", certificate(tmp_path / "other")[0])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "ca.crt").write_bytes(authority.read_bytes())
        (folder / "site.toml").write_text(f'[server]\naddress = "127.0.0.1:{server.server_port}"\n')
    with serving(server):
        assert health.main("site", str(tmp_path / "mine")) == 0
        assert health.main("site", str(tmp_path / "others")) == 1
    assert health.main("site", str(tmp_path / "mine")) == 1, "nobody listens any more"


def test_a_folder_without_settings_is_not_well(health: Any, tmp_path: Path) -> None:
    assert health.main("site", str(tmp_path)) == 1
    assert health.main("nothing", str(tmp_path)) == 1
