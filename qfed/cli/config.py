"""qfed config: look at, check and start configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(help="Look at, check and start configurations.", no_args_is_help=True)


@app.command()
def show(
    config: Annotated[Path | None, typer.Argument(help="Configuration (TOML); the defaults without one.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field.")] = None,
) -> None:
    """Print the resolved configuration as TOML, defaults filled in; fails when it is not valid."""
    from qfed.config import load_config, to_toml

    text = to_toml(load_config(config, set_ or []))
    console = Console()
    if console.is_terminal:
        console.print(Syntax(text, "toml", background_color="default"))
    else:
        typer.echo(text, nl=False)


@app.command()
def schema(
    section: Annotated[str | None, typer.Argument(help="Only one section, e.g. privacy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The JSON schema.")] = False,
    result: Annotated[bool, typer.Option("--result", help="The JSON schema of result.json instead.")] = False,
) -> None:
    """Print every field with its type, default and meaning."""
    if result:
        from qfed.federation.synthesis_result import published_schema

        typer.echo(json.dumps(published_schema(), indent=2))
        return
    from qfed.config import RunConfig

    if as_json:
        typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))
        return
    sections = {"": RunConfig} | _sections(RunConfig)
    if section is not None and section not in sections:
        raise ConfigError(f"there is no section={section!r}; sections are {', '.join(filter(None, sections))}")
    console = Console()
    for name, model in sections.items():
        if section in (None, name):
            console.print(_fields(name, model))


@app.command()
def prices() -> None:
    """Print qfed's table of device prices (TOML): copy it, correct it, name it in quantum.prices."""
    from qfed.config import shipped_prices

    typer.echo(shipped_prices().read_text(encoding="utf-8"), nl=False)


def _sections(model: type[BaseModel], path: str = "") -> dict[str, type[BaseModel]]:
    """Sections by their path, with those inside of others (quantum.noise)."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        if _is_section(field.annotation):
            found |= {path + name: field.annotation, **_sections(field.annotation, f"{path}{name}.")}
    return found


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    from pydantic import BaseModel

    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields(name: str, model: type[BaseModel]) -> Table:
    title = escape(f"[{name}]") if name else "top level"  # else rich takes it for markup and shows nothing
    table = Table(title=title, title_justify="left", show_lines=False, expand=True)
    for heading, share in (("field", 2), ("type", 2), ("default", 2), ("meaning", 5)):
        table.add_column(heading, ratio=share, overflow="fold")
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    for key, field in model.model_fields.items():
        if _is_section(field.annotation):
            continue
        default = "" if field.is_required() else json.dumps(field.get_default(call_default_factory=True), default=str)
        cells = (key, _type_of(properties[key]), default, field.description or "")
        table.add_row(*map(escape, cells))
    return table


def _type_of(form: dict[str, Any]) -> str:
    if "enum" in form:
        return " | ".join(map(str, form["enum"]))
    if "const" in form:
        return str(form["const"])
    if "anyOf" in form:
        return " | ".join(_type_of(part) for part in form["anyOf"] if part.get("type") != "null")
    return str(form.get("type", form.get("$ref", "")).rsplit("/", 1)[-1])


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("qfed.toml"),
    source: Annotated[
        Path | None, typer.Option("--from", help="A CSV or Parquet file: draft the description of its columns.")
    ] = None,
) -> None:
    """Write a first configuration: the defaults, or a draft for your own data file."""
    if path.exists():
        raise ConfigError(f"{path} exists already; name another file")
    if source is None:
        from qfed.config import RunConfig, to_toml

        path.write_text(to_toml(RunConfig()), encoding="utf-8")
        typer.echo(f"wrote {path}; run it with: qfed simulate {path}")
        return
    from qfed.data import draft_schema

    path.write_text(draft_schema(source), encoding="utf-8")
    typer.echo(f"wrote {path}; fill in the public ranges and categories, then: qfed config show {path}")
