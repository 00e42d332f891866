"""The command line: every command documented, configurations that read back, schemas that are schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import click
import jsonschema
import pytest
import typer
from typer.testing import CliRunner, Result

from qfed.cli.app import app
from qfed.config import RunConfig, load_config
from qfed.errors import ConfigError
from qfed.report import read_result

QUICK = [
    "data.source=wine",
    "model.wires=2",
    "model.layers=1",
    "federation.sites=3",
    "training.rounds=1",
    "simulation.compare=[]",
]


def qfed(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def ok(*arguments: str) -> str:
    done = qfed(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def plain(text: str) -> str:
    """Without box drawing, and with single spaces, so that a folded cell reads as one text."""
    return re.sub(r"[\s─-╿]+", " ", text)


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


def test_version() -> None:
    assert ok("--version") == f"qfed {version('qfed')}\n"


def test_the_commands_are_those_that_are_meant() -> None:
    assert {("simulate",), ("warmup",), ("config", "show"), ("config", "schema"), ("config", "init")} <= set(ALL)


@pytest.mark.parametrize("path", ALL, ids=[" ".join(path) or "qfed" for path in ALL])
def test_every_command_and_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    assert command.help.strip()
    shown = plain(ok(*path, "--help"))
    assert plain(command.help.splitlines()[0])[:40] in shown
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)}: {parameter.name} has no help"
            assert plain(parameter.help)[:20] in shown
            assert parameter.help.count("[") == 0, "what stands in brackets is taken for markup and not shown"


def callbacks(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    yield from (command.callback for command in group.registered_commands if command.callback is not None)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from callbacks(inner.typer_instance)


@pytest.mark.parametrize(
    "command", list(callbacks(app)), ids=lambda command: f"{command.__module__}.{command.__name__}"
)
def test_every_argument_is_declared_with_help(command: Callable[..., Any]) -> None:
    """As declared: click 8.5 drops the help of the arguments of typer 0.20."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        for info in getattr(hint, "__metadata__", ()):
            assert info.help, f"{command.__name__}: {name} has no help"


def test_without_arguments_there_is_help() -> None:
    assert "simulate" in qfed().output


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["privacy.epsilon=1.5", "seed=7", "name=a study"],
        ["data.partition=dirichlet", "data.alpha=0.1", "simulation.failures=[{site=3,round=2}]"],
    ],
)
def test_show_reads_back(tmp_path: Path, changes: list[str]) -> None:
    arguments = [part for change in changes for part in ("--set", change)]
    (tmp_path / "run.toml").write_text(ok("config", "show", *arguments))
    assert load_config(tmp_path / "run.toml") == load_config(None, changes)
    assert ok("config", "show", str(tmp_path / "run.toml")) == (tmp_path / "run.toml").read_text()


def test_show_refuses_what_is_not_valid() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.epsilon"):
        qfed("config", "show", "--set", "privacy.epsilon=0")


def fields(model: type[RunConfig]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from fields(field.annotation)
        else:
            yield name


def test_schema_lists_every_field_with_its_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = plain(ok("config", "schema"))
    names = list(fields(RunConfig))
    assert len(names) > 35
    for name in names:
        assert f" {name} " in shown, name
    for section in ("data", "model", "training", "privacy", "federation", "secagg", "simulation"):
        assert f"[{section}]" in shown
    tree = RunConfig.model_json_schema()
    described = [field for part in (tree, *tree["$defs"].values()) for field in part.get("properties", {}).values()]
    assert all(field.get("description") or "$ref" in field for field in described)


def test_schema_of_one_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = ok("config", "schema", "privacy")
    assert "noise_multiplier" in shown
    assert "wires" not in shown
    with pytest.raises(ConfigError, match=r"privasy.*privacy"):
        qfed("config", "schema", "privasy")


def test_json_schema_accepts_the_defaults_and_refuses_a_mistake() -> None:
    schema = json.loads(ok("config", "schema", "--json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    good = RunConfig().model_dump(mode="json")
    jsonschema.validate(good, schema, cls=jsonschema.Draft202012Validator)
    for bad in (
        {**good, "privasy": {}},
        {**good, "seed": -1},
        {**good, "privacy": {**good["privacy"], "epsilon": 0}},
        {**good, "model": {**good["model"], "wires": 21}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema, cls=jsonschema.Draft202012Validator)


def test_json_schema_of_results_is_one() -> None:
    schema = json.loads(ok("config", "schema", "--result"))
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema, cls=jsonschema.Draft202012Validator)


def test_init_writes_a_configuration_that_simulates(tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "out"
    assert "qfed simulate" in ok("config", "init", str(file))
    assert load_config(file) == RunConfig()
    changes = [part for change in QUICK for part in ("--set", change)]
    shown = ok("simulate", str(file), *changes, "--out", str(out), "--quiet")
    result = read_result(out)
    assert result.config == load_config(file, QUICK)
    assert "report.html" in shown
    assert f"{result.final.score:.3f}"[:4] in shown or f"{100 * result.final.score:.1f}" in shown


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        qfed("config", "init", str(file))
    assert file.read_text() == "mine"


def test_init_drafts_the_description_of_a_file(tmp_path: Path) -> None:
    rows = "".join(f"{20 + i % 60},{'yes' if i % 2 else 'no'},{i % 3}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("age,smoker,stage\n" + rows)
    ok("config", "init", str(tmp_path / "run.toml"), "--from", str(tmp_path / "t.csv"))
    text = (tmp_path / "run.toml").read_text()
    for name in ("age", "smoker", "stage"):
        assert f'"{name}"' in text


def test_without_out_nothing_is_kept_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = [part for change in [*QUICK, "model.kind=twin"] for part in ("--set", change)]
    assert "--out" in ok("simulate", *changes, "--quiet")
    assert list(tmp_path.iterdir()) == []
