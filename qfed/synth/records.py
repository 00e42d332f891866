"""Simulated records as files: sampled, decoded to the schema, written with what they are; and read back.

    NAME.csv or .parquet   the records, columns and units as in the coded schema
    NAME.json              generator, privacy statement, configuration, the model's folder

Errors  ConfigError for another ending or a missing NAME.json, DataError for records that do not fit the schema
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from qfed.config import DataConfig, RunConfig, TargetColumn, load_config, to_tree
from qfed.data import Coding, Records, load
from qfed.data.table import arrow
from qfed.errors import ConfigError
from qfed.federation.files import write_atomically
from qfed.federation.synthesis import coding_of
from qfed.generative.synthesizer import Synthesizer
from qfed.synth.source import CONFIG

FORMAT = "qfed simulated records 1"
ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model's folder: the synthesizer and the configuration that decodes its bits."""

    folder: Path
    config: RunConfig
    synthesizer: Synthesizer

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Read a folder that `qfed synth fit` wrote."""
        return cls(folder, load_config(folder / CONFIG), Synthesizer.load(folder))

    @property
    def coding(self) -> Coding:
        """How bits become records."""
        return coding_of(self.config)

    def draw(self, count: int, rng: np.random.Generator) -> Records:
        """`count` simulated records."""
        return self.coding.decode(self.synthesizer.sample(count, rng), rng).records


def write_records(fitted: Fitted, records: Records, target: Path) -> tuple[Path, Path]:
    """Write the records and NAME.json; their paths."""
    if target.suffix not in ENDINGS:
        raise ConfigError(f"simulated records are written as {' or '.join(ENDINGS)}, got {target.name!r}")
    table = arrow("pyarrow").table(dict(fitted.coding.table(records)))
    sink = arrow("pyarrow").BufferOutputStream()
    if target.suffix == ".csv":
        arrow("pyarrow.csv").write_csv(table, sink)
    else:
        arrow("pyarrow.parquet").write_table(table, sink)
    target.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "format": FORMAT,
        "records": len(records),
        **fitted.synthesizer.describe(),
        "model": str(fitted.folder.resolve()),
        "config": to_tree(fitted.config),
    }
    text = json.dumps(about, indent=2, allow_nan=False) + "\n"
    return (
        write_atomically(target, sink.getvalue().to_pybytes()),
        write_atomically(target.with_suffix(".json"), text.encode()),
    )


def read_about(path: Path) -> tuple[dict[str, Any], RunConfig]:
    """NAME.json beside simulated records, and the configuration in it."""
    side = path.with_suffix(".json")
    try:
        about = json.loads(side.read_text(encoding="utf-8"))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT!r}")
        return about, RunConfig.model_validate(about["config"])
    except OSError:
        raise ConfigError(
            f"{path} has no {side.name} beside it, which says what its columns mean; keep both files that `qfed synth "
            "sample` writes together"
        ) from None
    except (ValueError, KeyError, ValidationError) as error:
        raise ConfigError(f"{side} does not describe simulated records: {error}") from None


def read_records(path: Path, coding: Coding) -> Records:
    """The records of a file in the schema of `coding`."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"simulated records are {' or '.join(ENDINGS)} files, got {path.name!r}")
    schema, ends = coding.schema, coding.schema.target_range or (None, None)
    target = TargetColumn(name=schema.target, classes=schema.classes, low=ends[0], high=ends[1])
    columns = tuple(column.column for column in coding.columns)
    return load(DataConfig(source=str(path), columns=columns, target=target)).records
