"""A second file that knows how far a store has come, so that a restored one is noticed.

    witness = "store counter inode", replaced atomically after each commit and before anything leaves the site

It lies beside the database (or where the caller puts it: outside the backup is best). A database that is behind its
witness, or whose file is not the one that the witness knows, was restored: SecAggState with ROLLBACK, and the way out
is a new store (the site joins again at the next epoch; old keys are gone, so old labels cannot be used). A snapshot
that restores both files in place is noticed by the receipt that the aggregator shows (statement.py); no local file
can notice it.

Cost    two small fsyncs    Errors  SecAggState: ROLLBACK, STORE_CORRUPT
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from qfed.secagg.reasons import Reason, SecAggState
from qfed.secagg.statement import StoreMark


def is_copy(database: Path) -> bool:
    """Whether a store is not the file that its witness knows: it was copied or moved since. Nothing is opened."""
    witness = Path(f"{database}.witness")
    if not (database.exists() and witness.exists()):
        return False
    parts = witness.read_text(encoding="ascii", errors="replace").split()
    return len(parts) == 3 and parts[2].isdigit() and int(parts[2]) != database.stat().st_ino


@dataclass(frozen=True)
class Witness:
    """The witness at `path` of the database at `database`."""

    database: Path
    path: Path

    def put(self, mark: StoreMark) -> None:
        """Replace the witness atomically: after a crash it is the old one or the new one."""
        text = f"{mark.store.hex()} {mark.counter} {self._inode()}\n"
        fresh = self.path.with_name(self.path.name + ".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, text.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(fresh, self.path)
        if os.name == "posix":
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def check(self, mark: StoreMark) -> None:
        """Refuse a database that is not the one, or not the state, that the witness knows."""
        if not self.path.exists():
            if mark.counter == 0:
                return
            raise self._restored(f"its witness {self.path} is missing")
        parts = self.path.read_text(encoding="ascii", errors="replace").split()
        if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
            raise SecAggState(Reason.STORE_CORRUPT, f"witness={self.path} cannot be read; restore or remove both")
        store, counter, inode = parts[0], int(parts[1]), int(parts[2])
        if store != mark.store.hex():
            raise self._restored("its witness belongs to another store")
        if counter > mark.counter:
            raise self._restored(f"it is at counter={mark.counter}, its witness at counter={counter}")
        if inode != self._inode():
            raise self._restored("its file is not the one that its witness knows (it was copied or moved)")

    def _inode(self) -> int:
        return self.database.stat().st_ino

    def _restored(self, why: str) -> SecAggState:
        return SecAggState(
            Reason.ROLLBACK,
            f"the store at path={self.database} was restored or moved: {why}. Masking from it could mask twice under "
            "one label; remove the store and its witness, and the site joins again at the next epoch with new keys",
        )
