"""Files that are replaced whole: a draft beside the file is synced, then takes its name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from qfed.errors import ConfigError


def write_atomically(path: Path, content: bytes, *, secret: bool = False) -> Path:
    """Write a file so that a reader, or a crash, meets the old content or the new, synced to disk; returns `path`.

    A `secret` one is its owner's alone (0600) at every moment.
    """
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except FileNotFoundError as error:
        raise ConfigError(f"folder={str(path.parent)!r} does not exist; make it before writing {path.name}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not secret:
            os.chmod(draft, 0o666 & ~_umask())  # mkstemp's 0600 would make a report that nobody else can open
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
