"""A model on disk: model.npz (one float32 array a parameter) and model.json (what it is), no pickle.

model.json    {"format": 1, "model": ModelConfig, "schema": {...}, "parameters": [{"name", "shape"}, ...], "dtype"}
model.npz     the parameters by name, and the model's outputs on fixed probe inputs

Loading computes the probe's outputs again: a circuit that has changed since, or another order of weights, is refused
instead of answering something else. A user's own circuit is never imported because model.json names it, which would let
a model file run code: the caller names it again.
Errors  ConfigError for files that do not belong together, ShapeError for inputs of the wrong shape
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import nn

from qfed.config import CIRCUITS, ModelConfig
from qfed.errors import ConfigError, ShapeError
from qfed.models.build import build
from qfed.models.objective import TASKS
from qfed.models.vector import Vector, trainable, unflatten

FORMAT = 1
_PROBE = "probe outputs"
_TOLERANCE = 1e-3
"""Far above rounding between machines, far below what another circuit gives."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model: `module` is a plain nn.Module, `schema` says what goes in and comes out."""

    module: nn.Module
    schema: Mapping[str, Any]
    config: ModelConfig

    def predict(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """x (N, F), scaled to [-1, 1] as `qfed.data.load` does -> probabilities (N, classes), or values (N,).

        A regression's values are in the target's own units when the schema has its "target_range", else in [-1, 1].
        Raises ShapeError.
        """
        features = len(self.schema["features"])
        if x.ndim != 2 or x.shape[1] != features:
            raise ShapeError(f"the model takes x of shape (N, {features}), got {x.shape}; scale records with qfed.data")
        with torch.no_grad():
            out = self.module(torch.tensor(np.asarray(x, dtype=np.float32))).to(torch.float64)
        if self.schema["task"] == "classification":
            return np.asarray(torch.softmax(out, dim=1).numpy())
        value = np.asarray(out[:, 0].numpy())
        ends = self.schema.get("target_range")
        return value if ends is None else ends[0] + (value + 1) / 2 * (ends[1] - ends[0])


def save_model(
    folder: str | os.PathLike[str], model_config: ModelConfig, schema: Mapping[str, Any], vector: npt.NDArray[Any]
) -> None:
    """Write model.npz and model.json into `folder`; `schema` is `Schema.to_dict()`, `vector` as `flatten` gives it.

    Raises ShapeError for a vector of another size, ConfigError for one that is not finite.
    """
    text, archive = model_files(model_config, schema, vector)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in (("model.npz", archive), ("model.json", text.encode())):
        partial = target / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(target / name)


def model_files(model_config: ModelConfig, schema: Mapping[str, Any], vector: npt.NDArray[Any]) -> tuple[str, bytes]:
    """What `save_model` writes: the text of model.json and the bytes of model.npz."""
    if not np.isfinite(vector).all():
        raise ConfigError(
            "the model's parameters are not all finite, so there is nothing worth saving; did it diverge?"
        )
    module = _module(model_config, schema)
    unflatten(module, vector)
    arrays = {name: parameter.detach().numpy() for name, parameter in trainable(module).items()}
    about = {
        "format": FORMAT,
        "model": model_config.model_dump(mode="json"),
        "schema": dict(schema),
        "parameters": [{"name": name, "shape": list(array.shape)} for name, array in arrays.items()],
        "dtype": "float32",
    }
    text = json.dumps(about, indent=2, allow_nan=False) + "\n"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_PROBE: _probe(module, schema)})  # type: ignore[arg-type]
    return text, buffer.getvalue()


def load_model(path: str | os.PathLike[str], circuit: str | None = None) -> Model:
    """Read a model from its folder (or from model.json or model.npz in it).

    `circuit` (FILE.py:FUNCTION) is needed for a model with a user's own circuit, whose file is then run. Raises
    ConfigError.
    """
    folder = Path(path)
    folder = folder.parent if folder.name in ("model.json", "model.npz") else folder
    about = _read_about(folder / "model.json")
    config, schema = _read_config(about, folder, circuit), about["schema"]
    module = _module(config, schema)
    arrays = _read_arrays(folder / "model.npz")
    expected = {name: tuple(parameter.shape) for name, parameter in trainable(module).items()}
    found = {name: array.shape for name, array in arrays.items() if name != _PROBE}
    if found != expected or any(array.dtype != np.float32 for array in arrays.values()) or _PROBE not in arrays:
        raise ConfigError(
            f"{folder / 'model.npz'} does not fit model.json: expected float32 parameters {expected} and {_PROBE!r}, "
            f"got {found}; keep the two files of one run together"
        )
    vector: Vector = np.concatenate([*(arrays[name].ravel() for name in expected), np.empty(0, dtype=np.float32)])
    if not np.isfinite(vector).all():
        raise ConfigError(f"{folder / 'model.npz'} holds parameters that are not finite; the file is damaged")
    unflatten(module, vector)
    outputs = _probe(module, schema)
    if outputs.shape != arrays[_PROBE].shape or not np.allclose(outputs, arrays[_PROBE], _TOLERANCE, _TOLERANCE):
        raise ConfigError(
            f"the model in {folder} does not give the outputs that it gave when it was saved; is "
            f"circuit={config.circuit!r} the circuit that it was trained with?"
        )
    return Model(module.eval(), schema, config)


def _module(config: ModelConfig, schema: Mapping[str, Any]) -> nn.Module:
    outputs = len(schema["classes"]) if schema["task"] == "classification" else 1
    return build(config, len(schema["features"]), outputs, seed=0)


def _probe(module: nn.Module, schema: Mapping[str, Any]) -> Vector:
    """Outputs (3, O) on three fixed records that touch every feature differently."""
    size = 3 * len(schema["features"])
    x = torch.cos(torch.arange(size, dtype=torch.float32) * math.sqrt(2)).reshape(3, -1)
    with torch.no_grad():
        return np.asarray(module(x).numpy(), dtype=np.float32)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the model {path}: {error.strerror}; expected a folder with model.json"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}; the file is damaged") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise ConfigError(f"{path} has format={found!r}, this qfed reads format {FORMAT}; use the qfed that wrote it")
    schema = about.get("schema")
    if (
        not isinstance(schema, dict)
        or schema.get("task") not in TASKS
        or not isinstance(schema.get("features"), list)
        or not isinstance(schema.get("classes"), list if schema["task"] == "classification" else type(None))
    ):
        raise ConfigError(f"{path} has no usable schema (task, features, classes); the file is damaged")
    return about


def _read_config(about: Mapping[str, Any], folder: Path, circuit: str | None) -> ModelConfig:
    tree = about.get("model")
    named = tree.get("circuit") if isinstance(tree, dict) else None
    if named not in CIRCUITS and circuit is None:
        raise ConfigError(
            f"the model in {folder} was trained with the circuit {named!r}, whose file would be run; if you trust it, "
            "name it: load_model(path, circuit='FILE.py:FUNCTION')"
        )
    if named in CIRCUITS and circuit is not None:
        raise ConfigError(f"the model in {folder} has the built-in circuit {named!r}; leave circuit={circuit!r} out")
    try:
        return ModelConfig.model_validate(tree if circuit is None else {**tree, "circuit": circuit})  # type: ignore[dict-item]
    except ValidationError as error:
        raise ConfigError(f"{folder / 'model.json'} has no usable model: {error.errors()[0]['msg']}") from None


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; expected it beside model.json") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is not a model's parameters: {error}; the file is damaged") from None
