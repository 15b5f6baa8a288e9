"""What every broker promises, tried on each of them, in good weather and under every fault.

The promises that cost money: an order that was sent without a clear answer is unknown, never refused; asked by its
client id, the broker says what became of it; sent again, it stays one order; nobody reads silence as "flat".
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.trading.brokers import (
    TERMINAL,
    Absent,
    Broker,
    BrokerOrder,
    BrokerUnavailable,
    OrderRequest,
    Rejected,
    Unknown,
)
from stockpicker_dagster.trading.locks import Fenced
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY
from stockpicker_dagster_tests.trading.brokers.faulty_server import AFTER, BEFORE
from stockpicker_dagster_tests.trading.brokers.venues import CASH, VENUES, Venue

SERVED = ("alpaca", "interactive_brokers")


@pytest.fixture
def venue(request: pytest.FixtureRequest, new_ledger: Callable[[], Engine]) -> Iterator[Venue]:
    with VENUES[request.param](new_ledger) as opened:
        yield opened


every = pytest.mark.parametrize("venue", list(VENUES), indirect=True)
served = pytest.mark.parametrize("venue", SERVED, indirect=True)


def order(name: str = "sp-1", side: str = "buy", quantity: object = 10, symbol: str = "AAA", **more: Any) -> Any:
    figures: dict[str, Any] = {"order_type": "market", "time_in_force": "opg", **more}
    return OrderRequest(
        client_order_id=name,
        symbol=symbol,
        side=side,  # type: ignore[arg-type]
        quantity=Decimal(str(quantity)),
        phase="openings" if side in ("buy", "short") else "reductions",
        collar_low=None,
        collar_high=None,
        trade_session=TUESDAY,
        submitted_at=EVENING,
        **figures,
    )


def known(broker: Broker, name: str) -> BrokerOrder:
    found = broker.find(name)
    assert isinstance(found, BrokerOrder), found
    return found


# -- good weather -----------------------------------------------------------------------------------------------------


@every
def test_an_order_is_taken_found_and_open_until_it_is_filled(venue: Venue) -> None:
    broker = venue.broker()
    assert broker.find("sp-1") == Absent()
    assert (broker.positions(), broker.open_orders()) == ({}, [])
    taken = broker.submit(order())
    assert isinstance(taken, BrokerOrder)
    assert (taken.client_order_id, taken.status, taken.filled_quantity) == ("sp-1", "working", 0)
    found = known(broker, "sp-1")
    assert (found.symbol, found.side, found.quantity, found.status) == ("AAA", "buy", 10, "working")
    assert [o.client_order_id for o in broker.open_orders()] == ["sp-1"]
    venue.fill("sp-1")
    done = known(broker, "sp-1")
    assert (done.status, done.filled_quantity) == ("filled", 10)
    assert broker.positions() == {"AAA": 10}
    assert broker.open_orders() == []


@every
def test_fills_and_cash_add_up_and_come_once_however_often_they_are_asked_for(venue: Venue) -> None:
    broker = venue.broker()
    before = broker.cash()
    assert before == CASH
    broker.submit(order())
    venue.fill("sp-1")
    [fill] = broker.fills_since(None)
    assert (fill.client_order_id, fill.symbol, fill.quantity) == ("sp-1", "AAA", 10)
    assert abs(fill.price - 50) < Decimal("0.1")
    # Interactive Brokers' fake does not take its commission out of the cash.
    assert abs(before - broker.cash() - 10 * fill.price) <= fill.commission
    assert [again.fill_id for again in venue.broker().fills_since(None)] == [fill.fill_id]
    assert {late.fill_id for late in broker.fills_since(fill.fill_id)} <= {fill.fill_id}


@every
def test_a_partial_fill_keeps_working_and_is_kept_after_a_cancel_or_the_close(venue: Venue) -> None:
    broker = venue.broker()
    for name in ("sp-1", "sp-2"):
        broker.submit(order(name, quantity=10, symbol="AAA" if name == "sp-1" else "BBB", time_in_force="day"))
        venue.fill(name, 4)
        part = known(broker, name)
        assert (part.status, part.filled_quantity) == ("working", 4)
    ended = broker.cancel("sp-1", "halted")
    if isinstance(ended, BrokerOrder) and ended.status == "working":
        # What a person has in hand only the person can end.
        assert broker.capabilities.manual
        venue.expire("sp-1")
        ended = known(broker, "sp-1")
    assert isinstance(ended, BrokerOrder)
    assert ended.status in ("cancelled", "expired")
    assert ended.filled_quantity == 4
    venue.expire("sp-2")
    rest = known(broker, "sp-2")
    assert rest.status in ("cancelled", "expired")
    assert rest.filled_quantity == 4
    assert broker.positions() == {"AAA": 4, "BBB": 4}
    assert sum(fill.quantity for fill in broker.fills_since(None)) == 8


@every
def test_sent_again_under_its_id_an_order_stays_one(venue: Venue) -> None:
    first = venue.broker().submit(order())
    again = venue.broker().submit(order())
    assert isinstance(again, BrokerOrder)
    assert isinstance(first, BrokerOrder)
    assert again.client_order_id == first.client_order_id
    venue.broker().cancel("sp-1", "changed our mind")
    after = venue.broker().submit(order())
    assert isinstance(after, BrokerOrder)
    assert after.status == "cancelled"
    assert venue.orders_under("sp-1") == 1
    assert venue.broker().open_orders() == []


@every
def test_another_order_under_a_taken_id_is_refused(venue: Venue) -> None:
    venue.broker().submit(order())
    for other in (order(quantity=11), order(symbol="BBB"), order(side="sell")):
        answer = venue.broker().submit(other)
        assert isinstance(answer, Rejected)
        assert "taken by another order" in answer.reason
    assert venue.orders_under("sp-1") == 1


@every
def test_cancelling_what_is_not_there_or_has_ended_changes_nothing(venue: Venue) -> None:
    broker = venue.broker()
    assert broker.cancel("sp-9", "why not") == Absent()
    broker.submit(order())
    venue.fill("sp-1")
    late = broker.cancel("sp-1", "too late")
    assert isinstance(late, BrokerOrder)
    assert (late.status, late.filled_quantity) == ("filled", 10)


@every
def test_a_cancelled_order_says_why(venue: Venue) -> None:
    venue.broker().submit(order())
    ended = venue.broker().cancel("sp-1", "halted by me")
    assert isinstance(ended, BrokerOrder)
    assert (ended.status, ended.reason) == ("cancelled", "halted by me")


@every
@pytest.mark.parametrize(
    "bad",
    [
        {"quantity": 0},
        {"quantity": -5},
        {"side": "short", "quantity": "1.5"},
        {"quantity": "0.5"},
        {"order_type": "stop"},
        {"time_in_force": "gtc"},
        {"name": "x" * 129},
        {"name": ""},
    ],
)
def test_what_the_capabilities_exclude_is_refused_before_it_is_sent(venue: Venue, bad: dict[str, Any]) -> None:
    request = order(**bad)
    assert isinstance(venue.broker().submit(request), Rejected)
    assert venue.orders_under(request.client_order_id) == 0


@every
def test_shorts_are_sold_where_the_broker_has_them_and_refused_elsewhere(venue: Venue) -> None:
    broker = venue.broker()
    answer = broker.submit(order(side="short"))
    if not broker.capabilities.shorts:
        assert isinstance(answer, Rejected)
        assert set(broker.borrow(["AAA"]).values()) == {"none"}
        return
    assert isinstance(answer, BrokerOrder)
    venue.fill("sp-1")
    assert broker.positions() == {"AAA": -10}
    assert broker.borrow(["AAA"]) == {"AAA": "easy"}
    assert isinstance(broker.submit(order("sp-2", "cover", 10, time_in_force="day")), BrokerOrder)


@every
def test_limit_orders_have_a_limit_and_others_none(venue: Venue) -> None:
    broker = venue.broker()
    assert isinstance(broker.submit(order(order_type="limit", limit_price=Decimal(51))), BrokerOrder)
    venue.fill("sp-1")
    assert known(broker, "sp-1").status == "filled"


@every
def test_the_clock_and_the_account_are_told(venue: Venue) -> None:
    broker = venue.broker()
    assert abs(broker.clock().now - EVENING).total_seconds() < 1
    account = broker.account()
    assert (account.cash, account.blocked) == (CASH, None)
    assert account.number
    assert broker.capabilities.verified
    assert broker.buying_power_needed(order(side="sell"), None) == 0
    assert broker.movements_since(EVENING) == () or list(broker.movements_since(EVENING)) == []


# -- every fault, on every broker that is reached over a network -------------------------------------------------------


def has_effect(fault: str) -> bool:
    return fault in AFTER


def resolve(venue: Venue, request: OrderRequest) -> BrokerOrder | Rejected:
    """What execution does about an order: ask by its id, and send again only what the broker certainly has not."""
    for _ in range(6):
        broker = venue.broker()
        found = broker.find(request.client_order_id)
        if isinstance(found, Absent):
            answer = broker.submit(request)
            if not isinstance(answer, Unknown):
                return answer
        elif isinstance(found, BrokerOrder):
            return found
    raise AssertionError("the order stayed unknown although the broker answers")


@served
@pytest.mark.parametrize("fault", [*BEFORE, *AFTER])
def test_no_fault_makes_two_orders_or_hides_one(venue: Venue, fault: str) -> None:
    assert venue.orders_path is not None
    venue.server.play(fault, venue.orders_path)
    answer = venue.broker().submit(order())
    alive = venue.orders_under("sp-1")
    assert alive == (has_effect(fault) or isinstance(answer, BrokerOrder))
    # A refusal is said only where there certainly is no order.
    if isinstance(answer, Rejected):
        assert alive == 0
    if has_effect(fault):
        assert isinstance(answer, Unknown)
    # The process dies here; another one takes over and knows only the id.
    settled = resolve(venue, order())
    assert isinstance(settled, BrokerOrder)
    assert settled.status == "working"
    assert venue.orders_under("sp-1") == 1


@served
@pytest.mark.parametrize(
    "fault", ["504", "500", "html_500", "html_200_after", "truncated_after", "hang", "drop", "429"]
)
def test_while_the_broker_does_not_answer_nothing_is_said_about_an_order(venue: Venue, fault: str) -> None:
    assert venue.orders_path is not None
    venue.server.play("504_after", venue.orders_path)
    assert isinstance(venue.broker().submit(order()), Unknown)
    venue.server.play(fault, venue.lookup_path, method="GET", times=None)
    broker = venue.broker()
    assert isinstance(broker.find("sp-1"), Unknown)
    assert isinstance(broker.cancel("sp-1", "halted"), Unknown)
    # Sending again in this state neither doubles the order nor reads as refused.
    again = broker.submit(order())
    assert isinstance(again, BrokerOrder | Unknown)
    assert venue.orders_under("sp-1") == 1
    venue.server.faults.clear()
    assert known(broker, "sp-1").status == "working"


@served
@pytest.mark.parametrize("fault", ["500", "html_200_after", "truncated_after", "drop"])
def test_an_unreadable_answer_is_never_an_empty_account(venue: Venue, fault: str) -> None:
    broker = venue.broker()
    broker.submit(order())
    venue.fill("sp-1")
    venue.server.play(fault, "", method="GET", times=None)
    for question in (
        broker.positions,
        broker.open_orders,
        broker.cash,
        broker.account,
        lambda: broker.fills_since(None),
    ):
        with pytest.raises(BrokerUnavailable):
            question()
    venue.server.faults.clear()
    assert broker.positions() == {"AAA": 10}


@served
@pytest.mark.parametrize(
    "fault", ["drop", "drop_after", "504", "504_after", "hang", "hang_after", "429", "html_500_after"]
)
def test_a_cancel_without_an_answer_is_not_taken_for_done(venue: Venue, fault: str) -> None:
    broker = venue.broker()
    broker.submit(order())
    venue.server.play(fault, method="DELETE")
    ended = broker.cancel("sp-1", "halted")
    assert isinstance(ended, BrokerOrder)
    assert ended.status == known(broker, "sp-1").status
    # What says "working" is cancelled by asking once more.
    done = broker.cancel("sp-1", "halted")
    assert isinstance(done, BrokerOrder)
    assert done.status == "cancelled"
    assert broker.open_orders() == []


@served
def test_a_burst_of_refusals_sends_each_order_once(venue: Venue) -> None:
    assert venue.orders_path is not None
    for number in range(5):
        venue.server.play("429", venue.orders_path, times=2, retry_after="0")
        assert isinstance(venue.broker().submit(order(f"sp-{number}", quantity=number + 1)), BrokerOrder)
    assert [venue.orders_under(f"sp-{number}") for number in range(5)] == [1] * 5


@served
def test_fills_delivered_twice_and_out_of_order_are_the_same_fills(venue: Venue) -> None:
    broker = venue.broker()
    for name, symbol in (("sp-1", "AAA"), ("sp-2", "BBB")):
        broker.submit(order(name, symbol=symbol, time_in_force="day"))
        venue.fill(name, 4)
        venue.fill(name, 6)
    straight = broker.fills_since(None)
    path = "/v2/account/activities" if "v2" in str(venue.orders_path) else "/v1/api/iserver/account/trades"
    venue.server.edit(path, lambda fills: [*reversed(fills), *fills[:2]])
    assert venue.broker().fills_since(None) == straight
    assert [fill.quantity for fill in straight] == [4, 6, 4, 6]


@served
def test_a_reject_in_mid_basket_stops_only_its_own_order(venue: Any) -> None:
    venue.exchange.refuse = lambda symbol: "borrow lost" if symbol == "BBB" else None
    broker = venue.broker()
    answers = {symbol: broker.submit(order(f"sp-{symbol}", "short", symbol=symbol)) for symbol in ("AAA", "BBB", "CCC")}
    assert {symbol: type(answer).__name__ for symbol, answer in answers.items()} == {
        "AAA": "BrokerOrder",
        "BBB": "Rejected",
        "CCC": "BrokerOrder",
    }
    assert len(broker.open_orders()) == 2


@served
def test_an_order_rejected_after_it_was_taken_has_ended(venue: Any) -> None:
    broker = venue.broker()
    broker.submit(order())
    venue.exchange.reject(venue.exchange.by_client_id("sp-1"), "the exchange sent it back")
    ended = known(broker, "sp-1")
    assert ended.status in TERMINAL
    assert (ended.filled_quantity, broker.positions()) == (0, {})


@served
def test_a_halted_symbol_does_not_open_and_its_order_ends(venue: Any) -> None:
    broker = venue.broker()
    venue.exchange.halted.add("AAA")
    broker.submit(order())
    broker.submit(order("sp-2", symbol="BBB"))
    venue.exchange.open_session()
    assert known(broker, "sp-1").status in ("cancelled", "expired")
    assert broker.positions() == {"BBB": 10}


@served
def test_an_unheard_of_status_keeps_the_order_alive(venue: Any) -> None:
    broker = venue.broker()
    broker.submit(order())

    def renamed(body: Any) -> Any:
        for entry in body.get("orders", [body]):
            entry["status"] = "gone_fishing"
        return body

    venue.server.edit(venue.lookup_path, renamed, times=None)
    found = known(broker, "sp-1")
    assert found.status == "working"
    assert "gone_fishing" in found.reason


@served
def test_a_split_over_night_shows_in_the_positions(venue: Any) -> None:
    broker = venue.broker()
    broker.submit(order())
    venue.exchange.open_session()
    venue.exchange.split("AAA", 4)
    assert broker.positions() == {"AAA": 40}
    if broker.capabilities.reports_movements:
        [movement] = broker.movements_since(EVENING)
        assert (movement.symbol, movement.quantity, movement.kind) == ("AAA", 30, "SPLIT")


@served
def test_orders_of_others_show_among_the_open_ones_and_among_the_fills(venue: Any) -> None:
    venue.exchange.place("somebody-else", "CCC", "buy", Decimal(3), "market", "day")
    broker = venue.broker()
    broker.submit(order())
    assert {o.client_order_id for o in broker.open_orders()} == {"somebody-else", "sp-1"}
    venue.exchange.open_session()
    assert {fill.client_order_id for fill in broker.fills_since(None)} == {"somebody-else", "sp-1"}


@served
def test_an_order_held_up_beyond_its_time_is_not_sent(venue: Venue) -> None:
    late = replace(order(), not_after=EVENING, sent_before=False)
    assert isinstance(venue.broker().submit(late), Rejected)
    assert venue.orders_under("sp-1") == 0


@every
def test_what_the_last_word_forbids_is_not_taken(venue: Venue) -> None:
    forbidden = replace(order(), last_word=lambda: "halted by ada", sent_before=False)
    assert venue.broker().submit(forbidden) == Rejected("halted by ada", "not sent")
    assert isinstance(venue.broker().submit(replace(forbidden, sent_before=True)), Unknown)

    def taken_over() -> str | None:
        raise Fenced("another process has the account")

    with pytest.raises(Fenced):
        venue.broker().submit(replace(order(), last_word=taken_over))
    assert (venue.orders_under("sp-1"), venue.broker().find("sp-1")) == (0, Absent())
    assert isinstance(venue.broker().submit(replace(order(), last_word=lambda: None)), BrokerOrder)
    assert venue.orders_under("sp-1") == 1
    # What is there already is told, whatever may be sent now.
    if not venue.orders_path:
        assert isinstance(venue.broker().submit(forbidden), BrokerOrder)


@served
def test_an_order_that_arrives_after_it_has_expired_is_cancelled_at_once(venue: Any) -> None:
    """By the broker's clock: ours stood still with the machine, and says that there is time."""
    held_up = replace(order(), not_after=EVENING + timedelta(minutes=10), last_word=lambda: None)
    venue.server.clock = lambda: EVENING + timedelta(minutes=10)
    answer = venue.broker().submit(held_up)
    assert isinstance(answer, BrokerOrder)
    assert (answer.status, answer.reason) == ("cancelled", "it reached the broker after it had expired")
    assert not any(each.open for each in venue.exchange.orders)
    venue.server.clock = lambda: EVENING + timedelta(minutes=9)
    assert known(venue.broker(), "sp-1").status == "cancelled"
    in_time = venue.broker().submit(replace(held_up, client_order_id="sp-2"))
    assert isinstance(in_time, BrokerOrder)
    assert in_time.status == "working"


@served
@pytest.mark.parametrize("hindrance", ["late", "cut off", "429", "no connection"])
def test_what_is_not_sent_this_time_may_have_been_sent_before(venue: Any, hindrance: str) -> None:
    """An order that arrived without our knowing is not declared refused because it cannot be sent again."""
    venue.server.play("504_after", venue.orders_path)
    assert isinstance(venue.broker().submit(order()), Unknown)
    again = order()
    if hindrance == "late":
        again = replace(again, not_after=EVENING)
    elif hindrance == "cut off":
        venue.exchange.at(TUESDAY, 9, 29)
    elif hindrance == "429":
        venue.server.play("429", "", times=None)
    else:
        venue.server.play("drop", "", times=None)
    for _ in range(2):
        assert isinstance(venue.broker().submit(again), Unknown)
    venue.server.faults.clear()
    assert known(venue.broker(), "sp-1").status == "working"
    assert venue.orders_under("sp-1") == 1


@served
@pytest.mark.parametrize("seed", [0, 1, *[pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 30)]])
def test_storms_of_faults_end_with_one_order_an_intent_and_nothing_lost(venue: Any, seed: int) -> None:
    """Random faults on everything, random crashes in between; then the weather clears."""
    import random

    draw = random.Random(seed)
    quick = [fault for fault in (*BEFORE, *AFTER) if "hang" not in fault]
    symbols = ("AAA", "BBB", "CCC")
    # One side a symbol, as a basket has it.
    requests = [order(f"sp-{n}", "short" if n % 3 == 1 else "buy", n + 1, symbols[n % 3]) for n in range(4)]
    for request in requests:
        for _ in range(draw.randrange(1, 4)):
            for method in ("POST", "GET", "DELETE"):
                if draw.random() < 0.5:
                    venue.server.play(draw.choice(quick), "", method=method, times=draw.randrange(1, 3))
            with suppress(BrokerUnavailable):
                answer = venue.broker().submit(request)
                if isinstance(answer, Rejected):
                    assert venue.orders_under(request.client_order_id) == 0, answer
        venue.server.faults.clear()
    settled = [resolve(venue, request) for request in requests]
    assert all(isinstance(answer, BrokerOrder) for answer in settled)
    assert [venue.orders_under(request.client_order_id) for request in requests] == [1] * len(requests)
    venue.exchange.open_session()
    expected: dict[str, Decimal] = {}
    for request in requests:
        sign = 1 if request.side == "buy" else -1
        expected[request.symbol] = expected.get(request.symbol, Decimal(0)) + sign * request.quantity
    assert venue.broker().positions() == expected
    assert sum(fill.quantity for fill in venue.broker().fills_since(None)) == sum(expected.values())
