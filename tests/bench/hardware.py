"""The Born machine on simulated Rigetti devices: exactness, fidelity with noise and routing, usefulness with privacy.

    python tests/bench/hardware.py [--json FILE] [--only TEXT] [--quick]

Everything runs on this machine: the trained amplitudes, Braket's simulators, and Braket's strict emulator of a made-up
device (square lattice, F = 0.999 for one-qubit gates and 0.97 for reading, unless said otherwise). No figure here comes
from a quantum processor, and none shows a quantum advantage: independent margins and the classical pairwise fit of the
same counts stand beside it. Means over seeds 1 to 5 (split of the records, training, samples; with privacy, noise of
the operating system). `--quick`: one seed.

Pair TVD: total variation distance between the two-way margins of 4000 samples and those of the training records, mean
over pairs, and over classes by their size. TSTR: random forest trained on 4000 samples, its accuracy on held-out real
records. Records are breast_cancer, coded to one bit a column by fixed round thresholds (CODING), the classes apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dpzo  # tests/bench/dpzo.py
import numpy as np
import pennylane as qml
from report import finish  # tests/bench/report.py
from sklearn.ensemble import RandomForestClassifier

from qfed.config import BornConfig, CodingConfig, PrivacyConfig, RunConfig, SynthConfig
from qfed.federation.synthesis import coding_of
from qfed.generative.born import Born
from qfed.generative.library import Generator, create
from qfed.generative.release import Release
from qfed.generative.rigetti import braket, calibration
from qfed.generative.rigetti.chip import Native, chip_of
from qfed.generative.rigetti.routing import compiled
from qfed.generative.statistics import Bits, PairCounts
from qfed.synth.source import real_records, release_here

SEEDS = (1, 2, 3, 4, 5)
SAMPLES = 4000
CODING = CodingConfig(
    thresholds={
        "mean radius": (13.5,),
        "mean texture": (19.0,),
        "mean perimeter": (86.0,),
        "mean area": (550.0,),
        "mean smoothness": (0.095,),
        "mean compactness": (0.09,),
        "mean concavity": (0.06,),
        "mean concave points": (0.034,),
        "worst radius": (15.0,),
        "worst concave points": (0.1,),
    }
)
NOISY = {"backend": "emulator"}
DEVICES: Mapping[str, Mapping[str, Any]] = {
    "ideal": {},
    "ideal, any pairs": {"pairs": "any"},
    "all coupled, two-qubit F 0.995": {"backend": "braket_dm"},
    "lattice, two-qubit F 0.999": {**NOISY, "two_qubit_fidelity": 0.999},
    "lattice, two-qubit F 0.995": NOISY,
    "lattice, two-qubit F 0.99": {**NOISY, "two_qubit_fidelity": 0.99},
    "lattice, two-qubit F 0.995, one correction": {**NOISY, "corrections": 1},
    "lattice, two-qubit F 0.995, readout not unfolded": {**NOISY, "mitigate_readout": False},
    "lattice, two-qubit F 0.995, iSWAP": {**NOISY, "native": "iswap"},
}
GOAL_TVD, GOAL_AGREEMENT = 0.04, 1e-6


def run_config(columns: int, seed: int, epsilon: float | None) -> RunConfig:
    """One site that counts the first `columns` of the coding, with or without noise."""
    names = tuple(CODING.thresholds)[:columns]
    coding = CODING.model_copy(
        update={"columns": names, "thresholds": {name: CODING.thresholds[name] for name in names}}
    )
    mode = "off" if epsilon is None else "local"
    privacy = PrivacyConfig(mode=mode) if epsilon is None else PrivacyConfig(mode=mode, epsilon=epsilon)
    return RunConfig(kind="synthesize", seed=seed, data={"source": "breast_cancer"}, coding=coding, privacy=privacy)


def released(config: RunConfig) -> Release:
    """The pair counts of the training records, through the plan and a ledger of their own."""
    with tempfile.TemporaryDirectory() as folder:
        return release_here(config, no_privacy=config.privacy.mode == "off", out=Path(folder)).release


def fitted(release: Release, make: Callable[[], Generator], seed: int) -> list[Generator]:
    """A generator for each class."""
    return [make().fit(part, np.random.default_rng(seed)) for part in release.parts]


def born(**keys: Any) -> Callable[[], Generator]:
    return lambda: Born.of(SynthConfig(generator="born", born=BornConfig(**keys)))


def classical(name: str) -> Callable[[], Generator]:
    return lambda: create(SynthConfig(), name)


def pair_tvd(samples: Bits, true: PairCounts) -> float:
    i, j = np.triu_indices(len(true.bits), 1)
    return float(0.5 * np.abs(PairCounts.exact(samples).pairs - true.pairs)[i, j].sum((1, 2)).mean())


def fidelity(make: Callable[[], Generator], seed: int) -> float:
    """Pair TVD without privacy noise: what circuit, device and samples cost."""
    release = released(run_config(8, seed, None))
    rng = np.random.default_rng(seed)
    off = [
        pair_tvd(generator.sample(SAMPLES, rng), part)
        for generator, part in zip(fitted(release, make, seed), release.parts, strict=True)
    ]
    return float(release.weights @ np.array(off))


def usefulness(releases: Mapping[int, Release], columns: int, make: Callable[[], Generator], seed: int) -> float:
    """TSTR of one seed."""
    release, rng = releases[seed], np.random.default_rng(seed)
    counts = rng.multinomial(SAMPLES, release.weights)
    drawn = [
        release.join(k, generator.sample(int(counts[k]), rng))
        for k, generator in enumerate(fitted(release, make, seed))
        if counts[k]
    ]
    return forest(np.concatenate(drawn), columns, seed)


def forest(train: Bits, columns: int, seed: int) -> float:
    """Accuracy on the held-out records; the target's bit is the last."""
    config = run_config(columns, seed, None)
    test = coding_of(config).encode(real_records(config)[1])
    model = RandomForestClassifier(200, random_state=seed).fit(train[:, :-1], train[:, -1])
    return float(model.score(test[:, :-1], test[:, -1]))


@cache
def agreement(native: Native, seed: int) -> tuple[float, bool]:
    """Greatest difference of probabilities, trained against exported; whether the strict emulator takes the circuit."""
    document = calibration.document(calibration.square(4, 4), native=native, spread=np.random.default_rng(seed))
    chip, emulated = chip_of(document, "made-up device"), braket.Emulated(json.dumps(document))
    worst, accepted = 0.0, True
    for part in released(run_config(8, seed, None)).parts:
        machine = Born.of(SynthConfig(generator="born")).fit(part, np.random.default_rng(seed))
        operations = machine.circuit.operations(machine.angles.tolist())
        circuit = compiled(operations, machine.circuit.wires, chip, np.random.default_rng(seed))

        @qml.qnode(qml.device("default.qubit", wires=sorted(chip.readout)))
        def node(circuit: Any = circuit) -> Any:
            for gate in circuit.operations:
                qml.apply(gate)
            return qml.probs(wires=list(circuit.measured))

        for law in (np.asarray(node()), braket.ideal(operations, machine.circuit.wires)):
            worst = max(worst, float(np.abs(law - machine.probabilities()).max()))
        accepted = accepted and bool(np.isclose(emulated.law(circuit).sum(), 1))  # refusal raises
    return worst, accepted


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", metavar="TEXT", help="figures whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="one seed")
    arguments = parser.parse_args()
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    figures: list[dict[str, Any]] = []

    def tell(name: str, work: Callable[[], float], unit: str = "", goal: float | None = None, better: str = "") -> None:
        if arguments.only in name:
            figure = {"name": name, "value": work(), "unit": unit, "goal": goal, "better": better or "lower"}
            figures.append(figure)
            print(f"{name}: {figure['value']:.4g}", flush=True)

    def mean(work: Callable[[int], float]) -> Callable[[], float]:
        return lambda: statistics.fmean(work(seed) for seed in seeds)

    for native in ("cz", "iswap"):
        name = f"Rigetti, {native}: greatest difference of probabilities, trained against exported"
        tell(name, lambda native=native: max(agreement(native, seed)[0] for seed in seeds), "", GOAL_AGREEMENT)  # type: ignore[misc]
    tell(
        "Rigetti: exported circuits that the strict emulator takes",
        lambda: statistics.fmean(agreement("cz", seed)[1] for seed in seeds),
        "share",
        1.0,
        "higher",
    )
    for device, keys in DEVICES.items():
        goal = GOAL_TVD if device == "lattice, two-qubit F 0.995" else None
        tell(f"Rigetti, breast n = 8, pair TVD: {device}", mean(lambda s, k=keys: fidelity(born(**k), s)), "", goal)  # type: ignore[misc]
    for other in ("independent", "pairwise"):
        tell(f"Rigetti, breast n = 8, pair TVD: {other}", mean(lambda s, o=other: fidelity(classical(o), s)))  # type: ignore[misc]
    for epsilon in (3.0, 1.0):
        releases = {seed: released(run_config(10, seed, epsilon)) for seed in seeds}
        makers = {
            "ideal": born(),
            "lattice, two-qubit F 0.995": born(**NOISY),
            "independent": classical("independent"),
            "pairwise": classical("pairwise"),
        }
        for maker, make in makers.items():
            name = f"Rigetti, breast n = 10, epsilon {epsilon:g}, TSTR: {maker}"
            tell(name, mean(lambda s, m=make, r=releases: usefulness(r, 10, m, s)), "", None, "higher")  # type: ignore[misc]

    def real(seed: int) -> float:
        config = run_config(10, seed, None)
        return forest(coding_of(config).encode(real_records(config)[0]), 10, seed)

    tell("breast n = 10: random forest trained on the real records", mean(real), "", None, "higher")
    if arguments.only in "DP-ZO":
        with tempfile.TemporaryDirectory() as folder:
            permutations = 5 if arguments.quick else dpzo.PERMUTATIONS
            figures.extend(dpzo.figures(Path(folder), dpzo.SEEDS[: len(seeds)], permutations))
    packages = ("pennylane", "amazon-braket-sdk", "amazon-braket-default-simulator", "torch", "scikit-learn")
    finish("Quantum hardware, simulated", figures, packages, arguments.json)


if __name__ == "__main__":
    main()
