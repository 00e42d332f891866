"""Runs of kind "synthesize" small enough for unit tests: the wine data, three classes, 13 features of one bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from small_runs import RUN

from qfed._flower import Message
from qfed.config import RunConfig, load_config
from qfed.data import SiteData, load, partition
from qfed.federation.engine import InProcessGrid
from qfed.federation.runfolder import RunFolder
from qfed.federation.synthesis import COUNTS, coding_of
from qfed.generative.release import Release
from qfed.privacy.grid import GRID_STEPS
from qfed.privacy.plan import CountsPlan
from qfed.simulation.arms import CLIENT_APP, CLOSE_SITES, component
from qfed.simulation.provision import Keys, make_keys, provision
from qfed_client.site import Site

SMALL = ("kind=synthesize", "data.source=wine", "federation.sites=5")


def counting(*changes: str) -> RunConfig:
    """The small configuration with changes as on the command line."""
    return load_config(None, [*SMALL, *changes])


class CountingLab:
    """A run's folder and its sites' folders under `path`, freshly provisioned, and a Grid over them."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.config, self.path = config, path
        self.data: list[SiteData] = partition(load(config.data), config.data, config.federation.sites, config.seed)
        self.keys: Keys = make_keys(config, self.data)
        self.folder = RunFolder.create(path / "run", RUN, config, np.zeros(0, np.float32), COUNTS, 1.0)
        self.keys.federation.save(self.folder.federation_file)
        provision(path / "sites", config, self.data, self.keys)

    def site(self, index: int) -> Path:
        """The folder of a site."""
        return self.path / "sites" / f"{index:04d}"

    def open(self, index: int) -> Site:
        """A site, as if its process had started anew."""
        component(CLOSE_SITES)()
        return Site(self.site(index), simulated=True)

    def grid(self, kind: type[InProcessGrid] = InProcessGrid, *, warm: bool = True) -> InProcessGrid:
        """A Grid over the sites; `warm` keeps them open between messages."""
        config = {"qfed-sites": str(self.path / "sites")} | ({"qfed-warm": "yes"} if warm else {})
        return kind(component(CLIENT_APP), self.config.federation.sites, config)

    def bits(self, indices: Any = None) -> np.ndarray:
        """Coded records that the sites count, of some of them or of all."""
        chosen = range(len(self.data)) if indices is None else indices
        return np.concatenate([coding_of(self.config).encode(self.data[index].train) for index in chosen])

    def exact(self) -> Release:
        """Pair counts of all sites' records together, counted here."""
        coding = coding_of(self.config)
        fixed = coding.target_names if self.config.synth.classes == "apart" else ()
        return Release.exact(self.bits(), coding.names, fixed, coding.patterns)

    def noise_in(self, total: np.ndarray, plan: CountsPlan, survivors: Any) -> np.ndarray:
        """What is left of a decoded sum, in grid steps, once the survivors' own sums are taken off: noise alone."""
        steps = GRID_STEPS / plan.moments.norm
        return total - sum(np.rint(plan.moments.sums(self.bits([index])) * steps) for index in survivors)


def kind_of(message: Message) -> str:
    """The type of a message."""
    return str(message.metadata.message_type)
