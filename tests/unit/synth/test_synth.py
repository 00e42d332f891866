"""qfed synth from a configuration to an evaluation: what is charged, written, said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qfed.config import load_config
from qfed.errors import BudgetExhausted, ConfigError, DataError
from qfed.generative.release import Release
from qfed.generative.synthesizer import Synthesizer
from qfed.synth.evaluation import INDEPENDENT, PAIRWISE, REAL, evaluate
from qfed.synth.fidelity import margins_apart, nearest_records
from qfed.synth.fitting import fit_source
from qfed.synth.page import fit_page, write_evaluation
from qfed.synth.records import Fitted, read_about, read_records, write_records
from qfed.synth.source import NO_PRIVACY

TABLE = """
name = "cells"
[data]
source = "breast_cancer"
[coding]
columns = ["mean radius", "mean texture", "mean concavity", "worst area"]
levels = [0.3]
[synth]
generator = "pairwise"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "cells.toml").write_text(TABLE)
    return tmp_path / "cells.toml"


def said(renderable: object) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.capture() as captured:
        console.print(renderable)
    console.file.close()
    return captured.get()


def test_a_release_made_here_is_charged_and_a_second_one_refused(config: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "book.db"
    fit = fit_source(config, [], ledger=ledger, out=tmp_path / "one")
    statement = fit.model.synthesizer.release.privacy
    assert statement["mode"] == "local"
    assert 2.9 < statement["epsilon"] <= 3.0
    assert statement["secure_aggregation"].startswith("none needed")
    assert "epsilon 3 of 3 spent" in fit.told
    with pytest.raises(BudgetExhausted):
        fit_source(config, [], ledger=ledger, out=tmp_path / "two")
    assert not (tmp_path / "two" / "model.json").exists()
    again = fit_source(tmp_path / "one", ["synth.generator=independent"], ledger=ledger, out=tmp_path / "two")
    assert again.told.endswith("nothing more is spent")  # another fit of the same release is post-processing
    np.testing.assert_array_equal(
        again.model.synthesizer.release.parts[0].pairs, fit.model.synthesizer.release.parts[0].pairs
    )
    more = fit_source(config, [], ledger=ledger, budget=6.0, out=tmp_path / "three")
    assert "of 6 spent" in more.told


def own_table(folder: Path, rows: list[str]) -> Path:
    """A configuration of an own CSV file: numbers, categories, empty cells, two classes."""
    (folder / "own.csv").write_text("age,smoker,sick\n" + "\n".join(rows) + "\n", encoding="utf-8")
    config = folder / "own.toml"
    config.write_text(
        f"""[data]
source = "{folder / "own.csv"}"
columns = [{{name = "age", low = 18, high = 100, missing = 50}},
           {{name = "smoker", categories = ["never", "former", "current"], missing = "never"}}]
target = {{name = "sick", classes = ["no", "yes"]}}
[synth]
generator = "pairwise"
""",
        encoding="utf-8",
    )
    return config


ROWS = [f"{20 + k % 70},{('never', 'former', 'current', '')[k % 4]},{('no', 'yes')[k % 2]}" for k in range(200)]


def test_a_file_that_does_not_fit_the_schema_costs_nothing(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    for wrong in ("33,vaping,no", "33,never,maybe", "33,never,", "old,never,no"):
        config = own_table(tmp_path, [*ROWS, wrong])
        with pytest.raises(DataError, match="row 201"):
            fit_source(config, [], ledger=ledger, out=tmp_path / "fit")
    with pytest.raises(DataError, match="has 1 record: at least 2 are needed"):
        fit_source(own_table(tmp_path, ROWS[:1]), [], ledger=ledger, out=tmp_path / "fit")
    with pytest.raises(DataError, match="zero rows"):
        fit_source(own_table(tmp_path, []), [], ledger=ledger, out=tmp_path / "fit")
    config = own_table(tmp_path, [*ROWS, ",former,no", "140,former,no"])  # filled in; clipped to the public range
    assert "epsilon 3 of 3 spent" in fit_source(config, [], ledger=ledger, out=tmp_path / "fit").told
    with pytest.raises(BudgetExhausted, match=r"epsilon 3 of 3 spent.*qfed synth fit FOLDER"):
        fit_source(config, [], ledger=ledger, out=tmp_path / "again")


def test_a_constant_column_is_simulated_as_one(tmp_path: Path) -> None:
    config = own_table(tmp_path, [f"30,{row.split(',', 1)[1]}" for row in ROWS])
    fitted = fit_source(config, [], ledger=tmp_path / "ledger.db", out=tmp_path / "fit").model
    ages = fitted.draw(500, np.random.default_rng(0)).x[:, 0]
    assert (ages < 0).mean() > 0.9  # below the middle of 18 to 100


def test_noise_is_that_of_the_statement(config: Path, tmp_path: Path) -> None:
    exact = fit_source(config, [], no_privacy=True, out=tmp_path / "exact").model.synthesizer.release
    off = []
    for trial in range(12):
        fit = fit_source(config, ["privacy.epsilon=0.5"], ledger=tmp_path / f"{trial}.db", out=tmp_path / str(trial))
        noisy = fit.model.synthesizer.release
        for ours, truth in zip(noisy.parts, exact.parts, strict=True):
            apart = ours.correlations * ours.records - truth.correlations * truth.records
            off += list(apart[np.triu_indices(len(apart), 1)])
            stddev = 2 * ours.stddev
    assert 0.75 * stddev < np.std(off) < 1.25 * stddev


def test_exact_counts_need_to_be_asked_for_and_are_called_so_everywhere(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--no-privacy"):
        fit_source(config, ["privacy.mode=off"], out=tmp_path / "fit")
    fit = fit_source(config, [], no_privacy=True, out=tmp_path / "fit")
    assert fit.told == NO_PRIVACY
    assert NO_PRIVACY in said(fit_page(fit.model, fit.told))
    with pytest.raises(ConfigError, match="exact counts"):
        fit_source(tmp_path / "fit", [], out=tmp_path / "other")
    records = fit.model.draw(300, np.random.default_rng(0))
    _, side = write_records(fit.model, records, tmp_path / "s.csv")
    assert json.loads(side.read_text())["privacy"]["mode"] == "off"
    found = evaluate(tmp_path / "s.csv", quick=True)
    for path in write_evaluation(found, tmp_path / "ev"):
        if path.suffix == ".html":
            assert NO_PRIVACY in path.read_text()
        if path.suffix == ".json":
            assert json.loads(path.read_text())["privacy"]["mode"] == "off"


@pytest.mark.parametrize("name", ["s.csv", "s.parquet"])
def test_samples_are_records_of_the_schema(config: Path, tmp_path: Path, name: str) -> None:
    fit_source(config, [], no_privacy=True, out=tmp_path / "fit")
    fitted = Fitted.load(tmp_path / "fit")
    records = fitted.draw(200, np.random.default_rng(0))
    np.testing.assert_array_equal(records.x, fitted.draw(200, np.random.default_rng(0)).x)
    write_records(fitted, records, tmp_path / name)
    about, settings = read_about(tmp_path / name)
    again = read_records(tmp_path / name, fitted.coding)
    np.testing.assert_allclose(again.x, records.x, atol=1e-5)
    np.testing.assert_array_equal(again.y, records.y)
    assert settings.coding == fitted.config.coding
    assert about["records"] == 200
    (tmp_path / "s.json").unlink()
    with pytest.raises(ConfigError, match=r"no s\.json beside it"):
        read_about(tmp_path / name)


def test_an_evaluation_stands_beside_the_classical_fits(config: Path, tmp_path: Path) -> None:
    fit_source(config, [], no_privacy=True, out=tmp_path / "fit")
    steps: list[tuple[int, int]] = []
    found = evaluate(tmp_path / "fit", records=600, quick=True, progress=lambda *step: steps.append(step))
    assert [row.name for row in found.rows] == [REAL, "simulated (pairwise)", INDEPENDENT, PAIRWISE]
    assert steps[-1] == (4, 4)
    real, simulated = found.rows[:2]
    assert real.tvd2 == 0
    assert simulated.tvd2 < 0.05
    assert set(simulated.scores) == {"forest", "linear", "hybrid"}
    assert 0.35 < found.nearest.share < 0.65
    tree = found.to_dict()
    assert json.loads(json.dumps(tree, allow_nan=False))["rows"][1]["tvd2"] == simulated.tvd2
    with pytest.raises(ConfigError, match="neither a folder"):
        evaluate(tmp_path / "nothing.txt")
    with pytest.raises(ConfigError, match="leave --real out"):
        evaluate(tmp_path / "fit", real=tmp_path / "real.csv")


def test_a_copy_of_the_counted_records_is_found_out() -> None:
    rng = np.random.default_rng(0)
    counted, held_out = rng.integers(0, 2, (2, 300, 16)).astype(np.uint8)
    fresh = rng.integers(0, 2, (400, 16)).astype(np.uint8)
    copied = nearest_records(counted, counted, held_out, rng)
    assert copied.identical == 1
    assert copied.share > 0.9 > copied.high
    honest = nearest_records(fresh, counted, held_out, rng)
    assert honest.low <= honest.share <= honest.high
    assert margins_apart(counted, counted) == (0, 0)
    assert margins_apart(counted, np.zeros_like(counted))[0] == pytest.approx(counted.mean(), abs=1e-9)


def test_hidden_units_are_local_and_said_to_protect_nobody(config: Path, tmp_path: Path) -> None:
    rbm = ["synth.generator=rbm", "synth.hidden=3", "synth.steps=5", "synth.reads=20"]
    with pytest.raises(ConfigError, match=r"trains on the records themselves and protects nobody; say --no-privacy"):
        fit_source(config, rbm, out=tmp_path / "fit")
    fit = fit_source(config, rbm, no_privacy=True, out=tmp_path / "fit")
    assert NO_PRIVACY in said(fit_page(fit.model, fit.told))
    assert Fitted.load(tmp_path / "fit").draw(40, np.random.default_rng(0)).x.shape == (40, 4)


def test_a_folder_that_holds_no_release_is_told(config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no statistics\.json"):
        fit_source(tmp_path / "empty", [], out=tmp_path / "fit")
    fit_source(config, [], no_privacy=True, out=tmp_path / "fit")
    with pytest.raises(ConfigError, match="codes 6 bits other than the 5"):
        fit_source(
            tmp_path / "fit", ["coding.thresholds={'mean radius' = [10, 20]}"], no_privacy=True, out=tmp_path / "x"
        )


def test_a_synthesizer_keeps_the_classes_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (1000, 4)).astype(np.uint8)
    bits[:, 3] = rng.random(1000) < 0.2
    bits[:, 0] = bits[:, 3]
    release = Release.exact(bits, list("abcy"), ["y"], np.array([[0], [1]]))
    synthesizer = Synthesizer.fit(load_config(None).synth, release, rng, name="independent")
    sample = synthesizer.sample(5000, rng)
    assert sample[:, 3].mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_array_equal(sample[:, 0], sample[:, 3])
    with pytest.raises(ConfigError, match="at least one record"):
        synthesizer.sample(0, rng)
