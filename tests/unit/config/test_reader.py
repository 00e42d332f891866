"""Reading: files, --set, anchored paths, round trips; every refusal names where, what came and the way out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfed.config import RunConfig, SiteConfig, environment, load_config, load_site, replace, to_toml
from qfed.errors import ConfigError

FILE = """[data]
source = "x.csv"
[data.target]
name = "y"
classes = ["a", "b"]
[[data.columns]]
name = "age"
low = 0
high = 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value).replace(f"{folder / 'run.toml'}", "FILE")


def test_empty_file_is_the_default_run(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == load_config() == RunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[privacy]\n\nepsilonn = 1\n", "FILE, line 3: unknown key privacy.epsilonn=1; did you mean 'epsilon'?"),
        ("[privcy]\nepsilon = 1\n", "FILE, line 1: unknown key privcy; did you mean 'privacy'?"),
        ("[secagg]\nqqq = 1\n", "FILE, line 2: unknown key secagg.qqq=1; known here: mode, update_clip, "),
        ("[privacy]\nepsilon = -1\n", "FILE, line 2: privacy.epsilon=-1: input should be greater than 0"),
        ("privacy.epsilon = -1\n", "FILE, line 1: privacy.epsilon=-1: "),
        ("seed = 1\nprivacy = { epsilon = -1 }\n", "FILE, line 2: privacy.epsilon=-1: "),
        ("[ privacy ] # budget\n'epsilon' = -1\n", "FILE, line 2: privacy.epsilon=-1: "),
        ("[privacy]\nepsilon = '3'\n", "line 2: privacy.epsilon='3': input should be a valid number"),
        ("[privacy]\nepsilon = true\n", "line 2: privacy.epsilon=True: input should be a valid number"),
        ("[privacy]\nepsilon = inf\n", "line 2: privacy.epsilon=inf: input should be a finite number"),
        ("[privacy]\ndelta = nan\n", "line 2: privacy.delta=nan: input should be "),
        ("[training]\nrounds = 3.0\n", "line 2: training.rounds=3.0: input should be a valid integer"),
        ("seed = '1'\n", "line 1: seed='1': input should be a valid integer"),
        ("data = 3\n", "line 1: data=3: input should be a table"),
        ("[data]\nsource = 'wyne'\n", "line 1: data: source='wyne' is neither an embedded data set"),
        ("[data]\nsource = 'wyne'\n", "did you mean 'wine'?"),
        ("[data]\nsource = 'x.csv'\n", "data.columns and data.target must say what is in it"),
        ("[model]\ncircuit = 'reuploding'\n", "line 1: model: circuit='reuploding' is none of"),
        ("[model]\ncircuit = 'reuploding'\n", "did you mean 'reuploading'?"),
        ("[model]\nwires = 21\n", "line 2: model.wires=21: input should be less than or equal to 20"),
        ("[simulation]\ncompare = ['twin', 'x']\n", "line 2: simulation.compare.1='x': input should be 'twin', "),
        (
            "[[simulation.failures]]\nsite = 3\nround = 1\n[[simulation.failures]]\nsite = 3\nround = 0\n",
            "FILE, line 6: simulation.failures.1.round=0: ",
        ),
        (FILE + "mising = 3\n", "FILE, line 10: unknown key data.columns.0.mising=3; did you mean 'missing'?"),
        (FILE + "kind = 'numric'\n", "line 10: data.columns.0.kind='numric': expected 'numeric', 'categorical'"),
        (FILE + "missing = 'drop'\n", "line 10: data.columns.0.missing='drop': input should be 'refuse', or input "),
        (FILE + "[[data.columns]]\nname = 'z'\n", "FILE, line 10: data.columns.1.low is missing"),
        ("[privacy\n", "FILE is not valid TOML: "),
    ],
)  # fmt: skip
def test_refusals_name_line_field_value_and_way_out(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_each_wrong_field_gets_one_line(tmp_path: Path) -> None:
    message = refused(tmp_path, "seed = -1\n[privacy]\nepsilon = 0\nclip = 1\n")
    assert [line.split(":")[0] for line in message.splitlines()] == ["FILE, line 1", "FILE, line 3", "FILE, line 4"]
    assert message.splitlines()[1].endswith("see: qfed config schema privacy")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("privacy.epsilon", "--set takes dotted.key=value, got 'privacy.epsilon'"),
        ("=1", "--set takes dotted.key=value, got '=1'"),
        ("privacy..x=1", "--set takes dotted.key=value, got 'privacy..x=1'"),
        ("privacy.epsilon=0", "--set privacy.epsilon=0: privacy.epsilon=0: input should be greater than 0"),
        ("privacy.epsilonn=1", "--set privacy.epsilonn=1: unknown key privacy.epsilonn=1; did you mean 'epsilon'?"),
        ("privacy=1", "--set privacy=1: privacy=1: input should be a table"),
        ("data.source=wyne", "FILE with --set data.source=wyne: data: source='wyne'"),
        ("seed.x=1", "--set seed.x=1: 'seed' is a value, not a section"),
    ],
)
def test_refused_overrides_name_themselves_not_the_file(tmp_path: Path, override: str, message: str) -> None:
    assert refused(tmp_path, "seed = 4\n[privacy]\nepsilon = 2\n", [override]).startswith(message)


def test_overrides_are_toml_values_and_bare_words(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, "[privacy]\nepsilon = 2\n"),
        ["privacy.epsilon=1.5", "data.source=wine", "privacy.mode='off'", " training.rounds = 3 ", "name=a=b",
         "simulation.failures=[{site = 1, round = 2}]", "simulation.compare=[]"],
    )  # fmt: skip
    assert (config.privacy.epsilon, config.privacy.mode, config.data.source) == (1.5, "off", "wine")
    assert (config.training.rounds, config.name, config.simulation.compare) == (3, "a=b", ())
    assert config.simulation.failures[0].site == 1


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xf6"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.toml")


def test_relative_paths_mean_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = "[model]\ncircuit = 'sub/c.py:f'\nweight_shapes = { w = [2, 3], b = [] }\n"
    path = write(tmp_path, FILE + circuit)
    monkeypatch.chdir("/")
    config = load_config(path)
    assert config.data.source == str(tmp_path / "x.csv")
    assert config.model.circuit == f"{tmp_path / 'sub' / 'c.py'}:f"
    assert config.model.weight_shapes == {"w": (2, 3), "b": ()}
    monkeypatch.chdir(tmp_path)
    assert load_config("run.toml") == config
    write(tmp_path, FILE.replace("x.csv", "/data/x.parquet"))
    assert load_config(path).data.source == "/data/x.parquet"
    assert load_config(write(tmp_path, "[data]\nsource = 'wine'\n")).data.source == "wine"


def test_toml_round_trip_with_everything_set(tmp_path: Path) -> None:
    text = FILE + (
        "[[data.columns]]\nname = 'sex'\nkind = 'categorical'\ncategories = ['f', 'm']\nmissing = 'm'\n"
        "[model]\ncircuit = 'c.py:f'\nweight_shapes = { w = [2, 3], b = [] }\n"
        "[[simulation.failures]]\nsite = 1\nround = 2\nphase = 'unmask'\n[privacy]\nnoise_multiplier = 1.25\n"
    )
    config = load_config(write(tmp_path, text))
    assert config.data.columns[0].kind == "numeric"  # the default, where the file names no kind
    assert load_config(write(tmp_path, to_toml(config))) == config
    assert "None" not in to_toml(config)
    assert to_toml(config) == to_toml(load_config(write(tmp_path, to_toml(config))))


@given(
    epsilon=st.floats(1e-3, 1e3), rounds=st.integers(1, 99), seed=st.integers(0, 2**63 - 1), name=st.text(max_size=20)
)
def test_round_trip_keeps_every_digit_and_character(epsilon: float, rounds: int, seed: int, name: str) -> None:
    config = replace(RunConfig(), {"privacy.epsilon": epsilon, "training.rounds": rounds, "seed": seed, "name": name})
    assert (config.privacy.epsilon, config.training.rounds, config.seed, config.name) == (epsilon, rounds, seed, name)
    import tomllib

    assert RunConfig.model_validate(tomllib.loads(to_toml(config))) == config


def test_replace_validates_again() -> None:
    config = RunConfig()
    assert replace(config, {"model.kind": "twin"}).model.kind == "twin"
    assert config.model.kind == "hybrid"
    assert replace(config, {}) == config
    assert replace(replace(config, {"privacy.noise_multiplier": 2.0}), {"privacy.noise_multiplier": None}) == config
    with pytest.raises(ConfigError, match=r"^privacy\.epsilon=-1: input should be greater"):
        replace(config, {"privacy.epsilon": -1})
    with pytest.raises(ConfigError, match="did you mean 'epsilon'"):
        replace(config, {"privacy.epsilom": 1})


SITE = "name = 'a'\ndataset = 'd'\n[policy]\nepsilon = 3\ndelta = 1e-5\n"


def test_site_file(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, SITE))
    assert site == SiteConfig.model_validate({"name": "a", "dataset": "d", "policy": {"epsilon": 3, "delta": 1e-5}})
    assert site.policy.require_privacy
    assert not site.policy.own_circuits
    assert load_site(write(tmp_path, to_toml(site))) == site


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SITE + "own_circuits = 'no'\n", "line 6: policy.own_circuits='no': input should be a valid boolean"),
        (SITE + "own_circuits = 1\n", "line 6: policy.own_circuits=1: input should be a valid boolean"),
        (SITE + "require_privcy = true\n", "unknown key policy.require_privcy=True; did you mean 'require_privacy'?"),
        (SITE.replace("epsilon = 3\n", ""), "line 3: policy.epsilon is missing"),
    ],
)  # fmt: skip
def test_site_policy_is_never_guessed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_site(write(tmp_path, text))
    assert "qfed config schema" not in str(caught.value)  # which tells about runs, not sites


def test_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QFED_TEST", raising=False)
    assert environment("QFED_TEST") is None
    monkeypatch.setenv("QFED_TEST", "x")
    assert environment("QFED_TEST") == "x"
