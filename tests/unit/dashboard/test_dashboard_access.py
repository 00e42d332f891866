"""Who gets in: the token, sessions that end, forms of our own pages only, no other name, no framing, no cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboard_desk import Browser, Desk

from qfed.errors import StateError
from qfed_server.dashboard import gate

Add = Callable[..., Path]


def form_token(client: Browser, path: str = "/") -> str:
    found = re.search(r'name="form" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def test_without_a_session_everything_leads_to_the_sign_in_page(desk: Desk, run_of: Add) -> None:
    run_of("a1b2c3d4", "completed")
    client = desk.client(signed_in=False)
    for path in ("/", "/runs", "/runs/a1b2c3d4", "/runs/a1b2c3d4/files/model.npz", "/audit"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        assert answer.content == b""


def test_the_token_is_made_once_for_its_owner_alone(desk: Desk) -> None:
    desk.client(signed_in=False)
    file = desk.data / "token"
    before = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(before.strip()) >= 40
    desk.client(signed_in=False)
    assert file.read_text() == before


def test_a_short_token_is_refused_at_the_start(desk: Desk) -> None:
    (desk.data / "token").write_text("hello")
    with pytest.raises(StateError, match="at least 20 characters"):
        desk.client(signed_in=False)


def test_a_wrong_token_gets_nothing_and_five_close_the_door_for_a_minute(desk: Desk) -> None:
    client = desk.client(signed_in=False)
    right = (desk.data / "token").read_text()
    for _ in range(gate.WRONG):
        assert client.post("/login", data={"token": right[:-2]}).status_code == 401
    closed = client.post("/login", data={"token": right})
    assert closed.status_code == 429
    assert closed.headers["retry-after"] == "60"
    assert "set-cookie" not in closed.headers
    desk.now += gate.WINDOW
    assert client.post("/login", data={"token": right}).status_code == 303


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(desk: Desk) -> None:
    client = desk.client(signed_in=False)
    answer = client.post("/login", data={"token": (desk.data / "token").read_text()})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (desk.data / "token").read_text().strip() not in answer.headers["set-cookie"]


@pytest.mark.parametrize(("steps", "step"), [(1, gate.IDLE), (17, gate.LONGEST / 16)], ids=["unused", "too old"])
def test_a_session_ends(desk: Desk, steps: int, step: float) -> None:
    client = desk.client()
    for _ in range(steps - 1):
        desk.now += step
        client.get("/")
    desk.now += step
    assert client.get("/").status_code == 303


def test_a_new_token_ends_all_sessions(desk: Desk) -> None:
    client = desk.client()
    assert client.get("/").status_code == 200
    (desk.data / "token").write_text("x" * 40)
    assert client.get("/").status_code == 303


def test_signing_out_ends_the_session_at_the_server(desk: Desk) -> None:
    client = desk.client()
    cookie = client.cookies[gate.COOKIE]
    assert client.post("/logout", data={"form": form_token(client)}).status_code == 303
    client.cookies.set(gate.COOKIE, cookie)
    assert client.get("/").status_code == 303


def test_read_only_means_that_the_forms_are_not_there(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    client = desk.client()
    page = client.get("/runs/9f2c41d0").text
    assert "Stop this run" not in page
    fields = {"form": form_token(client)}
    assert client.post("/runs/9f2c41d0/stop", data=fields).status_code == 404
    assert client.post("/submit", data=fields).status_code == 404
    assert desk.asked == []


def test_an_administrator_stops_and_submits_and_the_trail_says_so(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    client = desk.client(admin=True)
    form = form_token(client, "/runs/9f2c41d0")
    assert client.post("/runs/9f2c41d0/stop", data={"form": form}).status_code == 303
    sent = client.post("/submit", data={"form": form, "config": 'name = "x"\r\n'})
    assert sent.headers["location"] == "/runs/5ubm1tted"
    assert desk.asked == [("stop", "9f2c41d0"), ("submit", 'name = "x"\n')]
    refused = client.post("/submit", data={"form": form, "config": "refuse"})
    assert refused.status_code == 422
    assert "federation.sites=10, but the federation has 5 sites" in refused.text
    assert ">refuse</textarea>" in refused.text, "what was typed is not lost"
    trail = client.get("/audit").text
    for what in ("asked to stop a run", "submitted a run", "an action failed"):
        assert what in trail


def test_a_form_needs_the_sessions_own_token(desk: Desk, run_of: Add) -> None:
    run_of("9f2c41d0", "running")
    client = desk.client(admin=True)
    for fields in ({}, {"form": ""}, {"form": "x" * 43}):
        assert client.post("/runs/9f2c41d0/stop", data=fields).status_code == 403
    other = form_token(desk.client(admin=True))
    assert client.post("/runs/9f2c41d0/stop", data={"form": other}).status_code == 403
    assert desk.asked == []


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://localhost.evil.example"]
)
def test_a_form_of_another_page_is_refused(desk: Desk, run_of: Add, origin: str) -> None:
    run_of("9f2c41d0", "running")
    client = desk.client(admin=True)
    form = form_token(client)
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    assert client.post("/runs/9f2c41d0/stop", data={"form": form}, headers=headers).status_code == 403
    assert client.post("/login", data={"token": "x"}, headers=headers).status_code == 403
    assert desk.asked == []


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "10.0.0.5"]
)
def test_another_name_is_refused(desk: Desk, host: str) -> None:
    client = desk.client()
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "site-03" not in answer.text


def test_an_allowed_name_is_let_in(desk: Desk) -> None:
    client = desk.client(hosts=["qfed.hospital.example"])
    assert client.get("/", headers={"Host": "qfed.hospital.example:8765"}).status_code == 200
    for host in ("127.0.0.1:8765", "[::1]:8765", "LOCALHOST"):
        assert client.get("/", headers={"Host": host}).status_code == 200, host


def test_every_answer_carries_the_headers(desk: Desk) -> None:
    client = desk.client()
    for path in ("/", "/login", "/nothing", "/static/live.js", "/metrics"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), path
        assert "unsafe-inline" not in headers["content-security-policy"], path
        assert headers["x-frame-options"] == "DENY", path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] in {"no-store", "no-cache"}, path
    assert client.get("/static/nothing.js").status_code == 404


def test_odd_requests_are_refused_in_words(desk: Desk) -> None:
    client = desk.client()
    assert client.request("PUT", "/", content=b"x").status_code == 405
    assert client.post("/login", content=b"x" * 70_000).status_code == 413
    assert client.post("/login", content=b"\xff\xfe").status_code in {400, 401}
    assert client.post("/login", content=b"&".join(b"a=1" for _ in range(50))).status_code == 400


def test_machines_need_their_own_token(desk: Desk) -> None:
    client = desk.client()
    machine = {"Authorization": f"Bearer {(desk.data / 'metrics.token').read_text()}".strip()}
    assert client.get("/metrics").status_code == 401, "a session is not enough, or a page could be made to read it"
    login = {"Authorization": f"Bearer {(desk.data / 'token').read_text()}".strip()}
    assert client.get("/metrics", headers=login).status_code == 401
    assert client.get("/metrics", headers={**machine, "Host": "10.0.0.7:8765"}).status_code == 200


def test_post_without_origin_counts_only_from_the_same_site(desk: Desk) -> None:
    app = desk.client(signed_in=False).app
    bare = Browser(app, origin=None)
    token = {"token": (desk.data / "token").read_text()}
    assert bare.post("/login", data=token).status_code == 403
    assert bare.post("/login", data=token, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
