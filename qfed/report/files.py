"""`result.json`, written and read back.

The order of keys is the schema's, floats keep every digit (the shortest text that reads back as the same float), the
file is replaced as a whole: a reader, or a crash, meets the old content or the new.

Errors  ConfigError for a figure that JSON cannot hold (not finite), a file that is not there, is no JSON or is not a
        result of this format.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from qfed.errors import ConfigError
from qfed.federation.files import write_atomically
from qfed.federation.result import FORMAT, RunResult
from qfed.federation.synthesis_result import SYNTHESIS_FORMAT, SynthesisResult

RESULT_FILE = "result.json"
Model = TypeVar("Model", RunResult, SynthesisResult)


def write_result(result: RunResult | SynthesisResult, folder: str | os.PathLike[str]) -> Path:
    """Write `result.json` into an existing folder and return its path."""
    tree = result.model_dump(mode="python")
    if (where := _not_finite(tree)) is not None:
        raise ConfigError(f"{RESULT_FILE} holds finite numbers only, got {where}; the run diverged or was not measured")
    text = json.dumps(result.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomically(Path(folder) / RESULT_FILE, (text + "\n").encode())


def read_result(path: str | os.PathLike[str]) -> RunResult:
    """Read a result from its file, or from the folder that holds `result.json`."""
    return _read(Path(path), RunResult, FORMAT)


def read_synthesis(path: str | os.PathLike[str]) -> SynthesisResult:
    """Read the result of a run of kind "synthesize" in the same way."""
    return _read(Path(path), SynthesisResult, SYNTHESIS_FORMAT)


def _read(path: Path, model: type[Model], expected: str) -> Model:
    if path.is_dir():
        path /= RESULT_FILE
    try:
        tree = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(
            f"cannot read a result from path={str(path)!r} ({error.strerror}); name a {RESULT_FILE} or its folder"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON ({error}); expected a {RESULT_FILE} as qfed writes it") from error
    found = tree.get("format") if isinstance(tree, dict) else None
    if found != expected:
        other = {FORMAT: "a model was trained", SYNTHESIS_FORMAT: "counts were released"}.get(str(found))
        way_out = (
            f"it is that of a run in which {other}"
            if other
            else "read it with the version of qfed that wrote it, or run again"
        )
        raise ConfigError(
            f"{path} is not a result that this qfed reads: expected format={expected!r}, got format={found!r}; "
            f"{way_out}"
        )
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        first = ".".join(str(part) for part in details[0]["loc"]) or "(the whole file)"
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise ConfigError(
            f"{path} does not fit the schema of {expected}: {first}: {details[0]['msg']}{more}; "
            "the file was changed or cut off, run again"
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _not_finite(tree: Any, path: str = "") -> str | None:
    """`rounds.3.metrics.loss=nan`: the first number that JSON cannot hold, if any."""
    if isinstance(tree, float):
        return None if math.isfinite(tree) else f"{path}={tree}"
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        if (found := _not_finite(value, f"{path}.{key}" if path else str(key))) is not None:
            return found
    return None
