"""report.html without a browser: well-formed, self-contained, escaped, deterministic, complete."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from qfed.errors import ConfigError, MissingExtra
from qfed.federation.result import Dropout, RunResult
from qfed.report import units, write_report
from qfed.report.page import render, tiles
from qfed.report.plots import main_curve

Make = Callable[..., RunResult]
VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&\"'{{7*7}}{% raw %}$\\frac{x}$"


class Page(HTMLParser):
    """Tags, attributes and text of a page; balance is checked while parsing."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._see(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._see(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def _see(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        for name, value in attrs:
            assert not name.startswith("on")
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")


VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "off": {"private": False, "secagg": False},
    "regression": {"task": "regression", "sites": 4},
    "bare": {"comparisons": (), "failed": (), "drops": False, "seconds": {}, "initial": None},
    "thousand": {"sites": 1000},
    "one round": {"rounds": 1, "failed": ()},
    "all failed": {"rounds": 3, "failed": (1, 2, 3), "status": "stopped"},
    "deployed": {"rounds": 100, "failed": ()},
}


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def source(request: pytest.FixtureRequest, make_result: Make) -> str:
    return render(make_result(**VARIANTS[request.param]))


def test_it_is_well_formed_and_asks_nobody(source: str) -> None:
    page = Page(source)
    assert source.startswith('<!doctype html>\n<html lang="en">')
    assert not {"script", "link", "img", "iframe", "object", "image", "base", "form"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids)), "an id occurs twice"
    for tag, name, value in page.attributes:
        if name in {"href", "src", "xlink:href", "clip-path", "action", "srcset"}:
            found = re.fullmatch(r"#(.+)|url\(#(.+)\)", value)
            assert found is not None, (tag, name, value)
            assert (found[1] or found[2]) in page.ids
        if name in {"aria-labelledby", "aria-describedby"}:
            assert value in page.ids
    assert "url(" not in re.sub(r"url\(#[\w.-]+\)", "", source)
    assert "@import" not in source
    assert "@font-face" not in source
    assert set(re.findall(r"https?://[^\"\s<]*", source)) <= {"http://www.w3.org/2000/svg"}


def test_it_is_accessible(source: str) -> None:
    page = Page(source)
    assert page.tags["h1"] == page.tags["main"] == page.tags["title"] == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels)), "a level is skipped"
    assert page.tags["caption"] == page.tags["table"] > 4
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    svgs = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert svgs
    for attributes in svgs:
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])


def test_plots_follow_the_page(source: str) -> None:
    svgs = re.findall(r"<svg class=\"(?:wide|narrow)\".*?</svg>", source, flags=re.DOTALL)
    assert len(svgs) in (4, 6)
    for svg in svgs:
        assert "<text" in svg, "text stays text"
        assert "var(--" in svg
        assert "font-family" not in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000", "#ffffff"}, (
            "a colour that dark mode cannot change"
        )
        assert not re.search(r"<text[^>]*(fill|stroke): #", svg)


def test_hostile_texts_are_shown_and_not_obeyed(make_result: Make) -> None:
    result = make_result(
        name=HOSTILE,
        run=HOSTILE,
        versions={HOSTILE: HOSTILE},
        seconds={HOSTILE: 1.0, "total": 2.0},
    )
    rounds = list(result.rounds)
    rounds[0] = rounds[0].model_copy(
        update={"seconds": {HOSTILE: 1.0}, "dropouts": tuple(Dropout(site=HOSTILE, reason=HOSTILE) for _ in range(8))}
    )
    statement = result.privacy.model_copy(
        update=dict.fromkeys(("unit", "adjacency", "accountant", "trust", "secure_aggregation"), HOSTILE)
        | {"not_covered": (HOSTILE,)}
    )
    result = result.model_copy(
        update={
            "rounds": tuple(rounds),
            "privacy": statement,
            "sites": tuple(site.model_copy(update={"name": HOSTILE}) for site in result.sites),
            "comparisons": tuple(c.model_copy(update={"label": HOSTILE}) for c in result.comparisons),
            "config": result.config.model_copy(
                update={"data": result.config.data.model_copy(update={"source": HOSTILE})}
            ),
        }
    )
    source = render(result)
    page = Page(source)
    assert page.tags["script"] == page.tags["img"] == 0
    # title, h1, sentence, run, version twice, 2 phases, drops (8 names, a reason), 6 of the statement, 10 sites,
    # 3 labels in legend and table
    assert page.text.count(HOSTILE) >= 2 + 1 + 1 + 2 + 2 + 9 + 6 + 10 + 6


def test_same_result_same_bytes_in_another_process_too(make_result: Make, tmp_path: Path) -> None:
    result = make_result()
    first = write_report(result, tmp_path).read_bytes()
    assert write_report(result, tmp_path).read_bytes() == first
    (tmp_path / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
    code = (
        "import sys; from qfed.report import read_result, write_report\n"
        "write_report(read_result(sys.argv[1]), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120, env={"PYTHONHASHSEED": "3"})
    assert (tmp_path / "report.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "result.json"]


def test_drawing_leaves_matplotlib_as_it_was(make_result: Make) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render(make_result())
    assert dict(matplotlib.rcParams) == before


def test_tiles_show_the_results_figures(make_result: Make) -> None:
    found = {
        tile.key: (tile.value.replace(units.NBSP, " "), tile.note.replace(units.NBSP, " "))
        for tile in tiles(make_result())
    }
    assert found == {
        "score": ("94.7 %", "on 114 held-out records; 62.7 % before training"),
        "epsilon": ("3.00", "of 3 budgeted, with delta 1e−5"),  # noqa: RUF001
        "rounds": ("14 of 15", "9.71 of 10 sites in a good round on average; 1 round failed"),
        "bytes": ("59.7 kB", "sent and received; 3.98 kB a round"),
        "time": ("41 s", "whole run, comparisons included"),
    }


def test_banners_only_when_something_is_off(make_result: Make) -> None:
    assert 'class="notice' not in render(make_result())
    off = render(make_result(private=False, secagg=False))
    assert off.count('<div class="notice alarm"') == 2
    assert off.index("Differential privacy is OFF") < off.index('class="tiles"'), "before the figures"
    assert 'tile card loud" id="tile-epsilon"' in off
    assert "nothing was counted, because nothing was protected" in off


def test_many_sites_are_folded_under_a_summary(make_result: Make) -> None:
    many = render(make_result(sites=1000))
    summary, folded = many.index("1,000\N{NO-BREAK SPACE}sites over the whole run"), many.index("All 1,000")
    assert summary < folded < many.index(">site-999</th>")
    assert re.search(r"<details><summary>333.sites: no answer before the deadline</summary>site-00, ", many)
    assert "over the whole run</span></caption>" not in render(make_result(sites=20))


def test_rounds_name_who_dropped_out_and_why(make_result: Make) -> None:
    page = render(make_result())
    assert "<li>site-03: failed in training: DataError</li>" in page
    assert "<li>site-00, site-01, site-02: no answer before the deadline</li>" in page


def test_a_failed_round_keeps_the_score_of_its_model(make_result: Make) -> None:
    result = make_result(failed=(1, 8))
    rounds, scores = main_curve(result)
    assert rounds.tolist() == list(range(16))
    assert scores[0] == scores[1] == 0.627
    assert scores[8] == scores[7]
    assert result.rounds[6].metrics is not None
    assert scores[7] == result.rounds[6].metrics.score


def test_unknown_is_not_zero(make_result: Make) -> None:
    result = make_result()
    unknown = {"train_records": None, "test_records": None, "epsilon": None}
    sites = tuple(site.model_copy(update=unknown) for site in result.sites)
    page = render(result.model_copy(update={"sites": sites, "seconds": {}}))
    assert page.count('<td class="number">unknown</td>') == 3 * 10 + 2  # and score and loss of the failed round
    assert "not measured" in page


def test_configuration_and_versions_are_inside(make_result: Make) -> None:
    page = Page(render(make_result()))
    assert "[training]\nrounds = 15\n" in page.text
    assert "1.41.0" in page.text


@pytest.mark.parametrize(("module", "package"), [("jinja2", "jinja2"), ("matplotlib.figure", "matplotlib")])
def test_a_missing_extra_is_named_and_nothing_written(
    make_result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed; .*'qfed\[server\]'"):
        write_report(make_result(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(make_result: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        write_report(make_result(), tmp_path / "nowhere")


def test_importing_the_room_loads_neither_matplotlib_nor_jinja2() -> None:
    code = "import sys, qfed.report; assert not {'matplotlib', 'jinja2', 'torch', 'pennylane'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _palettes() -> dict[str, dict[str, str]]:
    css = (Path(__file__).parents[3] / "qfed" / "report" / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)")
    pattern = r"--([\w-]+): (#[0-9a-f]{6})"
    first = dict(re.findall(pattern, light))
    return {"light": first, "dark": first | dict(re.findall(pattern, dark.split("*, ::before")[0]))}


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio" and "relative luminance"."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrast(mode: str) -> None:
    colours = _palettes()[mode]
    text = [("ink", "page"), ("ink", "card"), ("ink", "soft"), ("muted", "page"), ("muted", "card"), ("alarm", "card"),
            ("banner-ink", "banner"), ("caution-ink", "caution")]  # fmt: skip
    lines = [
        (name, "card") for name in ("main", "twin", "non-private", "no-federation", "better", "worse", "up", "down")
    ]
    for front, back in text:
        assert _contrast(colours[front], colours[back]) >= 4.5, (front, back)
    for front, back in lines:
        assert _contrast(colours[front], colours[back]) >= 3, (front, back)
