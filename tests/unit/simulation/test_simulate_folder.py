"""What a simulation leaves behind: a folder that says the same thing in every file, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from small_runs import charges, small

import qfed
from qfed.config import load_config, to_toml
from qfed.data import load, partition
from qfed.errors import ConfigError
from qfed.federation.result import RunResult, result_schema
from qfed.models import flatten
from qfed.privacy.ledger import Ledger, Limits
from qfed.simulation import Step, simulate

HYBRID = ("model.kind=hybrid", "federation.sites=4", 'simulation.compare=["no_federation"]')


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult, list[Step]]:
    """A private hybrid run and the steps it told."""
    out, steps = tmp_path_factory.mktemp("private") / "deep" / "out", []
    return out, simulate(small(*HYBRID), out=out, progress=steps.append), steps


def test_the_folder_holds_exactly_what_it_should(done: tuple[Path, RunResult, list[Step]]) -> None:
    out, result, _ = done
    assert {path.name for path in out.iterdir()} == {
        "result.json", "model.npz", "model.json", "report.html", "config.toml", "ledgers", "MODEL_CARD.md", "card.json",
    }  # fmt: skip
    assert {path.name for path in (out / "ledgers").iterdir()} == {f"{site.name}.db" for site in result.sites}
    assert not list(out.rglob(".*")), "no drafts are left"


def test_the_result_fits_its_published_schema(done: tuple[Path, RunResult, list[Step]]) -> None:
    out, result, _ = done
    tree = json.loads((out / "result.json").read_text())
    jsonschema.Draft202012Validator.check_schema(result_schema())
    jsonschema.validate(tree, result_schema(), cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**tree, "status": "well"}, result_schema(), cls=jsonschema.Draft202012Validator)
    assert qfed.read_result(out) == result


def test_the_written_configuration_is_the_runs(done: tuple[Path, RunResult, list[Step]]) -> None:
    out, result, _ = done
    assert load_config(out / "config.toml") == result.config == small(*HYBRID)


def test_the_saved_model_scores_what_the_result_says(done: tuple[Path, RunResult, list[Step]]) -> None:
    out, result, _ = done
    config = result.config
    model = qfed.load_model(out)
    held_out = [site.test for site in partition(load(config.data), config.data, config.federation.sites, config.seed)]
    right = sum(int((model.predict(test.x).argmax(axis=1) == test.y).sum()) for test in held_out)
    assert result.final.records == sum(len(test) for test in held_out)
    assert result.final.score == right / result.final.records
    assert len(flatten(model.module)) == result.parameters


def test_every_ledger_says_the_epsilon_of_the_result(done: tuple[Path, RunResult, list[Step]]) -> None:
    out, result, _ = done
    privacy, config = result.privacy, result.config
    assert privacy.epsilon is not None
    assert 0.9 * config.privacy.epsilon < privacy.epsilon <= config.privacy.epsilon * (1 + 1e-9)
    for site in result.sites:
        file = out / "ledgers" / f"{site.name}.db"
        charged = charges(file)
        assert [(row["run"], row["dataset"], row["round"]) for row in charged] == [
            (result.run, site.name, 1), (result.run, site.name, 2),
        ]  # fmt: skip
        assert {row["noise_multiplier"] for row in charged} == {privacy.noise_multiplier}
        ledger = Ledger(file, Limits(config.privacy.epsilon, config.privacy.delta))
        ledger.verify()
        assert ledger.spent(site.name) == pytest.approx(privacy.epsilon)
        ledger.close()
        assert site.epsilon == pytest.approx(privacy.epsilon)
    assert [record.epsilon for record in result.rounds][-1] == pytest.approx(privacy.epsilon)
    assert result.rounds[0].epsilon < privacy.epsilon  # type: ignore[operator]


def test_bytes_of_sites_and_rounds_add_up(done: tuple[Path, RunResult, list[Step]]) -> None:
    _, result, _ = done
    for record in result.rounds:
        assert sum(record.bytes.values()) == record.bytes_up + record.bytes_down
    # The round that only scores and (in the total) nothing else comes on top.
    assert sum(site.bytes_up for site in result.sites) > sum(record.bytes_up for record in result.rounds)
    assert sum(site.bytes_down for site in result.sites) > sum(record.bytes_down for record in result.rounds)
    assert [site.rounds for site in result.sites] == [2] * 4


def test_progress_tells_every_round_of_every_part(done: tuple[Path, RunResult, list[Step]]) -> None:
    _, result, steps = done
    assert {(step.part, step.parts) for step in steps} == {(1, 2), (2, 2)}
    assert [step.round for step in steps if step.part == 1] == [0, 1, 2, 2, 2]
    told = [step.score for step in steps if step.part == 1 and step.score is not None]
    assert told[-1] == result.final.score


def test_an_earlier_result_needs_force(done: tuple[Path, RunResult, list[Step]]) -> None:
    out, _, _ = done
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="--force"):
        simulate(small(), out=out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_foreign_files_is_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a simulation's"):
        simulate(small(), out=tmp_path, force=force)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"notes.txt": "mine"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        simulate(small(), out=file, force=True)
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_force_replaces_an_earlier_result_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    simulate(small("training.rounds=1"), out=out)
    assert (out / "ledgers").is_dir()
    result = simulate(small("training.rounds=1", "privacy.mode=off"), out=out, force=True)
    assert qfed.read_result(out) == result
    assert not (out / "ledgers").exists(), "a run without privacy charges nothing, and the old ledgers are gone"


@pytest.mark.parametrize("cut", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_run_that_is_cut_off_leaves_a_marked_folder(tmp_path: Path, cut: BaseException) -> None:
    def stop(step: Step) -> None:
        if step.round == 1:
            raise cut

    out = tmp_path / "out"
    with pytest.raises(type(cut)):
        simulate(small("privacy.mode=off"), out=out, progress=stop)
    assert "--force" in (out / "INCOMPLETE").read_text()
    assert not (out / "result.json").exists()
    with pytest.raises(ConfigError, match="--force"):
        simulate(small("privacy.mode=off"), out=out)
    simulate(small("privacy.mode=off"), out=out, force=True)
    assert not (out / "INCOMPLETE").exists()
    assert (out / "result.json").exists()


def test_a_mistake_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        simulate(small("federation.sites=100"), out=tmp_path / "out")  # 178 records
    with pytest.raises(ConfigError):
        simulate(small("privacy.noise_multiplier=0.01"), out=tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_without_a_folder_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = simulate(small("privacy.mode=off", "training.rounds=1"))
    assert result.status == "completed"
    assert list(tmp_path.iterdir()) == []


def test_simulate_takes_a_file(tmp_path: Path) -> None:
    config = small("training.rounds=1", "privacy.mode=off")
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert simulate(str(tmp_path / "run.toml")).config == config


@pytest.mark.slow
def test_the_final_model_is_the_vector_that_was_trained(tmp_path: Path) -> None:
    """The stored parameters are float32 and reproduce exactly; a second simulation gives the same bytes."""
    vectors = []
    for name in ("a", "b"):
        simulate(small("privacy.mode=off"), out=tmp_path / name)
        vectors.append(flatten(qfed.load_model(tmp_path / name).module))
    assert vectors[0].dtype == np.float32
    assert np.array_equal(*vectors)
