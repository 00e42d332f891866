"""The dry run of a site, and the settings that it begins with: what a person sees, and that nothing is left behind."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from small_runs import Lab, charges, small
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.config import DataBinding, RunConfig, load_site, to_toml
from qfed.data import embedded
from qfed.errors import ConfigError
from qfed.federation.site_draft import draft_site
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import plan_for
from qfed_client.check import Checked, check

NOON = datetime(2026, 3, 2, 12)


def wine(file: Path, *, spoilt: bool = False) -> None:
    """The embedded table as a hospital would have it: one value out of range, another cultivar's name if `spoilt`."""
    x, y = embedded.raw("wine")
    names = [column.name for column in embedded.COLUMNS["wine"]]
    lines = [",".join([*names, "cultivar"])]
    for number, (row, k) in enumerate(zip(x, y, strict=True)):
        cells = [repr(float(cell)) for cell in row]
        if number == 0:
            cells[0] = "99.0"
        lines.append(",".join([*cells, "merlot" if spoilt and number == 3 else f"class_{k}"]))
    file.write_text("\n".join(lines) + "\n")


def bound(lab: Lab, *, spoilt: bool = False, **policy: object) -> Path:
    folder = lab.site(0)
    wine(folder / "wine.csv", spoilt=spoilt)
    settings = load_site(folder / "site.toml")
    changed = {
        "data": DataBinding(source="wine.csv"),
        "policy": settings.policy.model_copy(update=policy),
        "dataset": "cellar",
    }
    (folder / "site.toml").write_text(to_toml(settings.model_copy(update=changed)))
    return folder


def checked(lab: Lab, config: RunConfig | None = None, **changes: object) -> Checked:
    folder = bound(lab, **changes)  # type: ignore[arg-type]
    file = lab.path / "run.toml"
    file.write_text(to_toml(config or lab.config))
    return check(folder, file, now=NOON)


def test_a_run_that_fits_is_timed_and_priced_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    folder = bound(lab)
    ledger = Ledger(folder / "ledger.db", Limits(10.0, 1e-5))
    plan = plan_for(lab.config)
    ledger.reserve("cellar", "before", 1, plan.per_round, planned_rounds=1, request=b"")  # type: ignore[attr-defined]
    spent = ledger.spent("cellar")
    ledger.close()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = checked(lab, epsilon=10.0)
    assert found.ok, found.problems
    assert (found.rows, found.columns[0].outside, found.columns[1].outside) == (178, 2, 0)  # 99.0, and one at the edge
    assert found.train is not None
    assert found.test is not None
    assert found.train + found.test == 178
    trial = found.trial
    assert trial is not None
    assert trial.seconds is not None
    assert trial.seconds > 0
    assert trial.spent == pytest.approx(spent)
    assert trial.committed is not None
    assert spent < trial.committed < 10.0
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in after} - {path.name for path in before} <= {"ledger.db-shm", "ledger.db-wal"}
    assert [row["run"] for row in charges(folder / "ledger.db")] == ["before"]


def test_what_would_be_refused_is_told_by_its_type(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    found = checked(lab, epsilon=1.0, hours="20:00-22:00")
    assert [problem.split(":")[0] for problem in found.problems] == ["ScheduleRefused", "EpsilonRefused"]
    assert found.trial is None
    found = checked(lab, spoilt=True, epsilon=3.0, hours=None)
    assert len(found.problems) == 1
    assert "'merlot' in row 4" in found.problems[0]
    assert found.train is None


def test_an_exhausted_budget_is_found_before_a_run_is(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    folder = bound(lab)
    plan = plan_for(lab.config)
    ledger = Ledger(folder / "ledger.db", Limits(3.0, 1e-5))
    ledger.reserve("cellar", "before", 1, plan.per_round, planned_rounds=2, request=b"")  # type: ignore[attr-defined]
    ledger.close()
    (problem,) = checked(lab).problems
    assert problem.startswith("BudgetExhausted")


def test_without_a_table_or_a_federation_the_way_out_is_told(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    file = tmp_path / "run.toml"
    file.write_text(to_toml(lab.config))
    with pytest.raises(ConfigError, match="binds no table"):
        check(lab.site(1), file, now=NOON)
    folder = bound(lab)
    (folder / "federation.json").unlink()
    with pytest.raises(ConfigError, match="qfed site join"):
        check(folder, file, now=NOON)


def test_the_command_shows_a_table_and_says_yes_or_no(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small())
    folder = bound(lab)
    (tmp_path / "run.toml").write_text(to_toml(lab.config))
    told = CliRunner().invoke(app, ["site", "check", "--site", str(folder), "--config", str(tmp_path / "run.toml")])
    assert told.exit_code == 0, told.output
    for part in ("178 records", "alcohol", "this site would take part", "budget of cellar", "sent to nobody"):
        assert part in told.output
    bound(lab, epsilon=1.0)
    told = CliRunner().invoke(app, ["site", "check", "--site", str(folder), "--config", str(tmp_path / "run.toml")])
    assert told.exit_code == 1
    assert "EpsilonRefused" in told.output
    told = CliRunner().invoke(app, ["site", "check", "--site", str(folder)])
    assert "alcohol (double)" in told.output


# -- the first site.toml ---------------------------------------------------------------------------------------------


def test_the_draft_is_valid_as_it_is_and_with_every_comment_taken_away(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(draft_site("ward-3"))
    plain = load_site(tmp_path / "site.toml")
    assert (plain.name, plain.dataset, plain.data, plain.server) == ("ward-3", "ward-3", None, None)
    whole = re.sub(r"^#(?=[\[a-z])", "", draft_site("ward-3"), flags=re.MULTILINE)
    for other in ("url_env", "table"):  # a table is in one place; the draft shows both
        whole = re.sub(rf"^{other} =.*\n", "", whole, flags=re.MULTILINE)
    (tmp_path / "site.toml").write_text(whole)
    full = load_site(tmp_path / "site.toml")
    assert full.server is not None
    assert full.data is not None
    assert full.policy.hours == "18:00-06:00"
    assert set(re.findall(r"^#([a-z_]+) =", draft_site("x").split("[policy]")[1], flags=re.MULTILINE)) == set(
        type(full.policy).model_fields
    ) - {"epsilon", "delta", "require_secagg"}, "every field of the policy is in the draft"


def test_init_writes_a_draft_once(tmp_path: Path) -> None:
    wine(tmp_path / "wine.csv")
    folder = tmp_path / "site"
    run = CliRunner()
    assert "give --name" in str(run.invoke(app, ["site", "init", str(folder)]).exception)
    told = run.invoke(app, ["site", "init", str(folder), "--name", "ward-3", "--data", str(tmp_path / "wine.csv")])
    assert told.exit_code == 0, told.output
    binding = load_site(folder / "site.toml").data
    assert binding is not None
    assert binding.source == str(tmp_path / "wine.csv")
    assert "exists already" in str(run.invoke(app, ["site", "init", str(folder), "--name", "x"]).exception)
