"""What the pages say: one verdict, who is away, how far the run is, what was spent; no file breaks them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dashboard_desk import NOW, Browser, Desk

from qfed.config import load_config, to_toml
from qfed.federation.runfolder import RunFolder
from qfed.report import units

Add = Callable[..., Path]


def text(page: str) -> str:
    return page.replace(units.NBSP, " ")


def test_the_overview_tells_who_is_away_and_how_far_the_run_is(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    page = text(desk.client().get("/").text)
    assert "Worth a look: 4 of 5 sites online, breast-cancer in round 8 of 12" in page
    assert "Away: site-03 (last seen 3 min ago)" in page
    assert '<div class="big"><span class="value">7</span> of 12 rounds</div>' in page
    assert page.count('class="site site-online"') == 2 * 4, "one drawing for wide screens, one for phones"
    assert page.count('class="site site-offline"') == 2
    assert page.index("site-03</th>") < page.index("site-00</th>"), "who is away stands first"


def test_all_is_well_when_all_is_well(desk: Desk, run_of: Add) -> None:
    desk.sites = [site for site in desk.sites if site.status == "online"]
    run_of("9f2c41d0", "running")
    page = text(desk.client().get("/").text)
    assert "All is well: 4 of 4 sites online, breast-cancer in round 8 of 12" in page
    assert 'class="verdict good"' in page


def test_a_failed_run_says_why(desk: Desk, run_of: Add) -> None:
    why = "4 rounds in a row failed, the last because of: 2 of 5 sites answered, 4 are needed"
    run_of("deadbeef", "failed", why=why)
    client = desk.client()
    page = text(client.get("/").text)
    assert 'class="verdict alarm"' in page
    assert f"breast-cancer failed 60 s ago: {why}" in page
    assert why in client.get("/runs/deadbeef").text


def test_the_run_page_shows_figures_plots_and_drops(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    page = text(desk.client().get("/runs/9f2c41d0").text)
    assert '<dd class="value">7 of 12</dd>' in page
    assert page.count('role="img" aria-label="Line plot') == 2
    assert page.count('role="img" aria-label="Step plot') == 2
    assert "site-03: failed in training: DataError" in page
    assert page.count("at the site</td>") == 4
    assert page.count("4.50 of 10</td>") == 1, "of the site that tells it"
    assert ' style="' not in page, "the content-security policy allows no inline style"
    assert "<script>" not in page


def test_an_unknown_epsilon_is_not_a_zero(desk: Desk, run_of: Add) -> None:
    folder = run_of("9f2c41d0", "running")
    state = RunFolder(folder).checkpoint()
    bare = tuple(record.model_copy(update={"epsilon": None}) for record in state.rounds)
    RunFolder(folder).save(replace(state, rounds=bare))
    page = text(desk.client().get("/runs/9f2c41d0").text)
    assert '<dt>Epsilon spent</dt><dd class="value">not told</dd>' in page
    assert "Step plot" not in page


def test_downloads_are_what_lies_there_and_nothing_else(desk: Desk, run_of: Add) -> None:
    run_of("a1b2c3d4", "completed")
    (desk.data / "secret").write_text("secret")
    client = desk.client()
    model = client.get("/runs/a1b2c3d4/files/model.npz")
    assert model.content == b"weights"
    assert model.headers["content-disposition"] == 'attachment; filename="a1b2c3d4-model.npz"'
    report = client.get("/runs/a1b2c3d4/files/report.html")
    assert "qfed report" in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]
    for path in ("checkpoint.npz", "state.json", "../../secret", "%2e%2e%2f%2e%2e%2fsecret", "model.json"):
        assert client.get(f"/runs/a1b2c3d4/files/{path}").status_code == 404, path
    for run in ("%2e%2e", "witness", "none", ".hidden"):
        assert client.get(f"/runs/{run}").status_code == 404, run


@pytest.mark.parametrize("file", ["config.toml", "checkpoint.npz", "run.json", "result.json", "state.json"])
def test_a_damaged_folder_is_shown_and_breaks_nothing(desk: Desk, run_of: Add, file: str) -> None:
    folder = run_of("a1b2c3d4", "completed")
    (folder / file).write_bytes(b"{\x00 torn")
    client = desk.client()
    for path in ("/", "/runs", "/runs/a1b2c3d4", "/audit"):
        assert client.get(path).status_code == 200, path
    if file != "state.json":
        assert "its folder cannot be read" in client.get("/runs/a1b2c3d4").text


def test_a_run_that_has_not_begun_has_a_page(desk: Desk, run_of: Add) -> None:
    folder = run_of("9ueued", "queued", done=0)
    (folder / "checkpoint.npz").unlink()
    (folder / "run.json").unlink()
    page = text(desk.client().get("/runs/9ueued").text)
    assert "waiting for its turn" in page
    assert "No round is over yet." in page


def test_hostile_text_stays_text(desk: Desk, run_of: Add) -> None:
    from qfed_server.status import SiteStatus

    hostile = "<script>alert(1)</script>"
    folder = run_of("9f2c41d0", "failed", why=hostile, name=hostile)
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"t": NOW, "event": hostile, hostile: hostile}) + '\n{"t": "torn')
    desk.sites.append(SiteStatus(hostile, 9, "offline", NOW, hostile))
    client = desk.client()
    for path in ("/", "/runs", "/runs/9f2c41d0", "/audit"):
        page = client.get(path).text
        assert hostile not in page, path
        assert "&lt;script&gt;alert(1)" in page, path


def test_nothing_new_costs_no_bytes(desk: Desk, run_of: Add) -> None:
    folder = run_of("9f2c41d0", "running")
    client = desk.client()
    first = client.get("/runs/9f2c41d0")
    again = client.get("/runs/9f2c41d0", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    (folder / "state.json").write_text(json.dumps({"status": "stopped", "why": "stopped by the operator"}))
    changed = client.get("/runs/9f2c41d0", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert "stopped by the operator" in changed.text


def test_an_empty_directory_is_explained(desk: Desk) -> None:
    desk.sites = []
    page = desk.client().get("/").text
    assert "federation.json" in page
    assert "No run yet" in page


def test_a_server_that_is_away_is_an_alarm_and_the_disk_is_shown(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    desk.away = True
    client = desk.client()
    page = text(client.get("/").text)
    assert "Needs you: the server does not answer" in page
    assert "no server answers on control.sock; start it" in page
    assert client.get("/runs/9f2c41d0").status_code == 200


def test_epsilon_comes_from_what_the_sites_told_and_is_never_less(desk: Desk, run_of: Add) -> None:
    folder = run_of("9f2c41d0", "running")
    bare = RunFolder(folder).checkpoint()
    rounds = tuple(record.model_copy(update={"epsilon": None}) for record in bare.rounds)
    RunFolder(folder).save(replace(bare, rounds=rounds))
    (folder / "facts.json").write_text(json.dumps({"epsilon": [[12, 2.996], [5, 1.9], [10, 2.7]]}))
    page = text(desk.client().get("/runs/9f2c41d0").text)
    assert '<dt>Epsilon spent</dt><dd class="value">2.70</dd>' in page, "after round 7: that of round 10"


def test_the_audit_trail_has_sign_ins_and_runs_newest_first(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    client = desk.client(signed_in=False)
    client.post("/login", data={"token": "wrong"})
    desk.now += 10
    client.post("/login", data={"token": (desk.data / "token").read_text()})
    page = client.get("/audit").text
    order = [
        page.index(what) for what in ("signed in", "sign-in refused", "round 7 over", "round 1 over", "run submitted")
    ]
    assert order == sorted(order)
    older = client.get(f"/audit?before={NOW - 250}").text
    assert "run submitted" in older
    assert "round 1 over" not in older
    assert client.get("/audit?before=never").status_code == 400
    assert (desk.data / "dashboard.jsonl").stat().st_mode & 0o777 == 0o600


def test_mounted_below_a_path_all_links_keep_it(desk: Desk, run_of: Add) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from qfed_server.dashboard import MOUNT

    run_of("9f2c41d0", "running")
    outer = Starlette(routes=[Mount(MOUNT, desk.client(signed_in=False).app)])
    client = Browser(outer)
    assert client.post(MOUNT + "/login", data={"token": (desk.data / "token").read_text()}).status_code == 303
    page = client.get(MOUNT + "/").text
    assert "breast-cancer" in page
    assert all(link.startswith(MOUNT) for link in links(page)), links(page)
    assert client.get(MOUNT + "/static/style.css").status_code == 200


def links(page: str) -> list[str]:
    import re

    return re.findall(r'(?:href|src|action)="([^"]*)"', page.replace('href="#main"', ""))


def test_events_are_told_in_sentences(desk: Desk, run_of: Add) -> None:
    folder = run_of("9f2c41d0", "running")
    events = [
        {"t": NOW, "event": "joined", "sites": ["a", "b"], "refused": {"c": "epsilon=9 is too much"}},
        {"t": NOW, "event": "round", "round": 5, "status": "failed", "survivors": 0, "failure": "too few",
         "dropouts": {"c": "the site is not there"}, "scored": None, "epsilon": 1.5},
        {"t": NOW, "event": "round", "round": 6, "status": "aggregated", "survivors": 4, "failure": None,
         "dropouts": {}, "scored": {"round": 4, "score": 0.8123, "loss": 1.0}, "epsilon": 1.68385},
        {"t": NOW, "event": "round", "round": {}, "dropouts": 3, "scored": [], "epsilon": "x"},
    ]  # fmt: skip
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    page = text(desk.client().get("/audit").text)
    assert "a, b; not: c (epsilon=9 is too much)" in page
    assert "round 5 failed</th>" in page
    assert "too few; dropped out: c (the site is not there); epsilon 1.50" in page
    assert "sites 4; accuracy after round 4: 81.2 %; epsilon 1.69" in page


def test_a_run_that_has_too_few_sites_is_an_alarm(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    desk.sites = desk.sites[:2] + [replace(site, status="offline") for site in desk.sites[2:]]
    page = text(desk.client().get("/").text)
    assert "The run needs 4 sites and 2 are online." in page, "quorum 0.8 of 5 sites"
    assert 'class="verdict alarm"' in page


def test_a_release_of_counts_has_no_model_and_one_round(desk: Desk, run_of: Add) -> None:
    folder = run_of("c0ffee00", "running", done=1)
    config = load_config(None, ["kind=synthesize", "data.source=wine", "federation.sites=3", "synth.classes=together"])
    (folder / "config.toml").write_text(to_toml(config))
    page = text(desk.client().get("/runs/c0ffee00").text)
    assert "Release of pair counts, once, from wine" in page
    assert '<dd class="value">1 of 1</dd>' in page
    assert '<dt>Pair counts</dt><dd class="value">not yet</dd>' in page
    assert "no second try" in page
    assert desk.client().get("/").status_code == 200
