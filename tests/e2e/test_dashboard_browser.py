"""The dashboard in a real browser, over a real socket: it is read at a glance, follows a run, and asks nobody else."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from dashboard_desk import NOW, Desk, add_run
from deployed import QFED, Deployment, free_port, until
from real_browser import DESKTOP, PHONE, open_browser, set_screen
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from qfed.report import units
from qfed_server.dashboard import make_app
from qfed_server.dashboard.gate import COOKIE
from qfed_server.status import SiteStatus

pytestmark = pytest.mark.e2e
SHOTS = os.environ.get("QFED_SCREENSHOTS")
"""Where screenshots are kept, if anywhere."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@contextmanager
def served(desk: Desk, **options: Any) -> Iterator[str]:
    """The dashboard over a desk on a loopback port; its address."""
    port = free_port()
    app = make_app(desk.data, desk.seen, desk, clock=lambda: desk.now, **options)
    config = uvicorn.Config(app, port=port, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until("the dashboard to answer", lambda: server.started or not thread.is_alive(), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    sites = [SiteStatus(f"site-{i:02d}", i, "online", NOW - 2, "0.1.0", True) for i in range(5)]
    sites[3] = replace(sites[3], status="offline", last_seen=NOW - 200, joined=False)
    desk = Desk(tmp_path, sites=sites)
    add_run(tmp_path, "9f2c41d0", "running")
    add_run(tmp_path, "a1b2c3d4", "completed")
    return desk


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def sign_in(browser: webdriver.Chrome, address: str, data: Path) -> None:
    """Through the form."""
    browser.delete_all_cookies()
    browser.get(address + "/")
    browser.find_element(By.ID, "token").send_keys((data / "token").read_text().strip() + Keys.ENTER)
    until("the overview", lambda: browser.find_elements(By.ID, "health"))


def console(browser: webdriver.Chrome) -> list[str]:
    """What the console complains of; a hint on password managers is none."""
    return [entry["message"] for entry in browser.get_log("browser") if "goo.gl/9p2vKq" not in entry["message"]]


def words(browser: webdriver.Chrome, selector: str) -> str:
    """The text of an element, read in one go: the page may replace it meanwhile."""
    text = browser.execute_script("return document.querySelector(arguments[0])?.innerText", selector)
    return (text or "").replace(units.NBSP, " ").strip()


def assert_fits(browser: webdriver.Chrome) -> None:
    """Nothing is wider than the screen but what scrolls by itself."""
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => !e.parentElement.closest('.scroll, pre, svg') && !e.matches('.skip'))"
        ".filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)"
        ".map(e => e.outerHTML.slice(0, 90))"
    )
    assert wide == []


def shot(browser: webdriver.Chrome, name: str) -> None:
    if SHOTS:
        browser.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_every_page_fits_and_asks_nobody_else(
    browser: webdriver.Chrome, desk: Desk, screen: tuple[int, int, bool]
) -> None:
    with served(desk, admin=True) as address:
        set_screen(browser, screen)
        sign_in(browser, address, desk.data)
        for path in ("/", "/runs", "/runs/9f2c41d0", "/runs/a1b2c3d4", "/audit", "/submit", "/nothing"):
            console(browser)
            browser.get_log("performance")
            browser.get(address + path)
            shot(browser, f"{'phone' if screen[2] else 'desktop'}{path.replace('/', '-')}")
            assert_fits(browser)
            logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
            asked = [e["params"]["request"]["url"] for e in logged if e["method"] == "Network.requestWillBeSent"]
            assert asked
            assert all(url.startswith(address) for url in asked), asked
            complaints = [line for line in console(browser) if "404" not in line or path != "/nothing"]
            assert complaints == [], "the content-security policy must have nothing to refuse"


def test_the_first_screen_tells_everything(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        assert words(browser, "#health h1") == "Worth a look: 4 of 5 sites online, breast-cancer in round 8 of 12"
        for selector in ("#health", "#federation .map.wide", "#current .figures"):
            element = browser.find_element(By.CSS_SELECTOR, selector)
            assert element.is_displayed(), selector
            assert element.location["y"] + element.size["height"] <= DESKTOP[1], selector
        marks = browser.find_elements(By.CSS_SELECTOR, ".map.wide .site-offline text")
        assert [mark.text.replace(units.NBSP, " ") for mark in marks] == ["site-03", "away, 3 min ago"]
        assert len(browser.find_elements(By.CSS_SELECTOR, ".map.wide .link-joined")) == 4


def test_dark_is_dark_and_states_differ_without_colour(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        set_screen(browser, DESKTOP, dark=True)
        sign_in(browser, address, desk.data)
        shot(browser, "dark")
        style = "const s = getComputedStyle(document.querySelector(arguments[0])); return s[arguments[1]]"
        background = browser.execute_script(style, "body", "backgroundColor")
        assert sum(map(int, background[4:-1].split(","))) < 120
        path = "return document.querySelector(arguments[0]).getAttribute('d').replace(/[\\d.]+/g, '')"
        online = browser.execute_script(path, ".map.wide .site-online path")
        assert online != browser.execute_script(path, ".map.wide .site-offline path"), "a tick and a cross"
        set_screen(browser, DESKTOP)


def test_a_run_is_followed_without_a_reload(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        browser.get(address + "/runs/9f2c41d0")
        browser.execute_script("window.same = true")
        browser.find_element(By.CSS_SELECTOR, "#config summary").click()
        assert words(browser, "#tile-rounds .value") == "7 of 12"
        later = add_run(desk.data / "later", "9f2c41d0", "running", done=9)
        for name in ("checkpoint.npz", "events.jsonl"):
            (later / name).replace(desk.data / "runs" / "9f2c41d0" / name)
        until("the ninth round", lambda: words(browser, "#tile-rounds .value") == "9 of 12", 30)
        assert browser.execute_script("return window.same"), "the page was not loaded anew"
        assert words(browser, "#live") == "Live"


def test_a_lost_connection_is_told_and_found_again(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        until("the first look", lambda: words(browser, "#live") == "Live", 30)
        browser.execute_cdp_cmd("Network.enable", {})
        cut = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", cut)
        try:
            until("the loss to be told", lambda: "what you see is old" in words(browser, "#live"), 30)
        finally:
            back = {**cut, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", back)
        until("news again", lambda: words(browser, "#live") == "Live", 30)


def test_it_works_without_script(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            sign_in(browser, address, desk.data)
            assert browser.find_element(By.CSS_SELECTOR, "#health h1").is_displayed()
            assert browser.find_elements(By.CSS_SELECTOR, "noscript meta[http-equiv=refresh]")
            browser.find_element(By.LINK_TEXT, "Audit trail").click()
            assert words(browser, "h1") == "Audit trail"
        finally:
            browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk, admin=True) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        browser.get(address + "/runs/9f2c41d0")
        reached = []
        for _ in range(40):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            held = browser.switch_to.active_element
            if held.tag_name == "body":
                break
            reached.append(held.get_attribute("aria-label") or held.text.strip())
            outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", reached[-1]
        for what in ("Skip to the content", "Overview", "Sign out", "Stop this run", "Table of rounds"):
            assert what in reached, reached


def test_an_administrator_stops_a_run_by_two_clicks(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk, admin=True) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        browser.get(address + "/runs/9f2c41d0")
        button = browser.find_element(By.CSS_SELECTOR, ".stop button")
        assert not button.is_displayed(), "not by one slip"
        browser.find_element(By.CSS_SELECTOR, ".stop summary").click()
        button.click()
        until("the order", lambda: desk.asked == [("stop", "9f2c41d0")], 20)


def test_the_cookie_is_hidden_and_signing_out_ends_it(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        assert browser.execute_script("return document.cookie") == ""
        (cookie,) = (each for each in browser.get_cookies() if each["name"] == COOKIE)
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        browser.find_element(By.CSS_SELECTOR, ".out button").click()
        until("the sign-in page", lambda: browser.find_elements(By.ID, "token"))
        browser.get(address + "/runs")
        assert browser.find_elements(By.ID, "token")


def test_a_page_of_somebody_else_cannot_use_the_session(browser: webdriver.Chrome, desk: Desk, tmp_path: Path) -> None:
    with served(desk, admin=True) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        evil = tmp_path / "evil.html"
        evil.write_text(
            f'<iframe src="{address}/"></iframe><form method="post" action="{address}/runs/9f2c41d0/stop">'
            '<input name="form" value="x"><button id="go">win a prize</button></form>'
        )
        browser.get(evil.as_uri())
        browser.find_element(By.ID, "go").click()
        until("an answer", lambda: "403" in browser.page_source, 20)
        assert desk.asked == []


def test_the_reports_page_opens_in_its_sandbox(browser: webdriver.Chrome, desk: Desk) -> None:
    with served(desk) as address:
        set_screen(browser, DESKTOP)
        sign_in(browser, address, desk.data)
        browser.get(address + "/runs/a1b2c3d4")
        browser.find_element(By.LINK_TEXT, "Open the report").click()
        until("the report", lambda: words(browser, "h1") == "qfed report", 20)


def test_a_real_run_is_shown_as_it_goes(browser: webdriver.Chrome, tmp_path: Path) -> None:
    with Deployment(tmp_path) as lab:
        lab.start_server()
        port = free_port()
        lab.start("dashboard", [QFED, "dashboard", "--data", lab.data, "--port", str(port), "--admin"])
        until("the dashboard to answer", lambda: answers(port))
        address = f"http://127.0.0.1:{port}"
        set_screen(browser, DESKTOP)
        sign_in(browser, address, lab.data)
        assert words(browser, "#health h1") == "Worth a look: 0 of 3 sites online, no run under way"
        lab.start_sites()
        until("all sites", lambda: words(browser, "#health h1").startswith("All is well: 3 of 3 sites online"), 60)
        run = lab.submit()
        until("the run", lambda: browser.find_elements(By.CSS_SELECTOR, "#current .badge-running"), 60)
        shot(browser, "real-running")
        assert lab.wait(run) == "completed", lab.log("server")
        until("its end", lambda: browser.find_elements(By.CSS_SELECTOR, "#current .badge-completed"), 60)
        browser.get(f"{address}/runs/{run}")
        assert words(browser, "#tile-rounds .value") == "2 of 2"
        assert words(browser, "#tile-epsilon .value") == "3.00"
        assert len(browser.find_elements(By.CSS_SELECTOR, "#figure-epsilon svg")) == 2
        shot(browser, "real-over")
        lab.kill("server")
        browser.get(address + "/")
        assert words(browser, "#health h1").startswith("Needs you: the server does not answer")
