"""The console in a real browser without Dagster: the first link, a stock, a proposal accepted, its execution followed.

The whole story, with a strategy that is made in the form and run, is `test_console_in_browser.py`, which takes minutes.
"""

import importlib.util
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Engine

from stockpicker_dagster.console.application import application
from stockpicker_dagster.console.door.checks import Addresses
from stockpicker_dagster_tests.conftest import require
from stockpicker_dagster_tests.console.conftest import invented_lake  # noqa: F401 - a fixture
from stockpicker_dagster_tests.console.site import NOW, PASSWORD, STRATEGY, Site, make_site
from stockpicker_dagster_tests.system.browsing import look, program
from stockpicker_dagster_tests.trading.conftest import TradingDesk, new_ledger  # noqa: F401 - a fixture

pytestmark = pytest.mark.xdist_group("console")

TARGETS, PRICES = {"AAA": 0.4, "BBB": -0.4}, {"AAA": 20.0, "BBB": 50.0}


@dataclass
class Served:
    """A console that answers on loopback, and a browser on it."""

    site: Site
    base: str
    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def served(
    tmp_path: Path,
    new_ledger: Callable[[], Engine],  # noqa: F811 - a fixture
    invented_lake: Path,  # noqa: F811 - a fixture
) -> Iterator[Served]:
    require(importlib.util.find_spec("playwright"), "playwright (a browser's driver)")
    require(program(), "a Chromium browser")
    from playwright.sync_api import sync_playwright

    site = make_site(tmp_path / "home", new_ledger(), invented_lake)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        app = application(site.parts, addresses=Addresses.on_loopback(port), port=port)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        serving.start()
        try:
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=program(), args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.set_default_timeout(20_000)
                # The pages' own clock, which countdowns are read from, is the server's.
                page.clock.install(time=NOW)
                opened = Served(site, f"http://127.0.0.1:{port}", page)
                page.on("pageerror", lambda error: opened.complaints.append(str(error)))
                page.on("request", lambda request: opened.asked.append(request.url))
                yield opened
                browser.close()
        finally:
            server.should_exit = True
            serving.join(timeout=10)


def _hours_left(page: Any) -> int:
    found = re.fullmatch(r"(\d+) h \d+ min left", page.locator("[data-expires]").inner_text())
    assert found, page.locator("[data-expires]").inner_text()
    return int(found.group(1))


def test_a_person_comes_in_accepts_and_follows_the_execution_without_loading_a_page_again(served: Served) -> None:
    page, base, site = served.page, served.base, served.site
    trading = TradingDesk(site.database, session=date(2023, 6, 30), now=NOW)
    proposal = trading.proposed(TARGETS, PRICES)

    page.goto(f"{base}/first-person?token={site.parts.first_person.token}")
    for field_name, text in (("name", "ada"), ("password", PASSWORD), ("again", PASSWORD)):
        page.fill(f"#{field_name}", text)
    page.click("text=Begin")
    page.wait_for_url(f"{base}/")

    page.goto(f"{base}/ranking/{STRATEGY}")
    look(page, "a ranking")
    page.locator("tbody a").first.click()
    page.wait_for_selector("html[data-drawn='4']", state="attached")
    assert page.locator("[data-plot] svg.main-svg").count() >= 4
    look(page, "a stock")

    page.goto(f"{base}/proposals/{proposal}")
    hours = _hours_left(page)
    page.clock.fast_forward("02:00:00")
    page.wait_for_function(f"!document.querySelector('[data-expires]').innerText.startsWith('{hours} h')")
    assert _hours_left(page) == hours - 2
    look(page, "a proposal")
    page.fill("#reason", "looks right")
    page.click("button:has-text('Accept')")
    page.wait_for_selector("#state:has-text('approved')")

    claimed, go_on = threading.Event(), threading.Event()

    def checkpoint(step: str) -> None:
        if step == "claimed":
            claimed.set()
            assert go_on.wait(30)

    executing = threading.Thread(target=trading.execute, args=(proposal, checkpoint))
    executing.start()
    try:
        assert claimed.wait(30)
        page.wait_for_selector("#state:has-text('executing')")
        page.click("text=Its execution")
        page.wait_for_selector("#execution:has-text('executing')")
        assert page.locator("tbody tr").count() == 0
    finally:
        go_on.set()
        executing.join(30)
    page.wait_for_selector("#execution:has-text('executed')")
    assert page.locator("tbody tr:has-text('filled')").count() == len(TARGETS)
    look(page, "an execution")
    before = len(served.asked)
    page.wait_for_timeout(2_500)
    assert len(served.asked) == before, "nothing is asked for any more once it has ended"

    assert served.complaints == []
    assert [url for url in served.asked if not url.startswith((base, "data:", "blob:"))] == []
