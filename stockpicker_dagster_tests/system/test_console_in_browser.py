"""The whole story as a person lives it: from `stockpicker up` to fills and a halt, in a real browser, without a manual.

One copy of the project serves it with its daemon, and every page on the way is looked at by axe-core. What takes its
time, a run and the daemon's execution, goes on while other pages are looked at. Where `STOCKPICKER_PICTURES` names a
folder, the pages are kept there as pictures.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.storage.database import open_database
from stockpicker_dagster_tests.conftest import require
from stockpicker_dagster_tests.system.browsing import look, program
from stockpicker_dagster_tests.trading.conftest import SetMarket, TradingDesk

ROOT = Path(__file__).resolve().parents[2]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PASSWORD = "correct horse battery"
PATIENCE_MS = 300_000
FIRST, SECOND = "my_first", "my_second"

pytestmark = [pytest.mark.xdist_group("console"), pytest.mark.timeout(900)]


@dataclass
class Story:
    """A browser on a console that serves, and what was complained about on the way."""

    page: Any
    base: str
    first_address: str
    project: Path
    home: Path
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Opens a page of the console."""
        answer = self.page.goto(self.base + path)
        assert answer.status == 200, f"{path}: {answer.status}"

    def look(self, name: str) -> None:
        """Lets axe-core look at the page as it is, and keeps its picture where somebody wants it."""
        look(self.page, name)

    def another_tab(self) -> "Story":
        """The same person on another page, while this one goes on."""
        page = self.page.context.new_page()
        page.set_viewport_size(DESK)
        return Story(page, self.base, self.first_address, self.project, self.home)

    def trading(self) -> TradingDesk:
        """Another account of the same ledger, whose proposals are made, and executed, when the test says so."""
        engine = open_database(f"sqlite:///{self.home / 'stockpicker.sqlite'}")
        now = datetime.now(UTC)
        # Its window opened yesterday evening, and is open for longer than anybody waits here.
        yesterday = now.date() - timedelta(days=1)
        return TradingDesk(engine, SetMarket(hours=48), "second", yesterday, now)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    require(importlib.util.find_spec("playwright"), "playwright (a browser's driver)")
    require(program(), "a Chromium browser")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("console")
    project, home = folder / "project", folder / "home"
    # With what Python has compiled: four processes would each do it anew.
    shutil.copytree(ROOT / "stockpicker_dagster", project / "stockpicker_dagster")
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    environment = os.environ | {"STOCKPICKER_HOME": str(home), "PYTHONPATH": str(project)}
    environment["NUMBA_CACHE_DIR"] = str(_shared_kernels(project, folder / "kernels"))
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
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program(), args=["--no-sandbox"])
            context = browser.new_context(viewport=DESK)
            page = context.new_page()
            page.set_default_timeout(60_000)
            address = _address(server, folder)
            base = re.sub(r"/first-person.*", "", address)
            opened = Story(page, base, address, project, home)
            context.on("weberror", lambda error: opened.complaints.append(str(error.error)))
            context.on("request", lambda request: opened.asked.append(request.url))
            yield opened
            browser.close()
    finally:
        # How it ends when it is asked to is test_server's matter.
        for process in [server, *server.children(recursive=True)]:
            process.kill()
        server.wait()


def _shared_kernels(project: Path, kept: Path) -> Path:
    """A folder for Numba in which the copy's kernels are those that other tests have compiled already.

    Numba keeps them in a folder named after that of their source; where it comes to do otherwise, they are compiled.
    """
    shared = Path(os.environ["NUMBA_CACHE_DIR"])
    kept.mkdir()
    for folder in (ROOT / "stockpicker_dagster").rglob("*/"):
        copied = project / folder.relative_to(ROOT)
        own, other = (f"{each.name}_{hashlib.sha1(str(each).encode()).hexdigest()}" for each in (folder, copied))
        (shared / own).mkdir(parents=True, exist_ok=True)
        (kept / other).symlink_to(shared / own)
    return kept


def _address(server: psutil.Popen, folder: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = re.search(r"^StockPicker is at (http://\S+)$", (folder / "out").read_text(), re.MULTILINE)
        if found:
            return found.group(1)
        assert server.is_running(), (folder / "err").read_text()
        time.sleep(0.2)
    raise AssertionError((folder / "err").read_text())


def _write_in_the_form(story: Story) -> None:
    """Fills the form in for a small strategy on the simulated market, sees its file, writes it, and has it run."""
    today = datetime.now(UTC).date()

    def ago(days: int) -> str:
        """A session about so many days ago."""
        day = today - timedelta(days=days)
        return str(trading_calendar().sessions(day - timedelta(days=10), day)[-1])

    story.go("/strategies/new")
    page = story.page
    page.fill("#name", FIRST)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for path, text in {
        "owner": "research",
        "description": "Two quick features, to try the console.",
        # As short as it can be: features look 60 sessions back, and a verdict needs 42 sessions of back-test.
        "prices.start": ago(270),
        "prices.name": "small",
        "prices.stocks": "12",
        "features.set": "alpha158",
        "features.names": "ROC5, STD20",
        "periods.train": f"{ago(160)}, {ago(120)}",
        "periods.validation": f"{ago(110)}, {ago(90)}",
        "periods.test": f"{ago(75)}, {today + timedelta(days=300)}",
        "periods.train_years": "",
        "periods.validation_years": "",
        "backtest.long": "5",
        "backtest.short": "5",
        "backtest.simulations": "30",
        "trading.account": "paper",
    }.items():
        page.fill(f'[name="{path}"]', text)
    page.select_option('[name="periods.retrain"]', "")
    page.fill('[name="backtest.rebalance"]', "daily")
    page.click("text=Check and show the file")
    page.wait_for_load_state()
    assert page.locator(".mistake").count() == 0, page.locator(".mistake").all_inner_texts()
    assert "stockpicker_dagster.components.StockPickerStrategy" in page.inner_text("pre"), page.inner_text("main")
    story.look("form")
    page.click("button:has-text('Write it')")
    page.wait_for_url(f"**/strategies/{FIRST}/progress")


def _copy_strategy(story: Story) -> None:
    """A second strategy with a back-test, as if it had been written and run like the first."""
    forms = story.project / "stockpicker_dagster" / "defs" / "strategies"
    shutil.copytree(story.home / "lake" / FIRST, story.home / "lake" / SECOND)
    shutil.copytree(forms / FIRST, forms / SECOND)


def _on_a_phone_and_in_the_dark(tab: Story, **pages: str) -> None:
    tab.page.set_viewport_size(PHONE)
    for name, path in pages.items():
        tab.go(path)
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)
            tab.look(f"phone_{scheme}_{name}")
    tab.page.set_viewport_size(DESK)
    tab.page.emulate_media(color_scheme="light")


def _come_in(story: Story) -> None:
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


def _read(story: Story) -> None:
    """The ranking, its best stock, the tear sheet and the model of the strategy."""
    page = story.page
    page.click("text=See the ranking")
    rows = page.locator("tbody tr")
    assert rows.count() == 12
    story.look("ranking")
    best = rows.first.locator("a").inner_text()
    page.fill("#search", best)
    page.wait_for_selector("text=1 of 12 stocks")
    page.click(f"tbody a:has-text('{best}')")
    page.wait_for_selector("html[data-drawn='4']", state="attached")
    assert "1 of 12" in page.inner_text("dl.facts")
    story.look("stock")
    story.go(f"/backtest/{FIRST}")
    page.wait_for_selector("section[aria-label=Verdict]")
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert page.locator("[data-plot] svg.main-svg").count() > 5
    story.look("backtest")
    story.go(f"/models/{FIRST}")
    story.look("models")


def _open_proposal(story: Story, strategy: str) -> None:
    story.go("/proposals")
    story.page.click(f"tr:has-text('{strategy}') a")
    story.page.wait_for_selector("#decide")


def _hours_left(page: Any) -> int:
    found = re.fullmatch(r"(\d+) h \d+ min left", page.locator("[data-expires]").inner_text())
    assert found, page.locator("[data-expires]").inner_text()
    return int(found.group(1))


def _deny(tab: Story) -> None:
    page = tab.page
    page.clock.install()
    _open_proposal(tab, SECOND)
    hours = _hours_left(page)
    page.clock.fast_forward("02:00:00")
    page.wait_for_function(f"!document.querySelector('[data-expires]').innerText.startsWith('{hours} h')")
    assert _hours_left(page) == hours - 2
    page.click("button:has-text('Deny')")
    assert "needs a reason" in page.inner_text("main")
    page.go_back()
    page.fill("#reason", "earnings <b>tonight</b>")
    page.click("button:has-text('Deny')")
    page.wait_for_selector(".state:has-text('denied')")
    assert "earnings <b>tonight</b>" in page.inner_text("main"), "shown as text, never as markup"
    assert page.locator("main b").count() == 0


def _follow_an_execution(tab: Story, trading: TradingDesk, proposal: str) -> None:
    """Accepts, and sees it claimed, sent and filled without loading a page again."""
    page = tab.page
    tab.go(f"/proposals/{proposal}")
    page.click("button:has-text('Accept')")
    page.wait_for_selector("#state:has-text('approved')")
    claimed, go_on = threading.Event(), threading.Event()

    def checkpoint(step: str) -> None:
        if step == "claimed":
            claimed.set()
            assert go_on.wait(60)

    executing = threading.Thread(target=trading.execute, args=(proposal, checkpoint))
    executing.start()
    try:
        assert claimed.wait(60)
        page.wait_for_selector("#state:has-text('executing')")
        page.click("text=Its execution")
        page.wait_for_selector("#execution:has-text('executing')")
        assert page.locator("tbody tr").count() == 0
    finally:
        go_on.set()
        executing.join(60)
    page.wait_for_selector("#execution:has-text('executed')")
    assert page.locator("tbody tr:has-text('filled')").count() == 2


def test_a_person_goes_from_the_first_link_to_fills_a_denial_a_halt_and_back(story: Story) -> None:
    page = story.page
    _come_in(story)
    _write_in_the_form(story)
    tab = story.another_tab()
    _on_a_phone_and_in_the_dark(tab, new="/strategies/new", halt="/halt", people="/people", strategies="/strategies")
    page.wait_for_selector("[role=status]:not(:has-text('running'))", timeout=PATIENCE_MS)
    assert "done" in page.inner_text("[role=status]"), page.inner_text("main")
    story.look("progress")
    _read(story)

    story.go("/")
    story.look("today")
    _open_proposal(story, FIRST)
    orders = page.locator("[aria-label=Orders] tbody tr").count()
    assert orders > 0
    story.look("proposal")
    page.fill("#reason", "looks right")
    page.click("button:has-text('Accept')")
    page.wait_for_selector("text=looks right")

    # The daemon sees the decision and executes it; meanwhile there is another account to decide for.
    _copy_strategy(story)
    trading = story.trading()
    targets, prices = {"SIM001": 0.4, "SIM002": -0.4}, {"SIM001": 20.0, "SIM002": 50.0}
    assert trading.propose(targets, prices, strategy=SECOND).id
    _deny(tab)
    followed = trading.propose({"SIM001": 0.3, "SIM002": -0.3}, prices, strategy=SECOND).id
    assert followed
    _follow_an_execution(tab, trading, followed)
    tab.go(f"/compare?strategy={FIRST}&strategy={SECOND}")
    tab.page.wait_for_selector("html[data-drawn='1']", state="attached")
    tab.look("compare")
    _on_a_phone_and_in_the_dark(
        tab,
        today="/",
        ranking=f"/ranking/{FIRST}",
        backtest=f"/backtest/{FIRST}",
        strategy=f"/strategies/{FIRST}",
        proposals="/proposals",
        compare=f"/compare?strategy={FIRST}&strategy={SECOND}",
    )

    page.wait_for_selector("#state:has-text('executed')", timeout=PATIENCE_MS)
    page.click("text=Its execution")
    assert page.locator("tbody tr:has-text('filled')").count() == orders
    story.look("execution")
    page.click("#execution tbody a >> nth=0")
    assert "looks right" in page.inner_text("main"), "who decided on it, and why"
    assert page.locator("a[href^='/dagster/runs/']").count() > 0
    story.look("why_held")
    story.go("/held")
    assert page.locator("tbody tr").count() == orders + 2, "what both accounts hold"
    story.look("holdings")

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
    for name, path in (("executions", "/executions"), ("runs", "/runs"), ("people", "/people")):
        story.go(path)
        story.look(name)

    assert story.complaints == []
    assert [url for url in story.asked if not url.startswith((story.base, "data:", "blob:"))] == []
