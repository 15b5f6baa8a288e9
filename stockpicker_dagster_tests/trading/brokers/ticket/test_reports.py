"""What a person brings back is taken whole or not at all, once however often, and only if it fits the orders."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.brokers import BrokerUnavailable, OrderRequest
from stockpicker_dagster.trading.brokers.ticket import TicketBroker
from stockpicker_dagster.trading.brokers.ticket.export import as_checklist, as_csv, hand_out
from stockpicker_dagster.trading.brokers.ticket.reports import Taken, state_holdings, take_fills
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY
from stockpicker_dagster_tests.trading.brokers.venues import TicketVenue

LATER = EVENING + timedelta(hours=20)
HEADER = "order,symbol,side,quantity,price,fees,time\n"
AT = "2024-03-05 09:31:07"


@pytest.fixture
def venue(new_ledger: Callable[[], Engine]) -> TicketVenue:
    return TicketVenue(new_ledger())


@pytest.fixture
def broker(venue: TicketVenue) -> TicketBroker:
    broker = venue.broker()
    for name, side, symbol in (("sp-1", "buy", "AAA"), ("sp-2", "sell", "BRK-B")):
        broker.submit(
            OrderRequest(
                name,
                symbol,
                side,  # type: ignore[arg-type]
                Decimal(10),
                "openings" if side == "buy" else "reductions",
                "limit",
                "day",
                Decimal(45),
                Decimal(55),
                TUESDAY,
                EVENING,
                Decimal(51),
            )
        )
    return broker


def take(venue: TicketVenue, text: str, now: datetime = LATER) -> Taken:
    return take_fills(venue.engine, "hand", text, "os:me", now)


def test_a_file_taken_twice_is_taken_once(venue: TicketVenue, broker: TicketBroker) -> None:
    text = (
        HEADER + f"sp-1,AAA,buy,4,50.5,0.35,{AT}\nsp-1,AAA,buy,4,50.5,0.35,{AT}\nsp-2,BRK-B,sell,10,400,,{AT}-05:00\n"
    )
    assert take(venue, text.replace("400", "52")) == Taken(fills=3, known=0, ended=0)
    assert take(venue, text.replace("400", "52")) == Taken(fills=0, known=3, ended=0)
    # The same in other words: another order of lines, other decimals.
    assert take(venue, HEADER + f"sp-1,aaa,BUY,4.0,50.50,0.35,{AT}\n") == Taken(0, 1, 0)
    fills = broker.fills_since(None)
    assert [(fill.symbol, fill.quantity, fill.price, fill.commission) for fill in fills] == [
        ("AAA", 4, Decimal("50.5"), Decimal("0.35")),
        ("AAA", 4, Decimal("50.5"), Decimal("0.35")),
        ("BRK-B", -10, 52, 0),
    ]
    assert [fill.session for fill in fills] == [TUESDAY] * 3
    assert fills[0].filled_at.isoformat() == "2024-03-05T14:31:07+00:00"
    assert broker.positions() == {"AAA": 8, "BRK-B": -10}
    assert broker.cash() == 1_000_000 - 8 * Decimal("50.5") - Decimal("0.70") + 520


def test_fills_with_the_brokers_own_names_are_told_apart_by_them(venue: TicketVenue, broker: TicketBroker) -> None:
    header = HEADER.replace("order,", "fill,order,")
    assert take(venue, header + f"X1,sp-1,AAA,buy,4,50,0,{AT}\n").fills == 1
    assert take(venue, header + f"X2,sp-1,AAA,buy,4,50,0,{AT}\nX1,sp-1,AAA,buy,4,50,0,{AT}\n") == Taken(1, 1, 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"sp-9,AAA,buy,4,50,0,{AT}", "no order 'sp-9'"),
        (f"sp-1,BBB,buy,4,50,0,{AT}", "is to buy AAA, not BBB"),
        (f"sp-1,AAA,sell,4,50,0,{AT}", "is to buy AAA, not sell"),
        (f"sp-1,AAA,buy,11,50,0,{AT}", "11 shares would be filled of an order for 10"),
        (f"sp-1,AAA,buy,-4,50,0,{AT}", "is no fill"),
        (f"sp-1,AAA,buy,4,0,0,{AT}", "is no fill"),
        (f"sp-1,AAA,buy,4,50,-1,{AT}", "is no fill"),
        (f'sp-1,AAA,buy,"1,000",50,0,{AT}', "without currency or separators"),
        (f"sp-1,AAA,buy,1e1,50,0,{AT}", "write a number such as 12.34"),
        (f"sp-1,AAA,buy,NaN,50,0,{AT}", "write a number such as 12.34"),
        (f"sp-1,AAA,buy,4,5000,0,{AT}", "far from the 45 to 55"),
        ("sp-1,AAA,buy,4,50,0,yesterday", "write it as 2024-03-05 09:31:07"),
        ("sp-1,AAA,buy,4,50,0,2024-03-04 09:31:07", "the order is of 2024-03-05 01:15 UTC"),
        ("sp-1,AAA,buy,4,50,0,2024-03-09 09:31:07", "it is 2024-03-05 21:15 UTC now"),
        ("sp-1,AAA,buy,,,,", "neither a quantity nor a status"),
        (f"sp-1,AAA,buy,4,50,0,{AT},surplus", "more or fewer cells"),
        ("sp-1,AAA,buy", "more or fewer cells"),
    ],
)
def test_a_line_that_does_not_fit_refuses_the_whole_file(
    venue: TicketVenue, broker: TicketBroker, line: str, why: str
) -> None:
    good = f"sp-2,BRK-B,sell,10,52,0,{AT}\n"
    with pytest.raises(InvalidInput, match="line 3") as refused:
        take(venue, HEADER + good + line + "\n")
    assert why in str(refused.value)
    assert broker.fills_since(None) == []


@pytest.mark.parametrize("text", ["", "symbol,quantity\nAAA,1\n", "order,order\nsp-1,sp-1\n"])
def test_a_file_without_the_columns_is_refused(venue: TicketVenue, text: str) -> None:
    with pytest.raises(InvalidInput, match="it needs order, each once"):
        take(venue, text)


def test_an_order_that_ended_is_reported_with_or_without_a_fill(venue: TicketVenue, broker: TicketBroker) -> None:
    header = "order,quantity,price,time,status,reason\n"
    taken = take(venue, header + f"sp-1,4,50,{AT},cancelled,too dear\nsp-2,,,,rejected,\n")
    assert taken == Taken(fills=1, known=0, ended=2)
    first: Any = broker.find("sp-1")
    second: Any = broker.find("sp-2")
    assert (first.status, first.filled_quantity, first.reason) == ("cancelled", 4, "too dear")
    assert (second.status, second.reason) == ("rejected", "rejected, as reported")
    with pytest.raises(InvalidInput, match="allowed: cancelled, expired, rejected"):
        take(venue, header + "sp-2,,,,eaten by the dog,\n")


def test_what_was_handed_out_can_only_be_ended_by_the_person(venue: TicketVenue, broker: TicketBroker) -> None:
    tickets = hand_out(venue.engine, "hand", LATER)
    assert [(ticket.order, ticket.do) for ticket in tickets] == [("sp-2", "place"), ("sp-1", "place")]
    asked: Any = broker.cancel("sp-1", "halted")
    assert (asked.status, asked.reason) == ("working", "asked to be ended: halted")
    assert [(ticket.order, ticket.do) for ticket in hand_out(venue.engine, "hand", LATER)] == [
        ("sp-1", "cancel"),
        ("sp-2", "place"),
    ]
    take(venue, "order,status\nsp-1,cancelled\n")
    ended: Any = broker.find("sp-1")
    assert ended.status == "cancelled"


def test_the_list_is_there_for_programs_and_to_be_printed(venue: TicketVenue, broker: TicketBroker) -> None:
    tickets = hand_out(venue.engine, "hand", LATER)
    lines = as_csv(tickets).splitlines()
    assert lines[0].split(",")[:6] == ["order", "do", "phase", "side", "symbol", "quantity"]
    assert lines[1] == "sp-2,place,reductions,sell,BRK-B,10,limit,51,day,45,55,2024-03-05"
    page = as_checklist(tickets, "<script>alert(1)</script>", LATER)
    assert page.index("Sell (reductions)") < page.index("Buy (openings)")
    assert "<script" not in page
    assert "src=" not in page
    assert page.count("&#9744;") == 2


def test_holdings_are_as_stated_with_the_fills_after_that(venue: TicketVenue, broker: TicketBroker) -> None:
    take(venue, HEADER + f"sp-1,AAA,buy,4,50,0,{AT}\n")
    assert broker.positions() == {"AAA": 4}
    # Read off the broker's pages after the fill, which is in it already.
    assert state_holdings(venue.engine, "hand", "symbol,quantity\nAAA,5\nCCC,2.5\n", Decimal(7), "os:me", LATER) == 2
    assert broker.positions() == {"AAA": 5, "CCC": Decimal("2.5")}
    assert broker.cash() == 7
    after = LATER + timedelta(minutes=1)
    take(venue, HEADER + f"sp-1,AAA,buy,1,50,0,{after.isoformat()}\n", after)
    assert (broker.positions()["AAA"], broker.cash()) == (6, -43)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("symbol,quantity\nAAA,1\nAAA,2\n", "empty or comes twice"),
        ("symbol,quantity\nAAA,-1\n", "hold no shorts"),
        ("symbol,quantity\nAAA,many\n", "write a number"),
        ("ticker,quantity\nAAA,1\n", "needs symbol, quantity"),
    ],
)
def test_a_statement_that_cannot_be_changes_nothing(
    venue: TicketVenue, broker: TicketBroker, text: str, why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        state_holdings(venue.engine, "hand", text, Decimal(7), "os:me", LATER)
    assert broker.cash() == 1_000_000


def test_nothing_stated_is_not_nothing_held(venue: TicketVenue) -> None:
    from stockpicker_dagster.trading import ledger

    with venue.engine.begin() as connection:
        connection.execute(ledger.ticket_statements.delete())
    for question in (venue.broker().positions, venue.broker().cash, venue.broker().account):
        with pytest.raises(BrokerUnavailable, match="nobody has said yet what account 'hand' holds"):
            question()
