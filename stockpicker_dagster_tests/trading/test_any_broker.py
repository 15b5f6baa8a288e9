"""From a plan to fills at any broker: proposed, announced, approved, sent once, filled, reconciled, day after day."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select

from stockpicker_dagster.market.sources.exchange import ExchangeVenue
from stockpicker_dagster.trading import accounts, desk, ledger, locks, reconciliation, stopwatch
from stockpicker_dagster.trading.brokers import OrderRequest
from stockpicker_dagster.trading.execution import ExecutionReport, execute, no_checkpoint
from stockpicker_dagster.trading.flatten import propose_flattening
from stockpicker_dagster.trading.locks import Fenced
from stockpicker_dagster.trading.notifications import outbox
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster_tests.trading.brokers.alpaca_server import AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING, TUESDAY
from stockpicker_dagster_tests.trading.brokers.interactive_brokers_server import InteractiveBrokersServer
from stockpicker_dagster_tests.trading.brokers.venues import AlpacaVenue
from stockpicker_dagster_tests.trading.stands import (
    CALENDAR,
    CASH,
    WEDNESDAY,
    AlpacaStand,
    InteractiveBrokersStand,
    Stand,
    TicketStand,
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "PAUSES", (0.0,))


@pytest.fixture
def stand(request: pytest.FixtureRequest, new_ledger: Callable[[], Engine]) -> Iterator[Stand]:
    kind = getattr(request, "param", "alpaca")
    if kind == "ticket":
        yield TicketStand(new_ledger())
    elif kind == "alpaca":
        with AlpacaServer() as server:
            yield AlpacaStand(new_ledger(), server)
    else:
        with InteractiveBrokersServer() as server:
            yield InteractiveBrokersStand(new_ledger(), server)


every = pytest.mark.parametrize("stand", ["alpaca", "interactive_brokers", "ticket"], indirect=True)
served = pytest.mark.parametrize("stand", ["alpaca", "interactive_brokers"], indirect=True)


def intents(stand: Stand) -> list[Any]:
    with stand.engine.connect() as connection:
        return list(connection.execute(select(ledger.order_intents).order_by(ledger.order_intents.c.created_at)))


@every
def test_two_days_of_trading_end_with_books_that_agree(stand: Stand) -> None:
    shorts = stand.kind != "ticket"
    first = stand.rebalance({"AAA": 0.4, "BBB": -0.4 if shorts else 0.4})
    assert (first.status, {order.status for order in first.orders}) == ("finished", {"filled"}), first.message
    second = stand.rebalance({"AAA": 0.2, "CCC": -0.3 if shorts else 0.3})
    assert (second.status, {order.status for order in second.orders}) == ("finished", {"filled"}), second.message
    equity = CASH * Decimal("0.98")
    # By hand: shares of 50 that a fraction of equity buys, whole.
    assert stand.books()["AAA"] == int(equity * Decimal("0.2") / 50)
    assert stand.books().keys() == {"AAA", "CCC"}
    assert stand.books() == stand.connect(stand.engine, "us").positions()
    assert stand.reconciled().agrees
    sent = intents(stand)
    assert len(sent) == len({row.id for row in sent}) == len(first.orders) + len(second.orders)
    if stand.kind != "ticket":
        assert sorted(order.client_id for order in stand.market.orders) == sorted(row.id for row in sent)


@served
def test_reductions_go_into_the_auction_and_openings_follow_as_collared_limits(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    report = stand.rebalance({"AAA": 0.2, "BBB": -0.6})
    assert report.status == "finished"
    by_phase = {row.phase: row for row in intents(stand) if row.proposal == report.proposal}
    assert by_phase["reductions"].time_in_force == "opg"
    opening = by_phase["openings"]
    assert (opening.order_type, opening.time_in_force) == ("limit", "day")
    # 3 % below the reference for a short.
    assert opening.limit_price == Decimal("48.50")
    assert opening.created_at >= CALENDAR.open_at(WEDNESDAY)
    assert by_phase["reductions"].created_at < CALENDAR.open_at(WEDNESDAY)


@served
def test_it_is_decided_before_the_auction_closes_and_void_before_the_session_does(stand: Stand) -> None:
    document = load(stand.engine, stand.proposed({"AAA": 0.4, "BBB": -0.4})).document
    cut_off = CALENDAR.open_at(TUESDAY) - timedelta(minutes=2)
    assert document.decide_by is not None
    assert cut_off - timedelta(minutes=5) < document.decide_by < cut_off
    assert document.expires_at == CALENDAR.close_at(TUESDAY) - timedelta(minutes=15)


def test_the_last_orders_of_a_half_day_go_before_its_early_close(stand: Stand) -> None:
    # The Friday after Thanksgiving closes at 13:00 in New York; the day before is a holiday.
    stand.session = date(2023, 11, 22)
    stand.market.at(stand.session, 20, 15)
    document = load(stand.engine, stand.proposed({"AAA": 0.4, "BBB": -0.4})).document
    assert document.trade_session == date(2023, 11, 24)
    assert f"{document.expires_at:%Y-%m-%d %H:%M}" == "2023-11-24 17:45"
    assert document.decide_by is not None
    assert document.decide_by.date() == date(2023, 11, 24)


def test_too_late_to_send_is_too_late_to_propose(stand: Stand) -> None:
    stand.market.at(TUESDAY, 9, 27)
    outcome = stand.propose({"AAA": 0.4, "BBB": -0.4})
    assert outcome.id is None
    assert "had to be decided by" in outcome.reason


def test_a_proposal_is_announced(stand: Stand) -> None:
    with stand.engine.begin() as connection:
        connection.execute(
            insert(ledger.notice_targets).values(
                name="desk", url="json://x", kinds=None, created_by="os:me", created_at=EVENING - timedelta(days=1)
            )
        )
    proposal = stand.proposed({"AAA": 0.4, "BBB": -0.4})
    assert outbox.gather(stand.engine, stand.now) >= 1
    with stand.engine.connect() as connection:
        body = connection.execute(select(ledger.outbox.c.body).where(ledger.outbox.c.kind == "proposal")).scalar_one()
    decide_by = load(stand.engine, proposal).document.decide_by
    assert f"Expires: {decide_by:%Y-%m-%d %H:%M} UTC" in body


def test_a_renamed_security_is_ordered_by_its_ticker_and_booked_under_its_id(stand: Stand) -> None:
    stand.market.prices |= {"META": Decimal(50), "FB": Decimal(50)}
    stand.prices |= {"FB": 50.0}
    stand.rebalance({"AAA": -0.4, "CCC": 0.4})
    # Since Wednesday FB is called META, and what is called FB now is another company.
    stand.tickers = {"FB": "META", "FB~2": "FB", "META": None}
    report = stand.rebalance({"AAA": -0.4, "FB": 0.4})
    assert report.status == "finished", report.message
    assert stand.books() == {"AAA": Decimal(-7840), "FB": Decimal(7840)}
    assert stand.market.positions == {"AAA": Decimal(-7840), "META": Decimal(7840)}
    assert load(stand.engine, str(report.proposal)).document.tickers == {"FB": "META"}
    assert stand.reconciled().agrees
    # The new FB in the account is nobody's but another's.
    stand.market.positions["FB"] = Decimal(5)
    assert stand.reconciled().differences == ("FB~2 is 0 shares in the ledger and 5 by broker alpaca",)


def test_a_position_whose_ticker_changes_is_closed_under_the_new_one(stand: Stand) -> None:
    stand.rebalance({"AAA": -0.4, "BBB": 0.4})
    stand.market.positions["XYZ"] = stand.market.positions.pop("BBB")
    stand.market.prices["XYZ"] = Decimal(50)
    stand.tickers = {"BBB": "XYZ", "BBB~2": "BBB"}
    report = stand.rebalance({"AAA": -0.4, "CCC": 0.4})
    assert report.status == "finished", report.message
    assert stand.books().keys() == {"AAA", "CCC"}
    assert [order.symbol for order in stand.market.orders if order.side == "sell"][-1] == "XYZ"


def test_a_name_without_a_ticker_of_its_own_is_not_bought_and_not_left_unsaid(stand: Stand) -> None:
    stand.tickers = {"BBB": None}
    document = stand.propose({"AAA": 0.4, "BBB": -0.4, "CCC": -0.4}).document
    assert document is not None
    assert {order.symbol for order in document.orders} == {"AAA", "CCC"}
    stand.tickers = {}
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.tickers = {"BBB": None}
    assert "BBB, held in account 'us', has no ticker of its own" in stand.propose({"AAA": 0.4}).reason


def test_invented_prices_make_no_orders_for_real_stocks(stand: Stand) -> None:
    from stockpicker_dagster_tests.trading.conftest import SetMarket

    assert "the prices are invented" in stand.propose({"AAA": 0.4}, venue=SetMarket()).reason
    assert (
        "the prices are of XETR"
        in stand.propose({"AAA": 0.4}, venue=SetMarket(simulated=False, exchange="XETR")).reason
    )


@pytest.mark.parametrize("stand", ["ticket"], indirect=True)
def test_nobody_is_asked_to_approve_what_the_broker_does_not_take(stand: Stand) -> None:
    outcome = stand.propose({"AAA": 0.4, "BBB": -0.4})
    assert outcome.id is None
    assert "BBB: stocks can not be sold short here" in outcome.reason


def test_what_an_account_holds_at_first_is_its_opening(stand: Stand) -> None:
    stand.market.positions = {"BBB": Decimal(100)}
    found = stand.reconciled()
    assert found.agrees
    assert found.entered == ("BBB is 100 shares (opening)", "cash is 1000000 (opening)")
    assert stand.reconciled().entered == ()
    document = stand.propose({"AAA": 0.4, "CCC": -0.4}).document
    assert document is not None
    assert ("BBB", "sell", Decimal(100)) in {(o.symbol, o.side, o.quantity) for o in document.orders}


def test_part_of_a_share_that_is_held_goes_as_a_day_order(stand: Stand) -> None:
    stand.market.positions = {"BBB": Decimal("100.25")}
    document = stand.propose({"AAA": 0.4, "CCC": -0.4}).document
    assert document is not None
    [sale] = [order for order in document.orders if order.symbol == "BBB"]
    assert (sale.quantity, sale.time_in_force) == (Decimal("100.25"), "day")
    assert stand.rebalance({"AAA": 0.4, "CCC": -0.4}).status == "finished"
    assert stand.books().keys() == {"AAA", "CCC"}


def test_names_with_orders_of_others_are_left_alone_and_stop_an_execution(stand: Stand) -> None:
    stand.market.place("by-hand", "AAA", "buy", Decimal(5), "market", "day")
    outcome = stand.propose({"AAA": 0.4, "BBB": -0.4, "CCC": 0.4})
    assert outcome.document is not None
    assert {order.symbol for order in outcome.document.orders} == {"BBB", "CCC"}
    stand.approve(str(outcome.id))
    report = stand.execute()
    assert (report.status, intents(stand)) == ("aborted", [])
    assert "1 orders of others are open" in report.message


def test_fills_of_others_are_not_ours_and_halt(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    foreign = stand.market.place("by-hand", "CCC", "buy", Decimal(5), "market", "day")
    stand.market.fill(foreign)
    found = stand.reconciled()
    assert "CCC is 0 shares in the ledger and 5 by broker alpaca" in found.differences
    assert any("others traded 5 shares of CCC at 50" in each for each in found.differences)
    assert "CCC" in str(accounts.halt_in_force(stand.engine, "us"))
    # A person looks, and takes the broker's books for the truth; the halt is lifted apart from that.
    stand.market.advance(seconds=1)
    desk.accept_books(stand.engine, "us", "ann", "bought by mistake", stand.now, connect=stand.connect)
    assert stand.reconciled().agrees
    assert stand.books()["CCC"] == 5
    assert accounts.is_halted(stand.engine, "us")


def test_dividends_and_splits_that_the_broker_tells_are_entered(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.market.advance(minutes=1)
    stand.market.dividend("AAA", "0.5")
    stand.market.split("AAA", 2)
    found = stand.reconciled()
    assert found.agrees, found.differences
    assert stand.books()["AAA"] == 2 * 7840
    assert stand.reconciled().entered == ()
    with stand.engine.connect() as connection:
        table = ledger.cash_movements
        dividends = select(table.c.amount).where(table.c.reference.startswith("movement"))
        assert connection.execute(dividends).scalars().all() == [Decimal(3920)]


def test_a_split_that_nobody_tells_halts(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.market.positions["AAA"] *= 2
    assert stand.reconciled().differences == ("AAA is 7840 shares in the ledger and 15680 by broker alpaca",)


def test_a_little_cash_without_an_explanation_is_entered_and_more_halts(stand: Stand) -> None:
    assert stand.reconciled().agrees
    stand.market.cash -= Decimal("600.01")
    assert stand.reconciled().entered == ("-600.01 of cash that the broker does not explain",)
    stand.market.advance(minutes=1)
    stand.market.cash -= 600
    assert stand.reconciled().differences == ("cash is 999399.99 in the ledger and 998799.99 by broker alpaca",)


def test_a_fill_that_comes_in_while_books_are_compared_is_no_difference(stand: Stand) -> None:
    stand.approve(stand.proposed({"AAA": 0.4, "BBB": -0.4}))
    stand.execute()
    stand.market.open_session()
    stand.execute()
    waited: list[float] = []
    broker = stand.connect(stand.engine, "us")
    truth = broker.fills_since
    stand.fill_all()
    asked: list[int] = []

    def late(last: str | None) -> Any:
        asked.append(1)
        return [] if len(asked) == 1 else truth(last)

    broker.fills_since = late  # type: ignore[method-assign]
    assert reconciliation.reconcile(stand.engine, broker, stand.now, wait=waited.append).agrees
    assert waited == [0.0]
    assert not accounts.is_halted(stand.engine, "us")


def test_a_halt_cancels_our_orders_and_leaves_those_of_others(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.approve(stand.proposed({"AAA": 0.2, "BBB": -0.2}))
    assert stand.execute().status == "working"
    stand.market.place("by-hand", "CCC", "buy", Decimal(5), "market", "day")
    assert desk.halt(stand.engine, None, "os:risk", "stop", stand.now, connect=stand.connect) == 2
    assert [order.client_id for order in stand.market.orders if order.open] == ["by-hand"]


def test_a_silent_broker_makes_no_proposal_and_ends_no_execution(stand: Stand) -> None:
    stand.approve(stand.proposed({"AAA": 0.4, "BBB": -0.4}))
    server = stand.server  # type: ignore[attr-defined]
    server.play("drop", "/v2/positions", "GET", times=None)
    report = stand.execute()
    assert (report.status, intents(stand)) == ("working", [])
    server.faults.clear()
    assert stand.execute().status == "working"
    with stand.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(ledger.executions)).scalar_one() == 1


def test_an_account_that_has_a_trader_is_only_looked_at(stand: Stand) -> None:
    from stockpicker_dagster.trading import locks

    stand.approve(stand.proposed({"AAA": 0.4, "BBB": -0.4}))
    lock = locks.take(stand.engine, "us")
    report = stand.execute()
    assert (report.status, intents(stand)) == ("working", [])
    assert "by the trader of account 'us'" in report.message
    locks.release(stand.engine, lock)


def execution(stand: Stand, proposal: str, checkpoint: Callable[[str], None]) -> ExecutionReport:
    """One pass, as a trader makes it."""
    broker, venue = stand.connect(stand.engine, "us"), ExchangeVenue(CALENDAR, None)  # type: ignore[arg-type]
    return execute(stand.engine, proposal, broker, venue, lambda: stand.now, checkpoint)


def paused(stand: Stand, proposal: str, meanwhile: Callable[[], object]) -> Callable[[], ExecutionReport]:
    """A pass that stands still between committing to its first order and sending it, while something happens."""
    asleep = [meanwhile]

    def checkpoint(reached: str) -> None:
        if reached == "after_intent" and asleep:
            asleep.pop()()

    return lambda: execution(stand, proposal, checkpoint)


@served
def test_a_halt_between_commitment_and_sending_keeps_the_order_back_until_it_is_lifted(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.approve(proposal := stand.proposed({"AAA": 0.2, "BBB": -0.2}))
    before = len(stand.market.orders)
    report = paused(stand, proposal, lambda: accounts.halt(stand.engine, "us", "os:risk", "stop", stand.now))()
    assert report.status == "halted"
    assert len(stand.market.orders) == before
    assert {(order.status, order.reason[:6]) for order in report.orders} == {("cancelled", "halted"), ("unsent", "")}
    accounts.resume(stand.engine, "us", "os:risk", stand.now)
    # The broker is asked once more, and believed when nothing can be on its way to it.
    stand.market.advance(minutes=3)
    assert stand.execute().status == "working"
    assert len({order.client_id for order in stand.market.orders}) == len(stand.market.orders) == before + 2


@served
@pytest.mark.parametrize("waited", ["cut-off", "a day"])
def test_what_stood_still_beyond_its_time_is_not_sent(stand: Stand, waited: str) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.approve(proposal := stand.proposed({"AAA": 0.2, "BBB": -0.2}))
    before = len(stand.market.orders)
    moments = {"cut-off": lambda: stand.market.at(WEDNESDAY, 9, 28), "a day": lambda: stand.market.advance(hours=25)}
    paused(stand, proposal, moments[waited])()
    assert len(stand.market.orders) == before
    with stand.engine.connect() as connection:
        [intent] = connection.execute(
            select(ledger.broker_orders.c.status, ledger.broker_orders.c.reason)
            .join(ledger.order_intents, ledger.order_intents.c.id == ledger.broker_orders.c.intent)
            .where(ledger.order_intents.c.proposal == proposal)
        ).all()
    assert intent.status == "rejected"
    assert "UTC" in intent.reason


@served
def test_a_limit_order_that_was_sent_again_hours_later_has_its_time_to_fill(stand: Stand) -> None:
    stand.approve(proposal := stand.proposed({"AAA": 0.1, "BBB": -0.1}))
    assert stand.execute().status == "working"
    stand.market.open_session(TUESDAY)

    def die(reached: str) -> None:
        if reached == "after_intent":
            raise RuntimeError(reached)

    with suppress(RuntimeError):
        execution(stand, proposal, die)
    stand.market.advance(hours=2)
    assert stand.execute().status == "working"
    assert [order.open for order in stand.market.orders] == [True, True]
    stand.market.advance(minutes=9)
    assert stand.execute().status == "working"
    assert [order.open for order in stand.market.orders] == [True, True]
    stand.market.advance(minutes=2)
    stand.execute()
    assert not any(order.open for order in stand.market.orders)


@served
def test_what_stood_still_while_a_flattening_took_over_is_not_sent(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.approve(proposal := stand.proposed({"AAA": 0.2, "BBB": -0.2}))
    monkeypatch.setattr(locks, "LEASE", timedelta())

    def flatten() -> None:
        closing = propose_flattening(stand.engine, "us", "os:risk", stand.now, when="open", connect=stand.connect)
        stand.approve(closing)
        # Whether the order of the first one arrives is known after a while only.
        assert "yet to end" in execution(stand, closing, no_checkpoint).message
        stand.market.advance(minutes=3)
        assert execution(stand, closing, no_checkpoint).status == "working"
        flattened.append(closing)
        posted.extend(where for how, where in server.received if how == "POST" and where.endswith("/orders"))

    server = stand.server  # type: ignore[attr-defined]
    posted: list[str] = []
    flattened: list[str] = []
    with pytest.raises(Fenced):
        paused(stand, proposal, flatten)()
    assert [where for how, where in server.received if how == "POST" and where.endswith("/orders")] == posted
    assert server.broken_off == 0
    sent = [order.client_id for order in stand.market.orders if order.open]
    ours = {row.id for row in intents(stand) if row.proposal == flattened[0]}
    assert set(sent) == ours
    assert len(sent) == 2


@served
def test_an_order_that_was_handed_over_slowly_is_cancelled_if_it_must_not_be_there(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause that nothing can see before: after the last word, while the bytes leave."""
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.approve(proposal := stand.proposed({"AAA": 0.2, "BBB": -0.2}))
    seconds = {"passed": 0.0}
    monkeypatch.setattr(stopwatch, "CLOCKS", (lambda: seconds["passed"],))
    broker = stand.connect(stand.engine, "us")
    submit = broker.submit

    def slow(request: OrderRequest) -> Any:
        taken = submit(request)
        seconds["passed"] += 3600
        accounts.halt(stand.engine, "us", "os:risk", "stop", stand.now)
        return taken

    monkeypatch.setattr(broker, "submit", slow)
    assert execution(stand, proposal, no_checkpoint).status == "halted"
    assert not any(order.open for order in stand.market.orders)
    # The same, with another process that has taken over meanwhile: the order is cancelled all the same.
    accounts.resume(stand.engine, "us", "os:risk", stand.now)
    monkeypatch.setattr(locks, "LEASE", timedelta())

    def overtaken(request: OrderRequest) -> Any:
        taken = submit(request)
        seconds["passed"] += 3600
        locks.take(stand.engine, "us")
        return taken

    monkeypatch.setattr(broker, "submit", overtaken)
    with pytest.raises(Fenced):
        execution(stand, proposal, no_checkpoint)
    assert len(stand.market.orders) > 2
    assert not any(order.open for order in stand.market.orders)


@pytest.mark.parametrize("stand", ["interactive_brokers"], indirect=True)
def test_an_order_that_the_broker_shows_no_more_after_its_session_has_ended(stand: Stand) -> None:
    stand.rebalance({"AAA": 0.4, "BBB": -0.4})
    stand.approve(stand.proposed({"AAA": 0.2, "BBB": -0.4}))
    assert stand.execute().status == "working"
    # Nothing ran while the order expired in its auction, and the gateway was started anew over night.
    stand.market.close_session(WEDNESDAY)
    assert isinstance(stand, InteractiveBrokersStand)
    stand.server.restart()
    stand.market.at(WEDNESDAY, 20, 15)
    report = stand.execute()
    assert (report.status, [order.status for order in report.orders]) == ("finished", ["expired"])
    assert stand.books()["AAA"] == 7840
    assert stand.reconciled().agrees


def test_the_alpaca_stand_is_the_conformance_suite_s(stand: Stand) -> None:
    assert isinstance(stand, AlpacaStand)
    assert AlpacaVenue(stand.server).broker().account().number == stand.number
