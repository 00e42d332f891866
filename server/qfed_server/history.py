"""What happened in a round, as a run keeps it: the record of a round, and bytes by site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qfed.config import RunConfig
from qfed.federation.result import Dropout, GroupRecord, RoundRecord
from qfed.federation.runfolder import Checkpoint
from qfed_server.channel import Outcome
from qfed_server.exchange import Traffic


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
    """The state with what was sent since."""
    names: Iterable[str] = {*state.traffic, *traffic.up, *traffic.down}
    sums = {
        site: (
            state.traffic.get(site, (0, 0))[0] + traffic.up.get(site, 0),
            state.traffic.get(site, (0, 0))[1] + traffic.down.get(site, 0),
        )
        for site in sorted(names)
    }
    return replace(state, traffic=sums)
