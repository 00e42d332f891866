"""D-Wave's solver API on this machine, for the vendor's own client: solvers are listed, problems annealed.

What comes over the wire is what the client of dwave-cloud-client sends, and answers are in its `qp` format.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import dimod
import numpy as np
from dwave.cloud.testing.mocks import qpu_problem_timing_data, qpu_zephyr_solver_data
from dwave.samplers import SimulatedAnnealingSampler

PARAMETERS = ("annealing_time", "answer_mode", "auto_scale", "num_reads", "label")
ACCESS_MICROSECONDS = 70_000.0


@dataclass
class SolverApi:
    """What the server does and has seen."""

    token: str
    address: str = ""
    solver: dict[str, Any] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)
    fails: bool = False


@contextmanager
def solver_api(token: str) -> Iterator[SolverApi]:
    """Serve on a port of this machine."""
    api = SolverApi(token)
    api.solver = qpu_zephyr_solver_data(
        3, name="Test_system", h_range=[-4.0, 4.0], parameters=dict.fromkeys(PARAMETERS)
    )
    api.solver["properties"]["problem_timing_data"] = qpu_problem_timing_data()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._allowed():
                return
            name = urlsplit(self.path).path.partition("/solvers/remote/")[2]
            if name and name != "Test_system":
                self.send_error(404)
                return
            self._answer(api.solver if name else [api.solver])

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "deflate":
                body = zlib.decompress(body)
            if self._allowed():
                jobs = json.loads(body)
                answers = [_failed() if api.fails else _annealed(api.solver, job, len(api.problems)) for job in jobs]
                api.problems += jobs
                self._answer(answers)

        def _allowed(self) -> bool:
            if self.headers.get("X-Auth-Token") == api.token:
                return True
            self.send_error(401)
            return False

        def _answer(self, tree: Any) -> None:
            body = json.dumps(tree).encode()
            kind = self.headers["Accept"].split(",")[0].split(";")[0].strip()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; version=3.0.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.address = f"http://127.0.0.1:{server.server_address[1]}/sapi/v2/"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _failed() -> dict[str, Any]:
    return {"error_code": 500, "error_msg": "the system is being calibrated"}


def _annealed(solver: dict[str, Any], job: dict[str, Any], seed: int) -> dict[str, Any]:
    properties = solver["properties"]
    linear = np.frombuffer(base64.b64decode(job["data"]["lin"]))
    active = [qubit for qubit, bias in zip(properties["qubits"], linear, strict=True) if not np.isnan(bias)]
    used = set(active)
    couplers = [(a, b) for a, b in properties["couplers"] if a in used and b in used]
    quadratic = np.frombuffer(base64.b64decode(job["data"]["quad"]))
    assert np.abs(linear[~np.isnan(linear)]).max() <= properties["h_range"][1]
    assert properties["extended_j_range"][0] <= quadratic.min()
    assert quadratic.max() <= properties["j_range"][1]
    fields = {qubit: linear[properties["qubits"].index(qubit)] for qubit in active}
    bqm = dimod.BinaryQuadraticModel.from_ising(fields, dict(zip(couplers, quadratic, strict=True)))
    reads = job["params"]["num_reads"]
    found = SimulatedAnnealingSampler().sample(
        bqm, num_reads=reads, seed=seed, beta_range=[0.05, 4.0], beta_schedule_type="linear", num_sweeps=200,
        randomize_order=True, proposal_acceptance_criteria="Gibbs",
    )  # fmt: skip
    place = [list(found.variables).index(qubit) for qubit in active]
    bits = (found.record.sample[:, place] > 0).astype(np.uint8)
    answer = {
        "format": "qp",
        "active_variables": _text(np.array(active, dtype="<i4")),
        "energies": _text(found.record.energy.astype("<f8")),
        "solutions": _text(np.packbits(bits, axis=1)),
        "num_occurrences": _text(np.ones(reads, dtype="<i4")),
        "num_variables": properties["num_qubits"],
        "timing": {"qpu_access_time": ACCESS_MICROSECONDS},
    }
    now = "2026-01-01T00:00:00Z"
    about = {"id": f"problem-{reads}", "type": job["type"], "solver": job["solver"], "status": "COMPLETED"}
    return about | {"submitted_on": now, "solved_on": now, "answer": answer}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
