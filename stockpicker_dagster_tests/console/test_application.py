"""Every address of the console, with every role: who gets in, who does not, and that each change needs its proof."""

import json
import re
import uuid
from datetime import timedelta
from urllib.parse import quote

import dagster as dg
import polars as pl
import pytest
from dagster import DagsterRun
from starlette.testclient import TestClient

from stockpicker_dagster.console.application import PAGES
from stockpicker_dagster.console.web import Page
from stockpicker_dagster.strategy_form.web import as_yaml
from stockpicker_dagster.trading import accounts
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.people import tokens
from stockpicker_dagster.trading.people.directory import ROLES
from stockpicker_dagster_tests.console.site import ATTRIBUTES, BASE, PEOPLE, STRATEGY, Site, hidden
from stockpicker_dagster_tests.trading.conftest import TradingDesk
from stockpicker_dagster_tests.training import small_strategy

WITH_ROLE = {role: name for name, role in PEOPLE.items()}
CHANGES = [page for page in PAGES if page.method == "POST"]


def _address(page: Page) -> str:
    values = {
        "strategy": STRATEGY,
        "symbol": "S00",
        "proposal": "abcdef",
        "name": "vera",
        "token": "abc",
        "account": "paper",
    }
    return re.sub(r"\{(\w+)(?::path)?\}", lambda part: values[part.group(1)], page.path)


def _id(page: Page) -> str:
    return f"{page.method} {page.path}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_each_role_reaches_what_it_may_and_nothing_else(page: Page, read_site: Site) -> None:
    if page.role is None:
        return
    for role in ROLES:
        browser = read_site.browser(WITH_ROLE[role])
        allowed = ROLES.index(role) >= ROLES.index(page.role)
        if page.method == "GET":
            status = browser.get(_address(page)).status_code
            assert (status == 403) is not allowed, f"{role} got {status}"
        elif not allowed:
            csrf = hidden(browser.get("/people").text, "csrf")
            answer = browser.post(_address(page), headers={"Origin": BASE, "X-CSRF-Token": csrf})
            assert answer.status_code == 403, f"{role} got {answer.status_code}"
            assert page.role in answer.text


@pytest.mark.parametrize("page", [page for page in PAGES if page.role is not None], ids=_id)
def test_nobody_reaches_anything_without_signing_in(page: Page, read_site: Site) -> None:
    answer = read_site.stranger(Origin=BASE).request(page.method, _address(page))
    assert answer.status_code == (401 if page.path.startswith("/api/") else 303)
    if answer.status_code == 303:
        assert answer.headers["location"] == "/sign-in"


@pytest.mark.parametrize("page", CHANGES, ids=_id)
def test_every_change_needs_the_forms_token_and_an_origin_with_the_port(page: Page, read_site: Site) -> None:
    if page.role is None:
        return
    browser = read_site.browser("root1")
    csrf = hidden(browser.get("/people").text, "csrf")
    forged = [
        ({}, {"Origin": BASE}),
        ({"csrf": "0" * 64}, {"Origin": BASE}),
        ({"csrf": csrf}, {}),
        ({"csrf": csrf}, {"Origin": "http://127.0.0.1:4000"}),
        ({"csrf": csrf}, {"Origin": "null"}),
        ({"csrf": csrf}, {"Origin": BASE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}),
    ]
    for fields, headers in forged:
        answer = browser.post(_address(page), data=fields, headers=headers)
        assert answer.status_code == 403, (fields, headers, answer.status_code)


@pytest.mark.parametrize("page", CHANGES, ids=_id)
def test_nothing_is_changed_by_get(page: Page, read_site: Site) -> None:
    readable = {each.path for each in PAGES if each.method == "GET"}
    status = read_site.browser("root1").get(_address(page)).status_code
    assert status == 405 or page.path in readable or (status in (200, 404) and "{" in page.path)


def test_answers_carry_the_headers_that_browsers_protect_by(read_site: Site) -> None:
    for path in ("/", "/sign-in", "/static/console.css", "/nowhere"):
        headers = read_site.browser("vera").get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy, "no inline script, no other host"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
    assert read_site.browser("vera").get("/").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:4000", "localhost", "127.0.0.1:3999.evil.example", ""])
def test_only_the_own_host_is_answered(host: str, read_site: Site) -> None:
    assert read_site.stranger(Host=host).get("/sign-in").status_code == 403


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/static/../web.py", "/static/%2e%2e/web.py", "/a\\b", "/..%2fweb.py"]
)
def test_no_path_climbs(path: str, read_site: Site) -> None:
    answer = read_site.browser("root1").get(path)
    assert answer.status_code in (403, 404), answer.status_code
    assert "from starlette" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_not_taken(method: str, read_site: Site) -> None:
    assert read_site.browser("root1").request(method, "/").status_code == 405


def test_a_body_is_bounded_said_or_unsaid(read_site: Site) -> None:
    browser = read_site.browser("root1")
    large = b"reason=" + b"x" * (5 * 2**20)
    headers = {"Origin": BASE, "Content-Type": "application/x-www-form-urlencoded"}
    assert browser.post("/halt", content=large, headers=headers).status_code == 413

    def chunks():
        for _ in range(6):
            yield b"x" * 2**20

    assert browser.post("/halt", content=chunks(), headers=headers).status_code == 413


def test_a_page_of_every_kind_names_itself_once(read_site: Site) -> None:
    for page in PAGES:
        if page.method == "GET" and not page.as_json and page.role is not None and "proposal" not in page.path:
            answer = read_site.browser("root1").get(_address(page))
            if answer.headers.get("content-type", "").startswith("text/html") and answer.status_code == 200:
                assert answer.text.count("<h1>") == 1 or "tearsheet" in page.path, page.path


def test_the_console_loads_nothing_from_elsewhere(read_site: Site) -> None:
    browser: TestClient = read_site.browser("root1")
    for path in ("/", f"/ranking/{STRATEGY}", f"/ranking/{STRATEGY}/S00", "/people", "/strategies/new"):
        page = browser.get(path).text
        assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
        assert "<script>" not in page
        assert re.findall(r'\son\w+="', page) == []


MARKUP = """x"'><img src=x onerror=alert(1)>{{ 7*7 }}</script><!--"""


@pytest.fixture
def told_markup(site: Site) -> Site:
    """A console in which every text that people, files or programs may choose is an attempt at markup."""
    now, desk = site.deployment.now(), site.parts.desk
    form = desk.file_of(STRATEGY)
    form.write_text(as_yaml(ATTRIBUTES | {"description": MARKUP}))
    broken = desk.strategies_folder / MARKUP.replace("/", "") / "defs.yaml"
    broken.parent.mkdir()
    broken.write_text(f"type: {json.dumps(MARKUP)}\n")
    # A stock and a feature of that name, as a file of prices or a module of features may bring them.
    day = small_strategy.TESTED[-1]
    for table in ("predictions", "scaled_features"):
        rows = site.lake.read(f"{STRATEGY}/{table}", [day])
        worst = rows["symbol"].sort()[-1]
        rows = rows.with_columns(pl.col("symbol").replace(worst, MARKUP))
        if table == "predictions":
            reason = pl.lit([{"feature": MARKUP, "value": 1.0}], dtype=rows.schema["contributions"])
            rows = rows.with_columns(contributions=reason)
        note = site.lake.notes(f"{STRATEGY}/{table}")[day]
        site.lake.write_days(f"{STRATEGY}/{table}", rows, [day], lambda _: small_strategy.TESTED, note)
    trading = TradingDesk(site.database, session=day, now=now)
    first = trading.propose({MARKUP: 0.4, "BBB": -0.4}, {MARKUP: 20.0, "BBB": 50.0}, strategy=STRATEGY).id
    assert first is not None
    decide(site.database, first, "ada", "deny", MARKUP, now)
    held = TradingDesk(site.database, account="holds", session=day, now=now)
    second = held.propose({MARKUP: 0.4, "BBB": -0.4}, {MARKUP: 20.0, "BBB": 50.0}, strategy=STRATEGY).id
    assert second is not None
    decide(site.database, second, "ada", "approve", MARKUP, now)
    held.execute(second)
    tokens.create_token(site.database, "root1", MARKUP, timedelta(days=1), now)
    accounts.halt(site.database, None, "rob", MARKUP, now)
    site.parts.starts.folder.mkdir(parents=True)
    (site.parts.starts.folder / f"{STRATEGY}-20230701T000000.log").write_text(MARKUP)
    said = {"verdict": MARKUP, "caveat": MARKUP}
    asset = dg.AssetKey([STRATEGY, "backtest_metrics"])
    desk.dagster.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=said))
    run = DagsterRun(job_name=MARKUP, run_id=str(uuid.UUID(int=1)), tags={"dagster/partition": MARKUP})
    desk.dagster.run_storage.add_run(run)
    site.proposal, site.executed = first, second  # type: ignore[attr-defined]
    return site


def test_nothing_that_is_told_becomes_markup(told_markup: Site) -> None:
    browser, told = told_markup.browser("root1"), {}
    symbol = quote(MARKUP, safe="")
    stock, why = f"/ranking/{STRATEGY}/{symbol}", f"/held/holds/{symbol}"
    addresses = [_address(page) for page in PAGES if page.method == "GET" and not page.as_json and page.role]
    of_ledger = [f"/proposals/{told_markup.proposal}", f"/executions/{told_markup.executed}"]  # type: ignore[attr-defined]
    for path in {*addresses, *of_ledger, stock, why, "/ranking/x%3Cimg%20src=x%3E"}:
        answer = browser.get(path)
        assert answer.status_code < 500, path
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert "<img" not in answer.text, path
            assert "{49}" not in answer.text
            assert ">49<" not in answer.text
            told[path] = answer.text.count("&lt;img src=x onerror=alert(1)&gt;")
    expected = {
        "/": 4,
        f"/ranking/{STRATEGY}": 2,
        f"/proposals/{told_markup.proposal}": 3,  # type: ignore[attr-defined]
        f"/executions/{told_markup.executed}": 1,  # type: ignore[attr-defined]
        "/held": 1,
        stock: 3,
        why: 3,
        "/runs": 2,
        "/people": 2,
        "/halt": 2,
        "/strategies": 2,
        f"/strategies/{STRATEGY}/progress": 2,
    }
    for path, least in expected.items():
        assert told[path] >= least, f"{path} shows it {told[path]} times"
