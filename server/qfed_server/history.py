"""What happened in a run, as it is kept: the record of a round, each site's part, versions."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata

from qfed.config import RunConfig
from qfed.federation.result import Dropout, GroupRecord, RoundRecord, SiteRecord
from qfed.federation.runfolder import Checkpoint
from qfed_server.channel import Outcome
from qfed_server.exchange import Traffic

_PACKAGES = ("qfed", "flwr", "numpy", "cryptography")


def versions() -> dict[str, str]:
    """Python's and the packages' versions here."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def site_records(state: Checkpoint) -> tuple[SiteRecord, ...]:
    """Each site over the whole run, as an aggregator knows it: not its records, and of its ledger what it tells."""
    return tuple(
        SiteRecord(
            name=site,
            rounds=state.taken_part.get(site, 0),
            epsilon=state.spent[site][0] if site in state.spent else None,
            bytes_up=state.traffic.get(site, (0, 0))[0],
            bytes_down=state.traffic.get(site, (0, 0))[1],
        )
        for site in sorted({*state.traffic, *state.taken_part})
    )


def round_record(
    config: RunConfig, round: int, outcome: Outcome, traffic: Traffic, refused: Mapping[str, str]
) -> RoundRecord:
    """The record of a round; its score comes later."""
    return RoundRecord(
        round=round,
        status="aggregated" if outcome.sums is not None else "failed",
        survivors=len(outcome.survivors),
        failure=outcome.failure,
        groups=tuple(
            GroupRecord(sites=part.sites, survivors=len(part.survivors), failure=part.failure)
            for part in outcome.parts
            if config.federation.groups is not None
        ),
        dropouts=tuple(Dropout(site=site, reason=why) for site, why in sorted({**refused, **outcome.dropouts}.items())),
        bytes_up=sum(traffic.up.values()),
        bytes_down=sum(traffic.down.values()),
        bytes=dict(traffic.phases),
        seconds=dict(traffic.seconds),
    )


def with_traffic(state: Checkpoint, traffic: Traffic) -> Checkpoint:
    """The state with what was sent, and told of budgets, since."""
    names: Iterable[str] = {*state.traffic, *traffic.up, *traffic.down}
    sums = {
        site: (
            state.traffic.get(site, (0, 0))[0] + traffic.up.get(site, 0),
            state.traffic.get(site, (0, 0))[1] + traffic.down.get(site, 0),
        )
        for site in sorted(names)
    }
    return replace(state, traffic=sums, spent={**state.spent, **traffic.spent})
