"""A raw PennyLane TorchLayer, whose per-record gradients are silently zero, does not train under privacy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

from qfed.errors import CircuitError
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import LocalPlan


def test_it_is_refused_before_anything_is_charged_or_read(tmp_path: Path) -> None:
    @qml.qnode(qml.device("default.qubit", wires=2))
    def circuit(inputs: Tensor, weights: Tensor) -> object:
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.BasicEntanglerLayers(weights, wires=range(2))
        return [qml.expval(qml.PauliZ(w)) for w in range(2)]

    def read() -> tuple[Tensor, Tensor]:
        raise AssertionError("records were read")

    model = nn.Sequential(nn.Linear(3, 2), qml.qnn.TorchLayer(circuit, {"weights": (1, 2)}))
    plan = LocalPlan(
        local_steps=1, sampling_rate=1.0, batch_size=1.0, rounds=1, clip_norm=1.0, noise_multiplier=9.0, delta=1e-5
    )
    book = Ledger(tmp_path / "ledger.db", Limits(3.0, 1e-5))
    with pytest.raises(CircuitError, match="TorchLayer"):
        plan.train_round(
            model,
            nn.CrossEntropyLoss(reduction="none"),
            read,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            ledger=book,
            dataset="d",
            run="r",
            round=1,
            rng=np.random.default_rng(0),
        )
    assert book.rows() == ()
    book.close()
