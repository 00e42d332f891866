"""A circuit in native gates, placed and routed, has the law of the circuit that was trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pennylane as qml
import pytest

from qfed.errors import CircuitError, ConfigError
from qfed.generative.rigetti.calibration import complete, document, square
from qfed.generative.rigetti.chip import Chip, Native, chip_of, read_document
from qfed.generative.rigetti.native import is_native, to_native
from qfed.generative.rigetti.placement import place
from qfed.generative.rigetti.routing import Compiled, compiled, route


def lattice(rows: int, columns: int, native: Native = "cz", seed: int | None = None) -> Chip:
    spread = None if seed is None else np.random.default_rng(seed)
    return chip_of(document(square(rows, columns), native=native, spread=spread), "lattice")


def drawn(wires: int, gates: int, seed: int) -> list[Any]:
    """RY and CZ at random, every wire and many pairs."""
    rng = np.random.default_rng(seed)
    out: list[Any] = [qml.RY(float(rng.uniform(-7, 7)), wires=w) for w in range(wires)]
    for _ in range(gates):
        u, v = (int(w) for w in rng.choice(wires, 2, replace=False))
        for _ in range(int(rng.integers(1, 3))):
            out += [qml.CZ(wires=[u, v]), qml.RY(float(rng.uniform(-7, 7)), wires=v)]
    return out


def law(operations: Any, measured: Any) -> np.ndarray:
    """Probabilities by PennyLane's reference simulator."""
    wires = sorted({w for gate in operations for w in gate.wires} | set(measured))

    @qml.qnode(qml.device("default.qubit", wires=wires))
    def node() -> object:
        for gate in operations:
            qml.apply(gate)
        return qml.probs(wires=list(measured))

    return np.asarray(node())


@pytest.mark.parametrize("native", ["cz", "iswap"])
@pytest.mark.parametrize("seed", range(6))
def test_compiling_keeps_the_law(native: Native, seed: int) -> None:
    operations = drawn(5, 8, seed)
    chip = lattice(3, 3, native, seed)
    found = compiled(operations, 5, chip, np.random.default_rng(seed))
    np.testing.assert_allclose(law(found.operations, found.measured), law(operations, range(5)), atol=1e-9)
    assert is_native(found.operations, native)
    assert all(chip.coupled(*gate.wires) for gate in found.operations if len(gate.wires) == 2)
    assert len(set(found.measured)) == 5


@pytest.mark.parametrize("native", ["cz", "iswap"])
def test_every_gate_has_a_native_form(native: Native) -> None:
    both = [qml.RY(0.4, wires=0), qml.RY(-2.0, wires=1)]
    for last in (
        [qml.SWAP(wires=[0, 1])],
        [qml.CZ(wires=[0, 1]), qml.RY(0.3, wires=1)],
        [qml.CZ(wires=[0, 1]), qml.RY(0.3, wires=1), qml.CZ(wires=[0, 1]), qml.RY(1.0, wires=0)],
        [qml.RY(math.pi, wires=0)],
        [qml.RY(2 * math.pi, wires=0)],
    ):
        gates, place_of = to_native([*both, *last], native)
        measured = [place_of.get(wire, wire) for wire in (0, 1)]
        np.testing.assert_allclose(law(gates, measured), law([*both, *last], (0, 1)), atol=1e-12)
        assert is_native(gates, native)
    with pytest.raises(CircuitError, match="gate=Hadamard has no native form"):
        to_native([qml.Hadamard(wires=0)], native)


def test_a_pair_of_cz_costs_two_iswaps() -> None:
    pair = [qml.CZ(wires=[0, 1]), qml.RY(0.3, wires=1), qml.CZ(wires=[0, 1])]
    assert sum(gate.name == "ISWAP" for gate in to_native(pair, "iswap")[0]) == 2
    assert sum(gate.name == "ISWAP" for gate in to_native(pair[:1], "iswap")[0]) == 2


def test_native_means_quarter_turns() -> None:
    assert is_native([qml.RX(math.pi / 2, wires=0), qml.RZ(0.123, wires=0), qml.CZ(wires=[0, 1])], "cz")
    assert not is_native([qml.RX(0.3, wires=0)], "cz")
    assert not is_native([qml.ISWAP(wires=[0, 1])], "cz")


def test_a_tree_needs_no_swap() -> None:
    edges = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (0, 6), (6, 7)]
    chip = lattice(4, 4)
    placement = place(8, edges, chip, np.random.default_rng(0))
    assert all(chip.coupled(placement[u], placement[v]) for u, v in edges)


def test_good_qubits_are_taken() -> None:
    paper = document(square(1, 6))
    for pair in ("0-1", "1-2", "2-3"):
        paper["standardized"]["twoQubitProperties"][pair]["twoQubitGateFidelity"][0]["fidelity"] = 0.8
    paper["standardized"]["oneQubitProperties"]["3"]["oneQubitFidelity"][1]["fidelity"] = 0.6
    chip = chip_of(paper, "a line, bad on the left")
    assert set(place(2, [(0, 1)], chip, np.random.default_rng(0)).values()) == {4, 5}


def test_placement_is_the_same_for_the_same_seed() -> None:
    edges = [(0, 1), (1, 2), (0, 3), (2, 3), (1, 4)]
    first, second = (place(5, edges, lattice(3, 4, seed=1), np.random.default_rng(3)) for _ in range(2))
    assert first == second


def test_routing_counts_its_swaps() -> None:
    chip = lattice(1, 4)
    out, at = route([qml.CZ(wires=[0, 3])], {0: 0, 1: 1, 2: 2, 3: 3}, chip)
    assert [gate.name for gate in out] == ["SWAP", "SWAP", "CZ"]
    assert chip.coupled(at[0], at[3])
    assert sorted(at.values()) == [0, 1, 2, 3]


def test_gates_of_a_compiled_circuit_are_counted() -> None:
    found = compiled([qml.RY(0.3, wires=0), qml.CZ(wires=[0, 1])], 2, lattice(1, 2), np.random.default_rng(0))
    assert isinstance(found, Compiled)
    assert found.two_qubit_gates == 1


def test_too_few_qubits_are_named() -> None:
    with pytest.raises(CircuitError, match="no connected region of 5 usable qubits"):
        place(5, [(0, 1)], lattice(2, 2), np.random.default_rng(0))


def test_a_device_in_parts_is_used_where_it_is_large_enough() -> None:
    chip = chip_of(document([(0, 1), (2, 3), (3, 4)]), "two parts")
    assert set(place(3, [(0, 1), (1, 2)], chip, np.random.default_rng(0)).values()) == {2, 3, 4}


def test_qubits_out_of_order_are_left_out() -> None:
    paper = document(square(1, 4))
    paper["standardized"]["oneQubitProperties"]["3"]["oneQubitFidelity"].pop()  # no readout
    paper["standardized"]["twoQubitProperties"]["0-1"]["twoQubitGateFidelity"][0]["gateName"] = "ISwap"
    chip = chip_of(paper, "worn")
    assert sorted(chip.readout) == [0, 1, 2]
    assert sorted(chip.couplers) == [(1, 2)]


@pytest.mark.parametrize("cut", ["paradigm", "standardized"])
def test_other_documents_are_refused(cut: str) -> None:
    paper = document(complete(3))
    del paper[cut]
    with pytest.raises(ConfigError, match="does not hold the properties of a device"):
        chip_of(paper, "half")


def test_calibration_files_that_cannot_be_read_are_named(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="cannot read synth"):
        read_document(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("not json", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_document(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no JSON object"):
        read_document(tmp_path / "list.json")
