"""What a run of kind "synthesize" leaves behind, as typed, versioned data (`result.json`).

The counts themselves lie beside it (statistics.npz, statistics.json): they are what was released, and may be handed on.
Nothing here was computed from records except, in a simulation, what says so.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from qfed.config import RunConfig
from qfed.federation.result import PrivacyStatement, Record, RoundRecord, RunResult, SiteRecord
from qfed.federation.runfolder import Checkpoint
from qfed.federation.synthesis import coding_of, moments_of, noise_of
from qfed.generative.release import Release

SYNTHESIS_FORMAT: Literal["qfed.synthesis/1"] = "qfed.synthesis/1"


class SynthesisResult(Record):
    """Everything about one release, ready for `result.json`."""

    format: Literal["qfed.synthesis/1"] = SYNTHESIS_FORMAT
    """Version of this schema."""
    kind: Literal["synthesize"] = "synthesize"
    """Kind of the run."""
    status: Literal["completed"] = "completed"
    """A run whose one round failed has no result."""
    run: str
    """Identifier of the run, part of every label of the protocol."""
    config: RunConfig
    """The resolved configuration."""
    versions: dict[str, str]
    """Python's and the packages' versions."""
    bits: tuple[str, ...]
    """Names of a record's bits."""
    apart: tuple[str, ...]
    """Bits that tell the classes apart, each counted for itself; empty when all records are counted together."""
    records: tuple[float, ...]
    """Estimated number of records, by class (or of all together), noise included."""
    records_stddev: float
    """Standard deviation of the noise in each of them."""
    cell_stddev: float
    """Standard deviation of the noise in a cell of a pair's table, in records; 0 without privacy."""
    sums: int
    """Numbers that were released."""
    round: RoundRecord | None
    """The one round; None when a crash of the aggregator lost it."""
    privacy: PrivacyStatement
    """The guarantee, in words and figures."""
    sites: tuple[SiteRecord, ...]
    """One entry a site."""
    seconds: dict[str, float] = Field({})
    """Wall time of each part; "total" is all of it."""


def synthesis_result(
    config: RunConfig,
    run: str,
    state: Checkpoint,
    release: Release,
    *,
    versions: dict[str, str],
    sites: tuple[SiteRecord, ...],
    seconds: dict[str, float],
) -> SynthesisResult:
    """What came of a run: its last checkpoint, and what was released."""
    coding = coding_of(config)
    moments = moments_of(config, coding)
    record = state.rounds[-1] if state.rounds else None
    statement = PrivacyStatement.model_validate(dict(release.privacy))
    noise = noise_of(statement, moments, record.survivors if record else config.federation.sites)
    return SynthesisResult(
        run=run,
        config=config,
        versions=versions,
        bits=coding.names,
        apart=release.fixed,
        records=tuple(part.records for part in release.parts),
        records_stddev=noise.records,
        cell_stddev=noise.cell,
        sums=moments.size,
        round=record,
        privacy=statement,
        sites=sites,
        seconds=seconds,
    )


def published_schema() -> dict[str, Any]:
    """The JSON schema of `result.json`, of either kind of run; `format` tells which."""
    tree: dict[str, Any] = {"title": "result.json", "oneOf": [], "$defs": {}}
    for model in (RunResult, SynthesisResult):
        schema = model.model_json_schema()
        tree["$defs"] |= schema.pop("$defs")
        tree["$defs"][model.__name__] = schema
        tree["oneOf"].append({"$ref": f"#/$defs/{model.__name__}"})
    return tree
