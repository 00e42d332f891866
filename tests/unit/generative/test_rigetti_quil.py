"""Native Quil: its text, its law by pyQuil's own simulator, and pyQuil's client against a stand-in for a qvm server.

No qvm, quilc or processor is here: what a real server answers is not tested, only what it is asked.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyquil", reason="pyQuil has no release for Python 3.13", exc_type=ImportError)

from pyquil import Program
from pyquil.external.rpcq import CompilerISA, Edge, GateInfo, MeasureInfo, Qubit
from pyquil.simulation import NumpyWavefunctionSimulator

from qfed.config import BornConfig, SynthConfig
from qfed.errors import ConfigError, MissingExtra, SpendingCapReached
from qfed.generative.born import Born
from qfed.generative.rigetti import quil
from qfed.generative.rigetti.calibration import document, square
from qfed.generative.rigetti.chip import Native, chip_of, chip_of_isa
from qfed.generative.rigetti.routing import Compiled, compiled
from qfed.generative.statistics import PairCounts
from qfed.quantum.spending import Caps, Meter, counted_by

# pyQuil 4.22 warns of what will be gone in 5: its qvm client and the simulator that checks the programs here.
pytestmark = pytest.mark.filterwarnings("ignore:.*pyQuil v5")


@pytest.fixture(scope="module")
def trained() -> Born:
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.3
    second = first ^ (rng.random(2000) < 0.1)
    bits = np.stack([first, second, second ^ (rng.random(2000) < 0.2), rng.random(2000) < 0.6], 1)
    return Born.of(SynthConfig()).fit(PairCounts.exact(bits.astype(np.uint8)), rng)


def native(trained: Born, gate: Native = "cz") -> Compiled:
    chip = chip_of(document(square(3, 3), native=gate), "made-up device")
    operations = trained.circuit.operations(trained.angles.tolist())
    return compiled(operations, trained.circuit.wires, chip, np.random.default_rng(0))


def law(program: Program) -> np.ndarray:
    """Of ro[0], ro[1], ... in this order, by pyQuil's state-vector simulator."""
    reads = [one for one in program.instructions if type(one).__name__ == "Measurement"]
    qubits = [one.qubit.index for one in sorted(reads, key=lambda one: one.classical_reg.offset)]
    simulator = NumpyWavefunctionSimulator(max(program.get_qubit_indices()) + 1)
    for one in program.instructions:
        if type(one).__name__ == "Gate":
            simulator.do_gate(one)
    weights = np.abs(simulator.wf) ** 2  # axis k is qubit k
    others = tuple(axis for axis in range(weights.ndim) if axis not in qubits)
    kept = [axis for axis in range(weights.ndim) if axis in qubits]
    return weights.sum(axis=others).transpose([kept.index(qubit) for qubit in qubits]).reshape(-1)


@pytest.mark.parametrize("gate", ["cz", "iswap"])
def test_the_program_has_the_trained_law(trained: Born, gate: Native) -> None:
    np.testing.assert_allclose(law(quil.program(native(trained, gate))), trained.probabilities(), atol=1e-6)


@pytest.mark.parametrize("gate", ["cz", "iswap"])
def test_the_program_is_native_and_parses(trained: Born, gate: Native) -> None:
    circuit = native(trained, gate)
    text = quil.program(circuit).out()
    again = Program(text)
    assert again.out() == text
    assert again.declarations["ro"].memory_size == 4
    for one in again.instructions:
        if type(one).__name__ != "Gate":
            continue
        assert one.name in ("RX", "RZ", "CZ" if gate == "cz" else "ISWAP")
        if one.name == "RX":
            assert abs(abs(float(np.real(one.params[0]))) - np.pi / 2) < 1e-9
        if one.name in ("CZ", "ISWAP"):
            assert circuit.chip.coupled(*one.get_qubit_indices())


def test_a_processor_is_read_from_its_instruction_set() -> None:
    def qubit(number: int, fidelity: float, dead: bool = False) -> Qubit:
        turn = GateInfo(operator="RX", parameters=[np.pi / 2], arguments=[number], fidelity=fidelity, duration=40.0)
        read = MeasureInfo(operator="MEASURE", qubit=number, target="_", fidelity=0.96, duration=2000.0)
        return Qubit(id=number, dead=dead, gates=[turn, read])

    def edge(u: int, v: int, fidelity: float) -> Edge:
        pair = {"arguments": ["_", "_"], "duration": 70.0}
        cz = GateInfo(operator="CZ", parameters=[], fidelity=fidelity, **pair)
        xy = GateInfo(operator="XY", parameters=["_"], fidelity=0.9, **pair)
        return Edge(ids=[u, v], dead=False, gates=[cz, xy])

    isa = CompilerISA(
        qubits={"0": qubit(0, 0.998), "1": qubit(1, 0.999), "2": qubit(2, 0.999, dead=True)},
        edges={"0-1": edge(0, 1, 0.994), "1-2": edge(1, 2, 0.99)},
    )
    chip = chip_of_isa(isa, "small")
    assert (chip.native, dict(chip.couplers)) == ("cz", {(0, 1): 0.994})
    assert (dict(chip.gate), dict(chip.readout)) == ({0: 0.998, 1: 0.999}, {0: 0.96, 1: 0.96})


class Qvm(BaseHTTPRequestHandler):
    """Says that it is a qvm, and samples what it is sent with pyQuil's own simulator."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = b"1.17.2 [stand-in]"
        if question["type"] != "version":
            self.asked.append(question)
            program = Program(question["compiled-quil"])
            size = program.declarations["ro"].memory_size
            words = np.random.default_rng(0).choice(2**size, size=question["trials"], p=law(program))
            answer = json.dumps({"ro": ((words[:, None] >> np.arange(size - 1, -1, -1)) & 1).tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def qvm(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    Qvm.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Qvm)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("QCS_SETTINGS_APPLICATIONS_QVM_URL", f"http://127.0.0.1:{server.server_port}")
    yield Qvm.asked
    server.shutdown()
    thread.join()
    server.server_close()


def on_qvm(trained: Born, **keys: Any) -> Born:
    config = BornConfig(backend="pyquil", device="9q-square-qvm", calibration_shots=200, **keys)
    return Born.restore(SynthConfig(generator="born", born=config), trained.state())


def test_pyquils_client_runs_it_to_the_server(trained: Born, qvm: list[dict[str, Any]]) -> None:
    with counted_by(meter := Meter("pyquil", "test", caps=Caps(shots=5000))):
        bits = on_qvm(trained).sample(4000, np.random.default_rng(0))
    seen = np.bincount(bits @ (1 << np.arange(3, -1, -1)), minlength=16) / 4000
    assert 0.5 * np.abs(seen - trained.probabilities()).sum() < 0.05
    assert [question["trials"] for question in qvm] == [4000, 200, 200]
    assert meter.spent().shots == 4400


def test_nothing_is_sent_past_the_cap(trained: Born, qvm: list[dict[str, Any]]) -> None:
    with counted_by(Meter("pyquil", "test", caps=Caps(shots=100))), pytest.raises(SpendingCapReached):
        on_qvm(trained).sample(200, np.random.default_rng(0))
    assert qvm == []


def test_without_a_server_one_clear_error(trained: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCS_SETTINGS_APPLICATIONS_QVM_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"cannot be reached .* start: qvm -S"):
        on_qvm(trained).sample(10, np.random.default_rng(0))


def test_without_credentials_one_clear_error(trained: Born, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SETTINGS", "SECRETS"):
        monkeypatch.setenv(f"QCS_{name}_FILE_PATH", str(tmp_path / "none.toml"))
    config = BornConfig(backend="pyquil")
    machine = Born.restore(SynthConfig(generator="born", born=config), trained.state())
    with pytest.raises(ConfigError, match=r"Cepheus-1-108Q' cannot be reached .* give Rigetti credentials"):
        machine.sample(10, np.random.default_rng(0))


def test_without_the_extra_one_clear_error(trained: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyquil", None)
    with pytest.raises(
        MissingExtra, match=r"pyquil is not installed; install it with: pip install 'qfed\[rigetti-qcs\]'"
    ):
        on_qvm(trained).sample(10, np.random.default_rng(0))


def test_python_without_a_pyquil_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(ConfigError, match=r'has no release for Python 3.13; .* synth.born.backend = "braket"'):
        quil.computer("9q-square-qvm")
