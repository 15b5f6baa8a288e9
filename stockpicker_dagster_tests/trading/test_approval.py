"""However many decide at once, there is one outcome; expiry and denial win; nobody decides twice."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.approval import DecisionRefused, Expired, decide, expire_due, outcomes_after
from stockpicker_dagster.trading.proposal import UnknownProposal, load

PRICES = {"AAA": 50.0, "BBB": 20.0}
TARGETS = {"AAA": 0.5, "BBB": -0.5}


def ask_account_for(trading_desk: Any, **columns: object) -> None:
    with transaction(trading_desk.engine) as connection:
        connection.execute(update(ledger.accounts).values(**columns))


def test_an_approval_is_recorded_with_who_when_and_why(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    decided = decide(trading_desk.engine, proposal[:8], "os:me", "approve", "looks right", trading_desk.now)
    assert (decided.proposal, decided.outcome) == (proposal, "approved")
    outcome = outcomes_after(trading_desk.engine, 0)[0]
    assert (outcome.proposal, outcome.outcome, outcome.detail) == (proposal, "approved", "os:me: looks right")
    assert (outcome.account, outcome.strategy, outcome.session) == ("paper", "momentum", trading_desk.session)
    assert outcome.recorded_at == trading_desk.now
    assert outcomes_after(trading_desk.engine, outcome.sequence) == []


def test_sixteen_deciders_racing_leave_one_outcome(any_engine: Engine, trading_desk: Any) -> None:
    stand = type(trading_desk)(any_engine)
    for round_ in range(3):
        proposal = stand.proposed({"AAA": 0.5, "BBB": -0.4 - round_ / 100}, PRICES)
        barrier = threading.Barrier(16)
        answers: list[str] = []

        def race(number: int, proposal: str = proposal, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            decision: Any = "approve" if number % 2 else "deny"
            try:
                answers.append(str(decide(any_engine, proposal, f"os:p{number}", decision, "race", stand.now).outcome))  # noqa: B023
            except DecisionRefused:
                answers.append("refused")  # noqa: B023

        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 16
        # At most one approval, then one denial that revokes it; everybody after that is refused.
        assert answers.count("approved") <= 1
        assert answers.count("denied") == 1
        assert answers.count("refused") == 16 - 1 - answers.count("approved")
        assert load(any_engine, proposal).state == "denied"
        recorded = outcomes_after(any_engine, 0)
        assert len([outcome for outcome in recorded if outcome.proposal == proposal]) == 1
    assert [outcome.sequence for outcome in recorded] == [1, 2, 3]


def test_nobody_decides_twice(trading_desk: Any) -> None:
    ask_account_for(trading_desk, approvals_needed=2)
    proposal = trading_desk.proposed(TARGETS, PRICES)
    decide(trading_desk.engine, proposal, "os:me", "approve", "", trading_desk.now)
    for decision in ("approve", "deny"):
        with pytest.raises(DecisionRefused, match="nobody decides twice"):
            decide(trading_desk.engine, proposal, "os:me", decision, "again", trading_desk.now)
    assert load(trading_desk.engine, proposal).state == "open"


def test_a_quorum_is_waited_for(trading_desk: Any) -> None:
    ask_account_for(trading_desk, approvals_needed=2)
    proposal = trading_desk.proposed(TARGETS, PRICES)
    first = decide(trading_desk.engine, proposal, "os:one", "approve", "", trading_desk.now)
    assert (first.outcome, first.approvals, first.approvals_needed) == (None, 1, 2)
    assert decide(trading_desk.engine, proposal, "os:two", "approve", "", trading_desk.now).outcome == "approved"


def test_a_quorum_that_was_raised_is_recounted_at_the_claim(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(proposal)
    ask_account_for(trading_desk, approvals_needed=2)
    with pytest.raises(StockPickerError, match="1 of the 2 approvals"):
        trading_desk.execute(proposal)


def test_the_author_does_not_approve_where_four_eyes_are_asked(trading_desk: Any) -> None:
    ask_account_for(trading_desk, four_eyes=True)
    proposal = trading_desk.proposed(TARGETS, PRICES)
    with pytest.raises(DecisionRefused, match="four eyes"):
        decide(trading_desk.engine, proposal, "os:author", "approve", "", trading_desk.now)
    assert decide(trading_desk.engine, proposal, "os:author", "deny", "mine", trading_desk.now).outcome == "denied"


def test_expiry_is_a_denial_from_its_very_instant(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    expires = load(trading_desk.engine, proposal).document.expires_at
    with pytest.raises(Expired, match="expired at 2024-03-05 10:00:00 UTC"):
        decide(trading_desk.engine, proposal, "os:me", "approve", "", expires)
    assert load(trading_desk.engine, proposal).state == "expired"
    assert [outcome.outcome for outcome in outcomes_after(trading_desk.engine, 0)] == ["expired"]
    with trading_desk.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(ledger.decisions)).scalar_one() == 0


def test_a_decision_one_instant_before_expiry_counts(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    last = load(trading_desk.engine, proposal).document.expires_at - timedelta(microseconds=1)
    assert decide(trading_desk.engine, proposal, "os:me", "approve", "", last).outcome == "approved"


def test_what_nobody_decided_expires(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    assert expire_due(trading_desk.engine, trading_desk.now) == []
    assert expire_due(trading_desk.engine, trading_desk.now + timedelta(days=1)) == [proposal]
    assert expire_due(trading_desk.engine, trading_desk.now + timedelta(days=1)) == []


def test_an_executed_proposal_cannot_be_denied_any_more(trading_desk: Any) -> None:
    report = trading_desk.rebalance(TARGETS, PRICES)
    with pytest.raises(DecisionRefused, match="already executed"):
        decide(trading_desk.engine, report.proposal, "os:late", "deny", "too late", trading_desk.now)


def test_unknown_ids_and_senseless_requests_are_refused(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    engine, now = trading_desk.engine, trading_desk.now
    with pytest.raises(UnknownProposal, match=proposal):
        decide(engine, "abcdef012345", "os:me", "approve", "", now)
    with pytest.raises(InvalidInput, match="needs a reason"):
        decide(engine, proposal, "os:me", "deny", " ", now)
    with pytest.raises(InvalidInput, match="cannot decide"):
        decide(engine, proposal, "me", "approve", "", now)
    with pytest.raises(InvalidInput, match="no decision"):
        decide(engine, proposal, "os:me", "maybe", "", now)  # type: ignore[arg-type]
    assert load(engine, proposal).state == "open"
