"""The whole story as a person lives it: from `stockpicker up` to fills and a halt, in a real browser, without a manual.

One copy of the project serves it with its daemon, and every page on the way is looked at by axe-core. Where
`STOCKPICKER_PICTURES` names a folder, the pages are kept there as pictures.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from stockpicker_dagster_tests.conftest import require
from stockpicker_dagster_tests.system.browsing import look, program

ROOT = Path(__file__).resolve().parents[2]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PASSWORD = "correct horse battery"
PATIENCE_S = 600

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("console"), pytest.mark.timeout(1500)]


@dataclass
class Story:
    """A browser on a console that serves, and what was complained about on the way."""

    page: Any
    base: str
    first_address: str
    home: Path
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Opens a page of the console."""
        answer = self.page.goto(self.base + path)
        assert answer.status == 200, f"{path}: {answer.status}"

    def look(self, name: str) -> None:
        """Lets axe-core look at the page as it is, and keeps its picture where somebody wants it."""
        look(self.page, name)

    def wait(self, question: Callable[[], Any], what: str) -> None:
        """Loads the page again until the answer is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not question():
            assert time.monotonic() < deadline, f"no {what} in {PATIENCE_S} s: {self.page.inner_text('main')[-2000:]}"
            time.sleep(1)
            self.page.reload()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    require(importlib.util.find_spec("playwright"), "playwright (a browser's driver)")
    require(program(), "a Chromium browser")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("console")
    project, home = folder / "project", folder / "home"
    shutil.copytree(
        ROOT / "stockpicker_dagster", project / "stockpicker_dagster", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    environment = os.environ | {"STOCKPICKER_HOME": str(home), "PYTHONPATH": str(project)}
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        server = psutil.Popen(
            [sys.executable, "-m", "stockpicker_dagster.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=project,
            env=environment,
        )
    try:
        address = _address(server, folder)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program(), args=["--no-sandbox"])
            page = browser.new_page(viewport=DESK)
            page.set_default_timeout(60_000)
            base = re.sub(r"/first-person.*", "", address)
            opened = Story(page, base, address, home)
            page.on("pageerror", lambda error: opened.complaints.append(str(error)))
            page.on("request", lambda request: _note_foreign(opened, request.url))
            yield opened
            browser.close()
    finally:
        family = [server, *server.children(recursive=True)]
        server.terminate()
        psutil.wait_procs(family, timeout=30)
        for process in family:
            if process.is_running():
                process.kill()


def _note_foreign(story: Story, url: str) -> None:
    if not url.startswith((story.base, "data:", "blob:")):
        story.foreign.append(url)


def _address(server: psutil.Popen, folder: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = re.search(r"^StockPicker is at (http://\S+)$", (folder / "out").read_text(), re.MULTILINE)
        if found:
            return found.group(1)
        assert server.is_running(), (folder / "err").read_text()
        time.sleep(0.2)
    raise AssertionError((folder / "err").read_text())


def _create(story: Story, name: str, account: str) -> None:
    """Fills the form in for a small strategy on the simulated market, writes it, and runs it to its end."""
    today = datetime.now(UTC).date()

    def ago(days: int) -> str:
        return str(today - timedelta(days=days))

    story.go("/strategies/new")
    page = story.page
    page.fill("#name", name)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for path, text in {
        "owner": "research",
        "description": "Two quick features, to try the console.",
        "prices.start": ago(660),
        "prices.name": "small",
        "prices.stocks": "12",
        "features.names": "reversal_1w, volatility_1m",
        "periods.train": f"{ago(270)}, {ago(150)}",
        "periods.validation": f"{ago(130)}, {ago(80)}",
        "periods.test": f"{ago(60)}, {today + timedelta(days=300)}",
        "periods.train_years": "",
        "periods.validation_years": "",
        "backtest.long": "5",
        "backtest.short": "5",
        "backtest.simulations": "30",
        "trading.account": account,
    }.items():
        page.fill(f'[name="{path}"]', text)
    page.select_option('[name="periods.retrain"]', "")
    page.fill('[name="backtest.rebalance"]', "daily")
    page.click("text=Check and show the file")
    page.wait_for_load_state()
    assert page.locator(".mistake").count() == 0, page.locator(".mistake").all_inner_texts()
    assert "stockpicker_dagster.components.StockPickerStrategy" in page.inner_text("pre"), page.inner_text("main")
    story.look(f"form_{name}")
    page.click("button:has-text('Write it')")
    page.wait_for_url(f"**/strategies/{name}/progress")
    story.wait(lambda: "running" not in page.inner_text("[role=status]"), "end of the run")
    assert "done" in page.inner_text("[role=status]"), page.inner_text("main")
    story.look(f"progress_{name}")


def _open_proposal(story: Story, strategy: str) -> None:
    story.go("/proposals")
    story.page.click(f"tr:has-text('{strategy}') a")
    story.page.wait_for_selector("#decide")


def test_a_person_goes_from_the_first_link_to_fills_a_denial_a_halt_and_back(story: Story) -> None:
    page = story.page
    page.goto(story.first_address)
    story.look("first_person")
    page.fill("#name", "ada")
    page.fill("#password", PASSWORD)
    page.fill("#again", PASSWORD)
    page.click("text=Begin")
    page.wait_for_url(story.base + "/")
    story.look("today_empty")
    page.click("text=Sign out")
    page.fill("#name", "ada")
    page.fill("#password", PASSWORD)
    story.look("sign_in")
    page.click("button:has-text('Sign in')")
    page.wait_for_url(story.base + "/")

    _create(story, "my_first", "paper")
    page.click("text=See the ranking")
    rows = page.locator("tbody tr")
    assert rows.count() == 12
    story.look("ranking")
    best = rows.first.locator("a").inner_text()
    page.fill("#search", best)
    page.wait_for_selector("text=1 of 12 stocks")
    page.click(f"tbody a:has-text('{best}')")
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert "1 of 12" in page.inner_text("dl.facts")
    story.look("stock")
    story.go("/backtest/my_first")
    page.wait_for_selector("section[aria-label=Verdict]")
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert page.locator("[data-plot] svg.main-svg").count() > 5
    story.look("backtest")
    story.go("/models/my_first")
    story.look("models")

    _create(story, "my_second", "second")
    story.go("/")
    story.look("today")

    _open_proposal(story, "my_first")
    orders = page.locator("[aria-label=Orders] tbody tr").count()
    assert orders > 0
    story.look("proposal")
    page.fill("#reason", "looks right")
    page.click("button:has-text('Accept')")
    page.wait_for_selector("text=looks right")
    story.wait(lambda: "executed" in page.inner_text("dl.facts"), "execution by the sensor")
    page.click("text=Its execution")
    filled = page.locator("tbody tr:has-text('filled')").count()
    assert filled == orders
    story.look("execution")

    _open_proposal(story, "my_second")
    page.click("button:has-text('Deny')")
    assert "needs a reason" in page.inner_text("main")
    page.go_back()
    page.fill("#reason", "earnings <b>tonight</b>")
    page.click("button:has-text('Deny')")
    page.wait_for_selector(".state:has-text('denied')")
    assert "earnings <b>tonight</b>" in page.inner_text("main"), "shown as text, never as markup"
    assert page.locator("main b").count() == 0

    story.go("/halt")
    page.fill("#reason", "looking at the fills")
    page.click("button:has-text('Halt trading')")
    story.go("/")
    assert "Trading is halted" in page.inner_text("main")
    story.look("halted")
    story.go("/halt")
    page.click("button:has-text('Resume')")
    story.go("/")
    assert "Trading is halted" not in page.inner_text("main")
    story.go("/executions")
    story.look("executions")
    story.go("/runs")
    story.look("runs")
    story.go("/people")
    story.look("people")


def test_pages_fit_a_phone_and_the_dark(story: Story) -> None:
    story.page.set_viewport_size(PHONE)
    for scheme in ("light", "dark"):
        story.page.emulate_media(color_scheme=scheme)
        for name, path in (
            ("today", "/"),
            ("ranking", "/ranking/my_first"),
            ("backtest", "/backtest/my_first"),
            ("strategy", "/strategies/my_first"),
            ("proposals", "/proposals"),
        ):
            story.go(path)
            story.look(f"phone_{scheme}_{name}")


def test_nothing_failed_and_nothing_was_loaded_from_elsewhere(story: Story) -> None:
    assert story.complaints == []
    assert story.foreign == []
