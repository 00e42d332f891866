"""A federation that releases pair counts, simulated on this machine, and what can be made of them.

DIR/statistics.npz, statistics.json   the release: what a site's partners may have (qfed synth fit DIR)
DIR/result.json, report.html          see qfed config schema --result
DIR/config.toml, DIR/ledgers/SITE.db  as for a run that trains
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qfed.config import RunConfig, anchored, load_config, to_toml
from qfed.data import load, partition
from qfed.errors import ConfigError
from qfed.federation.counting import counter_for
from qfed.federation.files import write_atomically
from qfed.federation.result import SiteRecord
from qfed.federation.runfolder import RunFolder
from qfed.federation.synthesis import COUNTS
from qfed.federation.synthesis_result import SynthesisResult, synthesis_result
from qfed.generative.release import Release
from qfed.report import write_result, write_synthesis_report
from qfed.simulation.arms import run_apps, spent_at
from qfed.simulation.folder import require_extras, result_folder, versions
from qfed.simulation.provision import Keys, make_keys, provision

_log = logging.getLogger("qfed.simulation")

Tell = Callable[[str, int, int], None]
"""What is being done, how far, of how much."""
_FEW_IN_CELL = 3.0


def synthesize(
    config: RunConfig | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Tell = lambda what, done, of: None,
) -> SynthesisResult:
    """Release pair counts of a simulated federation's records through the whole path; the result.

    `config` is a RunConfig of kind "synthesize" or its TOML file; `out` and `force` as for `simulate`.
    """
    began = time.monotonic()
    resolved = anchored(config) if isinstance(config, RunConfig) else load_config(config)
    if resolved.kind != "synthesize":
        raise ConfigError(f'this releases counts, which takes kind="synthesize", got kind={resolved.kind!r}')
    require_extras(resolved, report=out is not None)
    data = partition(load(resolved.data), resolved.data, resolved.federation.sites, resolved.seed)
    counter_for(resolved)  # a coding that the records do not have, or too small a budget: now rather than at the sites
    keys = make_keys(resolved, data)
    run = hashlib.sha256(to_toml(resolved).encode()).hexdigest()[:16]
    seconds = {"preparation": time.monotonic() - began}
    with result_folder(out, force) as folder:
        start, work = time.monotonic(), folder / "work"
        progress("private release", 0, 1)
        place = RunFolder.create(work / "run", run, resolved, np.zeros(0, np.float32), COUNTS, 1.0)
        keys.federation.save(place.federation_file)
        provision(work / "sites", resolved, data, keys)
        run_apps(resolved, place, work)
        release, state = Release.load(place.path), place.checkpoint()
        seconds["release"] = time.monotonic() - start
        progress("private release", 1, 1)
        sites = tuple(
            SiteRecord(
                name=name,
                train_records=len(site.train),
                test_records=len(site.test),
                rounds=state.taken_part.get(name, 0),
                epsilon=spent_at(resolved, work / "sites" / f"{index:04d}", name),
                bytes_up=state.traffic.get(name, (0, 0))[0],
                bytes_down=state.traffic.get(name, (0, 0))[1],
            )
            for index, (name, site) in enumerate(zip(keys.names, data, strict=True))
        )
        seconds["total"] = time.monotonic() - began
        result = synthesis_result(resolved, run, state, release, versions=versions(), sites=sites, seconds=seconds)
        _warn_of_noise(result)
        if out is not None:
            _write(folder, resolved, result, release, keys)
    return result


def _warn_of_noise(result: SynthesisResult) -> None:
    """Say so when noise is as large as what it hides: then even independent margins may do better."""
    smallest = min(result.records)
    if result.cell_stddev * _FEW_IN_CELL > smallest / 4:
        _log.warning(
            "noise of %.3g records in each cell is large for a class of about %.0f records, a quarter of which a cell "
            "holds on average: count fewer bits (coding.columns, coding.bits), or classes together (synth.classes)",
            result.cell_stddev,
            smallest,
        )


def _write(folder: Path, config: RunConfig, result: SynthesisResult, release: Release, keys: Keys) -> None:
    write_atomically(folder / "config.toml", to_toml(config).encode())
    release.save(folder)
    if config.privacy.mode != "off":
        (folder / "ledgers").mkdir()
        for index, name in enumerate(keys.names):
            shutil.copyfile(folder / "work" / "sites" / f"{index:04d}" / "ledger.db", folder / "ledgers" / f"{name}.db")
    write_result(result, folder)
    write_synthesis_report(result, release, folder)
