"""A flattening closes everything and opens nothing, once a person approved it, whatever else is in its way."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import accounts, desk, ledger, reconciliation
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.execution import NotApproved
from stockpicker_dagster.trading.flatten import propose_flattening
from stockpicker_dagster.trading.proposal import ProposalDocument, load
from stockpicker_dagster_tests.trading.brokers.alpaca_server import AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import TUESDAY
from stockpicker_dagster_tests.trading.stands import CALENDAR, AlpacaStand

PRICES = {"AAA": 50.0, "BBB": 20.0, "CCC": 10.0}
BOOK = {"AAA": 0.5, "BBB": -0.5}


def flatten(trading_desk: Any, **more: Any) -> str:
    asked = {"venue": trading_desk.market, "latest_stored": trading_desk.session, **more}
    return propose_flattening(trading_desk.engine, "paper", "os:risk", trading_desk.now, **asked)


def document(trading_desk: Any, proposal: str) -> ProposalDocument:
    return load(trading_desk.engine, proposal).document


def test_it_closes_what_is_held_and_opens_nothing(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    held = trading_desk.broker().positions()
    proposal = flatten(trading_desk)
    orders = {order.symbol: order for order in document(trading_desk, proposal).orders}
    assert {name: (order.side, order.quantity) for name, order in orders.items()} == {
        "AAA": ("sell", held["AAA"]),
        "BBB": ("cover", -held["BBB"]),
    }
    assert {order.phase for order in orders.values()} == {"reductions"}
    with pytest.raises(NotApproved, match="is open"):
        trading_desk.execute(proposal)
    trading_desk.approve(proposal)
    # A market that has fallen out of every collar does not keep it.
    trading_desk.market.prices = {"AAA": Decimal(5), "BBB": Decimal(90)}
    assert trading_desk.execute(proposal).status == "finished"
    assert trading_desk.broker().positions() == {}
    assert desk.reconcile_account(trading_desk.engine, "paper", trading_desk.now).agrees


def test_it_passes_a_halt_which_a_rebalance_does_not(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    accounts.halt(trading_desk.engine, None, "os:risk", "stop", trading_desk.now)
    proposal = flatten(trading_desk)
    trading_desk.approve(proposal)
    assert trading_desk.execute(proposal).status == "finished"
    assert trading_desk.broker().positions() == {}


def test_one_approver_is_enough_and_four_eyes_are_not_asked_for(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    with trading_desk.engine.begin() as connection:
        connection.execute(ledger.accounts.update().values(approvals_needed=3, four_eyes=True))
    proposal = flatten(trading_desk)
    assert decide(trading_desk.engine, proposal, "os:risk", "approve", "", trading_desk.now).outcome == "approved"


def test_what_waits_for_a_decision_or_a_claim_makes_way(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    undecided = trading_desk.proposed({"CCC": 0.2, "AAA": 0.2}, PRICES)
    flatten(trading_desk)
    assert load(trading_desk.engine, undecided).state == "superseded"
    trading_desk.next_session()
    approved = trading_desk.proposed({"CCC": 0.2, "AAA": 0.2}, PRICES)
    trading_desk.approve(approved)
    flatten(trading_desk)
    assert load(trading_desk.engine, approved).state == "lapsed"
    with pytest.raises(NotApproved):
        trading_desk.execute(approved)


def test_an_execution_under_way_stands_still_and_goes_on_if_it_is_denied(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    under_way = trading_desk.proposed({"AAA": 0.5, "CCC": -0.5}, PRICES)
    trading_desk.approve(under_way)
    trading_desk.market.opened = False
    sent = 0

    def one_only(step: str) -> None:
        nonlocal sent
        sent += step == "after_record"
        if sent == 1 and step == "after_record":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trading_desk.execute(under_way, checkpoint=one_only)
    proposal = flatten(trading_desk)
    with pytest.raises(NotApproved, match="makes way for a flattening"):
        trading_desk.execute(under_way)
    # While it is undecided, nothing of the execution ends either.
    assert len(trading_desk.broker().open_orders()) == 1
    decide(trading_desk.engine, proposal, "os:other", "deny", "not yet", trading_desk.now)
    trading_desk.market.opened = True
    assert trading_desk.execute(under_way).status == "finished"
    assert trading_desk.broker().positions().keys() == {"AAA", "CCC"}


def test_approved_it_ends_an_execution_under_way_and_closes_what_came_of_it(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    under_way = trading_desk.proposed({"AAA": 0.5, "CCC": -0.5}, PRICES)
    trading_desk.approve(under_way)
    trading_desk.market.opened = False
    assert trading_desk.execute(under_way).status == "working"
    proposal = flatten(trading_desk)
    trading_desk.approve(proposal)
    trading_desk.market.opened = True
    assert trading_desk.execute(proposal).status == "finished"
    assert load(trading_desk.engine, under_way).state == "executed"
    assert trading_desk.broker().positions() == {}
    with trading_desk.engine.connect() as connection:
        table = ledger.broker_orders
        reasons = connection.execute(select(table.c.reason).where(table.c.status == "cancelled")).scalars().all()
    assert set(reasons) == {f"given up for the flattening {proposal}"}


def test_more_is_never_closed_than_was_approved_nor_than_is_held(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    proposal = flatten(trading_desk)
    trading_desk.approve(proposal)
    change = [("AAA", Decimal(-500)), ("BBB", Decimal(-100))]
    with trading_desk.engine.begin() as connection:
        ledger.move_positions(connection, ledger.paper_positions, "paper", change)
    held = trading_desk.broker().positions()
    trading_desk.execute(proposal)
    assert trading_desk.broker().positions() == {"BBB": held["BBB"] + 2450}
    table = ledger.order_intents
    with trading_desk.engine.connect() as connection:
        sent = connection.execute(select(table.c.symbol, table.c.quantity).where(table.c.proposal == proposal)).all()
    assert {row.symbol: row.quantity for row in sent} == {"AAA": held["AAA"], "BBB": Decimal(2450)}
    assert accounts.is_halted(trading_desk.engine, "paper")


def test_there_is_nothing_to_close_in_an_empty_account(trading_desk: Any) -> None:
    with pytest.raises(InvalidInput, match="holds nothing"):
        flatten(trading_desk)


def test_on_paper_it_needs_the_market_of_the_account(trading_desk: Any) -> None:
    trading_desk.rebalance(BOOK, PRICES)
    with pytest.raises(InvalidInput, match="run its strategy first"):
        propose_flattening(trading_desk.engine, "paper", "os:risk", trading_desk.now)


# -- at a real exchange -----------------------------------------------------------------------------------------------


@pytest.fixture
def stand(new_ledger: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaStand]:
    monkeypatch.setattr(reconciliation, "PAUSES", (0.0,))
    with AlpacaServer() as server:
        stand = AlpacaStand(new_ledger(), server, strategy="momentum")
        stand.market.positions = {"AAA": Decimal(7840), "BBB": Decimal(-7840)}
        assert stand.reconciled().agrees
        stand.session = TUESDAY
        yield stand


@pytest.mark.parametrize(
    ("day", "hour", "minute", "when", "trades_on", "time_in_force"),
    [
        (TUESDAY + timedelta(days=1), 11, 0, "now", TUESDAY + timedelta(days=1), "day"),
        (TUESDAY + timedelta(days=1), 15, 58, "now", TUESDAY + timedelta(days=2), "day"),
        (TUESDAY + timedelta(days=1), 9, 0, "open", TUESDAY + timedelta(days=1), "opg"),
        (TUESDAY + timedelta(days=1), 9, 29, "open", TUESDAY + timedelta(days=2), "opg"),
        (TUESDAY + timedelta(days=1), 15, 30, "close", TUESDAY + timedelta(days=1), "cls"),
        (TUESDAY + timedelta(days=1), 15, 51, "close", TUESDAY + timedelta(days=2), "cls"),
        # The day after Thanksgiving closes at 13:00: the closing auction's cut-off is 12:50 then.
        (date(2024, 11, 29), 12, 51, "close", date(2024, 12, 2), "cls"),
        (date(2024, 11, 29), 12, 30, "close", date(2024, 11, 29), "cls"),
    ],
)
def test_it_goes_into_the_next_session_or_auction_that_can_still_be_reached(
    stand: AlpacaStand, day: date, hour: int, minute: int, when: Any, trades_on: date, time_in_force: str
) -> None:
    stand.market.at(day, hour, minute)
    proposal = propose_flattening(stand.engine, "us", "os:risk", stand.now, when=when, connect=stand.connect)
    found = load(stand.engine, proposal).document
    assert found.trade_session == trades_on
    assert {order.time_in_force for order in found.orders} == {time_in_force}
    assert found.decide_by is not None
    assert stand.now < found.decide_by < CALENDAR.close_at(trades_on)


def test_it_fills_in_the_closing_auction(stand: AlpacaStand) -> None:
    wednesday = TUESDAY + timedelta(days=1)
    stand.market.at(wednesday, 15, 0)
    proposal = propose_flattening(stand.engine, "us", "os:risk", stand.now, when="close", connect=stand.connect)
    stand.approve(proposal)
    assert stand.execute().status == "working"
    stand.market.close_session(wednesday)
    assert stand.execute().status == "finished"
    assert stand.books() == stand.market.positions == {}
