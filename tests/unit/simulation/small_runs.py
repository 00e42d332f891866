"""Runs small enough for unit tests: five sites, the wine data, a twin of 19 parameters, two rounds, mode local."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from qfed._flower import Message
from qfed.config import RunConfig, load_config
from qfed.data import SiteData, load, partition
from qfed.federation.engine import InProcessGrid
from qfed.federation.local import learner_for
from qfed.federation.runfolder import RunFolder
from qfed.simulation.arms import CLIENT_APP, component, target_unit
from qfed.simulation.provision import Keys, make_keys, provision

RUN = "small"
SMALL = (
    "data.source=wine",
    "model.kind=twin",
    "model.wires=2",
    "model.layers=1",
    "federation.sites=5",
    "training.rounds=2",
    "privacy.mode=local",
    "training.local_steps=2",
    "training.learning_rate=0.2",
    "training.averaging=0",
    "federation.strategy=fedavg",
    "training.batch_size=30",
    "simulation.compare=[]",
)


def small(*changes: str) -> RunConfig:
    """The small configuration with changes as on the command line."""
    return load_config(None, [*SMALL, *changes])


def small_shared(*changes: str) -> RunConfig:
    """The small configuration with shared noise."""
    return small("privacy.mode=shared", "training.local_steps=1", *changes)


class Lab:
    """A run's folder and its sites' folders under `path`, freshly provisioned, and Grids over them."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.config, self.path = config, path
        self.learner = learner_for(config)
        self.data: list[SiteData] = partition(load(config.data), config.data, config.federation.sites, config.seed)
        self.keys: Keys = make_keys(config, self.data)
        self.folder = RunFolder.create(
            path / "run", RUN, config, self.learner.start, self.learner.metric, target_unit(config)
        )
        self.keys.federation.save(self.folder.federation_file)
        self.sites = path / "sites"
        provision(self.sites, config, self.data, self.keys)

    def site(self, index: int) -> Path:
        """The folder of a site."""
        return self.sites / f"{index:04d}"

    def grid(self, kind: type[InProcessGrid] = InProcessGrid, *, warm: bool = True) -> InProcessGrid:
        """A Grid over the sites; `warm` keeps them open between messages."""
        config = {"qfed-sites": str(self.sites)} | ({"qfed-warm": "yes"} if warm else {})
        return kind(component(CLIENT_APP), self.config.federation.sites, config)


def federated_average(lab: Lab, vector: np.ndarray, round: int, sites: Sequence[int]) -> np.ndarray:
    """w + sum_i n_i update_i / sum_i n_i over `sites` in plain floating point, without privacy and encoding."""
    total, weight = np.zeros(len(vector)), 0
    for index in sites:
        train = lab.data[index].train
        update = lab.learner.train(
            vector, lambda train=train: train, ledger=None, dataset=lab.keys.names[index], run=RUN, round=round
        )
        total, weight = total + len(train) * update, weight + len(train)
    return (vector + total / weight).astype(np.float32)


def charges(ledger: Path) -> list[dict[str, Any]]:
    """The rounds that a ledger file was charged with, oldest first, read without qfed."""
    with closing(sqlite3.connect(ledger)) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM entry ORDER BY id")]
    return [row for row in rows if "reserve" in row.values()]


def kind_of(message: Message) -> tuple[str, str]:
    """Message type and round."""
    return message.metadata.message_type, message.metadata.group_id
