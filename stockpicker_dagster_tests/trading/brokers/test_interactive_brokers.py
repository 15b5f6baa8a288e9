"""The adapter of Interactive Brokers against a loopback gateway that follows the published OpenAPI document.

What holds for every broker is in `test_conformance`; here are the gateway's own rules.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from stockpicker_dagster.trading.brokers import (
    Absent,
    BrokerOrder,
    BrokerUnavailable,
    OrderRequest,
    Quote,
    Rejected,
    Unknown,
)
from stockpicker_dagster.trading.brokers.interactive_brokers import InteractiveBrokers, answers
from stockpicker_dagster.trading.brokers.wire import Patience
from stockpicker_dagster_tests.trading.brokers.documented import example, hold_against
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY
from stockpicker_dagster_tests.trading.brokers.faulty_server import Answered
from stockpicker_dagster_tests.trading.brokers.interactive_brokers_server import (
    NUMBER,
    PREFIX,
    InteractiveBrokersServer,
)

QUICK = Patience(connect=1, read=0.3, whole=0.6, attempts=3, first_wait=0.01, longest_wait=0.05, refused_for=0.2)
ORDERS = f"{PREFIX}/iserver/account/{NUMBER}/orders"


@pytest.fixture
def server() -> Iterator[InteractiveBrokersServer]:
    with InteractiveBrokersServer() as running:
        yield running


@pytest.fixture
def broker(server: InteractiveBrokersServer) -> InteractiveBrokers:
    return connected(server)


def connected(server: InteractiveBrokersServer, mode: str = "paper", **more: Any) -> InteractiveBrokers:
    settings: dict[str, Any] = {"patience": QUICK, "spacing": 0.0, "now": lambda: server.exchange.now, **more}
    return InteractiveBrokers("ib", mode, server.api, NUMBER, **settings)


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


def test_what_the_fake_answers_is_what_the_published_document_allows(
    real_data: Any, server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.warnings = ["o354"]
    broker.submit(request())
    broker.submit(request("sp-2", "short", 4, "BRK-B", order_type="limit", limit_price=Decimal("49.5")))
    server.warnings = ["o999"]
    broker.submit(request("sp-3", symbol="CCC"))
    broker.submit(request("sp-4", symbol="CCC"))
    broker.cancel("sp-4", "")
    broker.buying_power_needed(request("sp-5"), None)
    server.exchange.open_session()
    broker.find("sp-1")
    broker.account()
    broker.positions()
    broker.clock()
    broker.quotes(["AAA"])
    stripped = [Answered(a.method, a.path.removeprefix(PREFIX), a.status, a.body) for a in server.answered]
    # `order_ref` of a live order is not in the document; every field that is there has its type.
    document = real_data / "apis" / "ibkr-webapi-openapi.clean.json"
    assert len(hold_against(document, stripped, undescribed=set())) >= 13


def test_the_documents_own_examples_are_read(real_data: Any) -> None:
    document = real_data / "apis" / "ibkr-webapi-openapi.clean.json"
    [live] = example(document, "/iserver/account/orders", "get", "orders")["orders"]
    order = answers.read_order(live)
    # The example says Filled, and that a part is.
    assert (order.status, order.filled_quantity, order.quantity) == ("working", Decimal("2499.99"), Decimal("2806.46"))
    assert order.broker_order_id == "1370093238"
    [trade] = example(document, "/iserver/account/trades", "get", "tradesResponseExample")
    fill = answers.read_fill(trade)
    assert (fill.fill_id, fill.client_order_id) == ("0000e0d5.6576fd38.01.01", "Order123")
    assert (fill.quantity, fill.price, fill.commission) == (-5, Decimal("192.26"), Decimal("1.01"))
    assert fill.filled_at == datetime(2023, 12, 11, 18, 0, 49, tzinfo=UTC)
    preview = example(document, "/iserver/account/{accountId}/orders/whatif", "post", "orderPreview")
    assert answers.decimal_of(preview["amount"]["amount"]) == Decimal("1977.60")
    assert answers.decimal_of(preview["initial"]["change"]) == 652


def test_the_time_in_force_is_always_said_and_numbers_are_exact(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    broker.submit(request(order_type="limit", limit_price=Decimal("50.07"), time_in_force="day"))
    [order] = server.exchange.orders
    assert (order.tif, order.limit, order.quantity, order.client_id) == ("day", Decimal("50.07"), 10, "sp-1")


def test_a_warning_on_the_list_is_answered_and_every_other_one_declined(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.warnings = ["o354"]
    assert isinstance(broker.submit(request()), BrokerOrder)
    server.warnings = ["o354", "o451"]
    answer = broker.submit(request("sp-2", symbol="BBB"))
    assert isinstance(answer, Rejected)
    assert "warns (o451): A warning named o451." in answer.reason
    assert server.declined == 1
    assert [order.client_id for order in server.exchange.orders] == ["sp-1"]


def test_questions_without_an_end_leave_the_order_unknown(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.warnings = ["o354"] * 9
    assert isinstance(broker.submit(request()), Unknown)
    assert server.exchange.orders == []


def test_a_lost_answer_to_our_reply_leaves_the_order_unknown_until_it_is_found(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.warnings = ["o354"]
    server.play("drop_after", f"{PREFIX}/iserver/reply")
    assert isinstance(broker.submit(request()), Unknown)
    assert server.count("POST", f"{PREFIX}/iserver/reply") == 1
    found = broker.find("sp-1")
    assert isinstance(found, BrokerOrder)
    assert found.status == "working"


def test_a_declined_warning_whose_answer_is_lost_is_unknown(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.warnings = ["o451"]
    server.play("drop_after", f"{PREFIX}/iserver/reply")
    assert isinstance(broker.submit(request()), Unknown)
    assert broker.find("sp-1") == Absent()


def test_an_order_sent_again_within_a_day_is_the_order_that_is_there(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.play("504_after", ORDERS)
    assert isinstance(broker.submit(request()), Unknown)
    assert server.count("POST", ORDERS) == 1
    again = broker.submit(request())
    assert isinstance(again, BrokerOrder)
    assert len(server.exchange.orders) == 1
    other = broker.submit(request(quantity=11))
    assert isinstance(other, Rejected)
    assert "taken by another order" in other.reason


def test_an_order_already_registered_that_is_not_shown_is_unknown(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    broker.submit(request())
    server.edit(f"{PREFIX}/iserver/account/orders", lambda body: {"orders": [], "snapshot": True}, times=None)
    assert isinstance(broker.submit(request()), Unknown)


def test_an_order_is_not_absent_while_the_orders_are_not_loaded(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    broker.submit(request())
    server.edit(f"{PREFIX}/iserver/account/orders", lambda body: {"orders": [], "snapshot": False}, times=None)
    assert isinstance(broker.find("sp-1"), Unknown)
    with pytest.raises(BrokerUnavailable, match="not loaded"):
        broker.open_orders()


def test_after_a_restart_orders_and_fills_are_found_by_their_client_ids(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    first = broker.submit(request())
    broker.submit(request("sp-2", symbol="BBB", time_in_force="day", order_type="limit", limit_price=Decimal(40)))
    server.exchange.open_session()
    server.restart()
    # Another order now has the number that the first one had, or a lower one.
    assert isinstance(first, BrokerOrder)
    filled, working = broker.find("sp-1"), broker.find("sp-2")
    assert isinstance(filled, BrokerOrder)
    assert isinstance(working, BrokerOrder)
    assert (filled.status, filled.filled_quantity) == ("cancelled", 10)
    assert "earlier session" in filled.reason
    assert (working.status, working.symbol) == ("working", "BBB")
    assert int(working.broker_order_id) < int(first.broker_order_id)
    cancelled = broker.cancel("sp-2", "halted")
    assert isinstance(cancelled, BrokerOrder)
    assert (cancelled.status, cancelled.reason) == ("cancelled", "halted")
    assert [fill.client_order_id for fill in broker.fills_since(None)] == ["sp-1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"signed_in": False}, "not signed in"),
        ({"competing": True}, "competes"),
        ({"paper": False}, "is paper, and the gateway says it has a live session"),
        ({"paper": None}, "an unknown kind of session"),
    ],
)
def test_nothing_is_sent_through_a_session_that_is_not_ours(
    server: InteractiveBrokersServer, broker: InteractiveBrokers, change: dict[str, Any], why: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(BrokerUnavailable, match=why):
        broker.account()
    answer = broker.submit(request())
    assert isinstance(answer, Rejected)
    assert why.split(" and ")[0] in answer.reason
    assert server.count("POST", ORDERS) == 0
    assert isinstance(broker.find("sp-1"), Unknown)


def test_a_gateway_of_another_account_is_refused(server: InteractiveBrokersServer) -> None:
    broker = InteractiveBrokers("ib", "paper", server.api, "DU7654321", patience=QUICK, spacing=0.0)
    with pytest.raises(BrokerUnavailable, match="no access to the account DU7654321"):
        broker.account()


@pytest.mark.parametrize(
    ("body", "status", "filled"),
    [
        ({"status": "Filled", "totalSize": "10.0", "filledQuantity": "10.0"}, "filled", "10"),
        ({"status": "Filled", "totalSize": 10, "filledQuantity": None}, "filled", "10"),
        ({"status": "Filled", "totalSize": "1,000", "filledQuantity": "999"}, "working", "999"),
        ({"status": "Cancelled", "totalSize": "10", "filledQuantity": "4"}, "cancelled", "4"),
        ({"status": "Cancelled", "totalSize": "10"}, "working", "0"),
        ({"status": "Inactive", "totalSize": "10", "filledQuantity": "0"}, "working", "0"),
        ({"status": "WarnState"}, "working", "0"),
        ({"status": "Sleeping"}, "working", "0"),
        ({}, "working", "0"),
    ],
)
def test_an_order_is_read_as_live_in_case_of_doubt(body: dict[str, Any], status: str, filled: str) -> None:
    order = answers.read_order(body)
    assert (order.status, order.filled_quantity) == (status, Decimal(filled))


def test_a_corrected_execution_replaces_the_one_it_corrects() -> None:
    first, second = {"execution_id": "a.b.01", "size": 5}, {"execution_id": "a.b.02", "size": 4}
    other = {"execution_id": "a.c.01", "size": 1}
    assert answers.latest_corrections([second, first, other]) == [second, other]


def test_prices_previews_and_borrowing_are_read_exactly(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    server.exchange.prices["BRK-B"] = Decimal("1401.1")
    server.shortable = {"AAA": "0", "CCC": ""}
    quote = broker.quotes(["BRK-B"])["BRK-B"]
    assert quote == Quote("BRK-B", Decimal("1401.09"), Decimal("1401.11"), Decimal("1401.1"), EVENING)
    assert broker.borrow(["AAA", "BRK-B", "CCC"]) == {"AAA": "none", "BRK-B": "easy", "CCC": "unknown"}
    assert broker.buying_power_needed(request(symbol="BRK-B", quantity=2), None) == Decimal("1401.1")
    assert broker.buying_power_needed(request(side="cover"), None) == 0
    server.play("500", f"{ORDERS}/whatif")
    assert broker.buying_power_needed(request(), None) is None


def test_an_ambiguous_or_unknown_symbol_is_not_traded(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    answer = broker.submit(request(symbol="NOPE"))
    assert isinstance(answer, Rejected)
    assert "has 0 American stocks under 'NOPE'" in answer.reason
    assert server.count("POST", ORDERS) == 0


def test_lists_are_asked_for_seldom_but_never_used_from_before_a_submission(server: InteractiveBrokersServer) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 50:
            spaced._spacing = 0.0

    spaced = connected(server, spacing=30.0, wait=wait)
    for number in range(20):
        assert spaced.find(f"sp-{number}") == Absent()
    assert server.count("GET", f"{PREFIX}/iserver/account/trades") == 1
    assert waits == []
    spaced.submit(request())
    assert isinstance(spaced.find("sp-1"), BrokerOrder)
    assert len(waits) > 50


def test_opening_orders_end_before_the_open_of_their_own_session(
    server: InteractiveBrokersServer, broker: InteractiveBrokers
) -> None:
    for at, sent in (((TUESDAY, 9, 27), True), ((TUESDAY, 9, 28), False), ((date(2024, 3, 4), 15, 0), False)):
        server.exchange.at(*at)
        answer = broker.submit(request(f"sp-{at[1]}-{at[2]}"))
        assert isinstance(answer, BrokerOrder) == sent, answer


def test_a_client_id_may_be_used_again_only_within_its_day(broker: InteractiveBrokers) -> None:
    able = broker.capabilities
    assert able.may_send_again(EVENING, EVENING + timedelta(hours=23))
    assert not able.may_send_again(EVENING, EVENING + timedelta(hours=24))
