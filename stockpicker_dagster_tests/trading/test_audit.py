"""From a position back to who wanted it, and why: nothing that led to it is missing, and nothing else is shown."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.audit import why_held
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.ledger import UnknownAccount

PRICES = {"AAA": 50.0, "BBB": 20.0}


def test_a_position_leads_back_to_fill_order_decision_proposal_model_and_data(trading_desk: Any) -> None:
    proposal = trading_desk.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    trading_desk.approve(proposal)
    trading_desk.execute(proposal)
    held = why_held(trading_desk.engine, "paper", "AAA")
    [found] = held.proposals
    [order] = found.orders
    [fill] = order.fills
    assert held.adds_up
    assert held.quantity == fill.quantity == order.quantity > 0
    assert (fill.session, fill.commission > 0) == (found.trade_session, True)
    assert (order.side, order.phase, order.attempt, order.status) == ("buy", "openings", 1, "filled")
    assert order.intent.startswith("sp-")
    assert (found.id, found.state, found.strategy, found.author) == (proposal, "executed", "momentum", "os:author")
    assert (found.target, found.reference_price) == (Decimal("0.5"), Decimal("50.0"))
    assert (found.model_id, found.data_version, found.code_version) == ("model-1", "data-1", "code-1")
    assert found.session == trading_desk.session
    [decision] = found.decisions
    assert (decision.person, decision.decision, decision.signed) == ("os:approver", "approve", False)


def test_what_led_to_the_position_since_it_was_last_flat_is_shown_newest_first(trading_desk: Any) -> None:
    for weight in (0.2, 0.0, 0.3, 0.5):
        trading_desk.rebalance({"AAA": weight, "BBB": -0.5}, PRICES)
    held = why_held(trading_desk.engine, "paper", "AAA")
    assert [found.target for found in held.proposals] == [Decimal("0.5"), Decimal("0.3")]
    assert sum(fill.quantity for found in held.proposals for order in found.orders for fill in order.fills) == (
        held.quantity
    )
    everything = why_held(trading_desk.engine, "paper", "AAA", everything=True)
    assert [found.target for found in everything.proposals] == [Decimal("0.5"), Decimal("0.3"), None, Decimal("0.2")]


def test_a_split_is_part_of_the_reason(trading_desk: Any) -> None:
    trading_desk.rebalance({"AAA": 0.2, "BBB": -0.2}, PRICES)
    trading_desk.next_session()  # who bought in the session before is entitled
    split = CorporateAction(trading_desk.session, "AAA", "split", Decimal(2), Decimal(25))
    trading_desk.propose({"AAA": 0.2, "BBB": -0.2}, {"AAA": 25.0, "BBB": 20.0}, [split])
    held = why_held(trading_desk.engine, "paper", "AAA")
    [action], [found] = held.actions, held.proposals
    [order] = found.orders
    assert (action.kind, action.quantity_change) == ("split", order.quantity)
    assert held.quantity == 2 * order.quantity
    assert held.adds_up


def test_a_position_that_nothing_explains_is_said_to_be_so(trading_desk: Any) -> None:
    trading_desk.rebalance({"AAA": 0.2, "BBB": -0.2}, PRICES)
    assert why_held(trading_desk.engine, "paper", "CCC").proposals == ()
    with transaction(trading_desk.engine) as connection:
        connection.execute(
            update(ledger.positions).where(ledger.positions.c.symbol == "AAA").values(quantity=Decimal(7))
        )
    held = why_held(trading_desk.engine, "paper", "AAA")
    assert (held.quantity, held.adds_up) == (Decimal(7), False)
    with pytest.raises(UnknownAccount, match="known accounts: paper"):
        why_held(trading_desk.engine, "other", "AAA")
