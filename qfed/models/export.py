"""A trained model as one file for programs that have no qfed: torch.export (.pt2) or ONNX (.onnx).

    torch   torch.export.load(FILE).module()(v)                 needs torch alone
    onnx    onnxruntime.InferenceSession(FILE).run(None, {"records": v})[0]

Both take v (B, F) float32 in the table's units and give what `Model.predict` gives (`qfed.models.portable` says how);
names of features and classes are in the file. What was written is loaded again and compared with the model before it
counts as written.      Errors  ConfigError, CircuitError, MissingExtra; no file is left behind
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from qfed.errors import ConfigError, MissingExtra
from qfed.models.portable import Portable
from qfed.models.store import Model

Format = Literal["torch", "onnx"]
SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-5
"""Largest difference to `Model.predict`, in probability or in parts of the target's range."""
_PROBES = 5


def export(model: Model, path: Path, form: Format) -> float:
    """Write the file; returns the largest difference to `Model.predict` that was seen."""
    if path.suffix != SUFFIX[form]:
        raise ConfigError(f"an export to {form} is a file {SUFFIX[form]}, got {path.name!r}; name it so")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it first")
    if model.schema.get("made", "values") == "values" and not model.schema.get("columns"):
        raise ConfigError("the model does not know the columns of its table (an older qfed saved it); train it again")
    module = Portable(model.module, model.schema).eval()
    probes = _probes(model)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / path.name
        with torch.no_grad():
            answers = (_torch if form == "torch" else _onnx)(module, model, draft, probes)
        difference = _difference(model, probes, answers)
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"the file would answer differently from the model (by {difference:.2g}, at most {TOLERANCE:g} is "
                "rounding), so it was not written; please report the model's configuration"
            )
        os.replace(draft, path)
    return difference


def inputs(model: Model) -> list[str]:
    """What the columns of v are."""
    return list(model.schema["features"])


def _about(model: Model) -> dict[str, str]:
    schema = model.schema
    return {
        "qfed.inputs": json.dumps(inputs(model)),
        "qfed.outputs": json.dumps(schema["classes"] or [schema["target"]]),
        "qfed.schema": json.dumps(dict(schema)),
    }


def _torch(module: Portable, model: Model, path: Path, probes: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    example = torch.from_numpy(probes[:3])
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path, extra_files=_about(model))
    loaded = torch.export.load(path).module()
    return np.concatenate([loaded(torch.from_numpy(probes[:1])).numpy(), loaded(torch.from_numpy(probes[1:])).numpy()])


def _onnx(module: Portable, model: Model, path: Path, probes: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 torch's exporter is built on it
    except ModuleNotFoundError as error:
        raise MissingExtra.of(error) or error from None
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter's own machinery, none is about the model
        torch.onnx.export(
            module,
            (torch.from_numpy(probes[:3]),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["records"],
            output_names=["answers"],
            external_data=False,
            verbose=False,
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, _about(model))
    onnx.checker.check_model(written)
    onnx.save(written, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"records": part})[0] for part in (probes[:1], probes[1:])])


class _quiet:
    """Silence the exporter's progress on the log."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)


def _probes(model: Model) -> npt.NDArray[np.float32]:
    """Records in the table's units, spread over the ranges and past them; (P, F)."""
    width = len(model.schema["features"])
    unit: npt.NDArray[np.float64] = np.cos(np.arange(_PROBES * width) * np.sqrt(2)).reshape(_PROBES, width)
    if model.schema.get("made", "values") != "values":
        return unit.astype(np.float32)
    low, high = _ends(model)
    values: npt.NDArray[np.float32] = (low + (1.1 * unit + 1) / 2 * (high - low)).astype(np.float32)
    return values


def _ends(model: Model) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ends: list[tuple[float, float]] = []
    for column in model.schema["columns"]:
        if column.get("kind", "numeric") == "numeric":
            ends.append((column["low"], column["high"]))
        else:
            ends += [(-1.0, 1.0)] * len(column["categories"])
    both = np.array(ends, dtype=np.float64)
    return both[:, 0], both[:, 1]


def _difference(model: Model, probes: npt.NDArray[np.float32], answers: npt.NDArray[Any]) -> float:
    scaled: npt.NDArray[Any] = probes
    if model.schema.get("made", "values") == "values":
        scaled = Portable(model.module, model.schema).scaling(torch.from_numpy(probes)).numpy()  # type: ignore[misc]
    expected = model.predict(scaled)
    ends = model.schema.get("target_range")
    span = 1.0 if ends is None else (ends[1] - ends[0]) / 2
    return float(np.abs(expected - answers).max() / span)
