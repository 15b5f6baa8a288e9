"""The tear sheet as a reader meets it: in a real browser, on a desk, on a phone and in print."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster.tear_sheet.page import as_html
from stockpicker_dagster.tear_sheet.sections import sections
from stockpicker_dagster_tests.conftest import require
from stockpicker_dagster_tests.tear_sheet.invented import invented_sheet, invented_signal

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

WIDEST = (
    """Math.max(...[...document.querySelectorAll('svg.main-svg')].map((svg) => svg.getBoundingClientRect().width))"""
)
"""The width of the widest plot, in CSS pixels."""

CONTRASTS = """() => {
  const luminance = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const colour = parts(element instanceof SVGElement ? style.fill : style.color);
    const [low, high] = [luminance(colour), luminance(behind(element))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data.trim(), parseFloat(style.fontSize)]);
  }
  return found;
}"""
"""Contrast with what is behind it (1 to 21, as WCAG defines it), text and size in pixels, of every text on the page."""


@dataclass
class Seen:
    """A page that was opened, and what happened meanwhile."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def sheet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sheet") / "sheet.html"
    path.write_text(as_html(invented_sheet(signal=invented_signal())), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def seen(sheet_file: Path) -> Iterator[Seen]:
    require(importlib.util.find_spec("playwright"), "playwright (a browser's driver)")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    require(program, "a Chromium browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = Seen(browser.new_page(viewport=DESK))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.goto(sheet_file.as_uri())
        opened.page.wait_for_selector("html[data-drawn]", state="attached")
        yield opened
        browser.close()


def test_every_plot_is_drawn_without_a_request_or_a_complaint(seen: Seen, sheet_file: Path) -> None:
    wanted = [plot for section in sections(invented_sheet(signal=invented_signal())) for plot in section.plots]
    for plot in wanted:
        place = seen.page.locator(f"#plot-{plot.name}")
        assert place.locator("svg.main-svg").count() > 0, plot.name
        drawn = place.locator(".scatterlayer .trace, .barlayer .trace").count()
        assert drawn == len(plot.data), plot.name
        assert place.locator(".ytitle").text_content() == plot.layout["yaxis"]["title"]["text"]
    assert seen.page.locator(".waiting").count() == 0
    assert seen.requests == [sheet_file.as_uri()]
    assert seen.complaints == []


def test_every_plot_is_told_to_those_who_do_not_see_it(seen: Seen) -> None:
    labels = seen.page.eval_on_selector_all(
        ".plot", "places => places.map(place => [place.getAttribute('role'), place.getAttribute('aria-label')])"
    )
    assert len(labels) > 10
    assert all(role == "img" and len(label) > 60 for role, label in labels)
    assert seen.page.get_attribute("html", "lang") == "en"
    assert seen.page.locator("h1").count() == 1


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_text_is_legible_and_nothing_scrolls_sideways(seen: Seen, viewport: dict[str, int]) -> None:
    seen.page.set_viewport_size(viewport)
    seen.page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every(place =>"
        " place.querySelector('svg.main-svg').getBoundingClientRect().right <= innerWidth)"
    )
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    texts = seen.page.evaluate(CONTRASTS)
    assert len(texts) > 200
    weakest = min(texts)
    assert weakest[0] >= 4.5, weakest
    smallest = min(texts, key=lambda text: text[2])
    assert smallest[2] >= 11.0, smallest


def test_print_holds_every_plot_within_the_paper(seen: Seen) -> None:
    """A plot keeps the width that it has on the screen, so that has to be one that fits between A4's margins."""
    seen.page.set_viewport_size(DESK)
    seen.page.wait_for_function(f"() => {WIDEST} > 500")
    paper = (210 - 2 * 12) / 25.4 * 96
    assert seen.page.evaluate(WIDEST) <= paper + 1.0
    printed = seen.page.pdf(prefer_css_page_size=True)
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20
    assert all(abs(float(width) - 595) < 1 for width in re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+)", printed))
