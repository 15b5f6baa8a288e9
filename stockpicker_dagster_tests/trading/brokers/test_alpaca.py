"""Alpaca's adapter against a loopback server that follows the published OpenAPI document.

What holds for every broker is in `test_conformance`; here are Alpaca's own rules, and its answers as documented.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.brokers import (
    Absent,
    BrokerOrder,
    BrokerUnavailable,
    OrderRequest,
    Quote,
    Rejected,
    Unknown,
)
from stockpicker_dagster.trading.brokers.alpaca import URLS, AlpacaBroker, answers
from stockpicker_dagster.trading.brokers.wire import Patience
from stockpicker_dagster_tests.trading.brokers.alpaca_server import KEY, NUMBER, SECRET, AlpacaServer
from stockpicker_dagster_tests.trading.brokers.documented import hold_against
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY, Exchange

QUICK = Patience(connect=1, read=0.3, whole=0.6, attempts=3, first_wait=0.01, longest_wait=0.05, refused_for=0.2)


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer() as running:
        yield running


@pytest.fixture
def broker(server: AlpacaServer) -> AlpacaBroker:
    return connected(server)


def connected(server: AlpacaServer, **more: Any) -> AlpacaBroker:
    settings: dict[str, Any] = {"patience": QUICK, "now": lambda: server.exchange.now, **more}
    return AlpacaBroker("us", "paper", server.url, KEY, SECRET, data_url=server.url, **settings)


def request(name: str = "sp-1", side: str = "buy", quantity: object = 10, symbol: str = "AAA", **more: Any) -> Any:
    figures: dict[str, Any] = {
        "order_type": "market",
        "time_in_force": "opg",
        "trade_session": TUESDAY,
        "sent_before": False,
        **more,
    }
    return OrderRequest(
        client_order_id=name,
        symbol=symbol,
        side=side,  # type: ignore[arg-type]
        quantity=Decimal(str(quantity)),
        phase="openings" if side in ("buy", "short") else "reductions",
        collar_low=None,
        collar_high=None,
        submitted_at=EVENING,
        **figures,
    )


# -- the published document ------------------------------------------------------------------------------------------


def test_what_the_fake_answers_is_what_the_published_document_allows(real_data: Any, server: AlpacaServer) -> None:
    broker = connected(server)
    broker.submit(request(side="short", quantity=3))
    broker.submit(request("sp-2", symbol="BRK-B", order_type="limit", limit_price=Decimal("51.5")))
    broker.submit(request("sp-2b", quantity=99999999))
    broker.submit(request("sp-3", symbol="CCC", quantity=4))
    broker.cancel("sp-3", "")
    server.exchange.open_session()
    broker.submit(request("sp-4", symbol="CCC", time_in_force="day"))
    server.exchange.dividend("BRK-B", "0.5")
    for question in (broker.open_orders, broker.account, broker.clock, broker.positions):
        question()
    broker.fills_since(None)
    broker.movements_since(EVENING)
    broker.borrow(["AAA"])
    broker.find("nothing")
    document = real_data / "apis" / "alpaca-trading-api.json"
    assert len(hold_against(document, server.answered, undescribed={404})) >= 9


def test_an_answer_that_the_document_does_not_allow_is_seen(real_data: Any, server: AlpacaServer) -> None:
    server.edit("/v2/account", lambda body: {**body, "status": "ON_VACATION"})
    connected(server).account()
    with pytest.raises(Exception, match="ON_VACATION"):
        hold_against(real_data / "apis" / "alpaca-trading-api.json", server.answered, undescribed=set())


GOLDEN_ORDER = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "client_order_id": "eb9e2aaa-f71a-4f51-b5b4-52a6c565dad4",
    "created_at": "2021-03-16T18:38:01.942282Z",
    "filled_qty": "3.5",
    "filled_avg_price": "106.31",
    "qty": "10",
    "side": "sell",
    "status": "partially_filled",
    "symbol": "BRK.B",
    "time_in_force": "day",
    "type": "market",
}


@pytest.mark.parametrize(
    ("changes", "status", "filled"),
    [
        ({}, "working", "3.5"),
        ({"status": "filled", "filled_qty": "10"}, "filled", "10"),
        ({"status": "filled", "filled_qty": None}, "filled", "10"),
        ({"status": "canceled"}, "cancelled", "3.5"),
        ({"status": "expired", "filled_qty": "0"}, "expired", "0"),
        ({"status": "rejected", "filled_qty": None}, "rejected", "0"),
        # In doubt an order is live.
        ({"status": "rejected"}, "working", "3.5"),
        ({"status": "canceled", "filled_qty": None}, "working", "0"),
        ({"status": "canceled", "filled_qty": "many"}, "working", "0"),
        ({"status": "on_vacation"}, "working", "3.5"),
        ({"status": None}, "working", "3.5"),
        ({"status": ["filled"]}, "working", "3.5"),
        *[({"status": s}, "working", "3.5") for s in ("done_for_day", "suspended", "held", "calculated", "replaced")],
    ],
)
def test_an_order_is_read_as_live_in_case_of_doubt(changes: dict[str, Any], status: str, filled: str) -> None:
    order = answers.read_order({**GOLDEN_ORDER, **changes})
    assert (order.status, order.filled_quantity) == (status, Decimal(filled))
    assert (order.symbol, order.side, order.quantity) == ("BRK-B", "sell", Decimal(10))


@pytest.mark.parametrize("missing", [*GOLDEN_ORDER, "nothing"])
def test_an_answer_that_lacks_a_field_still_shows_a_live_order(missing: str) -> None:
    body = {name: value for name, value in GOLDEN_ORDER.items() if name != missing}
    assert answers.read_order(body).status == "working"


@pytest.mark.parametrize(
    ("body", "borrow"),
    [
        ({"shortable": True, "tradable": True, "borrow_status": "easy_to_borrow"}, "easy"),
        ({"shortable": True, "tradable": True, "borrow_status": "hard_to_borrow", "easy_to_borrow": True}, "hard"),
        ({"shortable": True, "tradable": True, "easy_to_borrow": True}, "easy"),
        ({"shortable": True, "tradable": True, "easy_to_borrow": False}, "hard"),
        ({"shortable": True, "tradable": True}, "unknown"),
        ({"shortable": True, "tradable": True, "borrow_status": "by_telephone"}, "unknown"),
        ({"shortable": False, "tradable": True, "borrow_status": "easy_to_borrow"}, "none"),
        ({"shortable": True, "tradable": False, "borrow_status": "easy_to_borrow"}, "none"),
        ({"shortable": True, "tradable": True, "status": "inactive", "borrow_status": "easy_to_borrow"}, "none"),
    ],
)
def test_borrow_status_counts_and_the_older_flag_only_without_it(body: dict[str, Any], borrow: str) -> None:
    assert answers.read_borrow(body) == borrow


def test_dividends_change_cash_and_splits_change_shares() -> None:
    dividend = {
        "activity_type": "DIV",
        "id": "20190801011955195::5f596936-6f23-4cef-bdf1-3806aae57dbf",
        "date": "2019-08-01",
        "net_amount": "1.02",
        "symbol": "T",
        "qty": "2",
        "per_share_amount": "0.51",
        "status": "executed",
        "created_at": "2021-05-10T14:01:04.650275Z",
    }
    paid = answers.read_movement(dividend)
    assert paid is not None
    assert (paid.quantity, paid.cash, paid.session, paid.kind) == (0, Decimal("1.02"), date(2019, 8, 1), "DIV")
    split = answers.read_movement({**dividend, "activity_type": "SPLIT", "qty": "6", "net_amount": "0"})
    assert split is not None
    assert (split.quantity, split.cash) == (6, 0)
    assert answers.read_movement({**dividend, "status": "canceled"}) is None


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_numbers_are_sent_as_exact_text(server: AlpacaServer, broker: AlpacaBroker) -> None:
    server.exchange.open_session()
    tenths = Decimal("0.1") + Decimal("0.2")
    broker.submit(request("sp-1", quantity=tenths, time_in_force="day"))
    broker.submit(request("sp-2", quantity="1E+2", symbol="BBB", time_in_force="day"))
    assert [order.quantity for order in server.exchange.orders] == [Decimal("0.3"), Decimal(100)]
    assert broker.positions() == {"AAA": Decimal("0.3"), "BBB": Decimal(100)}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"quantity": "-1"}, "more than 0"),
        ({"side": "short", "quantity": "1.5", "time_in_force": "day"}, "shorts are whole shares"),
        ({"quantity": "1.5"}, "fractions of shares are not taken as market opg"),
        ({"name": "x" * 129}, "129 characters"),
        ({"order_type": "stop"}, "stop orders"),
        ({"time_in_force": "gtc"}, "time in force gtc"),
        ({"order_type": "limit"}, "a limit price goes with limit orders"),
        ({"limit_price": Decimal(5)}, "a limit price goes with limit orders"),
    ],
)
def test_what_alpaca_cannot_take_is_not_sent(
    server: AlpacaServer, broker: AlpacaBroker, more: dict[str, Any], why: str
) -> None:
    answer = broker.submit(request(**more))
    assert isinstance(answer, Rejected)
    assert why in answer.reason
    assert server.received == []


@pytest.mark.parametrize(
    ("tif", "at", "sent"),
    [
        ("opg", (date(2024, 3, 4), 15, 59), False),  # Monday's trading
        ("opg", (date(2024, 3, 4), 18, 59), False),  # taken again from 19:00
        ("opg", (date(2024, 3, 4), 19, 0), True),
        ("opg", (date(2024, 3, 5), 9, 27), True),
        ("opg", (date(2024, 3, 5), 9, 28), False),
        ("opg", (date(2024, 3, 5), 19, 30), False),  # would be Wednesday's auction
        ("cls", (date(2024, 3, 5), 15, 49), True),
        ("cls", (date(2024, 3, 5), 15, 50), False),
        ("day", (date(2024, 3, 4), 15, 0), False),  # would trade on Monday
        ("day", (date(2024, 3, 4), 16, 0), True),
        ("day", (date(2024, 3, 5), 15, 59), True),
        ("day", (date(2024, 3, 5), 16, 0), False),
    ],
)
def test_an_order_is_sent_only_while_it_trades_in_its_own_session(
    server: AlpacaServer, broker: AlpacaBroker, tif: str, at: tuple[date, int, int], sent: bool
) -> None:
    server.exchange.at(*at)
    answer = broker.submit(request(time_in_force=tif))
    assert isinstance(answer, BrokerOrder) == sent
    assert (server.count("POST") == 1) == sent
    if not sent:
        assert isinstance(answer, Rejected)
        assert "2024-03-05 are taken from" in answer.reason


def test_cut_offs_of_a_half_day_are_earlier(server: AlpacaServer, broker: AlpacaBroker) -> None:
    half = date(2023, 11, 24)
    for hour, minute, sent in ((12, 49, True), (12, 50, False)):
        server.exchange.at(half, hour, minute)
        answer = broker.submit(request(f"sp-{minute}", time_in_force="cls", trade_session=half))
        assert isinstance(answer, BrokerOrder) == sent


def test_an_order_that_had_to_wait_too_long_is_not_sent(server: AlpacaServer) -> None:
    clock = {"now": EVENING}

    def wait(seconds: float) -> None:
        clock["now"] += timedelta(minutes=5)

    broker = connected(server, now=lambda: clock["now"], wait=wait)
    server.play("429", times=None)
    answer = broker.submit(request(not_after=EVENING + timedelta(minutes=4)))
    assert answer == Rejected("not sent: it was to be sent before 2024-03-05 01:19:00 UTC", "not sent")
    assert server.count("POST") == 1


def test_buying_power_of_a_short_is_counted_at_three_per_cent_above_the_ask(broker: AlpacaBroker) -> None:
    quote = Quote("AAA", Decimal(99), Decimal(100), Decimal("99.5"), EVENING)
    needed = broker.buying_power_needed
    assert needed(request(side="short", quantity=10), quote) == Decimal("1030")
    limited = replace(request(side="short", quantity=10), order_type="limit", limit_price=Decimal(110))
    assert needed(limited, quote) == Decimal(1100)
    assert needed(limited, None) is None
    assert needed(request(side="short"), None) is None
    assert needed(request(quantity=10), quote) == Decimal(1000)
    assert needed(request(side="sell"), quote) == needed(request(side="cover"), None) == 0


# -- answers that are none -------------------------------------------------------------------------------------------


def test_a_504_is_not_sent_again_and_the_accepted_order_is_found(server: AlpacaServer, broker: AlpacaBroker) -> None:
    server.play("504_after")
    assert isinstance(broker.submit(request()), Unknown)
    assert server.count("POST") == 1
    found = broker.find("sp-1")
    assert isinstance(found, BrokerOrder)
    assert found.status == "working"
    # Sent again under its id, the answer is the order that is there.
    assert broker.submit(request()) == found
    assert len(server.exchange.orders) == 1


def test_a_second_order_under_a_foreign_orders_id_is_refused(server: AlpacaServer, broker: AlpacaBroker) -> None:
    broker.submit(request())
    answer = broker.submit(request(quantity=11))
    assert isinstance(answer, Rejected)
    assert "taken by another order: buy 10 AAA" in answer.reason


def test_a_refused_second_order_that_cannot_be_seen_is_unknown(server: AlpacaServer, broker: AlpacaBroker) -> None:
    broker.submit(request())
    server.play("500", "/v2/orders:by", "GET", times=None)
    assert isinstance(broker.submit(request()), Unknown)
    server.faults.clear()
    server.edit("/v2/orders:by", lambda body: {"message": "no Route matched with those values"}, times=None)
    assert isinstance(broker.submit(request()), Unknown)


def test_only_alpacas_own_not_found_means_that_there_is_no_order(server: AlpacaServer, broker: AlpacaBroker) -> None:
    assert broker.find("sp-9") == Absent()
    server.edit("/v2/orders:by", lambda body: {"message": "no Route matched with those values"})
    assert isinstance(broker.find("sp-9"), Unknown)
    server.edit("/v2/orders:by", lambda body: ["what?"])
    assert isinstance(broker.find("sp-9"), Unknown)


def test_wrong_keys_are_said_without_being_shown(server: AlpacaServer) -> None:
    broker = AlpacaBroker("us", "paper", server.url, "PKOTHER", "another-secret", patience=QUICK, now=lambda: EVENING)
    answer = broker.submit(request())
    assert isinstance(answer, Unknown | Rejected)
    with pytest.raises(BrokerUnavailable, match="refuses the keys of account 'us'") as told:
        broker.account()
    assert "another-secret" not in f"{told.value!r} {answer} {broker!r}"


def test_a_refusal_that_repeats_the_secret_is_masked(server: AlpacaServer, broker: AlpacaBroker) -> None:
    server.exchange.refuse = lambda symbol: f"forbidden for {SECRET}"
    answer = broker.submit(request())
    assert answer == Rejected("forbidden for ...", "40310000")


@pytest.mark.parametrize("url", [URLS["live"], "https://paper-api.alpaca.markets.example.org", "http://10.0.0.1"])
def test_a_paper_account_is_reached_at_its_own_server_only(url: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape("https://paper-api.alpaca.markets")):
        AlpacaBroker("us", "paper", url, KEY, SECRET)


# -- replaced orders, pages, fills ------------------------------------------------------------------------------------


def test_an_order_replaced_by_a_person_is_followed_to_what_it_became(
    server: AlpacaServer, broker: AlpacaBroker
) -> None:
    order = broker.submit(request())
    assert isinstance(order, BrokerOrder)
    after = server.exchange.replace(order.broker_order_id, Decimal(7))
    found = broker.find("sp-1")
    assert isinstance(found, BrokerOrder)
    assert (found.status, found.broker_order_id) == ("working", after.id)
    cancelled = broker.cancel("sp-1", "halted")
    assert isinstance(cancelled, BrokerOrder)
    assert cancelled.status == "cancelled"
    assert not after.open


def test_lists_go_on_page_after_page(server: AlpacaServer, broker: AlpacaBroker) -> None:
    market = server.exchange
    market.cash = Decimal(10**9)
    for number in range(1001):
        market.place(f"other-{number}", "AAA", "buy", Decimal(1), "market", "day")
    assert len(broker.open_orders()) == 1001
    market.open_session()
    fills = broker.fills_since(None)
    assert len({fill.fill_id for fill in fills}) == 1001
    assert {fill.client_order_id for fill in fills} == {f"other-{number}" for number in range(1001)}


def test_fills_are_asked_for_from_where_they_were_left_with_an_overlap(
    server: AlpacaServer, broker: AlpacaBroker
) -> None:
    broker.submit(request())
    server.exchange.open_session()
    [first] = broker.fills_since(None)
    assert (first.quantity, first.price, first.session) == (10, 50, TUESDAY)
    server.exchange.advance(hours=3)
    broker.submit(request("sp-2", symbol="BBB", time_in_force="day"))
    assert [fill.client_order_id for fill in broker.fills_since(None)] == ["sp-1", "sp-2"]
    late = broker.fills_since(None)[-1].fill_id
    assert [fill.client_order_id for fill in broker.fills_since(late)] == ["sp-2"]
    # A fill that was reported late still comes: the question reaches back an hour.
    assert [fill.client_order_id for fill in broker.fills_since(first.fill_id)] == ["sp-1", "sp-2"]


def test_a_fill_that_cannot_be_read_is_not_left_out(server: AlpacaServer, broker: AlpacaBroker) -> None:
    broker.submit(request())
    server.exchange.open_session()
    server.edit("/v2/account/activities", lambda fills: [{**fill, "price": None} for fill in fills])
    with pytest.raises(BrokerUnavailable, match="cannot be read"):
        broker.fills_since(None)


def test_a_position_without_a_quantity_is_not_read_as_flat(server: AlpacaServer, broker: AlpacaBroker) -> None:
    broker.submit(request(side="short"))
    server.exchange.open_session()
    assert broker.positions() == {"AAA": Decimal(-10)}
    server.edit("/v2/positions", lambda held: [{**held[0], "qty": None}])
    with pytest.raises(BrokerUnavailable, match="without symbol or quantity"):
        broker.positions()
    server.edit("/v2/positions", lambda held: [{**held[0], "qty": "10"}])
    assert broker.positions() == {"AAA": Decimal(-10)}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("account_blocked", True, "the account is blocked"),
        ("trading_blocked", True, "trading is blocked"),
        ("trade_suspended_by_user", True, "suspended"),
        ("status", "ACCOUNT_UPDATED", "'ACCOUNT_UPDATED'"),
        ("status", "A_NEW_STATE", "'A_NEW_STATE'"),
        ("trading_blocked", "yes", "trading is blocked"),
    ],
)
def test_an_account_that_may_not_trade_says_why(
    server: AlpacaServer, broker: AlpacaBroker, field: str, value: object, why: str
) -> None:
    assert broker.account().blocked is None
    server.account_fields[field] = value
    assert why in str(broker.account().blocked)
    assert broker.account().number == NUMBER


def test_the_clock_and_quotes_are_read_in_utc_and_exactly(server: AlpacaServer, broker: AlpacaBroker) -> None:
    clock = broker.clock()
    assert (clock.now, clock.is_open) == (EVENING, False)
    assert clock.next_open == datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
    server.exchange.prices["BRK-B"] = Decimal("401.1")
    quotes = broker.quotes(["BRK-B", "NOPE"])
    assert quotes == {"BRK-B": Quote("BRK-B", Decimal("401.09"), Decimal("401.11"), Decimal("401.1"), EVENING)}


def test_borrowing_is_asked_for_one_by_one_or_in_one_list(server: AlpacaServer, broker: AlpacaBroker) -> None:
    server.exchange.no_borrow.add("AAA")
    server.exchange.hard_to_borrow.add("BRK-B")
    expected = {"AAA": "none", "BRK-B": "hard", "CCC": "easy", "NOPE": "none"}
    assert broker.borrow(list(expected)) == expected
    many = [*expected, *[f"X{number}" for number in range(20)]]
    assert broker.borrow(many) == expected | dict.fromkeys(many[4:], "none")
    assert server.count("GET", "/v2/assets") == 5


def test_a_full_basket_keeps_to_the_rate_limit_and_leaves_room_for_cancels() -> None:
    clock = {"now": 0.0}
    from stockpicker_dagster.trading.brokers.wire import Pace

    pace = Pace(200, reserve=20, clock=lambda: clock["now"])
    assert [pace.wait_needed(urgent=False) for _ in range(180)] == [0.0] * 180
    assert pace.wait_needed(urgent=False) == 60.0
    assert [pace.wait_needed(urgent=True) for _ in range(20)] == [0.0] * 20
    assert pace.wait_needed(urgent=True) == 60.0
    clock["now"] = 60.0
    assert pace.wait_needed(urgent=False) == 0.0


def test_the_market_behind_the_fake_keeps_its_own_rules() -> None:
    """What the adapter is tested against refuses what it should."""
    from stockpicker_dagster_tests.trading.brokers.exchange import Refused

    market = Exchange()
    market.place("a", "AAA", "buy", Decimal(10), "market", "opg")
    with pytest.raises(Refused, match="opposite side"):
        market.place("b", "AAA", "sell", Decimal(1), "market", "opg")
    market.open_session()
    with pytest.raises(Refused, match="insufficient qty"):
        market.place("c", "AAA", "sell", Decimal(11), "market", "day")
    with pytest.raises(Refused, match="must be unique"):
        market.place("a", "BBB", "buy", Decimal(1), "market", "day")
    with pytest.raises(Refused, match="buying power"):
        market.place("d", "BBB", "sell", Decimal(39000), "market", "day")
