"""The folder that a simulation writes, what it needs installed, and which versions it ran with."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from qfed.config import RunConfig
from qfed.errors import ConfigError, MissingExtra

_PACKAGES = ("qfed", "flwr", "torch", "pennylane", "opacus", "dp-accounting", "numba", "numpy", "cryptography")
_MARK = "INCOMPLETE"


def versions() -> dict[str, str]:
    """Python's and the packages' versions."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def require_extras(config: RunConfig, *, report: bool) -> None:
    """MissingExtra now rather than when the run is under way, or over and its report is due."""
    needed = [("jinja2", "server"), ("matplotlib", "server")] if report else []
    if config.simulation.engine == "ray":
        needed.append(("ray", "sim"))
    for package, extra in needed:
        if find_spec(package) is None:
            raise MissingExtra(package, extra)


@contextmanager
def result_folder(out: str | os.PathLike[str] | None, force: bool) -> Iterator[Path]:
    """The folder to work in; a given one carries the mark INCOMPLETE until everything is written."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="qfed-") as temporary:
            yield Path(temporary)
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / _MARK).exists() or (folder / "result.json").exists()
        if not ours:
            raise ConfigError(f"--out {folder} holds files that are not a simulation's; name an empty or new folder")
        if not force:
            raise ConfigError(
                f"--out {folder} holds an earlier simulation; name another folder, or replace it: --force"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _MARK
    mark.write_text(
        "This simulation is running or was cut off; nothing here is a result.\n"
        "Start it again into the same folder with --force.\n",
        encoding="utf-8",
    )
    yield folder
    shutil.rmtree(folder / "work", ignore_errors=True)
    mark.unlink()
