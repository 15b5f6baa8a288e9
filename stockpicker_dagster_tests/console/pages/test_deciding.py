"""Deciding on a page: what is decided is what the ledger records, by whom it was, once, with a reason, as text."""

import html
from datetime import date, timedelta

import polars as pl
import pytest

from stockpicker_dagster.components.origins import day_prices
from stockpicker_dagster.console.rendering import coded
from stockpicker_dagster.trading import accounts
from stockpicker_dagster.trading.flatten import propose_flattening
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster.trading.shortfall import shortfall
from stockpicker_dagster_tests.console.site import BASE, STRATEGY, Site, hidden
from stockpicker_dagster_tests.trading.conftest import TradingDesk
from stockpicker_dagster_tests.training import small_strategy

TARGETS, PRICES = {"AAA": 0.4, "BBB": -0.4}, {"AAA": 20.0, "BBB": 50.0}


@pytest.fixture
def trading(site: Site) -> TradingDesk:
    return TradingDesk(site.database, session=date(2023, 6, 30), now=site.deployment.now())


@pytest.fixture
def proposal(trading: TradingDesk) -> str:
    return trading.proposed(TARGETS, PRICES)


def _decide(site: Site, person: str, proposal: str, decision: str, reason: str = ""):
    page = f"/proposals/{proposal}"
    return site.post(person, f"{page}/decide", {"decision": decision, "reason": reason}, page)


def test_a_proposal_shows_what_would_be_executed(site: Site, proposal: str, trading: TradingDesk) -> None:
    page = site.browser("ada").get(f"/proposals/{proposal}").text
    stored = load(site.database, proposal)
    assert stored.digest in page
    for order in stored.document.orders:
        assert order.symbol in page
        assert f"{order.quantity:,f}" in page
    gross = sum(order.quantity * order.reference_price for order in stored.document.orders) / stored.document.equity
    assert f"{gross:+.2%}".replace("%", " %") in page, "gross exposure after"
    assert "0 of 1" in page


def test_who_decides_sees_what_is_opened_less_of_for_its_volume(site: Site, trading: TradingDesk) -> None:
    # A tenth of 5,000 of the 1,960 shares that the plan asks for.
    identity = trading.propose(TARGETS, PRICES, volumes={"AAA": 5_000.0, "BBB": 1e9}).id
    page = site.browser("ada").get(f"/proposals/{identity}").text
    assert str(coded(load(site.database, str(identity)).document.less_opened)) in page
    assert "<code>volume_share</code> of 0.1 of a mean day: AAA" in page
    [checked] = [row for row in page.split("<tr>") if "volume share" in row]
    assert checked.count("0.1") >= 2


def test_an_approval_is_recorded_under_the_persons_name(site: Site, proposal: str) -> None:
    assert _decide(site, "ada", proposal, "approve", "fine").status_code == 303
    assert load(site.database, proposal).state == "approved"
    assert "ada: approve" in site.browser("vera").get(f"/proposals/{proposal}").text


@pytest.mark.parametrize("person", ["vera", "rob"])
def test_nobody_below_an_approver_decides(person: str, site: Site, proposal: str) -> None:
    browser = site.browser(person)
    assert "Accept" not in browser.get(f"/proposals/{proposal}").text
    csrf = hidden(browser.get("/people").text, "csrf")
    sent = browser.post(
        f"/proposals/{proposal}/decide", data={"decision": "approve", "csrf": csrf}, headers={"Origin": BASE}
    )
    assert sent.status_code == 403
    assert load(site.database, proposal).state == "open"


def test_a_denial_needs_a_reason_which_is_shown_as_text(site: Site, proposal: str) -> None:
    assert _decide(site, "ada", proposal, "deny").status_code == 400
    assert load(site.database, proposal).state == "open"
    attack = "<img src=x onerror=alert(1)>{{ 7*7 }}"
    assert _decide(site, "ada", proposal, "deny", attack).status_code == 303
    for path in (f"/proposals/{proposal}", "/proposals"):
        page = site.browser("vera").get(path).text
        assert "<img" not in page
    assert html.escape(attack) in site.browser("vera").get(f"/proposals/{proposal}").text


def test_nobody_decides_twice_and_the_answer_says_so(site: Site, proposal: str) -> None:
    assert _decide(site, "ada", proposal, "approve").status_code == 303
    again = _decide(site, "ada", proposal, "approve")
    assert again.status_code == 409
    assert "already" in again.text


@pytest.mark.parametrize("decision", ["", "execute", "APPROVE"])
def test_other_words_decide_nothing(decision: str, site: Site, proposal: str) -> None:
    assert _decide(site, "ada", proposal, decision).status_code == 400
    assert load(site.database, proposal).state == "open"


def test_following_a_link_decides_nothing(site: Site, proposal: str) -> None:
    address = f"/proposals/{proposal}/decide?decision=approve"
    assert site.browser("ada").get(address).status_code == 405
    assert load(site.database, proposal).state == "open"


def test_an_expired_proposal_is_decided_no_more(site: Site, proposal: str) -> None:
    site.deployment.moment = load(site.database, proposal).document.expires_at
    site.browsers.clear()
    assert _decide(site, "ada", proposal, "approve").status_code == 400
    assert load(site.database, proposal).state == "expired"


def test_what_was_executed_is_shown_with_its_fills(site: Site, proposal: str, trading: TradingDesk) -> None:
    assert site.browser("vera").get(f"/executions/{proposal}").status_code == 404
    assert _decide(site, "ada", proposal, "approve").status_code == 303
    report = trading.execute(proposal)
    page = site.browser("vera").get(f"/executions/{proposal}").text
    for order in report.orders:
        assert order.symbol in page
    assert page.count("filled</span>") == len(report.orders)
    shown = site.script("vera").get(f"/api/executions/{proposal}").json()
    assert {each["symbol"]: each["filled"] for each in shown["orders"]} == {
        order.symbol: f"{order.filled:f}" for order in report.orders
    }


def test_the_shortfall_is_told_once_the_prices_of_the_session_are_there(site: Site) -> None:
    """Decided the session before the last that is stored, so that the prices traded on are there."""
    before, last = small_strategy.TESTED[-2:]
    names = small_strategy.PRICES.filter(pl.col("date") == last)["symbol"].sort()[:2].to_list()
    trading = TradingDesk(site.database, session=before, now=site.deployment.now() - timedelta(days=1))
    assert before + timedelta(days=1) == last
    made = trading.propose({names[0]: 0.4, names[1]: -0.4}, {names[0]: 20.0, names[1]: 50.0}, strategy=STRATEGY)
    assert made.id is not None, made.reason
    trading.approve(made.id, "ada")
    trading.execute(made.id)
    page = site.browser("vera").get(f"/executions/{made.id}").text
    prices = day_prices(site.lake, site.parts.desk.form(STRATEGY), last, names)
    assert prices is not None
    told = shortfall(site.database, made.id, prices)
    assert "Implementation shortfall" in page
    for figure in (told.total, told.summed("delay"), told.summed("trading"), *(order.total for order in told.orders)):
        assert f"{figure:,.2f}" in page


def test_what_changed_is_said_against_the_proposal_before(site: Site, trading: TradingDesk) -> None:
    first = trading.proposed(TARGETS, PRICES)
    trading.approve(first, "ada")
    trading.execute(first)
    trading.next_session()
    site.browsers.clear()
    site.deployment.moment = trading.now
    later = trading.proposed({"AAA": 0.4, "CCC": -0.4}, {**PRICES, "CCC": 10.0})
    page = site.browser("vera").get(f"/proposals/{later}").text
    changes = page.partition("What changed")[2]
    assert "2023-06-30" in changes
    assert "BBB" in changes
    assert "CCC" in changes
    assert "AAA" not in changes


def test_a_halt_is_on_every_page_until_it_is_lifted(site: Site, proposal: str) -> None:
    assert site.post("rob", "/halt", {"account": "", "reason": "a look"}).status_code == 303
    for path in ("/", "/proposals", "/people", f"/proposals/{proposal}"):
        assert "Trading is halted" in site.browser("vera").get(path).text
    assert accounts.is_halted(site.database, "paper")
    assert site.post("ada", "/resume", {"account": ""}).status_code == 303
    assert not accounts.is_halted(site.database, "paper")
    assert "Trading is halted" not in site.browser("vera").get("/").text


def test_a_halt_needs_a_reason(site: Site) -> None:
    assert site.post("rob", "/halt", {"account": "", "reason": " "}).status_code == 400
    assert not accounts.is_halted(site.database, "paper")


def test_a_flattening_of_a_halted_account_says_what_it_is_and_is_decided(site: Site, trading: TradingDesk) -> None:
    proposal = trading.proposed(TARGETS, PRICES)
    _decide(site, "ada", proposal, "approve")
    trading.execute(proposal)
    accounts.halt(site.database, None, "os:risk", "stop", trading.now)
    flattening = propose_flattening(
        site.database, "paper", "os:risk", trading.now, venue=trading.market, latest_stored=trading.session
    )
    page = site.browser("ada").get(f"/proposals/{flattening}").text
    assert "This closes everything that the account holds." in page
    assert _decide(site, "ada", flattening, "approve").status_code == 303
    assert load(site.database, flattening).state == "approved"


def test_a_renamed_stock_is_shown_by_its_ticker_with_its_id(site: Site, trading: TradingDesk) -> None:
    proposal = trading.propose(TARGETS, PRICES, tickers={"AAA": "NEW"}).id
    page = site.browser("vera").get(f"/proposals/{proposal}").text
    assert '>NEW</a> <span class="quiet">(AAA)</span>' in page
