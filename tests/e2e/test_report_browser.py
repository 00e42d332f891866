"""The report in a real browser, opened from disk with the network cut: it shows the result and asks nobody."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_browser import DESKTOP, PHONE, open_browser, set_screen
from selenium import webdriver
from selenium.webdriver.common.by import By

from qfed.federation.result import RunResult
from qfed.report import units, write_report
from qfed.report.page import tiles

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def make_result() -> Any:
    """`make_result` of the unit tests' report_samples.py."""
    path = Path(__file__).parents[1] / "unit" / "report" / "report_samples.py"
    spec = importlib.util.spec_from_file_location("report_samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_result


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as chrome:
        chrome.execute_cdp_cmd("Network.enable", {})
        cut = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        chrome.execute_cdp_cmd("Network.emulateNetworkConditions", cut)
        yield chrome


def show(browser: webdriver.Chrome, page: Path, screen: tuple[int, int, bool], *, dark: bool = False) -> list[str]:
    """Open a page on a screen and return what it asked for."""
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    set_screen(browser, screen, dark=dark)
    browser.get(page.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def assert_sound(browser: webdriver.Chrome, page: Path, screen: tuple[int, int, bool], *, dark: bool = False) -> None:
    """Nothing asked for but the page, a silent console, figures of some size, nothing wider than the screen."""
    assert show(browser, page, screen, dark=dark) == [page.as_uri()]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return innerWidth") == screen[0]
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => !e.parentElement.closest('.scroll, pre, svg'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(e => e.outerHTML.slice(0, 90))"
    )
    assert wide == []
    root = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert browser.execute_script(root) == 0
    drawn = [svg.size for svg in browser.find_elements(By.CSS_SELECTOR, "figure > svg") if svg.is_displayed()]
    figures = len(browser.find_elements(By.CSS_SELECTOR, "figure:has(> svg)"))
    assert figures >= 2
    assert len(drawn) == figures, "of the two sizes of each plot exactly one is shown"
    assert all(size["width"] > 200 and size["height"] > 120 for size in drawn), drawn


@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"private": False, "secagg": False},
        {"task": "regression", "sites": 4},
        {"sites": 1000},
        {"name": "a" * 300, "comparisons": (), "status": "stopped"},
    ],
    ids=["plain", "off", "regression", "thousand", "long"],
)
def test_it_opens_anywhere_and_asks_nobody(
    browser: webdriver.Chrome, make_result: Any, tmp_path: Path, changes: dict[str, Any], screen: tuple[int, int, bool]
) -> None:
    result: RunResult = make_result(**changes)
    assert_sound(browser, write_report(result, tmp_path), screen)
    for tile in tiles(result):
        shown = browser.find_element(By.CSS_SELECTOR, f"#tile-{tile.key} .value")
        assert shown.is_displayed()
        assert shown.text.replace(units.NBSP, " ") == tile.value.replace(units.NBSP, " ")
    banners = [b for b in browser.find_elements(By.CSS_SELECTOR, ".notice.alarm") if b.is_displayed()]
    assert len(banners) == (2 if "private" in changes else 0)


def test_the_first_screen_tells_score_epsilon_and_verdict(
    browser: webdriver.Chrome, make_result: Any, tmp_path: Path
) -> None:
    show(browser, write_report(make_result(), tmp_path), DESKTOP)
    assert browser.find_element(By.ID, "tile-score").text.replace(units.NBSP, " ").startswith("Accuracy\n94.7 %\n")
    assert browser.find_element(By.ID, "tile-epsilon").text.startswith("Epsilon spent\n3.00\n")
    for selector in ("#sentence", ".tiles", ".verdicts .first"):
        element = browser.find_element(By.CSS_SELECTOR, selector)
        assert element.location["y"] + element.size["height"] <= DESKTOP[1], selector
    verdict = browser.find_element(By.CSS_SELECTOR, ".verdicts .first h3").text.replace(units.NBSP, " ")
    assert verdict == "The hybrid model loses to its classical twin by 0.9 points"


def test_dark_mode_is_dark_and_paper_is_light(browser: webdriver.Chrome, make_result: Any, tmp_path: Path) -> None:
    page = write_report(make_result(), tmp_path)
    style = "const s = getComputedStyle(document.querySelector(arguments[0])); return s[arguments[1]]"

    def brightness(selector: str, what: str) -> int:
        colour = browser.execute_script(style, selector, what)
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])

    assert_sound(browser, page, DESKTOP, dark=True)
    assert brightness("body", "backgroundColor") < 120
    assert brightness("body", "color") > 600
    assert brightness("#figure-score svg.wide text", "fill") > 400, "the plot's text follows"
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert brightness("body", "backgroundColor") == 765
        assert brightness("body", "color") < 150
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_folded_parts_open_without_script(browser: webdriver.Chrome, make_result: Any, tmp_path: Path) -> None:
    show(browser, write_report(make_result(sites=1000), tmp_path), DESKTOP)
    last = browser.find_element(By.XPATH, "//th[text()='site-999']")
    assert not last.is_displayed()
    browser.find_element(By.XPATH, "//summary[starts-with(., 'All 1,000')]").click()
    assert last.is_displayed()


def test_a_hostile_name_runs_nothing(browser: webdriver.Chrome, make_result: Any, tmp_path: Path) -> None:
    hostile = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    page = write_report(make_result(name=hostile), tmp_path)
    assert_sound(browser, page, PHONE)
    assert browser.find_element(By.TAG_NAME, "h1").text == hostile
    assert browser.title == f"{hostile}: qfed report"
