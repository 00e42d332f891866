"""A release: the pair counts of all records together, or of each class apart, as it is stored and handed on.

    statistics.npz    pairs (K, n, n, 2, 2) float64, records (K,), stddev (K,), patterns (K, t) uint8,
                      code (n, n) bool: pairs that the coding decides
    statistics.json   format, names of all bits in the coding's order, names of the bits held fixed, privacy statement

K = 1 and t = 0 when no bit is held fixed. Otherwise part k counts the records whose t fixed bits (the target's) equal
patterns[k], and its own n bits are the others, in their order.
Shapes  records as bits (N, n + t)      Errors  ConfigError for files that are not such a release, ShapeError
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from qfed.errors import ConfigError, ShapeError
from qfed.generative.statistics import Bits, Floats, PairCounts, checked_bits

FORMAT = "qfed pair counts 1"
STATISTICS = "statistics"


@dataclass(frozen=True, eq=False)
class Release:
    """Pair counts of K parts of the records; `names` are all bits, `fixed` those that tell the parts apart."""

    names: tuple[str, ...]
    fixed: tuple[str, ...]
    patterns: Bits
    """Values of the fixed bits, (K, t); public (every class that can occur), never taken from the data."""
    parts: tuple[PairCounts, ...]

    def __post_init__(self) -> None:
        free = tuple(name for name in self.names if name not in self.fixed)
        if self.patterns.shape != (len(self.parts), len(self.fixed)) or not self.parts:
            raise ShapeError(
                f"a release of {len(self.parts)} parts with {len(self.fixed)} fixed bits has patterns of that shape, "
                f"got {self.patterns.shape}"
            )
        if any(part.bits != free for part in self.parts):
            raise ShapeError(f"every part counts the bits {list(free)}, got {[list(part.bits) for part in self.parts]}")

    @classmethod
    def of(cls, counts: PairCounts) -> Self:
        """All records together."""
        return cls(counts.bits, (), np.zeros((1, 0), np.uint8), (counts,))

    @classmethod
    def exact(
        cls,
        bits: npt.NDArray[Any],
        names: Sequence[str],
        fixed: Sequence[str] = (),
        patterns: npt.NDArray[Any] | None = None,
    ) -> Self:
        """Count the records (N, len(names)) themselves: no noise, no privacy."""
        parts = split(bits, names, fixed, patterns)
        free = [name for name in names if name not in fixed]
        counted = [
            PairCounts.exact(part, free)
            if len(part)
            else PairCounts.of_counts(free, np.zeros((len(free),) * 2 + (2, 2)), 0.0, {})
            for part in parts
        ]
        return cls(tuple(names), tuple(fixed), _patterns(fixed, patterns), tuple(counted))

    @property
    def weights(self) -> Floats:
        """Share of the records in each part, (K,)."""
        records = np.array([part.records for part in self.parts])
        return np.asarray(records / records.sum())

    @property
    def privacy(self) -> Mapping[str, Any]:
        """The privacy statement, the same for all parts."""
        return self.parts[0].privacy

    def join(self, part: int, bits: npt.NDArray[Any]) -> Bits:
        """Bits (N, n) of one part, completed by its fixed bits to (N, n + t) in the order of `names`."""
        out = np.empty((len(bits), len(self.names)), np.uint8)
        held = np.isin(self.names, self.fixed)
        out[:, ~held] = bits
        out[:, held] = self.patterns[part]
        return out

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write statistics.npz and statistics.json into `folder`, made if need be; their paths."""
        arrays = {
            "pairs": np.stack([part.pairs for part in self.parts]),
            "records": np.array([part.records for part in self.parts]),
            "stddev": np.array([part.stddev for part in self.parts]),
            "patterns": self.patterns,
            "code": self.parts[0].coded,
        }
        about = {
            "format": FORMAT,
            "names": list(self.names),
            "fixed": list(self.fixed),
            "privacy": dict(self.privacy),
        }
        return write_arrays(Path(folder), STATISTICS, about, arrays)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote."""
        about, arrays = read_arrays(Path(folder), STATISTICS, FORMAT)
        try:
            names, fixed = tuple(about["names"]), tuple(about["fixed"])
            free = tuple(name for name in names if name not in fixed)
            code = arrays.get("code")  # releases made before it was kept have none
            parts = tuple(
                PairCounts(free, pairs, float(records), float(stddev), dict(about["privacy"]), code)
                for pairs, records, stddev in zip(arrays["pairs"], arrays["records"], arrays["stddev"], strict=True)
            )
            return cls(names, fixed, arrays["patterns"].astype(np.uint8), parts)
        except (KeyError, TypeError, ValueError, ShapeError) as error:
            raise ConfigError(f"{folder} holds no usable {STATISTICS}: {error}; release the counts again") from None


def split(
    bits: npt.NDArray[Any], names: Sequence[str], fixed: Sequence[str] = (), patterns: npt.NDArray[Any] | None = None
) -> list[Bits]:
    """The records (N, n + t) by the values of their fixed bits: K arrays (N_k, n), without these bits."""
    checked = checked_bits(bits)
    if checked.shape[1] != len(names):
        raise ShapeError(f"records of {len(names)} bits have that many columns, got {checked.shape[1]}")
    held = np.isin(names, list(fixed))
    wanted = _patterns(fixed, patterns)
    return [checked[(checked[:, held] == pattern).all(1)][:, ~held] for pattern in wanted]


def _patterns(fixed: Sequence[str], patterns: npt.NDArray[Any] | None) -> Bits:
    if not fixed:
        return np.zeros((1, 0), np.uint8)
    if patterns is None or np.ndim(patterns) != 2 or np.shape(patterns)[1] != len(fixed):
        raise ShapeError(f"{len(fixed)} fixed bits need their public values as patterns (K, {len(fixed)})")
    return np.asarray(patterns, dtype=np.uint8)


def write_arrays(folder: Path, name: str, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[Path, ...]:
    """NAME.npz and NAME.json in `folder`, made if need be, each whole or not at all; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    text = json.dumps(about, indent=2, allow_nan=False) + "\n"
    paths = []
    for suffix, content in ((".npz", buffer.getvalue()), (".json", text.encode())):
        partial = folder / f"{name}{suffix}.partial"
        partial.write_bytes(content)
        paths.append(partial.replace(folder / f"{name}{suffix}"))
    return tuple(paths)


def read_arrays(folder: Path, name: str, expected: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """What `write_arrays` wrote, checked for its format; raises ConfigError."""
    try:
        about = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with (folder / f"{name}.npz").open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            arrays = {key: archive[key] for key in archive.files}
    except OSError as error:
        raise ConfigError(
            f"cannot read {error.filename}: {error.strerror}; expected a folder with {name}.npz and {name}.json"
        ) from None
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{folder / name}.npz or .json is damaged: {error}") from None
    found = about.get("format") if isinstance(about, dict) else None
    if found != expected:
        raise ConfigError(
            f"{folder / name}.json has format={found!r}, expected {expected!r}; make it again with this qfed"
        )
    return about, arrays
