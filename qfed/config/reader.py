"""TOML and `--set` in, a validated RunConfig out; the only reader of configuration files and environment.

Errors name the file, the line where it can be found, the field, the value that came and the way out.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from qfed.config.schema import RunConfig
from qfed.config.site import SiteConfig
from qfed.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration.

    `path` is a TOML file, or None for the defaults; each of `overrides` is `dotted.key=value` with the value
    in TOML (a bare word counts as text). Relative paths of data and circuits are taken from the file's folder.
    Raises ConfigError that names file, line, field, value and the way out.
    """
    tree: dict[str, Any] = {}
    origin, text = "", ""
    if path is not None:
        origin = str(path)
        tree, text = _read(Path(path))
        _anchor(tree, Path(path).resolve().parent)
    for item in overrides:
        key, sign, value = item.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set takes dotted.key=value, got {item!r}; for example --set privacy.epsilon=1")
        _assign(tree, key.strip().split("."), _toml_value(value.strip()), origin=f"--set {item}")
    return _validate(RunConfig, tree, origin=origin, text=text)


def _read(file: Path) -> tuple[dict[str, Any], str]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {file}: {error.strerror}; qfed config init writes a first one"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text; a configuration is a TOML file") from None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


def load_site(path: str | os.PathLike[str]) -> SiteConfig:
    """Read a site's `site.toml`; errors as for `load_config`."""
    tree, text = _read(Path(path))
    return _validate(SiteConfig, tree, origin=str(path), text=text)


def to_toml(config: RunConfig | SiteConfig) -> str:
    """The resolved configuration as TOML; reading it back gives an equal object."""
    return tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def replace(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """A copy with each `dotted.key` set to its value, validated again."""
    tree = _without_none(config.model_dump(mode="json"))
    for key, value in overrides.items():
        _assign(tree, key.split("."), value, origin=key)
    return _validate(RunConfig, tree, origin="", text="")


def environment(name: str) -> str | None:
    """The value of an environment variable of qfed's (`QFED_...`), or None; the one place that reads them."""
    return os.environ.get(name)


def _anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make relative paths in a file mean the file's own folder, wherever qfed is started."""
    data, model = tree.get("data"), tree.get("model")
    if (
        isinstance(data, dict)
        and isinstance(source := data.get("source"), str)
        and source.endswith((".csv", ".parquet"))
    ):
        data["source"] = str(folder / source)
    if isinstance(model, dict) and isinstance(circuit := model.get("circuit"), str) and ".py:" in circuit:
        model["circuit"] = str(folder / circuit)


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


def _validate(model: type[Model], tree: Mapping[str, Any], origin: str, text: str) -> Model:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(model, item, origin, text) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None


def _explain(model: type[BaseModel], item: Any, origin: str, text: str) -> str:
    """One line for one pydantic error: where, what came, what was expected, what to do."""
    path = [str(part) for part in item["loc"]]
    line = _line_of(path, text)
    where = (f"{origin}, line {line}: " if line else f"{origin}: ") if origin else ""
    field, kind, value = ".".join(path) or "configuration", item["type"], item["input"]
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        near = difflib.get_close_matches(path[-1], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{where}unknown key {field}={value!r}; {hint}"
    if kind == "value_error":
        return f"{where}{field}: {item['ctx']['error']}"
    shown = value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    expected = item["msg"][0].lower() + item["msg"][1:]
    return f"{where}{field}={shown!r}: {expected}; see: qfed config schema {path[0] if len(path) > 1 else ''}".rstrip()


def _fields_at(model: Any, path: Sequence[str]) -> list[str]:
    for part in path:
        found = model.model_fields.get(part) if _is_section(model) else None
        model = found.annotation if found is not None else None
    return list(model.model_fields) if _is_section(model) else []


def _is_section(model: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(model, type) and issubclass(model, BaseModel)


def _line_of(path: Sequence[str], text: str) -> int | None:
    """The line that sets `path`, found by its section header and key; None for what the search cannot tell."""
    header = ".".join(path[:-1])
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[+\s*([\w.\-]+)\s*\]+", line):
            current = match[1]
            if current == ".".join(path):
                return number
        elif path and current == header and re.match(rf"\s*[\"']?{re.escape(path[-1])}[\"']?\s*=", line):
            return number
    return None


def _without_none(tree: Any) -> Any:
    """TOML has no null; a field that is left out means the same."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_without_none(value) for value in tree]
    return tree
