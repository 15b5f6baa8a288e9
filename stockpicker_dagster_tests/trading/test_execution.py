"""Executed is a subset of approved, once, whatever crashes; the books agree at the end."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from stockpicker_dagster.trading import accounts, desk, ledger
from stockpicker_dagster.trading.accounts import Halted
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.brokers import Capabilities, OrderRequest, Rejected, Unknown
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.execution import CHECKPOINTS, NotApproved, WrongBroker, execute
from stockpicker_dagster.trading.intents import intent_id
from stockpicker_dagster.trading.proposal import DigestMismatch, UnknownProposal, load
from stockpicker_dagster.trading.reconciliation import reconcile

PRICES = {"AAA": 50.0, "BBB": 20.0, "CCC": 10.0, "DDD": 40.0}
FIRST = {"AAA": 0.5, "BBB": 0.5, "CCC": -0.5, "DDD": -0.5}
TURNED = {"AAA": -0.5, "BBB": 0.4, "CCC": 0.6, "DDD": -0.5}


class Crash(RuntimeError):
    """The process died here."""


def crash_at(step: str, occurrence: int = 1) -> Callable[[str], None]:
    seen = 0

    def fail(reached: str) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == occurrence:
            raise Crash(step)

    return fail


def shares(weight: float, price: float, equity: str = "100000") -> Decimal:
    return Decimal(int(Decimal(equity) * Decimal("0.98") * Decimal(str(weight)) / Decimal(str(price))))


def _approved_before_the_open(trading_desk: Any) -> str:
    """A proposal that may be executed, the orders of which the market does not fill yet."""
    proposal = str(trading_desk.proposed(FIRST, PRICES))
    trading_desk.approve(proposal)
    trading_desk.market.opened = False
    return proposal


def test_an_approved_proposal_is_executed_exactly(trading_desk: Any) -> None:
    report = trading_desk.rebalance(FIRST, PRICES)
    assert report.status == "finished"
    expected = {symbol: shares(FIRST[symbol], PRICES[symbol]) for symbol in FIRST}
    assert trading_desk.broker().positions() == expected
    # By hand: half the spread of 5 bps worse than the open, 1 bp of commission on what was paid.
    cash = Decimal(100_000)
    for symbol, quantity in expected.items():
        side = 1 if quantity > 0 else -1
        paid = Decimal(str(PRICES[symbol])) * (1 + side * Decimal("0.00025"))
        cash -= quantity * paid + abs(quantity) * paid * Decimal("0.0001")
    assert abs(trading_desk.broker().cash() - cash) < Decimal("0.001")


def test_what_is_not_approved_executes_nothing(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    with pytest.raises(NotApproved, match=f"{proposal} is open"):
        trading_desk.execute(proposal)
    decide(trading_desk.engine, proposal, "os:approver", "deny", "not today", trading_desk.now)
    with pytest.raises(NotApproved, match="denied by os:approver: not today"):
        trading_desk.execute(proposal)
    with pytest.raises(UnknownProposal):
        trading_desk.execute("0" * 64)
    assert trading_desk.broker().positions() == {}
    assert trading_desk.broker().open_orders() == []


def test_a_denial_wins_until_the_claim(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    decide(trading_desk.engine, proposal, "os:second", "deny", "too large", trading_desk.now)
    with pytest.raises(NotApproved, match="os:second: too large"):
        trading_desk.execute(proposal)
    assert trading_desk.propose(TURNED, PRICES).id is not None


def test_an_approval_that_was_not_claimed_in_time_lapses(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    late = load(trading_desk.engine, proposal).document.expires_at
    for _ in range(2):
        with pytest.raises(NotApproved, match=r"expired|lapsed"):
            trading_desk.execute(proposal, now=late)
    assert load(trading_desk.engine, proposal).state == "lapsed"
    assert trading_desk.broker().open_orders() == []


def test_running_twice_executes_nothing_more(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    first = trading_desk.execute(proposal)
    before = trading_desk.broker().positions(), trading_desk.broker().cash()
    again = trading_desk.execute(proposal)
    assert again.orders == first.orders
    assert (trading_desk.broker().positions(), trading_desk.broker().cash()) == before


def test_changed_bytes_are_refused(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    with trading_desk.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER proposals_no_UPDATE"))
        document = connection.execute(text("SELECT document FROM proposals")).scalar_one()
        tampered = document.replace(b'"quantity":"980"', b'"quantity":"989"')
        assert tampered != document
        connection.execute(text("UPDATE proposals SET document = :d"), {"d": tampered})
    with pytest.raises(DigestMismatch):
        trading_desk.execute(proposal)
    assert trading_desk.broker().open_orders() == []


def test_another_account_s_broker_is_refused(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    accounts.ensure_paper_account(trading_desk.engine, "other", trading_desk.now)
    with pytest.raises(WrongBroker, match="account 'paper'"):
        execute(
            trading_desk.engine,
            proposal,
            PaperBroker(trading_desk.engine, "other"),
            trading_desk.market,
            trading_desk.now,
        )


def test_reductions_end_before_openings_begin(trading_desk: Any) -> None:
    trading_desk.rebalance(FIRST, PRICES)
    report = trading_desk.rebalance(TURNED, PRICES)
    assert report.status == "finished"
    with trading_desk.engine.connect() as connection:
        rows = connection.execute(
            select(ledger.order_intents.c.phase)
            .join(ledger.fills, ledger.fills.c.intent == ledger.order_intents.c.id)
            .where(ledger.order_intents.c.proposal == report.proposal)
            .order_by(ledger.fills.c.sequence)
        ).scalars()
        phases = list(rows)
    assert phases == ["reductions"] * phases.count("reductions") + ["openings"] * phases.count("openings")
    assert phases.count("reductions") >= 2
    assert phases.count("openings") >= 2
    sides = {(order.symbol, order.side) for order in report.orders}
    assert {("AAA", "sell"), ("AAA", "short"), ("CCC", "cover"), ("CCC", "buy")} <= sides


def test_a_broker_that_cannot_hold_openings_gets_them_after_the_reductions(trading_desk: Any) -> None:
    trading_desk.rebalance(FIRST, PRICES)
    proposal = trading_desk.proposed(TURNED, PRICES)
    trading_desk.approve(proposal)
    broker = trading_desk.broker()
    broker.capabilities = Capabilities(holds_openings=False, shorts=True, verified="test")
    trading_desk.market.opened = False
    waiting = execute(trading_desk.engine, proposal, broker, trading_desk.market, trading_desk.now)
    assert waiting.status == "working"
    assert {order.phase for order in waiting.orders if order.status == "working"} == {"reductions"}
    trading_desk.market.opened = True
    assert execute(trading_desk.engine, proposal, broker, trading_desk.market, trading_desk.now).status == "finished"
    assert broker.positions()["CCC"] > 0 > broker.positions()["AAA"]


def test_orders_wait_for_an_open_that_is_not_known_yet(trading_desk: Any) -> None:
    trading_desk.rebalance(FIRST, PRICES)
    before = trading_desk.broker().positions()
    proposal = trading_desk.proposed(TURNED, PRICES)
    trading_desk.approve(proposal)
    trading_desk.market.opened = False
    assert trading_desk.execute(proposal).status == "working"
    assert trading_desk.broker().positions() == before
    trading_desk.market.opened = True
    # The open becomes known after the window has closed: what was sent in time still fills, nothing new is sent.
    report = trading_desk.execute(proposal, now=trading_desk.now + timedelta(days=1))
    assert report.status == "finished"
    assert all(order.filled == order.quantity for order in report.orders)


def test_nothing_is_sent_after_expiry_even_in_the_middle(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    moments = iter([trading_desk.now] * 8)
    late = trading_desk.now + timedelta(days=1)
    report = execute(
        trading_desk.engine,
        proposal,
        trading_desk.broker(),
        trading_desk.market,
        lambda: next(moments, late),
    )
    sent = [order for order in report.orders if order.status != "unsent"]
    assert 0 < len(sent) < len(report.orders)
    assert "expired" in report.message
    assert report.status == "finished"


def test_a_halt_in_mid_basket_stops_and_cancels(trading_desk: Any) -> None:
    proposal = _approved_before_the_open(trading_desk)
    sent = 0

    def halt_after_two(step: str) -> None:
        nonlocal sent
        sent += step == "after_record"
        if step == "after_record" and sent == 2:
            accounts.halt(trading_desk.engine, None, "os:risk", "stop", trading_desk.now)

    report = trading_desk.execute(proposal, checkpoint=halt_after_two)
    assert report.status == "halted"
    assert [order.status for order in report.orders].count("cancelled") == 2
    assert [order.status for order in report.orders].count("unsent") == 2
    assert trading_desk.broker().open_orders() == []
    accounts.resume(trading_desk.engine, None, "os:risk", trading_desk.now)
    trading_desk.market.opened = True
    report = trading_desk.execute(proposal)
    assert report.status == "finished"
    assert [(order.status, order.filled) for order in report.orders] == [
        ("filled", order.quantity) for order in report.orders
    ]
    with trading_desk.engine.connect() as connection:
        tries = connection.execute(select(ledger.order_intents.c.attempt)).scalars().all()
    assert sorted(tries) == [1, 1, 1, 1, 2, 2]


def test_a_halt_cancels_what_the_broker_does_not_tell_about(trading_desk: Any) -> None:
    """The order arrived, nobody knows of it, and the broker is silent when it is asked."""
    proposal = _approved_before_the_open(trading_desk)
    with pytest.raises(Crash):
        trading_desk.execute(proposal, checkpoint=crash_at("after_submit"))
    accounts.halt(trading_desk.engine, "paper", "os:risk", "stop", trading_desk.now)
    broker = trading_desk.broker()
    broker.find = lambda _id: Unknown("no answer")
    assert execute(trading_desk.engine, proposal, broker, trading_desk.market, trading_desk.now).status == "halted"
    assert trading_desk.broker().open_orders() == []


def test_an_end_that_was_written_into_the_ledger_by_hand_sends_nothing_twice(trading_desk: Any) -> None:
    proposal = _approved_before_the_open(trading_desk)
    trading_desk.execute(proposal)
    with trading_desk.engine.begin() as connection:
        connection.execute(ledger.broker_orders.update().values(status="cancelled", reason="halted by nobody"))
    waits = trading_desk.execute(proposal)
    assert (waits.status, "has yet to end at the broker" in waits.message) == ("working", True)
    assert trading_desk.broker().open_orders() == []
    trading_desk.market.opened = True
    assert trading_desk.execute(proposal).status == "finished"
    assert trading_desk.broker().positions() == {symbol: shares(FIRST[symbol], PRICES[symbol]) for symbol in FIRST}


def test_an_answer_that_got_lost_is_no_rejection(trading_desk: Any) -> None:
    proposal = _approved_before_the_open(trading_desk)
    broker = trading_desk.broker()
    take = broker.submit

    def arrives_unanswered(request: OrderRequest) -> Unknown:
        take(request)
        return Unknown("no answer")

    broker.submit = arrives_unanswered
    report = execute(trading_desk.engine, proposal, broker, trading_desk.market, trading_desk.now)
    assert Counter(order.status for order in report.orders) == {"working": 4}
    assert len(trading_desk.broker().open_orders()) == 4


def test_nothing_is_sent_again_while_the_broker_is_silent_about_it(trading_desk: Any) -> None:
    proposal = _approved_before_the_open(trading_desk)
    with pytest.raises(Crash):
        trading_desk.execute(proposal, checkpoint=crash_at("after_submit"))
    broker = trading_desk.broker()
    asked, take = [], broker.submit
    broker.find = lambda _id: Unknown("no answer")
    broker.submit = lambda request: asked.append(request.symbol) or take(request)
    later = trading_desk.now + timedelta(minutes=5)
    report = execute(trading_desk.engine, proposal, broker, trading_desk.market, later)
    assert asked == ["BBB", "CCC", "DDD"]
    assert report.orders[0].status == "unknown"


def test_what_the_broker_rejected_is_not_tried_again(trading_desk: Any) -> None:
    proposal = _approved_before_the_open(trading_desk)
    broker = trading_desk.broker()
    take = broker.submit
    broker.submit = lambda request: Rejected("no") if request.symbol == "BBB" else take(request)
    for _ in range(3):
        report = execute(trading_desk.engine, proposal, broker, trading_desk.market, trading_desk.now)
        assert Counter(order.status for order in report.orders) == {"working": 3, "rejected": 1}
    with trading_desk.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(ledger.order_intents)).scalar_one() == 4


def test_a_fill_that_the_cancellation_did_not_mention_is_not_bought_again(trading_desk: Any) -> None:
    """The broker says that it cancelled an order unfilled, and reports shares that it had filled before."""
    proposal = _approved_before_the_open(trading_desk)
    trading_desk.execute(proposal)
    accounts.halt(trading_desk.engine, "paper", "os:risk", "stop", trading_desk.now)
    broker = trading_desk.broker()
    cancel = broker.cancel

    def forgets(client_order_id: str, reason: str) -> Any:
        order = broker.find(client_order_id)
        if order.symbol == "AAA":
            broker.fill_part(client_order_id, Decimal(400), Decimal(50), trading_desk.now)
        return replace(cancel(client_order_id, reason), filled_quantity=Decimal(0))

    broker.cancel = forgets
    assert execute(trading_desk.engine, proposal, broker, trading_desk.market, trading_desk.now).status == "halted"
    accounts.resume(trading_desk.engine, "paper", "os:risk", trading_desk.now)
    trading_desk.market.opened = True
    assert trading_desk.execute(proposal).status == "finished"
    assert trading_desk.broker().positions() == {symbol: shares(FIRST[symbol], PRICES[symbol]) for symbol in FIRST}


def test_a_strategy_that_lost_the_account_after_the_approval_executes_nothing(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    with trading_desk.engine.begin() as connection:
        connection.execute(ledger.accounts.update().values(allowed_strategies='["value"]'))
    with pytest.raises(NotApproved, match="'momentum', which may not trade in account 'paper' any more"):
        trading_desk.execute(proposal)
    assert trading_desk.broker().open_orders() == []


def test_a_halted_account_claims_nothing(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    accounts.halt(trading_desk.engine, "paper", "os:risk", "stop", trading_desk.now)
    with pytest.raises(Halted, match="os:risk"):
        trading_desk.execute(proposal)
    assert load(trading_desk.engine, proposal).state == "approved"


def test_an_unreadable_ledger_counts_as_halted(trading_desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> None:
        raise OperationalError("SELECT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(trading_desk.engine, "connect", unreadable)
    assert accounts.is_halted(trading_desk.engine, "paper")


def test_holdings_that_changed_since_planning_abort(trading_desk: Any) -> None:
    trading_desk.rebalance(FIRST, PRICES)
    proposal = trading_desk.proposed(TURNED, PRICES)
    trading_desk.approve(proposal)
    with trading_desk.engine.begin() as connection:
        ledger.move_positions(connection, ledger.paper_positions, "paper", [("AAA", Decimal(-1))])
    report = trading_desk.execute(proposal)
    assert (report.status, report.message) == (
        "aborted",
        "holdings have changed since the plan was made: AAA; propose again",
    )
    assert all(order.status == "unsent" for order in report.orders)


def test_limits_are_checked_again_before_submission(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    with trading_desk.engine.begin() as connection:
        limits = connection.execute(select(ledger.accounts.c.limits)).scalar_one()
        tighter = limits.replace('"gross":"2.2"', '"gross":"0.5"')
        connection.execute(ledger.accounts.update().values(limits=tighter))
    report = trading_desk.execute(proposal)
    assert report.status == "aborted"
    assert "`gross`" in report.message
    assert trading_desk.broker().positions() == {}


def test_one_order_over_its_own_limit_is_left_out(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    with trading_desk.engine.begin() as connection:
        limits = connection.execute(select(ledger.accounts.c.limits)).scalar_one()
        stricter = limits.replace('"restricted":[]', '"restricted":["BBB"]')
        connection.execute(ledger.accounts.update().values(limits=stricter))
    report = trading_desk.execute(proposal)
    by_symbol = {order.symbol: order for order in report.orders}
    assert by_symbol["BBB"].status == "unsent"
    assert "restricted" in by_symbol["BBB"].reason
    assert {by_symbol[symbol].status for symbol in ("AAA", "CCC", "DDD")} == {"filled"}


def test_what_exceeds_the_orders_of_a_minute_goes_with_a_later_pass(trading_desk: Any) -> None:
    outcome = trading_desk.propose({"AAA": 0.5, "BBB": -0.5}, PRICES, limits={"orders_per_minute": 1})
    trading_desk.approve(outcome.id)
    first = trading_desk.execute(outcome.id)
    assert (first.status, "orders within a minute" in first.message) == ("working", True)
    assert [order.status for order in first.orders] == ["filled", "unsent"]
    later = trading_desk.execute(outcome.id, now=trading_desk.now + timedelta(seconds=61))
    assert (later.status, [order.status for order in later.orders]) == ("finished", ["filled", "filled"])


def test_an_open_outside_the_collar_does_not_fill(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    trading_desk.market.prices["AAA"] = Decimal(25)  # as after a split of two for one
    report = trading_desk.execute(proposal)
    by_symbol = {order.symbol: order for order in report.orders}
    assert by_symbol["AAA"].status == "cancelled"
    assert "outside the collar 40 to 60" in by_symbol["AAA"].reason.replace(".0000", "")
    assert reconcile(trading_desk.engine, trading_desk.broker(), trading_desk.now).agrees


def test_intents_of_one_order_are_the_same_everywhere() -> None:
    first = intent_id("paper", "ab" * 32, "AAA", "openings", 1, 1)
    assert first == intent_id("paper", "ab" * 32, "AAA", "openings", 1, 1)
    others = {
        intent_id("live", "ab" * 32, "AAA", "openings", 1, 1),
        intent_id("paper", "ac" * 32, "AAA", "openings", 1, 1),
        intent_id("paper", "ab" * 32, "AAB", "openings", 1, 1),
        intent_id("paper", "ab" * 32, "AAA", "reductions", 1, 1),
        intent_id("paper", "ab" * 32, "AAA", "openings", 2, 1),
        intent_id("paper", "ab" * 32, "AAA", "openings", 1, 2),
    }
    assert first not in others
    assert len(others) == 6


def expected_end(new_desk: Callable[[], Any]) -> tuple[Mapping[str, Decimal], Decimal]:
    calm = new_desk()
    calm.rebalance(FIRST, PRICES)
    calm.rebalance(TURNED, PRICES)
    return calm.broker().positions(), calm.broker().cash()


def assert_recovers(stand: Any, proposal: str, end: tuple[Mapping[str, Decimal], Decimal]) -> None:
    report = stand.execute(proposal)
    assert report.status == "finished"
    assert (stand.broker().positions(), stand.broker().cash()) == end
    assert reconcile(stand.engine, stand.broker(), stand.now).agrees
    with stand.engine.connect() as connection:
        per_intent = connection.execute(
            select(func.count()).select_from(ledger.paper_orders).group_by(ledger.paper_orders.c.client_order_id)
        ).scalars()
        assert set(per_intent) == {1}
        sent = connection.execute(select(func.count()).select_from(ledger.paper_orders)).scalar_one()
        intents = connection.execute(select(func.count()).select_from(ledger.order_intents)).scalar_one()
        assert sent == intents == len(FIRST) + len(report.orders)


def prepared(new_desk: Callable[[], Any], opened: bool = True) -> tuple[Any, str]:
    stand = new_desk()
    stand.rebalance(FIRST, PRICES)
    proposal = stand.proposed(TURNED, PRICES)
    stand.approve(proposal)
    stand.market.opened = opened
    return stand, proposal


@pytest.mark.parametrize("step", CHECKPOINTS)
def test_a_crash_at_any_step_ends_as_if_there_was_none(new_desk: Callable[[], Any], step: str) -> None:
    end = expected_end(new_desk)
    for occurrence in (1, 2, 4):
        stand, proposal = prepared(new_desk)
        try:
            stand.execute(proposal, checkpoint=crash_at(step, occurrence))
        except Crash:
            pass
        else:
            assert occurrence > 1, f"step {step} was never reached"
        assert_recovers(stand, proposal, end)


@pytest.mark.parametrize("step", ["submit", "fill"])
@pytest.mark.parametrize("occurrence", [1, 2])
def test_a_crash_inside_the_broker_ends_as_if_there_was_none(
    new_desk: Callable[[], Any], step: str, occurrence: int
) -> None:
    end = expected_end(new_desk)
    stand, proposal = prepared(new_desk)
    with pytest.raises(Crash):
        stand.execute(proposal, fault=crash_at(step, occurrence))
    assert_recovers(stand, proposal, end)


def test_crashes_one_after_another_still_end_well(new_desk: Callable[[], Any]) -> None:
    end = expected_end(new_desk)
    stand, proposal = prepared(new_desk, opened=False)
    for step in ("claimed", "before_intent", "after_intent", "after_submit", "after_record"):
        with pytest.raises(Crash):
            stand.execute(proposal, checkpoint=crash_at(step))
    stand.market.opened = True
    for step in ("before_fill", "after_fill", "before_end"):
        with pytest.raises(Crash):
            stand.execute(proposal, checkpoint=crash_at(step))
    assert_recovers(stand, proposal, end)


def forgetful(broker: PaperBroker, hours: float) -> PaperBroker:
    """The broker, refusing an id a second time for some hours only, and with orders that may be late by a minute."""
    broker.capabilities = Capabilities(
        client_id_window=timedelta(hours=hours),
        late_arrival=timedelta(minutes=1),
        holds_openings=True,
        shorts=True,
        verified="test",
    )
    return broker


@pytest.mark.parametrize(
    ("minutes", "statuses", "status"),
    [
        (0, {"unknown": 1, "filled": 3}, "working"),  # it may still arrive
        (30, {"filled": 4}, "finished"),  # it does not arrive any more, and a second one would be refused
        (90, {"unknown": 1, "filled": 3}, "working"),  # the broker may have forgotten it: nobody can tell
        (25 * 60, {"cancelled": 1, "unsent": 3}, "finished"),  # the session is over
    ],
)
def test_an_unknown_order_is_sent_again_only_while_its_id_is_remembered(
    trading_desk: Any, minutes: int, statuses: dict[str, int], status: str
) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    with pytest.raises(Crash):
        trading_desk.execute(proposal, checkpoint=crash_at("after_intent"))
    later = trading_desk.now + timedelta(minutes=minutes)
    broker = forgetful(trading_desk.broker(), hours=1)
    report = execute(trading_desk.engine, proposal, broker, trading_desk.market, later)
    assert Counter(order.status for order in report.orders) == statuses
    assert report.status == status
    assert ("may have been sent" in report.message) == (status == "working")


def test_what_was_sent_again_may_be_late_again(trading_desk: Any) -> None:
    """How long an order may be on its way counts from when it was last handed over."""
    proposal = _approved_before_the_open(trading_desk)
    with pytest.raises(Crash):
        trading_desk.execute(proposal, checkpoint=crash_at("after_intent"))
    broker = forgetful(trading_desk.broker(), hours=1)
    take, sent = broker.submit, []

    def loses_the_first(request: OrderRequest) -> Any:
        sent.append(request.symbol)
        return Unknown("no answer") if request.symbol == "AAA" else take(request)

    broker.submit = loses_the_first
    for seconds, times in ((0, 0), (1800, 1), (1830, 1), (1861, 2)):
        later = trading_desk.now + timedelta(seconds=seconds)
        execute(trading_desk.engine, proposal, broker, trading_desk.market, later)
        assert sent.count("AAA") == times


def test_an_intent_that_never_reached_the_broker_is_closed_after_expiry(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(FIRST, PRICES)
    trading_desk.approve(proposal)
    with pytest.raises(Crash):
        trading_desk.execute(proposal, checkpoint=crash_at("after_intent"))
    report = trading_desk.execute(proposal, now=trading_desk.now + timedelta(days=1))
    assert report.status == "finished"
    assert {order.status for order in report.orders} == {"cancelled", "unsent"}
    assert trading_desk.broker().positions() == {}


def test_a_halt_of_the_desk_cancels_working_orders_at_once(trading_desk: Any) -> None:
    proposal = _approved_before_the_open(trading_desk)
    trading_desk.execute(proposal)
    assert desk.halt(trading_desk.engine, None, "os:risk", "stop", trading_desk.now) == 4
    assert trading_desk.broker().open_orders() == []
