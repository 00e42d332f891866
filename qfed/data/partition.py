"""Dealing records to the sites of a simulation.

    iid        a shuffle, cut into parts whose sizes differ by one at most
    dirichlet  p_c ~ Dir(alpha, ..., alpha) over the sites for every class c; class c is dealt in the proportions p_c
    column     the values of a column name the sites

Source: Yurochkin et al., ICML 2019 (Bayesian nonparametric federated learning of neural networks), section 4; Li et
al., ICDE 2022 (Federated learning on non-IID data silos), "distribution-based label imbalance". Departures: a site
left with fewer than MIN_RECORDS takes records at random from the largest one, where they draw again until it fits,
which for small alpha never happens; a regression target counts as BINS classes of equal width in its public range.

Every site holds out `test_fraction` of its records, at least one, and keeps at least one to train on. The generator is
seeded: dealing is part of the experiment, not of anyone's privacy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qfed.config import DataConfig
from qfed.data.records import Dataset, SiteData
from qfed.errors import ConfigError, DataError

MIN_RECORDS = 2
"""One record to train on and one to hold out."""
BINS = 10

Index = npt.NDArray[np.intp]


def partition(dataset: Dataset, config: DataConfig, sites: int, seed: int) -> list[SiteData]:
    """Deal the records to `sites` sites, in the same way for the same seed.

    Raises DataError when there are too few records, or a column that names another number of sites.
    """
    if sites < 1:
        raise ConfigError(f"federation.sites={sites}; a federation has at least one site")
    rng = np.random.default_rng(seed)
    if config.partition == "column":
        names, parts = _by_column(dataset, config, sites)
    else:
        _enough(len(dataset.records), sites, config)
        deal = _dirichlet if config.partition == "dirichlet" else _iid
        parts = deal(dataset, config, sites, rng)
        names = [f"site-{site}" for site in range(sites)]
    return [_hold_out(dataset, name, part, config, rng) for name, part in zip(names, parts, strict=True)]


def _enough(records: int, sites: int, config: DataConfig) -> None:
    if records >= MIN_RECORDS * sites:
        return
    if records < MIN_RECORDS:
        raise DataError(
            f"data.source={config.source!r} has {records} record: at least {MIN_RECORDS} are needed, one to train on "
            "and one to hold out; add records"
        )
    reason = (
        "that is more sites than records"
        if sites > records
        else "every site needs at least one record to train on and one to hold out"
    )
    raise DataError(
        f"data.source={config.source!r} has {records} records, federation.sites={sites}: {reason}; "
        f"use at most {records // MIN_RECORDS} sites"
    )


def _iid(dataset: Dataset, config: DataConfig, sites: int, rng: np.random.Generator) -> list[Index]:
    return np.array_split(rng.permutation(len(dataset.records)), sites)


def _dirichlet(dataset: Dataset, config: DataConfig, sites: int, rng: np.random.Generator) -> list[Index]:
    labels = _labels(dataset)
    parts: list[list[int]] = [[] for _ in range(sites)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        share = _simplex(rng, config.alpha, sites)
        # Cumulative shares are cut once, so every record is dealt exactly once.
        cuts = np.round(np.cumsum(share)[:-1] * len(members)).astype(np.intp)
        for site, piece in enumerate(np.split(members, cuts)):
            parts[site] += piece.tolist()
    for part in parts:
        while len(part) < MIN_RECORDS:
            largest = max(parts, key=len)
            part.append(largest.pop(int(rng.integers(len(largest)))))
    return [np.array(part, dtype=np.intp) for part in parts]


def _simplex(rng: np.random.Generator, alpha: float, sites: int) -> npt.NDArray[np.float64]:
    share = rng.dirichlet(np.full(sites, alpha))
    # Below alpha of about 1e-3 all gamma variates can underflow to zero; the limit is one site that takes all.
    return share if np.isfinite(share).all() and share.sum() > 0 else np.eye(sites)[rng.integers(sites)]


def _labels(dataset: Dataset) -> npt.NDArray[np.int64]:
    if dataset.schema.classes is not None:
        return np.asarray(dataset.records.y, dtype=np.int64)
    return np.minimum((dataset.records.y + 1) / 2 * BINS, BINS - 1).astype(np.int64)


def _by_column(dataset: Dataset, config: DataConfig, sites: int) -> tuple[list[str], list[Index]]:
    if dataset.site_of is None:
        raise DataError(
            'partition = "column" needs a data set loaded with data.column, the column that names the sites'
        )
    names = sorted(set(dataset.site_of.tolist()))
    if len(names) != sites:
        shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
        raise DataError(
            f"{config.source}, column {config.column!r} names {len(names)} sites ({shown}), but "
            f"federation.sites={sites}; set federation.sites = {len(names)}"
        )
    return names, [np.flatnonzero(dataset.site_of == name) for name in names]


def _hold_out(dataset: Dataset, name: str, part: Index, config: DataConfig, rng: np.random.Generator) -> SiteData:
    if len(part) < MIN_RECORDS:
        raise DataError(
            f"{config.source}: site {name!r} has {len(part)} record, and needs at least one to train on and one to "
            "hold out; leave the site out, or use fewer sites"
        )
    part = rng.permutation(part)
    held = min(max(round(config.test_fraction * len(part)), 1), len(part) - 1)
    return SiteData(dataset.records.take(part[held:]), dataset.records.take(part[:held]), name)
