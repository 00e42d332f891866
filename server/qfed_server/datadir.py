"""The aggregator's data directory: everything that the server needs and everything that it must not lose.

    server.toml        how it is reached, limits           federation.json  roster and policy, signed by the coordinator
    tls/               ca.crt, server.crt, server.key      superlink.db     Flower's connections
    control.sock       the private listener (0600)         token            login of the dashboard (0600)
    runs/RUN/          one folder a run                    runs/witness/    what was seen of each site's privacy ledger
    sites.json         when each site was there last

Errors  ConfigError for each thing that is missing or does not fit, with the way out, before anything is started
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from qfed.config import ServerConfig, load_server, to_toml
from qfed.errors import ConfigError, ProtocolError
from qfed.federation.files import write_atomically

if TYPE_CHECKING:  # what only asks the server need not wait for the keys' library
    from qfed.secagg import Federation

LONGEST_SOCKET = 100
"""Bytes of the socket's path; the operating system takes about 107."""


@dataclass(frozen=True)
class DataDir:
    """The data directory at `path`."""

    path: Path

    @property
    def settings(self) -> Path:
        """server.toml."""
        return self.path / "server.toml"

    @property
    def federation_file(self) -> Path:
        """federation.json."""
        return self.path / "federation.json"

    @property
    def runs(self) -> Path:
        """Where the runs' folders are."""
        return self.path / "runs"

    @property
    def socket(self) -> Path:
        """The private listener."""
        return self.path / "control.sock"

    @property
    def database(self) -> Path:
        """Flower's SQLite file."""
        return self.path / "superlink.db"

    @property
    def seen_file(self) -> Path:
        """When each site was there last."""
        return self.path / "sites.json"

    def tls(self, name: str) -> Path:
        """A file of the public listener's TLS."""
        return self.path / "tls" / name

    def config(self) -> ServerConfig:
        """The settings."""
        if not self.settings.exists():
            made = f"make one with: qfed server init {self.path} --federation federation.json --address HOST:PORT"
            if inside := sorted(self.path.glob(f"*/{self.settings.name}")):
                made = f"{inside[0].parent} is one"
            raise ConfigError(f"{self.path} is no server's data directory, it has no {self.settings.name}; {made}")
        return load_server(self.settings)

    def federation(self) -> Federation:
        """The coordinator's file, verified."""
        from qfed.secagg import Federation

        file = self.federation_file
        if not file.exists():
            raise ConfigError(f"{file} is missing; get a copy of the coordinator's federation.json and put it there")
        try:
            return Federation.load(file, None)
        except (ProtocolError, OSError) as error:
            raise ConfigError(f"{file}: {error}") from error

    def check_writable(self) -> None:
        """ConfigError unless files can be made here."""
        probe = self.path / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"qfed")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written ({error.strerror}); the server keeps its state there, so give it to "
                "the user that runs the server, and make room"
            ) from error
        if len(os.fsencode(self.socket.resolve())) > LONGEST_SOCKET:
            raise ConfigError(f"the path {self.socket} is too long for a socket; use a shorter --data")

    def check_certificate(self, now: datetime | None = None) -> tuple[str, ...]:
        """Warnings of an end that is near; ConfigError unless sites would accept the certificate at its address now."""
        from qfed.federation import certificates
        from qfed.federation.invitation import host_and_port

        key = self.tls(certificates.KEY)
        if key.exists() and key.stat().st_mode & 0o077:
            raise ConfigError(f"{key} may be read by others; it is the server's secret: chmod 600 {key}")
        host, _ = host_and_port(self.config().address)
        return certificates.check(self.path / "tls", [host], now or datetime.now(UTC))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory: one server at a time. The lock goes with the process, however it ends."""
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip()
                raise ConfigError(
                    f"another server runs on {self.path}{f' (process {holder})' if holder else ''}; stop it first"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


def make(path: Path, federation: Path, config: ServerConfig) -> DataDir:
    """Make a new data directory; an existing one is never overwritten."""
    place = DataDir(path)
    if place.settings.exists():
        raise ConfigError(f"{place.settings} exists already; nothing is overwritten, change it with an editor")
    try:
        content = federation.read_bytes()
        for folder in (path, path / "tls", place.runs):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    place.check_writable()
    write_atomically(place.federation_file, content)
    try:
        place.federation()
    except ConfigError:
        place.federation_file.unlink()
        raise
    write_atomically(place.settings, to_toml(config).encode())
    return place
