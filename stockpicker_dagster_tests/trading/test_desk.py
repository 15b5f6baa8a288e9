"""The desk proposes or says why not, executes what is approved and nothing else, day after day."""

from dataclasses import asdict, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import accounts, desk, ledger
from stockpicker_dagster.trading.canonical import canonical_bytes
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.proposal import DigestMismatch, load, register
from stockpicker_dagster.trading.risk import LooserThanAccount

PRICES = {"AAA": 50.0, "BBB": 20.0, "CCC": 10.0}
TARGETS = {"AAA": 0.5, "BBB": -0.5}
OTHER = {"AAA": -0.4, "CCC": 0.4}


def run(trading_desk: Any, session: Any = None, strategy: str = "momentum") -> desk.ExecutionReport:
    return desk.execute_approved(
        trading_desk.engine, strategy, session or trading_desk.session, trading_desk.market, trading_desk.now
    )


def test_only_what_is_approved_is_executed(trading_desk: Any) -> None:
    assert run(trading_desk).status == "nothing"
    proposal = trading_desk.proposed(TARGETS, PRICES)
    assert "no proposal of 'momentum' for 2024-03-04 is approved" in run(trading_desk).message
    trading_desk.approve(proposal)
    assert run(trading_desk, strategy="reversal").status == "nothing"
    assert run(trading_desk).status == "finished"
    assert run(trading_desk).orders == run(trading_desk).orders
    assert desk.held_symbols(trading_desk.engine, "paper") == ["AAA", "BBB"]


def test_a_halt_is_a_report_and_tampering_is_an_error(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(proposal)
    desk.halt(trading_desk.engine, "paper", "os:risk", "stop", trading_desk.now)
    assert (run(trading_desk).status, run(trading_desk).orders) == ("halted", ())
    assert "halted by os:risk" in trading_desk.propose(OTHER, PRICES).reason
    accounts.resume(trading_desk.engine, "paper", "os:risk", trading_desk.now)
    with trading_desk.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER proposals_no_UPDATE"))
        connection.execute(text("UPDATE proposals SET digest = id || substr(digest, 13, 51) || 'g'"))
    with pytest.raises(DigestMismatch):
        run(trading_desk)


def test_history_never_proposes(trading_desk: Any) -> None:
    trading_desk.market.window = lambda session, latest, now: None
    outcome = trading_desk.propose(TARGETS, PRICES)
    assert (outcome.id, outcome.document) == (None, None)
    assert "not the current session" in outcome.reason


@pytest.mark.parametrize(("hours", "reason"), [(-6, "open at 2024-03-04 22:00"), (12, "closed at 2024-03-05 10:00")])
def test_outside_the_window_there_is_no_proposal(trading_desk: Any, hours: int, reason: str) -> None:
    assert reason in trading_desk.propose(TARGETS, PRICES, now=trading_desk.now + timedelta(hours=hours)).reason


def test_a_book_that_is_as_wanted_needs_no_proposal(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    assert "nothing to trade" in trading_desk.propose(TARGETS, PRICES).reason


def test_a_broken_limit_is_named_with_figure_and_limit(trading_desk: Any) -> None:
    refused = trading_desk.propose(TARGETS, PRICES, limits={"gross": 0.5})
    assert refused.id is None
    assert "gross exposure would be 0.9800, above the limit `gross` of 0.5" in refused.reason
    with pytest.raises(LooserThanAccount, match=r"gross: 9"):
        trading_desk.propose(TARGETS, PRICES, limits={"gross": 9})


def test_an_opening_is_as_small_as_its_share_of_the_daily_volume_asks_for(trading_desk: Any) -> None:
    # By hand: 980 shares of AAA are wanted, and a tenth of 5,009 may be; 500.9 x 50 is worth 1252 shares of BBB.
    outcome = trading_desk.propose(TARGETS, PRICES, volumes={"AAA": 5_009.0, "BBB": 1e6})
    assert outcome.document is not None
    assert {o.symbol: (o.side, o.quantity) for o in outcome.document.orders} == {
        "AAA": ("buy", Decimal(500)),
        "BBB": ("short", Decimal(1_252)),
    }
    assert outcome.reason.endswith(
        "; the limit `volume_share` of 0.1 lets it open 500 of 980 shares of AAA, whose mean daily volume is 5009"
    )
    assert outcome.document.over_volume == ("AAA",)
    assert "of 0.1 of a mean day: AAA" in outcome.document.less_opened
    trading_desk.approve(outcome.id)
    assert {order.status for order in run(trading_desk).orders} == {"filled"}
    # What is held may be closed whatever trades of it.
    trading_desk.next_session()
    closing = trading_desk.propose({}, PRICES, volumes={})
    assert [order.phase for order in closing.document.orders] == ["reductions"] * 2
    assert closing.document.over_volume == ()


def test_a_name_whose_volume_is_not_known_is_not_opened_and_named(trading_desk: Any) -> None:
    refused = trading_desk.propose(TARGETS, PRICES, volumes={})
    assert refused.id is None
    assert "account 'paper' may not trade what 2024-03-04 asks for" in refused.reason
    assert "0 of 980 shares of AAA, whose mean daily volume is not known" in refused.reason
    document = trading_desk.propose({**TARGETS, "CCC": 0.1}, PRICES, volumes={"AAA": 1e9, "BBB": 1e9}).document
    assert {order.symbol for order in document.orders} == {"AAA", "BBB"}
    assert document.over_volume == ("CCC",)


def test_a_book_that_one_side_s_volume_would_bend_beyond_its_net_limit_is_refused(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    # Only sold, so that nothing on the other side can be left out to keep the net.
    refused = trading_desk.propose({"CCC": 0.5, "BBB": -0.5}, PRICES, limits={"net": 0.2}, volumes={"CCC": 1_000.0})
    assert "net exposure would be" in refused.reason


def test_the_share_of_the_daily_volume_is_looked_at_again_before_an_order_goes(trading_desk: Any) -> None:
    proposal = trading_desk.propose(TARGETS, PRICES, volumes={"AAA": 9_800.0, "BBB": 1e9}).id
    trading_desk.approve(proposal)
    with trading_desk.engine.begin() as connection:
        tighter = replace(accounts.read_account(connection, "paper").limits, volume_share=Decimal("0.05"))
        stored = canonical_bytes(asdict(tighter)).decode()
        connection.execute(ledger.accounts.update().values(limits=stored))
    orders = {order.symbol: order for order in run(trading_desk).orders}
    assert orders["BBB"].status == "filled"
    assert orders["AAA"].status == "unsent"
    assert orders["AAA"].reason == (
        "AAA: share of the mean daily volume of 9800 shares would be 0.1000, above the limit `volume_share` of 0.05"
    )


def test_a_proposal_without_volumes_opens_nothing(trading_desk: Any) -> None:
    """As those have none that were made before volumes were part of them."""
    proposal = trading_desk.propose(TARGETS, PRICES)
    bare = replace(proposal.document, volumes={}, created_at=trading_desk.now + timedelta(seconds=1))
    identity = register(trading_desk.engine, bare)
    trading_desk.approve(identity)
    report = run(trading_desk)
    assert report.status == "aborted"
    assert all("its daily volume is not known" in order.reason for order in report.orders)


def test_a_held_name_without_a_price_is_named(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    assert "no price on 2024-03-05 for BBB" in trading_desk.propose({"AAA": 0.5}, {"AAA": 50.0}).reason


def test_another_strategy_is_sent_to_another_account(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    assert "account of its own" in trading_desk.propose(OTHER, PRICES, strategy="reversal").reason


def test_events_are_booked_before_planning(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    held = trading_desk.broker().positions()
    split = CorporateAction(trading_desk.session, "AAA", "split", Decimal(2), Decimal(25))
    # Bought in the open of the split's own day, so not entitled; the next day's split is.
    trading_desk.propose(TARGETS, PRICES, actions=[split])
    assert trading_desk.broker().positions() == held
    trading_desk.next_session()
    split = CorporateAction(trading_desk.session, "AAA", "split", Decimal(2), Decimal(25))
    outcome = trading_desk.propose(TARGETS, {**PRICES, "AAA": 25.0}, actions=[split])
    assert trading_desk.broker().positions()["AAA"] == 2 * held["AAA"]
    assert "nothing to trade" in outcome.reason
    assert desk.booked_through(trading_desk.engine, "paper") == trading_desk.session


def test_events_of_the_future_are_refused(trading_desk: Any) -> None:
    ahead = CorporateAction(trading_desk.session + timedelta(days=1), "AAA", "dividend", Decimal(1))
    with pytest.raises(InvalidInput, match="after the planned session"):
        trading_desk.propose(TARGETS, PRICES, actions=[ahead])


def test_an_execution_that_waited_for_its_open_is_settled_before_the_next_plan(trading_desk: Any) -> None:
    first = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(first)
    trading_desk.market.opened = False
    assert run(trading_desk).status == "working"
    trading_desk.next_session()
    assert "still being executed" in trading_desk.propose(OTHER, PRICES).reason
    trading_desk.market.opened = True
    outcome = trading_desk.propose(OTHER, PRICES)
    assert load(trading_desk.engine, first).state == "executed"
    assert set(outcome.document.holdings) == {"AAA", "BBB"}


def test_figures_that_are_no_numbers_are_refused(trading_desk: Any) -> None:
    with pytest.raises(InvalidInput, match="the price of CCC is"):
        trading_desk.propose(TARGETS, {**PRICES, "CCC": float("nan")})


def test_twenty_days_of_trading_keep_the_books_in_agreement(trading_desk: Any) -> None:
    for day in range(20):
        prices = {
            symbol: price * (1 + 0.01 * ((day * 7 + i * 3) % 5 - 2)) for i, (symbol, price) in enumerate(PRICES.items())
        }
        trading_desk.rebalance(OTHER if day % 2 else TARGETS, prices)
    assert desk.reconcile_account(trading_desk.engine, "paper", trading_desk.now).agrees
    assert set(trading_desk.broker().positions()) == {"AAA", "CCC"}


def test_both_databases_keep_the_same_books(any_engine: Engine, trading_desk: Any) -> None:
    stand = type(trading_desk)(any_engine)
    for each in (trading_desk, stand):
        each.rebalance(TARGETS, PRICES)
        each.rebalance(OTHER, PRICES)
    assert stand.broker().positions() == trading_desk.broker().positions() != {}
    assert stand.broker().cash() == trading_desk.broker().cash()
    assert desk.reconcile_account(any_engine, "paper", stand.now).agrees


def test_borrowed_shares_cost_a_fee_by_the_night_in_both_books(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    since, session = trading_desk.session - timedelta(days=1), trading_desk.session
    closes = {symbol: Decimal(str(price)) for symbol, price in PRICES.items()}
    # Sold short in the open of the first of the two days, so that only the night after it is paid for.
    fees = [
        *desk.fees_of_borrowed(trading_desk.engine, "paper", since, session, since, closes),
        *desk.fees_of_borrowed(trading_desk.engine, "paper", since, session + timedelta(days=3), session, closes),
    ]
    before, held = trading_desk.broker().cash(), trading_desk.broker().positions()["BBB"]
    trading_desk.now += timedelta(days=3)
    trading_desk.session = session + timedelta(days=3)
    for _ in range(2):
        assert "nothing to trade" in trading_desk.propose(TARGETS, PRICES, actions=fees).reason
    expected = held * Decimal(20) * Decimal("0.005") * 3 / 365
    assert abs(trading_desk.broker().cash() - before - expected) < Decimal("0.0001")
    assert desk.reconcile_account(trading_desk.engine, "paper", trading_desk.now).agrees
