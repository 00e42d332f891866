"""A run on the aggregator's disk: what it was started with, and the checkpoint after each round.

    run.json          run identifier, metric
    config.toml       the resolved configuration
    federation.json   roster and pinned policy, signed
    checkpoint.npz    model (float32), what the server optimiser carries, tail average, history as JSON; replaced
                      atomically after each round

Neither torch nor PennyLane is needed to read or write it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qfed.config import RunConfig, load_config, to_toml
from qfed.errors import StateError
from qfed.federation.files import write_atomically
from qfed.federation.result import RoundRecord, Score

_OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """State after `round` rounds: `vector` (P,) float32 and what happened so far."""

    vector: np.ndarray
    optimizer: Mapping[str, np.ndarray] = field(default_factory=dict)
    """State of the server optimiser, each (P,) float64; empty for one that carries none."""
    round: int = 0
    initial: Score | None = None
    rounds: tuple[RoundRecord, ...] = ()
    final: Score | None = None
    traffic: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Site -> bytes (up, down) so far."""
    taken_part: dict[str, int] = field(default_factory=dict)
    """Site -> rounds it is in the aggregate of."""
    spent: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Site that tells it -> epsilon that its records have spent over all runs, and its budget."""
    status: str = "running"
    tail: np.ndarray | None = None
    """Mean of the models of the last rounds (P,) float64; the model itself before them."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; `create` makes one, the constructor opens it."""

    path: Path

    @classmethod
    def create(cls, path: Path, run: str, config: RunConfig, vector: np.ndarray, metric: str, unit: float) -> RunFolder:
        """A new folder for `run`, at round 0 with the initial model (P,); `unit` of scaled errors in the target's."""
        path.mkdir(parents=True)
        (path / "config.toml").write_text(to_toml(config), encoding="utf-8")
        folder = cls(path)
        folder.begin(run, vector, metric, unit)
        return folder

    @property
    def begun(self) -> bool:
        """Whether the initial model is there."""
        return (self.path / "checkpoint.npz").exists()

    def begin(self, run: str, vector: np.ndarray, metric: str, unit: float) -> None:
        """Put the initial model into a folder that has a configuration; the checkpoint comes last."""
        facts = {"format": "qfed.run/1", "run": run, "metric": metric, "unit": unit}
        (self.path / "run.json").write_text(json.dumps(facts), encoding="utf-8")
        self.save(Checkpoint(vector))

    @property
    def run(self) -> str:
        """The run's identifier; the folder's name until it has begun."""
        return str(self._facts["run"]) if self.begun else self.path.name

    @property
    def metric(self) -> tuple[str, float]:
        """What scores mean: "accuracy" or "rmse", and the unit of the latter (half the target's public range)."""
        return self._facts["metric"], self._facts["unit"]

    @property
    def _facts(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return load_config(self.path / "config.toml")

    @property
    def federation_file(self) -> Path:
        """Roster and policy."""
        return self.path / "federation.json"

    def save(self, state: Checkpoint) -> None:
        """Replace the checkpoint; after a crash there is the old one or the new one, never half of one."""
        history = {
            "round": state.round,
            "initial": state.initial.model_dump() if state.initial else None,
            "rounds": [record.model_dump() for record in state.rounds],
            "final": state.final.model_dump() if state.final else None,
            "traffic": state.traffic,
            "taken_part": state.taken_part,
            "spent": state.spent,
            "status": state.status,
        }
        buffer = io.BytesIO()
        arrays = {_OPTIMIZER + name: moment for name, moment in state.optimizer.items()}
        if state.tail is not None:
            arrays["tail"] = state.tail
        told = np.frombuffer(json.dumps(history).encode(), dtype=np.uint8)
        np.savez(buffer, allow_pickle=False, vector=state.vector, history=told, **arrays)
        write_atomically(self.path / "checkpoint.npz", buffer.getvalue())

    def checkpoint(self) -> Checkpoint:
        """The last checkpoint; StateError when there is none or it cannot be read."""
        file = self.path / "checkpoint.npz"
        try:
            # Opened here: numpy leaves a file that it opened itself open when the archive is broken.
            with file.open("rb") as archive, np.load(archive, allow_pickle=False) as parts:
                vector, history = parts["vector"], json.loads(parts["history"].tobytes())
                optimizer = {
                    name.removeprefix(_OPTIMIZER): parts[name] for name in parts.files if name.startswith(_OPTIMIZER)
                }
                tail = parts.get("tail")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StateError(f"the checkpoint {file} cannot be read ({error}); start the run anew") from None
        return Checkpoint(
            vector=vector,
            optimizer=optimizer,
            round=history["round"],
            initial=Score(**history["initial"]) if history["initial"] else None,
            rounds=tuple(RoundRecord(**record) for record in history["rounds"]),
            final=Score(**history["final"]) if history["final"] else None,
            traffic={site: (up, down) for site, (up, down) in history["traffic"].items()},
            taken_part=dict(history["taken_part"]),
            spent={site: (spent, budget) for site, (spent, budget) in history.get("spent", {}).items()},
            status=history["status"],
            tail=tail,
        )
