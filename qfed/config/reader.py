"""TOML and `--set` in, a validated RunConfig out; the only reader of configuration files and environment.

Errors name the file, the line where it can be found, the field, the value that came and the way out.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from qfed.config.explain import explain
from qfed.config.prices import PriceTable, shipped_prices
from qfed.config.schema import RunConfig
from qfed.config.server import ServerConfig
from qfed.config.site import SiteConfig
from qfed.errors import ConfigError

_TABLES = (".csv", ".parquet")
Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration.

    `path` is a TOML file, or None for the defaults; each of `overrides` is `dotted.key=value` with the value
    in TOML (a bare word counts as text). Relative paths are taken from the file's folder, those of overrides from here.
    Raises ConfigError that names file, line, field, value and the way out.
    """
    tree: dict[str, Any] = {}
    origin, text = "", ""
    if path is not None:
        origin = str(path)
        tree, text = _read(Path(path))
        _anchor(tree, Path(path).resolve().parent)
    by_path: dict[tuple[str, ...], str] = {}
    for item in overrides:
        key, sign, value = item.partition("=")
        path_of = tuple(part.strip() for part in key.split("."))
        if not sign or not all(path_of):
            raise ConfigError(f"--set takes dotted.key=value, got {item!r}; for example --set privacy.epsilon=1")
        _assign(tree, path_of, _toml_value(value.strip()), origin=f"--set {item}")
        by_path[path_of] = item
    _anchor(tree, Path.cwd())
    return _validate(RunConfig, tree, origin, text, by_path)


def anchored(config: RunConfig) -> RunConfig:
    """A copy whose file names are absolute, so that it means the same wherever it is read."""
    tree = _without_none(config.model_dump(mode="json"))
    _anchor(tree, Path.cwd())
    return _validate(RunConfig, tree, "", "")


def _read(file: Path, first: str = "qfed config init") -> tuple[dict[str, Any], str]:
    """The tree and the text; `first` is what writes a first file of this kind."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        inside = file / "config.toml"
        way_out = f"name {inside}, which is in it" if inside.is_file() else f"{first} writes a first one"
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}; {way_out}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text; a configuration is a TOML file") from None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        table = f"; for a table of your own: qfed config init my.toml --from {file}" if file.suffix in _TABLES else ""
        raise ConfigError(f"{file} is not valid TOML: {error}{table}") from None


def load_site(path: str | os.PathLike[str]) -> SiteConfig:
    """Read a site's `site.toml`, file names of [data] taken from its folder; errors as for `load_config`."""
    tree, text = _read(Path(path), "qfed site init")
    if isinstance(data := tree.get("data"), dict) and isinstance(source := data.get("source"), str):
        data["source"] = str(Path(path).resolve().parent / source)
    return _validate(SiteConfig, tree, origin=str(path), text=text)


def load_prices(path: str | os.PathLike[str] | None = None) -> PriceTable:
    """Read a table of device prices, the one that qfed ships without `path`; errors as for `load_config`."""
    file = shipped_prices() if path is None else Path(path)
    tree, text = _read(file)
    return _validate(PriceTable, tree, origin=str(file), text=text)


def load_server(path: str | os.PathLike[str]) -> ServerConfig:
    """Read a server's `server.toml`; errors as for `load_config`."""
    tree, text = _read(Path(path), "qfed server init")
    return _validate(ServerConfig, tree, origin=str(path), text=text)


def to_toml(config: RunConfig | SiteConfig | ServerConfig) -> str:
    """The resolved configuration as TOML; reading it back gives an equal object."""
    return tomli_w.dumps(to_tree(config))


def to_tree(config: RunConfig | SiteConfig | ServerConfig) -> dict[str, Any]:
    """The resolved configuration as a tree of what TOML can hold, by section."""
    tree: dict[str, Any] = _without_none(config.model_dump(mode="json"))
    return tree


def replace(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """A copy with each `dotted.key` set to its value, validated again."""
    tree = _without_none(config.model_dump(mode="json"))
    for key, value in overrides.items():
        _assign(tree, key.split("."), value, origin=key)
    return _validate(RunConfig, tree)


def environment(name: str) -> str | None:
    """The value of an environment variable of qfed's (`QFED_...`), or None; the one place that reads them."""
    return os.environ.get(name)


def _anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make relative paths mean `folder`: a file's own, or for --set the one that qfed was started in."""
    data, model = tree.get("data"), tree.get("model")
    if (
        isinstance(data, dict)
        and isinstance(source := data.get("source"), str)
        and source.endswith((".csv", ".parquet"))
    ):
        data["source"] = str(folder / source)
    quantum = tree.get("quantum")
    if isinstance(quantum, dict) and isinstance(prices := quantum.get("prices"), str):
        quantum["prices"] = str(folder / prices)
    if isinstance(model, dict) and isinstance(circuit := model.get("circuit"), str) and ".py:" in circuit:
        model["circuit"] = str(folder / circuit)
    born = synth.get("born") if isinstance(synth := tree.get("synth"), dict) else None
    if isinstance(born, dict) and isinstance(calibration := born.get("calibration"), str):
        born["calibration"] = str(folder / calibration)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(tree: dict[str, Any], keys: Sequence[str], value: Any, origin: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{origin}: {key!r} is a value, not a section; there is nothing below it to set")
    tree[keys[-1]] = value


def _validate(
    model: type[Model],
    tree: Mapping[str, Any],
    origin: str = "",
    text: str = "",
    overrides: Mapping[tuple[str, ...], str] | None = None,
) -> Model:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        see = "qfed config schema" if issubclass(model, RunConfig) else ""
        found = error.errors(include_url=False)
        raise ConfigError(explain(model, found, origin, text, overrides or {}, see)) from None


def _without_none(tree: Any) -> Any:
    """TOML has no null; a field that is left out means the same."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_without_none(value) for value in tree]
    return tree
