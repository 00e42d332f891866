"""A site as a process of its own that kills itself at the n-th write point of its store (test_secagg_kill.py).

    python secagg_victim.py FOLDER KILL_AT SEED < requests > replies

Reads length-prefixed requests, answers each with a length-prefixed reply, and dies by SIGKILL at write point
KILL_AT (0: never). The vector it masks is drawn from SEED, so that two lives mask different vectors.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np

from qfed.secagg import ClientStore, Federation, Identity, client_session
from qfed.secagg.messages import UploadRequest
from qfed.secagg.wire import kind_of


def main(folder: Path, kill_at: int, seed: int) -> None:
    points = 0

    def on_write(point: str) -> None:
        nonlocal points
        points += 1
        if points == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    federation = Federation.load(folder / "federation.json")
    store = ClientStore(folder / "store.db", on_write=on_write)
    session = client_session(Identity.load(folder / "identity.json"), federation, store, "run-1")
    rng = np.random.default_rng(seed)
    while header := sys.stdin.buffer.read(4):
        request = sys.stdin.buffer.read(struct.unpack(">I", header)[0])
        if kind_of(request) == UploadRequest.KIND:
            size = UploadRequest.decode(request).size
            reply = session.upload(request, rng.integers(0, 1000, size).astype(federation.policy.dtype))
        else:
            reply = session.handle(request)
        sys.stdout.buffer.write(struct.pack(">I", len(reply)) + reply)
        sys.stdout.buffer.flush()
    print(f"points={points}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
