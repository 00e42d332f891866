"""The machine: versions, room on the disk, a file system that keeps what is synced and locked, secrets kept secret.

Errors  OSError where a folder cannot be used at all (a finding, by `attempt`)
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path

from packaging.version import Version

from qfed.doctor.check import Check, failed, ok, warning
from qfed.errors import ConfigError
from qfed.federation import certificates

RANGES: Mapping[str, tuple[str, str]] = {"flwr": ("1.41", "1.43"), "cryptography": ("50", "51")}
"""Package -> versions [from, below), as in pyproject.toml."""
OF_SITES: Mapping[str, tuple[str, str]] = {"torch": ("2.9", "2.14"), "pennylane": ("0.45", "0.46")}
LEAST_FREE, LITTLE_FREE = 100 << 20, 1 << 30


def versions(wanted: Mapping[str, tuple[str, str]]) -> list[Check]:
    """Python and packages against the ranges that qfed is made for."""
    found = [ok("Python", platform.python_version()), ok("qfed", metadata.version("qfed"))]
    for package, (least, below) in wanted.items():
        try:
            there = metadata.version(package)
        except metadata.PackageNotFoundError:
            extra = "client" if package in OF_SITES else "server"
            found.append(failed(package, "not installed", f"pip install 'qfed[{extra}]'"))
            continue
        if Version(least) <= Version(there) < Version(below):
            found.append(ok(package, there))
        else:
            todo = f"pip install '{package}>={least},<{below}'"
            found.append(failed(package, f"{there}, qfed is made for {least} up to, not including, {below}", todo))
    return found


def disk(folder: Path) -> Check:
    """Free bytes where the state is kept."""
    free = shutil.disk_usage(folder).free
    told = f"{free / (1 << 30):.1f} GiB free at {folder}"
    if free < LEAST_FREE:
        return failed("disk space", told, "make room: what cannot be written down stops a run")
    if free < LITTLE_FREE:
        return warning("disk space", told, "make room before a long run")
    return ok("disk space", told)


def file_system(folder: Path) -> Check:
    """Write, sync, lock, replace: what ledgers and checkpoints rest on."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place:
            file = Path(place) / "probe"
            with file.open("wb") as opened:
                opened.write(b"qfed")
                opened.flush()
                os.fsync(opened.fileno())
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(file, Path(place) / "probed")
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        return failed(
            "file system",
            f"{folder} cannot be written, synced or locked ({error.strerror})",
            "give the folder to the user that runs qfed, on a local disk (network file systems often lack locks)",
        )
    return ok("file system", f"{folder}: writes, syncs, locks and replaces files")


def secret(file: Path) -> Check:
    """A private key: present, and its owner's alone."""
    name = f"secret {file.name}"
    if not file.exists():
        return failed(name, f"{file} is missing", "restore it from the backup, or enrol with new keys")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return failed(name, f"{file} may be read by others (mode {mode:o})", f"chmod 600 {file}")
    return ok(name, f"{file}: its owner's alone (mode {mode:o})")


def certificate(name: str, file: Path, now: datetime, *, authority: bool) -> Check:
    """Expiry of a certificate on disk."""
    try:
        soon = certificates.expiry(file, now, authority=authority)
    except ConfigError as error:
        return failed(name, str(error), "put a valid certificate there")
    about = certificates.facts(certificates.read(file)[0])
    told = f"{about.subject}, until {about.not_after:%Y-%m-%d} ({about.days_left(now)} days)"
    return ok(name, told) if soon is None else warning(name, told, soon.split("; ", 1)[-1])
